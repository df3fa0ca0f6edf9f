"""Layers that no equation of the paper names: feed-forward, self-attention, positions, fusion, upsampling.

Structure and sizes follow the released code, since the paper leaves them to IPMT; each docstring says what it is.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn


class FFN(nn.Module):
    """x + W2 relu(W1 x), no biases; x (..., C)  ->  (..., C)"""

    def __init__(self, dim, hidden, dropout):
        super().__init__()
        self.expand = nn.Linear(dim, hidden, bias=False)
        self.contract = nn.Linear(hidden, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        hidden = self.dropout(self.expand(x).relu())
        return x + self.dropout(self.contract(hidden))


def convolve_together(conv, maps):
    """conv over the concatenation of maps, list of (N, C_i, h, w), which is never built: a sum of convolutions.

    ->  (N, C, h, w), without the bias
    """
    weights = conv.weight.split([x.shape[1] for x in maps], dim=1)
    return sum(conv._conv_forward(x, w, None) for x, w in zip(maps, weights, strict=True))


class Fuse(nn.Module):
    """relu of a 1x1 convolution over concat(features, vector at every position, maps), which is never built.

    features (N, C, h, w), vector (N, V), maps (N, E, h, w) or None  ->  (N, dim, h, w)
    """

    def __init__(self, dim, vector, maps=0):
        super().__init__()
        self.sizes = (dim, vector, maps)
        self.conv = nn.Conv2d(dim + vector + maps, dim, 1, bias=False)

    def forward(self, features, vector, maps=None):
        on_features, on_vector, on_maps = self.conv.weight.split(self.sizes, dim=1)
        x = F.conv2d(features, on_features) + F.linear(vector, on_vector[..., 0, 0])[:, :, None, None]
        if maps is not None:
            x = x + F.conv2d(maps, on_maps)
        return x.relu()


class ResidualConvs(nn.Module):
    """x + relu(conv relu(conv x)), 3x3, no biases; x (N, C, h, w)"""

    def __init__(self, dim):
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.ReLU())

    def forward(self, x):
        return x + self.convs(x)


def mask_classifier(dim, dropout):
    """(N, C, h, w)  ->  logits (N, 2, h, w): background, object"""
    return nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.ReLU(),
                         nn.Dropout2d(dropout), nn.Conv2d(dim, 2, 1))


class ReducedSelfAttention(nn.Module):
    """Self-attention whose keys and values come from a map reduced 4 x 4 (not in the paper; as released).

    x (N, h, w, C), h and w at least 4  ->  (N, h, w, C). Rows and columns beyond a multiple of 4 give no keys.
    """

    def __init__(self, dim, heads, dropout, reduction=4):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q = nn.Linear(dim, dim)
        self.reduce = nn.Conv2d(dim, dim, reduction, stride=reduction)
        self.norm = nn.LayerNorm(dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        reduced = self.reduce(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        k, v = self.kv(self.norm(reduced)).chunk(2, dim=-1)
        q, k, v = (self.split_heads(t) for t in (self.q(x.flatten(1, 2)), k, v))
        read = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        read = self.proj(read.transpose(1, 2).flatten(2))
        return F.dropout(read, self.dropout, self.training).view_as(x)

    def split_heads(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)      # (N, heads, tokens, C / heads)


def sine_position(h, w, dim, like):
    """Sine positions, rows in the first half of the channels, columns in the second  ->  (h, w, dim)

    Row i has the coordinate 2 pi (i + 1) / h; channel k of a half the angle coordinate / 10000^(2 floor(k/2) / half),
    sine for even k, cosine for odd k. Computed in the dtype of `like`.
    """
    half = dim // 2
    k = torch.arange(half, device=like.device)
    wavelength = 10000 ** (2 * (k // 2).to(like.dtype) / half)

    def encode(n):
        coordinate = torch.arange(1, n + 1, device=like.device, dtype=like.dtype) * (2 * math.pi / (n + 1e-6))
        angle = coordinate[:, None] / wavelength
        return torch.where(k % 2 == 0, angle.sin(), angle.cos())

    rows, columns = encode(h)[:, None].expand(h, w, half), encode(w)[None].expand(h, w, half)
    return torch.cat([rows, columns], dim=-1)


class LearnedUpsample(nn.Module):
    """Nearest x 8, then a learned 9x9 filter per channel; its zero padding fades the border (as released).

    logits (B, T, 2, h, w), size (H, W) with H <= 8 h  ->  (B, T, 2, H, W)

    A 9x9 window over 8x8 blocks of equal values sees 3 x 3 of them: each of the 64 positions in a block has a
    3x3 filter on the small map, the sums of the taps that fall into a block. Exact, with a ninth of the products.
    """

    def __init__(self, channels=2, factor=8):
        super().__init__()
        self.factor, kernel = factor, factor + 1
        self.weight = nn.Parameter(torch.full((channels, 1, kernel, kernel), 1 / kernel ** 2))

    def forward(self, logits, size):
        place = {"device": self.weight.device}
        position, tap = torch.arange(self.factor, **place)[:, None], torch.arange(self.factor + 1, **place)
        block = (position + tap - self.factor // 2).div(self.factor, rounding_mode="floor") + 1
        block = F.one_hot(block, 3).to(self.weight)                                   # (8, 9, 3)
        filters = torch.einsum("cts,ytu,xsv->cyxuv", self.weight[:, 0], block, block)
        x = F.conv2d(logits.flatten(0, 1), filters.flatten(0, 2)[:, None], padding=1, groups=len(self.weight))
        return F.pixel_shuffle(x, self.factor)[..., :size[0], :size[1]].unflatten(0, logits.shape[:2])
