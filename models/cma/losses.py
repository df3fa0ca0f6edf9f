"""Matching and losses: pure functions of one decoder layer's logits (T, Q), boxes (T, Q, 4) and masks (T, Q, h, w).

There is one object, so that matching is the cheapest of the Q queries; a query is a trajectory over all frames.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F

ALPHA, EPS = 0.25, 1e-6
NAMES = ("score", "box", "giou", "mask", "dice")         # loss.* of the config, as costs and losses stand


@dataclass
class Target:
    """boxes (T, 4): cx, cy, w, h in [0, 1] of the image; valid (T,) bool: frames that show the object; masks (T, h, w)
    float, at a quarter of the padded size"""
    boxes: torch.Tensor
    valid: torch.Tensor
    masks: torch.Tensor


def target_of(boxes, valid, masks, padded):
    """Boxes (T, 4) in pixels, first and last column and row; masks (T, H, W); padded size  ->  Target

    A mask is seen at the third of every four rows and columns.
    """
    height, width = masks.shape[-2:]
    x0, y0, x1, y1 = (boxes / boxes.new_tensor([width, height, width, height])).unbind(-1)
    masks = F.pad(masks.to(boxes.dtype), (0, padded[1] - width, 0, padded[0] - height))
    return Target(torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=-1), valid, masks[:, 2::4, 2::4])


def focal(logits, truth):
    """Focal loss, alpha 0.25, gamma 2, element by element"""
    prob = logits.sigmoid()
    right = prob * truth + (1 - prob) * (1 - truth)
    weight = ALPHA * truth + (1 - ALPHA) * (1 - truth)
    return weight * (1 - right) ** 2 * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")


def corners(boxes):
    """cx, cy, w, h  ->  upper left (..., 2), lower right (..., 2)"""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return centre - size / 2, centre + size / 2


def giou(a, b):
    """Generalised IoU of boxes (..., 4)  ->  (...); finite for boxes without area"""
    (a0, a1), (b0, b1) = corners(a), corners(b)
    intersection = (a1.minimum(b1) - a0.maximum(b0)).clamp(min=0).prod(-1)
    union = (a1 - a0).prod(-1) + (b1 - b0).prod(-1) - intersection
    hull = (a1.maximum(b1) - a0.minimum(b0)).clamp(min=0).prod(-1)
    return (intersection + EPS) / (union + EPS) - (hull - union + EPS) / (hull + EPS)


def dice(prob, truth):
    """2 |overlap| + 1 over |both| + 1, over all but the first dimension  ->  one number per entry of that"""
    prob, truth = prob.flatten(1), truth.flatten(1)
    return (2 * (prob * truth).sum(1) + 1) / (prob.sum(1) + truth.sum(1) + 1)


@torch.no_grad()
def costs(logits, boxes, masks, target, absent=True):
    """->  (Q, 5), before the weights: class, L1, -GIoU, mask focal, -dice, means over frames

    absent: released, frames without the object count in the box costs, with a box of zeros
    """
    prob, frames = logits.sigmoid(), slice(None) if absent or not target.valid.any() else target.valid
    positive = -ALPHA * (1 - prob) ** 2 * (prob + 1e-8).log()
    negative = -(1 - ALPHA) * prob ** 2 * (1 - prob + 1e-8).log()
    truth = target.boxes[frames, None]
    queries = masks.transpose(0, 1)                                                       # (Q, T, h, w)
    same = target.masks.expand_as(queries)
    return torch.stack([(positive - negative).mean(0), (boxes[frames] - truth).abs().sum(-1).mean(0),
                        -giou(boxes[frames], truth).mean(0), focal(queries, same).flatten(1).mean(1),
                        -dice(queries.sigmoid(), same)], dim=1)


def layer_losses(logits, boxes, masks, target, chosen, absent=True, mask_frames=True):
    """Of the chosen query  ->  (5,), in the order of NAMES

    Class and box terms are sums over frames, mask terms one number for all frames together; all are divided by the
    number of frames that show the object, mask terms only where mask_frames. absent: as in `costs`.
    """
    count = target.valid.sum().clamp(min=1).to(logits.dtype)
    positive = F.one_hot(chosen, logits.shape[1]) * target.valid[:, None].to(logits.dtype)
    weight = torch.ones_like(target.valid) if absent else target.valid
    box, mask = (x[:, chosen[None]][:, 0] for x in (boxes, masks))
    terms = [focal(logits, positive).sum(), ((box - target.boxes).abs().sum(-1) * weight).sum(),
             ((1 - giou(box, target.boxes)) * weight).sum(), focal(mask, target.masks).mean(),
             1 - dice(mask.sigmoid()[None], target.masks[None])[0]]
    scale = logits.new_ones(5)
    scale[:3 if not mask_frames else 5] = 1 / count
    return torch.stack(terms) * scale
