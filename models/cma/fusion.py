"""From backbone levels to what the affinity compares: projection, amplification, fusion with words (Figure 3, left)."""
import math

import torch
from torch import nn

from models.cma.text import WordAttention


class Projection(nn.ModuleList):
    """Backbone levels c3, c4, c5, (N, C, h, w) each  ->  four levels of `dim` channels at strides 8, 16, 32 and 64

    Where the backbone ends early, further levels follow from the last one: 3x3 with stride 2, each from the one before.
    """

    def __init__(self, channels, dim, levels=4):
        own = [nn.Conv2d(c, dim, 1) for c in channels]
        further = [nn.Conv2d(channels[-1] if i == 0 else dim, dim, 3, stride=2, padding=1)
                   for i in range(levels - len(channels))]
        super().__init__(nn.Sequential(conv, nn.GroupNorm(32, dim)) for conv in own + further)
        for conv in own + further:
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, features):
        found = [project(x) for project, x in zip(self, features, strict=False)]
        below = features[-1]
        for project in list(self)[len(features):]:
            below = project(below)
            found.append(below)
        return found


def amplify(x):
    """sign(x) (f(|x|) - f(0)), f(u) = ln(1 / (u + 1e-5) + 1)^-1.3: small values rise. Of the release, not the paper."""
    def f(u):
        return torch.log1p(1 / (u + 1e-5)) ** -1.3
    return x.sign() * (f(x.abs()) - math.log1p(1e5) ** -1.3)


class Fusion(nn.Module):
    """MCA, Eq. 1: v <- v * Attention(v, words). One module for query, support and all levels.

    v (N, C, h, w), words  ->  (N, C, h, w)
    """

    def __init__(self, dim, heads):
        super().__init__()
        self.attention = WordAttention(dim, heads)

    def forward(self, v, words):
        return v * self.attention(v.flatten(2).mT, words).mT.view_as(v)
