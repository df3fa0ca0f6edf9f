"""The adaptive fusion module (AFM), Eq. 2: each branch passes through a gate of its own, then both are added."""
import math

import torch.nn.functional as F
from torch import nn


class Gate(nn.Module):
    """gamma: per position, how much of each channel passes: (N, D, h, w)  ->  gamma(e) . e"""

    def __init__(self, dim):
        super().__init__()
        self.hidden, self.out = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        for part in (self.hidden, self.out):
            nn.init.normal_(part.weight, std=math.sqrt(2 / dim))

    def forward(self, e):
        gate = self.out(F.relu(self.hidden(e.movedim(1, -1)))).sigmoid()
        return gate.movedim(-1, 1) * e


class Fusion(nn.Module):
    """What induction and transduction found, (N, D, h, w) each  ->  the fused encoding of the target"""

    def __init__(self, dim):
        super().__init__()
        self.induction, self.transduction = Gate(dim), Gate(dim)

    def forward(self, induced, transduced):
        return self.induction(induced) + self.transduction(transduced)


class Sum(nn.Module):
    """JOINT's: without gates"""

    def forward(self, induced, transduced):
        return induced + transduced
