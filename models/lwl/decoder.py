"""The segmentation decoder D (Section 3.4, Figure 2): mask encodings and backbone levels in, logits out.

It goes from the coarsest level to layer1. Batch normalisation uses its stored statistics, in training too.
"""
import torch
import torch.nn.functional as F
from torch import nn

FEW = 320                 # rows and columns up to which a matrix enlarges faster


def conv3x3(inputs, outputs, bias=True):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


def resize(x, size, mode="bilinear"):
    return F.interpolate(x, size=tuple(size), mode=mode, align_corners=False)


def enlarge(x, size):
    """Bicubic. Twice the size of few pixels is two products with matrices, which PyTorch's own takes ten times as long
    for, forward and backward, on a CPU; of many pixels these would be mostly zeros."""
    size = tuple(size)
    if size != tuple(2 * n for n in x.shape[-2:]) or max(size) > FEW:
        return resize(x, size, mode="bicubic")
    rows, columns = (resize(torch.eye(n, dtype=x.dtype, device=x.device)[None, None], (n, 2 * n), mode="bicubic")[0, 0]
                     for n in x.shape[-2:])
    return rows.T @ x @ columns


class Refinement(nn.Module):
    """RRB: u = conv x  ->  relu(u + conv relu bn conv u), (N, C, h, w)"""

    def __init__(self, dim):
        super().__init__()
        self.reduce = nn.Conv2d(dim, dim, 1)
        self.block = nn.Sequential(conv3x3(dim, dim), nn.BatchNorm2d(dim), nn.ReLU(), conv3x3(dim, dim, bias=False))

    def forward(self, x):
        x = self.reduce(x)
        return F.relu(x + self.block(x))


class Level(nn.Module):
    """One level: features (N, C, h, w), encodings (N, D, h', w'), the coarser level or None  ->  (N, dim, h, w)

    TSE joins features and encodings, CAB lets the coarser level choose channels, two RRBs refine.
    """

    def __init__(self, channels, dim, filters, coarser=None):
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(channels, dim, 1), nn.ReLU(), nn.Conv2d(dim, dim, 1))
        joined = dim + filters
        self.transform = nn.Sequential(conv3x3(joined, joined), nn.ReLU(), conv3x3(joined, joined), nn.ReLU(),
                                       conv3x3(joined, dim), nn.ReLU())
        self.before, self.after = Refinement(dim), Refinement(dim)
        self.attention = nn.Sequential(nn.Conv2d(2 * dim, dim, 1), nn.ReLU(), nn.Conv2d(dim, dim, 1), nn.Sigmoid())
        self.project = None if coarser is None else nn.Conv2d(coarser, dim, 1)

    def forward(self, features, scores, coarser=None):
        reduced = self.reduce(features)
        x = self.before(self.transform(torch.cat([reduced, resize(scores, features.shape[-2:])], dim=1)))
        deep = reduced.mean((2, 3), keepdim=True) if coarser is None else F.relu(self.project(coarser))
        gate = self.attention(torch.cat([x.mean((2, 3), keepdim=True), deep.mean((2, 3), keepdim=True)], dim=1))
        return self.after(x * gate + (deep if coarser is None else resize(deep, x.shape[-2:])))


def initialise_he(decoder):
    """[12] for all convolutions, no bias; refinements begin as the identity, so that the path from the scores is short.

    The last one begins near 0, or the first steps would undo confident masks.
    """
    for part in decoder.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in decoder.modules():
        if isinstance(part, Refinement):
            nn.init.zeros_(part.block[-1].weight)
    nn.init.normal_(decoder.head2.weight, std=0.01)


class Decoder(nn.Module):
    """channels: of layer1 and on, as many as the backbone has; widths: of the decoder's levels, likewise

    scores (N, D, h, w), levels: list of (N, C, h, w), layer1 first; size (H, W)  ->  logits (N, H, W)
    """

    def __init__(self, channels, *, widths=(64, 128, 128, 256), filters=16):
        super().__init__()
        coarser = [*widths[1:], None]
        self.levels = nn.ModuleDict({
            f"layer{i}": Level(channels[i - 1], widths[i - 1], filters, coarser[i - 1])
            for i in range(len(channels), 0, -1)})
        self.head1, self.head2 = conv3x3(widths[0], widths[0] // 2), conv3x3(widths[0] // 2, 1)

    def forward(self, scores, levels, size):
        x = None
        for level, features in zip(self.levels.values(), reversed(levels), strict=True):
            x = level(features, scores, x)
        x = F.relu(self.head1(enlarge(x, [2 * n for n in x.shape[-2:]])))
        return self.head2(enlarge(x, size))[:, 0]
