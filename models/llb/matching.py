"""The transduction branch: a small transformer carries encodings of earlier frames over to where they match.

Keys and queries are one projection of the features, compared by their cosine; values are taken as they are.
"""
import math

import torch.nn.functional as F
from torch import nn

from models.lwl.decoder import conv3x3

SCALE = 30.0              # of cosines, in front of the softmax


def tokens(x):
    """(T, B, C, h, w)  ->  (B, T h w, C)"""
    return x.permute(1, 0, 3, 4, 2).flatten(1, 3)


def folded(x, like):
    """(B, T h w, C)  ->  (T, B, C, h, w), T, h and w as `like` has them"""
    return x.unflatten(1, (like.shape[0], *like.shape[-2:])).permute(1, 0, 4, 2, 3)


def instance_norm(x):
    """Each map (h, w) of x to mean 0, deviation 1; PyTorch's own has wrong gradients where memory is not contiguous."""
    variance, mean = x.var((-2, -1), correction=0, keepdim=True), x.mean((-2, -1), keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


class Matching(nn.Module):
    """channels: of layer3; dim: C, of what is compared; key_dim: of its projection"""

    def __init__(self, channels, *, dim=512, key_dim=128):
        super().__init__()
        self.conv = conv3x3(channels, dim, bias=False)
        self.self_key, self.cross_key = nn.Linear(dim, key_dim), nn.Linear(dim, key_dim)
        for part in (self.self_key, self.cross_key):
            nn.init.normal_(part.weight, std=math.sqrt(2 / key_dim))
            nn.init.zeros_(part.bias)

    def encode(self, z):
        """Encoder, and self-attention of the decoder: all T frames of an object read each other, (T, B, C, h, w)"""
        x, key = tokens(z), self.own_key(z)
        return instance_norm(folded(x + F.scaled_dot_product_attention(key, key, x, scale=SCALE), z))

    def own_key(self, z):
        """(T, B, C, h, w)  ->  what self-attention compares, (B, T h w, K), of length 1"""
        return F.normalize(self.self_key(tokens(z)), dim=-1)

    def key(self, encoded):
        """The same of cross-attention; encoded: by `encode`"""
        return F.normalize(self.cross_key(tokens(encoded)), dim=-1)

    def read(self, query, key, value):
        """Cross-attention: query (B, h w, K), key (B, T h w, K), value (T, B, D, h, w)  ->  (B, D, h, w)"""
        found = F.scaled_dot_product_attention(query, key, tokens(value), scale=SCALE)
        return found.transpose(1, 2).unflatten(2, value.shape[-2:])
