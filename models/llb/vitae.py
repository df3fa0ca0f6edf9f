"""ViTAE-6M (Xu et al., NeurIPS 2021), the trunk of the label encoder: pictures in, a map at stride 16 out.

Three reduction cells lower the resolution, ten normal cells follow. Convolutions beside the attentions bring locality:
PCM, and PRM with its dilations. Modules bear the names of the published weights, so that their file loads as it is.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

GROUPS = 64               # of the normal cells' convolutions


def stage(inputs, outputs, stride=1, groups=1, norm=False):
    """3x3 convolution, normalisation or none, SiLU"""
    return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=groups),
            *([nn.BatchNorm2d(outputs)] if norm else []), nn.SiLU()]


def tokens(x):
    """(N, C, h, w)  ->  (N, h w, C), row by row"""
    return x.flatten(2).transpose(1, 2)


def folded(x, like):
    """(N, h w, C)  ->  (N, C, h, w), h and w as `like` has them"""
    return x.transpose(1, 2).unflatten(2, like.shape[-2:])


class PRM(nn.Module):
    """Pyramid reduction: convolutions of 1, 2, ... times dilated kernels, side by side"""

    def __init__(self, inputs, outputs, kernel, stride, dilations):
        super().__init__()
        self.convs = nn.ModuleList(nn.Sequential(nn.Conv2d(
            inputs, outputs, kernel, stride, dilation=d, padding=math.ceil(((kernel - 1) * d + 1 - stride) / 2)),
            nn.GELU()) for d in range(1, dilations + 1))

    def forward(self, x):
        return torch.cat([conv(x) for conv in self.convs], dim=1)


class Performer(nn.Module):
    """Attention of linear cost with an MLP behind it: tokens (N, L, inputs), what PCM says of them (N, L, dim)

    Random features phi stand for the softmax: their directions w are drawn once, kept in checkpoints and never trained.
    """

    def __init__(self, inputs, dim=64, features=32):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(inputs), nn.LayerNorm(dim)
        self.kqv, self.proj = nn.Linear(inputs, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.register_buffer("w", nn.init.orthogonal_(torch.empty(features, dim)) * math.sqrt(features))

    def phi(self, x):
        return (x @ self.w.T - x.square().sum(-1, keepdim=True) / 2).exp() / math.sqrt(len(self.w))

    def forward(self, x, local):
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        k, q = self.phi(k), self.phi(q)
        read = q @ (k.transpose(1, 2) @ v) / (q @ k.sum(1)[..., None] + 1e-8)
        x = v + self.proj(read) + local
        return x + self.mlp(self.norm2(x))


class ReductionCell(nn.Module):
    """RC: (N, C, H, W)  ->  (N, C', h, w); without strides of PCM it is PRM alone"""

    def __init__(self, inputs, outputs, kernel, stride, dilations, pcm_strides=()):
        super().__init__()
        self.PRM = PRM(inputs, outputs, kernel, stride, dilations)
        self.PCM = self.attn = None
        if pcm_strides:
            a, b, c = pcm_strides
            self.PCM = nn.Sequential(*stage(inputs, outputs, a), *stage(outputs, outputs, b, norm=True),
                                     *stage(outputs, outputs, c))
            self.attn = Performer(dilations * outputs, outputs)

    def forward(self, x):
        reduced = self.PRM(x)
        return reduced if self.attn is None else folded(self.attn(tokens(reduced), tokens(self.PCM(x))), reduced)


class Attention(nn.Module):
    """Every token reads all: (N, L, C)  ->  (N, L, C)"""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class NormalCell(nn.Module):
    """NC: attention and, beside it, PCM of the same map before its normalisation, (N, C, h, w)"""

    def __init__(self, dim=256, heads=4, hidden=512):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, heads), MLP(dim, hidden)
        self.PCM = nn.Sequential(*stage(dim, 2 * dim, groups=GROUPS, norm=True),
                                 *stage(2 * dim, dim, groups=GROUPS, norm=True), *stage(dim, dim, groups=GROUPS))

    def forward(self, x):
        y = tokens(x)
        y = y + self.attn(self.norm1(y)) + tokens(self.PCM(x))
        return folded(y + self.mlp(self.norm2(y)), x)


class ViTAE(nn.Module):
    """images (N, 3, H, W)  ->  (N, 256, H/16, W/16); H and W are multiples of 16"""
    channels = 256

    def __init__(self, cells=10):
        super().__init__()
        reductions = (ReductionCell(3, 64, 7, 4, 4, (2, 2, 1)), ReductionCell(64, 64, 3, 2, 3, (2, 1, 1)),
                      ReductionCell(64, 128, 3, 2, 2))
        self.layers = nn.ModuleList(nn.ModuleDict({"RC": one}) for one in reductions)
        self.layers[2]["NC"] = nn.Sequential(*(NormalCell() for _ in range(cells)))

    def forward(self, x):
        for layer in self.layers:
            for cell in layer.values():
                x = cell(x)
        return x
