"""What the iterations read of support and memory frames: their features after PA, their masks, their prototypes."""
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

STRIDE = 8                 # of c3, c4 and c5


@dataclass
class ReferenceFrames:
    """Support or memory frames after PA: what the iterations read.

    features F^s or F^m (B, S, C, h, w); masks (B, S, h, w) bool; attention_masks: the same but for
    `degenerate_masks: patch`; prototypes (B, S, C), one per frame; prior_keys (B, S, F, P): high-level
    features of the masked positions, pooled for the prior (self_support: of all positions); ssm_keys: the same with
    all channels. The last two are None where nothing reads them.
    """
    features: torch.Tensor
    masks: torch.Tensor
    attention_masks: torch.Tensor
    prototypes: torch.Tensor
    prior_keys: torch.Tensor | None
    ssm_keys: torch.Tensor | None

    def split(self):
        """One ReferenceFrames per frame, with memory of its own."""
        return [ReferenceFrames(*(None if x is None else x[:, s:s + 1].clone() for x in vars(self).values()))
                for s in range(self.masks.shape[1])]


def join(references, dim):
    """Several Guidances as one, along dim 0 (episodes) or 1 (frames)."""
    def parts(name):
        found = [getattr(g, name) for g in references]
        if found[0] is None or not name.endswith("_keys"):
            return found
        longest = max(x.shape[2] for x in found)               # zero vectors fill up: their similarity is 0
        return [F.pad(x, (0, 0, 0, longest - x.shape[2])) for x in found]
    columns = {f.name: parts(f.name) for f in fields(ReferenceFrames)}
    return ReferenceFrames(**{name: None if x[0] is None else torch.cat(x, dim) for name, x in columns.items()})


def at_feature_size(masks):
    """Nearest with a factor of exactly 8, the pixel (8i, 8j): (..., H, W)  ->  (..., h, w) bool"""
    return masks[..., ::STRIDE, ::STRIDE] > 0


def patch_degenerate(masks):
    """Released, `model.degenerate_masks: patch`: an empty mask gets its centre, a full one loses its corners.

    masks (..., h, w) bool  ->  the same shape
    """
    h, w = masks.shape[-2:]
    centre, corners = torch.zeros_like(masks), torch.ones_like(masks)
    centre[..., h // 2 - 1:h // 2 + 1, w // 2 - 1:w // 2 + 1] = True
    corners[..., ::h - 1, ::w - 1] = False
    empty = ~masks.flatten(-2).any(-1)[..., None, None]
    full = masks.flatten(-2).all(-1)[..., None, None]
    return torch.where(empty, centre, torch.where(full, corners, masks))
