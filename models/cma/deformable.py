"""Deformable attention in plain PyTorch, and the encoder built of it.

Shapes: T frames, N = sum of h w over the levels, L levels, K heads, P points. Each frame is a batch element.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from models.cma.positions import valid_ratio


class DeformableAttention(nn.Module):
    """Each query reads few places of each level, which it chooses itself.

    queries (T, Q, C), reference (1 or T, Q, L, 2 or 4) in [0, 1] x, y(, w, h), values (T, N, C), sizes: (h, w) of each
    level, mask (N,) bool, True = padding  ->  (T, Q, C)
    """

    def __init__(self, dim, heads, levels=4, points=4):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.weights = nn.Linear(dim, heads * levels * points)
        self.values, self.output = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.initialise()

    def initialise(self):
        """At first every head looks into a compass direction of its own, farther with each point, all alike."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        compass = torch.stack([angle.cos(), angle.sin()], dim=-1)
        compass = compass / compass.abs().amax(dim=-1, keepdim=True)
        bias = compass[:, None, None] * torch.arange(1, self.points + 1)[:, None]
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())
        for layer in (self.values, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def places(self, queries, reference, sizes):
        """->  sampling places (T, Q, K, L, P, 2) in [0, 1], x, y; their weights (T, Q, K, L, P)"""
        offsets = self.offsets(queries).unflatten(2, (self.heads, self.levels, self.points, 2))
        weights = self.weights(queries).unflatten(2, (self.heads, -1)).softmax(-1)
        reference = reference[:, :, None, :, None]
        if reference.shape[-1] == 2:
            unit = 1 / offsets.new_tensor([(w, h) for h, w in sizes])[:, None]
        else:
            unit = reference[..., 2:] / (2 * self.points)
        return reference[..., :2] + offsets * unit, weights.unflatten(3, (self.levels, self.points))

    def forward(self, queries, reference, values, sizes, mask=None):
        places, weights = self.places(queries, reference, sizes)
        values = self.values(values)
        if mask is not None:
            values = values.masked_fill(mask[None, :, None], 0)
        values = values.unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)            # (T K, d, N)
        grid, weights = (2 * places - 1).transpose(1, 2).flatten(0, 1), weights.transpose(1, 2).flatten(0, 1)
        out = 0
        for level, (part, size) in enumerate(zip(values.split([h * w for h, w in sizes], 2), sizes, strict=True)):
            seen = F.grid_sample(part.unflatten(2, size), grid[:, :, level], align_corners=False)
            out = out + (seen * weights[:, None, :, level]).sum(-1)                                # (T K, d, Q)
        return self.output(out.unflatten(0, (-1, self.heads)).flatten(1, 2).mT)


class FeedForward(nn.Sequential):
    """(..., C)  ->  (..., C)"""

    def __init__(self, dim, hidden, dropout):
        super().__init__(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, dim),
                         nn.Dropout(dropout))


class EncoderLayer(nn.Module):
    """Every position of every level reads all levels of its frame; then a feed-forward."""

    def __init__(self, dim, heads, hidden, dropout):
        super().__init__()
        self.attention, self.dropout = DeformableAttention(dim, heads), nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, hidden, dropout)

    def forward(self, x, positions, reference, sizes, mask):
        x = self.norm1(x + self.dropout(self.attention(x + positions, reference, x, sizes, mask)))
        return self.norm2(x + self.ffn(x))


class Encoder(nn.Module):
    """Four levels (T, C, h, w), their masks (h, w) and position codes (C, h, w)  ->  memory (T, N, C)"""

    def __init__(self, dim, heads, hidden, layers, dropout):
        super().__init__()
        self.level_embed = nn.Parameter(torch.randn(4, dim))
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, hidden, dropout) for _ in range(layers))
        initialise_xavier(self)

    def forward(self, levels, masks, codes):
        x = torch.cat([level.flatten(2).mT for level in levels], dim=1)
        positions = torch.cat([code.flatten(1).mT.to(x.dtype) + embed
                               for code, embed in zip(codes, self.level_embed, strict=True)])
        reference, flat = reference_points(masks).to(x.dtype)[None], torch.cat([mask.flatten() for mask in masks])
        for layer in self.layers:
            x = layer(x, positions, reference, [tuple(mask.shape) for mask in masks], flat)
        return x


def reference_points(masks):
    """Masks (h, w) of the levels  ->  (N, L, 2): where each token lies in each level, x, y in [0, 1] with padding"""
    ratios, places = torch.stack([valid_ratio(mask) for mask in masks]), []
    for mask, ratio in zip(masks, ratios, strict=True):
        rows, columns = (torch.arange(n, device=mask.device, dtype=ratio.dtype) + 0.5 for n in mask.shape)
        y, x = torch.meshgrid(rows / mask.shape[0] / ratio[1], columns / mask.shape[1] / ratio[0], indexing="ij")
        places.append(torch.stack([x, y], dim=-1).flatten(0, 1))
    return torch.cat(places)[:, None] * ratios


def initialise_xavier(module):
    """Every matrix; embeddings and what deformable attention starts from stay as they are."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and "embed" not in name:
            nn.init.xavier_uniform_(parameter)
    for part in module.modules():
        if isinstance(part, DeformableAttention):
            part.initialise()
