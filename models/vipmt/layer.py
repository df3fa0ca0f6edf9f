"""One VIPMT iteration, Figure 2 from top to bottom: G_{l-1} and F^c_{l-1} in, masks, G_l and F^c_l out.

Prototypes are (B, C), one per episode, or (B, T, C), one per frame; features (B, T, C, h, w).
"""
from dataclasses import dataclass

import torch
from torch import nn

from models.vipmt.layers import FFN, Fuse, ReducedSelfAttention, ResidualConvs, sine_position


@dataclass
class LayerOutput:
    """What one iteration computes; memory and frame entries are None where the model has none.

    prototype G_l (B, C), query F^c_l (B, T, C, h, w), mask O^f_l (B, T, h, w) bool;
    support_proto G^s, memory_proto G^m, clip_proto G^c, clip_inter: embedding of G^ci, (B, C) each;
    frame_inter: embedding of G^fi (B, T, C);
    clip_logits, frame_logits (B, T, h, w), support_logits (B, K + M, h, w).
    """
    prototype: torch.Tensor
    query: torch.Tensor
    mask: torch.Tensor
    support_proto: torch.Tensor
    memory_proto: torch.Tensor | None
    clip_proto: torch.Tensor
    clip_inter: torch.Tensor
    frame_inter: torch.Tensor | None
    clip_logits: torch.Tensor
    frame_logits: torch.Tensor | None
    support_logits: torch.Tensor


def attention_scores(q, features, mask):
    """The scores of MAtt, Eq. 4: q (B, C) against every position; where the mask is False, -10000 is added.

    features (B, T, C, h, w), mask (B, T, h, w) bool  ->  (B, T h w)

    An empty mask reads everywhere: the bias is finite, since -inf would give NaN.
    """
    scores = torch.einsum("bc,btchw->bthw", q, features) * q.shape[-1] ** -0.5
    return (scores + torch.where(mask, 0.0, -1e4).to(scores.dtype)).flatten(1)


def masked_attention(q, features, mask, dropout=None):
    """MAtt, Eq. 4, before f_V: the mean of the features, weighted by the masked softmax  ->  (B, C)

    Shapes as in attention_scores.
    """
    weights = attention_scores(q, features, mask).softmax(dim=-1)
    return weighted_sum(dropout(weights) if dropout else weights, features)


def weighted_sum(weights, features):
    """weights (B, T h w), features (B, T, C, h, w)  ->  (B, C)"""
    b, t, c, h, w = features.shape
    return torch.einsum("btn,btcn->bc", weights.view(b, t, h * w), features.flatten(3))


class PrototypeAttention(nn.Module):
    """MAtt, Eq. 4, with its linear maps: a prototype reads features where a mask allows.

    A prototype is a single query, so neither keys nor values are formed: (Wq p).(Wk x) = (Wk' Wq p).x, and
    the weighted sum of Wv x is Wv of the weighted sum. That is exact and N times cheaper.
    """

    def __init__(self, dim, dropout):
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.proj = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def query(self, prototype):
        return self.to_q(prototype) @ self.to_k.weight

    def message(self, read):
        return self.dropout(self.proj(self.to_v(read)))

    def forward(self, prototype, features, mask):
        """prototype (B, C), features (B, T, C, h, w), mask (B, T, h, w) bool  ->  (B, C)"""
        return self.message(masked_attention(self.query(prototype), features, mask, self.dropout))

    def joint(self, prototype, sources):
        """As released: one softmax over all sources, each then summed on its own  ->  one (B, C) per source

        sources: list of (features, mask).
        """
        q = self.query(prototype)
        scores = [attention_scores(q, features, mask) for features, mask in sources]
        weights = self.dropout(torch.cat(scores, dim=-1).softmax(dim=-1)).split([s.shape[-1] for s in scores], dim=-1)
        return [self.message(weighted_sum(w, features)) for w, (features, _) in zip(weights, sources, strict=True)]


class Refine(nn.Module):
    """The MLP of Eqs. 1, 9 and 10, as released per message: norm(message + prototype), FFN, norm; (..., C)"""

    def __init__(self, dim, ffn_dim, dropout):
        super().__init__()
        self.norm_in, self.ffn, self.norm_out = nn.LayerNorm(dim), FFN(dim, ffn_dim, dropout), nn.LayerNorm(dim)

    def forward(self, message, prototype):
        return self.norm_out(self.ffn(self.norm_in(message + prototype)))


class MaskGeneration(nn.Module):
    """MG, Eq. 6: the prototype becomes a filter, and the filter scores every pixel.

    prototype (..., C)  ->  filter (..., C). The release hands the filter on as the prototype; so do we.
    """

    def __init__(self, dim, dropout):
        super().__init__()
        self.norm, self.embed = nn.LayerNorm(dim), FFN(dim, dim, dropout)

    def forward(self, prototype):
        return self.embed(self.norm(prototype))


def mask_logits(filters, features):
    """The product in Eq. 6, before the sigmoid

    filters (B, C) or (B, T, C), features (B, T, C, h, w)  ->  (B, T, h, w)
    """
    frame = "t" if filters.dim() == 3 else ""
    return torch.einsum(f"b{frame}c,btchw->bthw", filters, features)


