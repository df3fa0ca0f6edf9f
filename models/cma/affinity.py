"""CMA, the affinity of query and support (right of Figure 3), one level at a time with the same weights.

Shapes: T query frames, S support frames, d inner channels, h x w positions of the level.
"""
import torch
import torch.nn.functional as F
from torch import nn


class Affinity(nn.Module):
    """Query features read themselves (self-affinity, Eq. 2) and then the masked support (cross-affinity, Eq. 3).

    variant: cross, or the ablations self (the support is set beside instead of read) and base (it is added)
    support_frames, query_frames: middle, whose positions alone are read, or all; residual: with residuals and
    LayerNorm, as released
    """

    def __init__(self, dim, inner, *, variant="cross", support_frames="middle", query_frames="middle", residual=True,
                 dropout=0.0):
        super().__init__()
        self.variant, self.support_frames, self.query_frames = variant, support_frames, query_frames
        self.residual, self.dropout = residual, nn.Dropout(dropout)

        def conv():
            return nn.Conv2d(dim, inner, 3, padding=1)
        if variant != "base":
            self.query_query, self.query_key, self.query_value = conv(), conv(), conv()
            self.reduce = nn.Conv2d(dim, dim - inner, 1)
            self.norm = nn.LayerNorm(inner)
        if variant == "cross":
            self.support_key, self.support_value = conv(), conv()

    def chosen(self, count):
        """Number of support frames  ->  those that reach an output, as a slice"""
        middle = self.variant == "cross" and self.support_frames == "middle"
        return slice(count // 2, count // 2 + 1) if middle else slice(None)

    @staticmethod
    def mark(features, masks, size):
        """Support features (S, C, hs, ws), masks (S, Hs, Ws)  ->  marked features (S, C, h, w) at the query's size"""
        features, masks = (F.interpolate(x.to(features.dtype), size, mode="bilinear", align_corners=True)
                           for x in (features, masks[:, None]))
        return features * masks

    def read_support(self, features, masks, size):
        """->  keys and values (1, S h w, d); of the ablations the marked features themselves"""
        marked = self.mark(features, masks, size)
        if self.variant != "cross":
            return (marked,)
        return tokens(self.support_key(marked)), tokens(self.support_value(marked))

    def read_itself(self, query):
        """Fused query features (T, C, h, w)  ->  those after the self-affinity (T, d, h, w), and what stands beside the
        cross-affinity or None. No support changes them."""
        if self.variant == "base":
            return query, None
        middle = slice(len(query) // 2, len(query) // 2 + 1) if self.query_frames == "middle" else slice(None)
        agent = query[middle]
        keys, values = tokens(self.query_key(agent)), tokens(self.query_value(agent))
        beside = self.reduce(query) if self.variant == "cross" else None
        return self.attend(self.query_query(query), keys, values), beside

    def forward(self, query, support):
        """What read_itself gave of the query and read_support of the support  ->  (T, C, h, w)"""
        features, beside = query
        if self.variant == "cross":
            return torch.cat([self.attend(features, *support), beside], dim=1)
        (marked,) = support               # query frame t beside support frame t; in longer clips these come in turn
        marked = marked[torch.arange(len(features), device=features.device) % len(marked)]
        return features + marked if self.variant == "base" else torch.cat([features, self.reduce(marked)], dim=1)

    def attend(self, x, k, v):
        """LN(q + softmax(q k^T / sqrt(d)) v), x (T, d, h, w): one head, one LayerNorm for both affinities"""
        q = tokens(x)
        found = self.dropout(F.scaled_dot_product_attention(q, k, v))
        found = self.norm(q + found) if self.residual else found
        return found.unflatten(1, (len(x), -1))[0].mT.unflatten(2, x.shape[-2:])


def tokens(x):
    """(N, d, h, w)  ->  one row per position: (1, N h w, d)"""
    return x.flatten(2).mT.flatten(0, 1)[None]
