"""The network of DAN: Features of supports and of a clip in, logits out (Sections 3.2 to 3.4 of its paper).

Shapes: B episodes, S supports, T frames of the clip, h x w positions at 1/8 of the input H x W.
"""
import torch
import torch.nn.functional as F
from torch import nn


class DAN(nn.Module):
    """Many-to-many attention by way of one agent: the clip's middle frame reads the supports, all frames read it.

    encoder: Encoder; key_dim, value_dim: channels of queries and keys, and of values; dim: of the decoder
    learned: stages 3 that were adapted to supports (online.py), by the supports' content
    """

    def __init__(self, encoder, key_dim=128, value_dim=512, dim=256):
        super().__init__()
        c2, c3, c4 = encoder.channels
        self.encoder, self.learned = encoder, {}
        self.support_key, self.support_value = conv3x3(c4, key_dim), conv3x3(c4, value_dim)
        self.query_query, self.query_key = conv3x3(c4, key_dim), conv3x3(c4, key_dim)
        for conv in (self.support_key, self.query_key):
            # The same number for all keys leaves a softmax alone: Adam would follow rounding noise.
            nn.init.zeros_(conv.bias).requires_grad_(False)
        self.reduce = nn.Conv2d(c4, value_dim, 1)
        self.decoder = Decoder((2 * value_dim, c3, c2), dim)

    @property
    def device(self):
        return self.reduce.weight.device

    def encode(self, images):
        """images (B, T, 3, H, W)  ->  Features"""
        return self.encoder(images)

    def read_supports(self, support, masks):
        """Features of the supports, masks (B, S, H, W) bool  ->  their keys (B, S h w, d) and values (B, S h w, v)"""
        features = support.c4
        small = F.interpolate(masks.to(features.dtype), features.shape[-2:], mode="bilinear", align_corners=True)
        marked = features * small[:, :, None]
        return [tokens(conv, marked).flatten(1, 2) for conv in (self.support_key, self.support_value)]

    def forward(self, query, supports, size):
        """Features of a clip, keys and values of its supports, (H, W)  ->  logits (B, T, H, W), > 0 is object"""
        features = query.c4
        (batch, frames), place = features.shape[:2], features.shape[-2:]
        middle = frames // 2
        queries = tokens(self.query_query, features)                                   # (B, T, h w, d)
        agent_keys = tokens(self.query_key, features[:, middle:middle + 1])[:, 0]      # (B, h w, d)
        agent_values = F.scaled_dot_product_attention(queries[:, middle], *supports)   # (B, h w, v)
        out = F.scaled_dot_product_attention(queries.flatten(1, 2), agent_keys, agent_values)
        out = out.unflatten(1, (frames, -1)).mT.unflatten(3, place).flatten(0, 1)      # (B T, v, h, w)
        fused = torch.cat([out, self.reduce(features.flatten(0, 1))], dim=1)
        logits = self.decoder(fused, query.c3.flatten(0, 1), query.c2.flatten(0, 1))
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=True)
        return logits[:, 0].unflatten(0, (batch, frames))


def tokens(conv, features):
    """(B, T, C, h, w)  ->  conv's output, one row per position: (B, T, h w, channels)"""
    return conv(features.flatten(0, 1)).flatten(2).mT.unflatten(0, features.shape[:2])


def conv3x3(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Decoder(nn.Module):
    """Attended features and two encoder levels, fine ones last  ->  logits at the last one's size, (N, 1, h, w)"""

    def __init__(self, channels, dim):
        super().__init__()
        fused, *levels = channels
        self.first = nn.Sequential(conv3x3(fused, dim), ResBlock(dim))
        self.skips = nn.ModuleList(Skip(level, dim) for level in levels)
        self.head = conv3x3(dim, 1)

    def forward(self, fused, *levels):
        x = self.first(fused)
        for skip, level in zip(self.skips, levels, strict=True):
            x = skip(level, x)
        return self.head(x.relu())


class Skip(nn.Module):
    """An encoder level refined, and what is decoded so far brought to its size and added."""

    def __init__(self, inputs, dim):
        super().__init__()
        self.level = nn.Sequential(conv3x3(inputs, dim), ResBlock(dim))
        self.fuse = ResBlock(dim)

    def forward(self, level, x):
        x = F.interpolate(x, level.shape[-2:], mode="bilinear", align_corners=True)
        return self.fuse(self.level(level) + x)


class ResBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv1, self.conv2 = conv3x3(dim, dim), conv3x3(dim, dim)

    def forward(self, x):
        return x + self.conv2(self.conv1(x.relu()).relu())