class QueryActivation(nn.Module):
    """QA, Eqs. 7 and 12: every frame's features are updated with that frame's prototype.

    query (B, T, C, h, w), prototypes (B, T, C)  ->  (B, T, C, h, w). The self-attention is the release's.
    """

    def __init__(self, dim, heads, ffn_dim, dropout):
        super().__init__()
        self.fuse, self.convs = Fuse(dim, dim), ResidualConvs(dim)
        self.attention = ReducedSelfAttention(dim, heads, dropout)
        self.norm_attention, self.norm_out = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = FFN(dim, ffn_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query, prototypes, position):
        x = self.convs(self.fuse(query.flatten(0, 1), prototypes.flatten(0, 1)))
        x = x.permute(0, 2, 3, 1)                                                     # (B T, h, w, C)
        x = self.norm_attention(x + self.dropout(self.attention(x + position)))
        x = self.norm_out(self.ffn(x))
        return x.permute(0, 3, 1, 2).unflatten(0, query.shape[:2])


class VIPMTLayer(nn.Module):
    """One iteration of Figure 2. The two mask heads are shared by all layers and come with the call."""

    def __init__(self, *, dim, heads, ffn_dim, dropout, frame_prototype=True, communication="bidirectional",
                 memory_attention="separate"):
        super().__init__()
        self.frame_prototype, self.one_way = frame_prototype, communication == "one_way"
        self.joint = memory_attention == "joint"
        self.support_attention = PrototypeAttention(dim, dropout)       # shared by support and memory (Section 5.1)
        self.support_refine = Refine(dim, ffn_dim, dropout)
        self.clip_attention = PrototypeAttention(dim, dropout)
        self.clip_refine = Refine(dim, ffn_dim, dropout)
        if frame_prototype:
            self.frame_attention = PrototypeAttention(dim, dropout)
            self.frame_refine = Refine(dim, ffn_dim, dropout)
        self.query_activation = QueryActivation(dim, heads, ffn_dim, dropout)

    def forward(self, prototype, query, mask, support, memory, heads, position):
        """prototype (B, C), query (B, T, C, h, w), mask (B, T, h, w); support, memory: ReferenceFrames, or None

        heads: the two MaskGeneration; position: (h, w, C)  ->  LayerOutput
        """
        support_proto, memory_proto = self.read_guidance(prototype, support, memory)                 # Eqs. 2, 13
        clip_proto = self.clip_refine(self.clip_attention(prototype, query, mask), prototype)        # Eq. 8
        clip_inter = clip_proto + support_proto + prototype                                          # Eqs. 9, 14
        if memory_proto is not None:
            clip_inter = clip_inter + memory_proto
        clip_inter = heads.clip(clip_inter)
        clip_logits = mask_logits(clip_inter, query)
        references = [support] if memory is None else [support, memory]
        support_logits = torch.cat([mask_logits(clip_inter, g.features) for g in references], dim=1)

        mask, frame_inter, frame_logits = clip_logits.detach() >= 0, None, None
        prototypes = clip_inter[:, None].expand(-1, query.shape[1], -1)
        if self.frame_prototype:
            prototypes = frame_inter = heads.frame(self.read_frames(clip_inter, query, mask))        # Eq. 10
            frame_logits = mask_logits(frame_inter, query)                                           # Eq. 12
            mask = frame_logits.detach() >= 0
        return LayerOutput(
            prototype=clip_inter if self.one_way else prototypes.mean(dim=1),                        # Eq. 11
            query=self.query_activation(query, prototypes, position), mask=mask,                     # Eq. 12
            support_proto=support_proto, memory_proto=memory_proto, clip_proto=clip_proto, clip_inter=clip_inter,
            frame_inter=frame_inter, clip_logits=clip_logits, frame_logits=frame_logits, support_logits=support_logits)

    def read_guidance(self, prototype, support, memory):
        """Eqs. 2 and 13: the support and the memory prototype, (B, C) each; the latter None without memory."""
        references = [support] if memory is None else [support, memory]
        sources = [(g.features, g.attention_masks) for g in references]
        if self.joint:
            messages = self.support_attention.joint(prototype, sources)
        else:
            messages = [self.support_attention(prototype, *source) for source in sources]
        protos = [self.support_refine(message, prototype) for message in messages]
        return protos if memory is not None else (*protos, None)

    def read_frames(self, clip_inter, query, mask):
        """Eq. 10: G^ci (B, C) becomes one prototype per frame  ->  (B, T, C)"""
        b, t = query.shape[:2]
        start = clip_inter[:, None].expand(-1, t, -1).flatten(0, 1)
        read = self.frame_attention(start, query.flatten(0, 1)[:, None], mask.flatten(0, 1)[:, None])
        return (self.frame_refine(read, start) + start).view(b, t, -1)


def positions(query, level_embed):
    """Sine positions of the query's feature map plus the learned level embedding  ->  (h, w, C)"""
    c, h, w = query.shape[-3:]
    return sine_position(h, w, c, level_embed) + level_embed
