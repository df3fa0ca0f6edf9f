"""IoUNet (Section 4.3): how good is a predicted mask? Structural similarity maps, then a small regressor."""
import torch
import torch.nn.functional as F
from torch import nn

from models.vipmt.layers import convolve_together
from models.vipmt.similarity import (
    EPS,
    as_full_precision,
    foreground_index,
    gather_foreground,
    min_max,
    rows_at_a_time,
)

GRID = (8, 14)      # what conv4 makes of 240 x 424; other inputs are pooled to it before the linear layers


@torch.no_grad()
def structural_similarity_maps(high, mask, to_support, cosine):
    """S^bs, S^fs, S^fb, S^bf (Eqs. 15-16), after the mask itself: the five maps that IoUNet reads.

    high (B, T, C, h, w), mask (B, T, h, w) bool,
    to_support (B, T, h w): every position's largest similarity to the support's foreground
    ->  (B, T, 5, h, w): mask, background -> support, foreground -> support, foreground -> background,
    background -> foreground.

    A position outside its region is a zero vector in Eqs. 15-16, so that no maximum is below its similarity, 0; with
    that, masking after the maximum is the same.
    """
    foreground = mask.flatten(2)
    to_background, to_foreground = mutual_similarity(high, mask, cosine)
    inside, outside = foreground.to(to_support.dtype), (~foreground).to(to_support.dtype)
    maps = [min_max(to_support * outside), min_max(to_support * inside),
            min_max(to_background * inside), min_max(to_foreground * outside)]
    return torch.stack([inside, *maps], dim=2).unflatten(-1, mask.shape[-2:])


@torch.no_grad()
def mutual_similarity(high, mask, cosine):
    """Foreground to background and back from one product, (h w) x foreground, frame by frame of the batch.

    high (B, T, C, h, w), mask (B, T, h, w)
    ->  to_background, to_foreground (B, T, h w): the largest similarity of every position to that region
        of its own frame, where the position lies in the other one; 0 elsewhere
    """
    with torch.autocast(high.device.type, enabled=False):
        keys = as_full_precision(gather_foreground(high, mask))                       # (B, T, F, C)
        rows = as_full_precision(high.flatten(3).transpose(2, 3))                     # (B, T, h w, C)
        to_background, to_foreground = torch.zeros(2, *mask.flatten(2).shape, dtype=rows.dtype, device=rows.device)
        index, _ = foreground_index(mask)                 # padding has similarity 0: it adds nothing
        for t in range(rows.shape[1]):     # one frame's product at a time bounds the memory
            best, parts = rows.new_zeros(keys[:, t].shape[:2]), []
            inside = mask[:, t].flatten(1)[:, :, None]
            step = rows_at_a_time(keys[:, t])
            for part, part_inside in zip(rows[:, t].split(step, dim=1), inside.split(step, dim=1), strict=True):
                similarity = part @ keys[:, t].transpose(1, 2)                        # (B, rows, F)
                if cosine:
                    similarity /= part.norm(dim=-1)[:, :, None] * keys[:, t].norm(dim=-1)[:, None] + EPS
                similarity.masked_fill_(part_inside, 0.0)                             # rows: background only
                parts.append(similarity.amax(-1).clamp_(min=0))
                best = torch.maximum(best, similarity.amax(1))
            to_foreground[:, t] = torch.cat(parts, dim=1)
            to_background[:, t].scatter_add_(1, index[:, t], best)
    return to_background, to_foreground


def promised_iou(logits):
    """The IoU of the masks if every position were object as often as the network says; ours, for small data.

    logits (B, T, 2, h, w)  ->  (B, T) in [0, 1]: expected intersection over expected union; 0 for an empty mask
    """
    p = as_full_precision(logits).softmax(2)[:, :, 1]
    mask = p > 0.5
    intersection = (p * mask).sum((-2, -1))
    return intersection / (p.sum((-2, -1)) + mask.sum((-2, -1)) - intersection).clamp(min=EPS)


class IoUNet(nn.Module):
    """Predicted IoU of each mask, before the sigmoid, at any input size.

    fused: the clip's backbone levels after `fuse`, maps (B, T, 5, h, w)  ->  logits (B, T)

    init: Kaiming mode of the convolutions. The release's fan_out amplifies by sqrt(inputs / dim) where the levels
    are fused: 4 as released, more in a narrower net, whose sigmoid then saturates and never learns.
    """

    def __init__(self, *, channels, maps, dim, hidden, init="fan_out"):
        super().__init__()
        self.init = init
        self.downsample = nn.Conv2d(channels[0], channels[0], 3, stride=2, padding=1)
        self.fuse1 = nn.Conv2d(sum(channels), dim, 3, padding=1)
        self.fuse2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv1 = nn.Conv2d(dim + maps, dim, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv3 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv4 = nn.Conv2d(dim, dim, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(dim * GRID[0] * GRID[1], hidden)
        self.fc2 = nn.Linear(hidden, 1)
        self.apply(self.initialise)

    def initialise(self, module):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=self.init, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=1)
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.zeros_(module.bias)

    def fuse(self, levels):
        """What it sees of a clip, whatever its masks: list of (B, T, C, h, w), c2 first  ->  (B T, dim, h, w)"""
        c2, *rest = (level.flatten(0, 1) for level in levels)
        x = convolve_together(self.fuse1, [self.downsample(c2).relu(), *rest]) + self.fuse1.bias[:, None, None]
        return self.fuse2(x.relu()).relu()

    def forward(self, fused, maps):
        x = torch.cat([fused, maps.flatten(0, 1).to(fused.dtype)], dim=1)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        x = self.fc1(F.adaptive_avg_pool2d(x, GRID).flatten(1)).relu()
        return self.fc2(x).view(maps.shape[:2])
