"""A prior for small data, ours: a linear classifier of the supports' positions and of the clip's own sure ones.

Of what a network learns of a few categories little carries over to new ones; this one is solved anew for every clip.
The clip as a support of itself: Fan et al., Self-Support Few-Shot Semantic Segmentation, ECCV 2022; ridge regression
on the supports' positions as few-shot learner: Bhat et al., LWL, ECCV 2020.
"""
import torch
import torch.nn.functional as F

from models.vipmt.similarity import as_full_precision

MIDDLE, SPREAD = 0.13, 0.1         # cosine to the object's mean, between background and object, and its scale
OFFSET, SLOPE = 0.05, 0.3          # the same of the classifier's values, whose targets are -1 and 1
BACKGROUND = -0.5                  # the clip's positions below it are background
OBJECT, OF_BEST = 1.0, 0.8         # those above it are object, or above so much of the clip's best where that is less
BEST = 10                          # positions whose mean is the clip's best
PENALTY = 2e-3                     # rows have length 1
STEPS, PASSES = 10, 2              # of conjugate gradients, after which the weights are about 1 % off; passes


@torch.no_grad()
def self_support_prior(rows, keys, masks):
    """What a clip looks like to a classifier of supports and clip.

    rows (B, T, P, h, w) and keys (B, S, h w, P) of length 1 at every position, masks of the supports (B, S, h, w) bool
    ->  (B, T, h w), float32 or wider: above 0 object, about -3 to 3
    """
    with torch.autocast(rows.device.type, enabled=False):
        clip = as_full_precision(rows).permute(0, 1, 3, 4, 2).flatten(1, 3)           # (B, T h w, P)
        keys, inside = as_full_precision(keys), masks.flatten(2)                      # (B, S, h w, P), (B, S, h w)
        support = keys.flatten(1, 2)                                                  # (B, S h w, P)
        means = F.normalize(torch.einsum("bsn,bsnp->bsp", inside.to(keys), keys), dim=2)
        start = torch.einsum("bnp,bsp->bn", clip, means) / means.shape[1]
        score = (start - MIDDLE) / SPREAD
        known = halves(inside, ~inside).flatten(1) / inside.shape[1]
        x, target = torch.cat([support, clip], dim=1), torch.where(inside.flatten(1), 1.0, -1.0)
        for _ in range(PASSES):
            best = score.topk(min(BEST, score.shape[1]), dim=1).values.mean(1, keepdim=True)
            seeds = score > (OF_BEST * best).clamp(min=0, max=OBJECT)
            share = torch.cat([known, halves(seeds, score < BACKGROUND)], dim=1)
            value = ridge_regression(x, share, torch.cat([target, torch.where(seeds, 1.0, -1.0)], dim=1))
            learned = (value[:, support.shape[1]:] - OFFSET) / SLOPE
            score = torch.where(seeds.any(1, keepdim=True), learned, score)           # nothing like it: as it was
    return score.unflatten(1, (rows.shape[1], -1))


def halves(*parts):
    """Weights that give every part, (..., N) bool, the same sum  ->  (..., N)"""
    return sum(part / part.sum(-1, keepdim=True).clamp(min=1) for part in parts)


def ridge_regression(x, share, target):
    """x (B, N, P), share of every row and its target (B, N)  ->  the fitted values (B, N)"""
    share, target = (share / share.sum(1, keepdim=True))[:, :, None], target[:, :, None].to(x)
    x = x - (share * x).sum(1, keepdim=True)
    gradient = x.transpose(1, 2) @ (share * target)
    weights, direction, size = torch.zeros_like(gradient), gradient, gradient.square().sum(1, keepdim=True)
    for _ in range(STEPS):
        curved = x.transpose(1, 2) @ (share * (x @ direction)) + PENALTY * direction
        step = size / (direction * curved).sum(1, keepdim=True).clamp(min=1e-20)
        weights, gradient = weights + step * direction, gradient - step * curved
        before, size = size, gradient.square().sum(1, keepdim=True)
        direction = gradient + size / before.clamp(min=1e-20) * direction
    return (x @ weights)[:, :, 0]
