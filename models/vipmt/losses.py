"""All losses (Section 4.4): pure functions, tensors in, scalar out. Weights are in the config."""
import torch
import torch.nn.functional as F


def dice_loss(logits, masks):
    """Dice of both channels, each through a sigmoid (as released), added; mean over frames.

    logits (B, T, 2, H, W), masks (B, T, H, W) bool  ->  scalar, 0 at best, 2 at worst
    """
    prob = logits.sigmoid()
    truth = torch.stack([~masks, masks], dim=2).to(prob.dtype)
    overlap = (prob * truth).sum((-2, -1))
    total = (prob ** 2).sum((-2, -1)) + truth.sum((-2, -1))
    return (1 - 2 * overlap / total.clamp(min=1e-8)).sum(-1).mean()


def iou_losses(logits, masks):
    """1 - soft IoU of the foreground, per frame ("mean IoU") and over each whole clip ("overall IoU").

    logits (B, T, 2, H, W), masks (B, T, H, W) bool  ->  two scalars in [0, 1]; an empty mask counts 1
    """
    prob, truth = logits.softmax(dim=2)[:, :, 1], masks.to(logits.dtype)
    intersection = torch.minimum(prob, truth).sum((-2, -1))                          # (B, T)
    union = torch.maximum(prob, truth).sum((-2, -1)).clamp(min=1e-8)
    return (1 - intersection / union).mean(), (1 - intersection.sum(1) / union.sum(1)).mean()


def segmentation_loss(logits, masks):
    """Dice + mean IoU + overall IoU of one output; shapes as above."""
    return dice_loss(logits, masks) + sum(iou_losses(logits, masks))


def cross_entropy(logits, masks):
    """Cross entropy of one output, an option of ours; shapes as above  ->  scalar

    Dice and IoU have next to no gradient where a mask is confidently empty or full; this one has.
    """
    return F.cross_entropy(logits.flatten(0, 1), masks.flatten(0, 1).long())


def auxiliary_loss(logits, masks):
    """BCE of the masks of all iterations: list of (B, T, h, w) logits, masks (B, T, h, w) bool  ->  scalar"""
    truth = masks.to(logits[0].dtype)
    return torch.stack([F.binary_cross_entropy_with_logits(x, truth) for x in logits]).mean()


def mask_iou(pred, masks):
    """True IoU of each frame: (B, T, H, W) bool twice  ->  (B, T) float64; an empty union counts 0"""
    intersection, union = (pred & masks).sum((-2, -1)), (pred | masks).sum((-2, -1))
    return intersection.double() / union.clamp(min=1)


def iou_regression_loss(predicted, true, per_batch=False):
    """L1 of IoUNet (Section 4.3): (B, T) twice  ->  scalar; per_batch: summed over frames, as released"""
    error = (predicted - true.to(predicted.dtype)).abs()
    return error.sum() / len(error) if per_batch else error.mean()


def iou_cross_entropy(logits, true):
    """BCE with the true IoU as a soft target, an option of ours: (B, T) twice  ->  scalar

    L1 through a sigmoid stops learning for good where early training, all IoUs 0, has saturated it; this does not.
    """
    return F.binary_cross_entropy_with_logits(logits, true.to(logits.dtype))


def cross_category_terms(prototypes, features, masks, first=0):
    """softplus of every category's filters on every other video's object.

    prototypes (L, A, C), one per iteration and video of the whole batch; features (B, T, C, h, w) and masks
    (B, T, h, w) bool of its videos first, ..., first + B - 1, all of them in one process
    ->  (L, A, B): iteration, filter of b, summed over the object of j; 0 where b is j
    """
    logits = torch.einsum("lbc,jtchw->lbjthw", prototypes, features)
    per_pair = (F.softplus(logits) * masks).sum((-3, -2, -1))
    own = torch.eye(prototypes.shape[1], device=logits.device, dtype=logits.dtype)[:, first:first + len(masks)]
    return per_pair * (1 - own)


def ccds_loss(prototypes, features, masks, first=0, eps=1e-7):
    """CCDS, Eqs. 17-18: the filter of one category must stay silent on another category's object.

    Shapes as in cross_category_terms  ->  scalar: summed over iterations, divided by each video's own
    area, mean over the B (A - 1) pairs; 0 if A = 1, and an empty mask adds nothing
    """
    pairs = max(1, len(masks) * (prototypes.shape[1] - 1))
    area = masks.sum((-3, -2, -1)) + eps
    return (cross_category_terms(prototypes, features, masks, first) / area).sum() / pairs


def ccds_loss_released(prototypes, features, masks, first=0, area=None, eps=1e-7):
    """The release's CCDS: pooled over the batch before the division, mean over L (A - 1) terms; else as ccds_loss.

    area: pixels of all objects, where these are only some of the batch's videos: mean over the processes
    """
    terms = max(1, len(prototypes) * (prototypes.shape[1] - 1))
    area = masks.sum() if area is None else area
    return cross_category_terms(prototypes, features, masks, first).sum() / (area + eps) / terms
