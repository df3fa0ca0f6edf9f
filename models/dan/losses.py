"""Losses of DAN (Section 3.5): pure functions of probabilities (B, T, H, W) and masks (B, T, H, W) bool."""
EPS = 1e-3       # within the logarithms, as released


def cross_entropy(prob, masks, background=1.0):
    """Mean over all pixels; background: weight of its pixels, 0.1 in online learning  ->  scalar"""
    truth = masks.to(prob.dtype)
    return -(truth * (prob + EPS).log() + background * (1 - truth) * (1 - prob + EPS).log()).mean()


def iou_loss(prob, masks):
    """1 - soft IoU, mean over frames  ->  scalar in [0, 1]; an empty mask counts 1"""
    truth = masks.to(prob.dtype)
    intersection, union = prob.minimum(truth).sum((-2, -1)), prob.maximum(truth).sum((-2, -1))
    return (1 - intersection / union.clamp(min=1e-8)).mean()


def mean_j(found, masks):
    """IoU of masks, (B, T, H, W) bool twice, mean over frames  ->  scalar; an empty union counts 0"""
    intersection, union = (found & masks).sum((-2, -1)), (found | masks).sum((-2, -1))
    return (intersection.double() / union.clamp(min=1)).mean()
