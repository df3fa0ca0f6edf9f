"""The target model T and its learner A (Section 3.3): a 3x3 filter per object, found by steepest descent.

Everything is in closed form (Eq. 4), so nothing here needs autograd at test time, while training differentiates through
all steps: to features, labels, weights, the regulariser and the filter that the steps start from. Frames come first,
since one grouped convolution then serves all objects of a batch.
"""
import torch
import torch.nn.functional as F

SMALLEST = 1e-8           # of the step length's denominator


def apply_target_model(x, tau):
    """T_tau(x) = x * tau: features (T, B, C, h, w), filters (B, D, C, k, k)  ->  encodings (T, B, D, h, w)"""
    out = F.conv2d(x.flatten(1, 2), tau.flatten(0, 1), padding=tau.shape[-1] // 2, groups=len(tau))
    return out.unflatten(1, tau.shape[:2])


def adjoint(x, y, kernel):
    """x *^T y of Eq. 4, summed over frames: x (T, B, C, h, w), y (T, B, D, h, w)  ->  (B, D, C, kernel, kernel)"""
    (batch, inputs), outputs = x.shape[1:3], y.shape[2]
    out = torch.nn.grad.conv2d_weight(
        x.flatten(1, 2), (batch * outputs, inputs, kernel, kernel), y.flatten(1, 2), padding=kernel // 2, groups=batch)
    return out.unflatten(0, (batch, outputs))


def learner_loss(x, label, weight, reg, tau):
    """L of Eq. 3 for all B objects together, a scalar; lambda is reg squared. Arguments as in learn"""
    residual = weight * (apply_target_model(x, tau) - label)
    return 0.5 * (residual.square().sum() + (reg * tau).square().sum())


def learn(x, label, weight, reg, tau, steps, scores=None):
    """A, Eq. 4: `steps` of steepest descent with exact line search from the filters tau  ->  filters, their scores

    x (T, B, C, h, w) features, label and weight (T, B, D, h, w): E and W of their masks, the weight times the frame's
    own; reg (1,): its square is lambda; tau (B, D, C, k, k); scores: x * tau where it is known, which saves a
    convolution. In float32 under mixed precision.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, label, weight, reg, tau = (one.float() if one.dtype in (torch.half, torch.bfloat16) else one
                                      for one in (x, label, weight, reg, tau))
        scores = apply_target_model(x, tau) if scores is None else scores
        squared, lam = weight.square(), reg.square()
        for _ in range(steps):
            gradient = adjoint(x, squared * (scores - label), tau.shape[-1]) + lam * tau
            change = apply_target_model(x, gradient)
            length = gradient.square().sum((1, 2, 3, 4))                                   # (B,), |g|^2
            curvature = (squared * change.square()).sum((0, 2, 3, 4)) + lam * length
            alpha = (length / curvature.clamp(min=SMALLEST))[:, None, None, None]
            tau, scores = tau - alpha[..., None] * gradient, scores - alpha * change       # scores stay x * tau
        return tau, scores
