"""DAB decoder: five queries per frame, each with an anchor box that every layer moves.

Shapes: T frames, Q queries, L = 4 levels of the memory.
"""
import math
from dataclasses import dataclass

import torch
from torch import nn

from models.cma.deformable import DeformableAttention, FeedForward, initialise_xavier
from models.cma.positions import box_code, inverse_sigmoid, valid_ratio


class MLP(nn.Sequential):
    """Linear layers with ReLU between: MLP(256, 256, 4) has two"""

    def __init__(self, *sizes):
        layers = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
        super().__init__(*[part for layer in layers[:-1] for part in (layer, nn.ReLU())], layers[-1])


class DecoderLayer(nn.Module):
    """The queries of a frame read each other, then the memory around their boxes."""

    def __init__(self, dim, heads, hidden, dropout):
        super().__init__()
        self.self_attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.attention, self.dropout = DeformableAttention(dim, heads), nn.Dropout(dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, hidden, dropout)

    def forward(self, x, position, reference, memory, sizes, mask):
        """Queries and their positions (T, Q, C), reference (T, Q, L, 4), memory (T, N, C)  ->  (T, Q, C)"""
        q = x + position
        x = self.norm2(x + self.dropout(self.self_attention(q, q, x, need_weights=False)[0]))
        x = self.norm1(x + self.dropout(self.attention(x + position, reference, memory, sizes, mask)))
        return self.norm3(x + self.ffn(x))


@dataclass
class Decoded:
    """Of every layer: states (layers, T, Q, C); boxes (layers, T, Q, 4), cx, cy, w, h in [0, 1] of the image; logits
    (layers, T, Q), of the object being there"""
    states: torch.Tensor
    boxes: torch.Tensor
    logits: torch.Tensor


class Decoder(nn.Module):
    """Memory (T, N, C) and the masks (h, w) of its levels  ->  Decoded

    broadcast_anchors: released, the first layer takes anchor number l for all four coordinates of level l
    """

    def __init__(self, dim, heads, hidden, layers, dropout, *, queries=5, broadcast_anchors=False):
        super().__init__()
        self.broadcast_anchors = broadcast_anchors
        self.content_embed, self.anchor_embed = (nn.Parameter(torch.randn(queries, n)) for n in (dim, 4))
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, hidden, dropout) for _ in range(layers))
        self.position, self.scale = MLP(2 * dim, dim, dim), MLP(dim, dim, dim)
        initialise_xavier(self)
        self.boxes = nn.ModuleList(MLP(dim, dim, dim, 4) for _ in range(layers))
        self.classes = nn.ModuleList(nn.Linear(dim, 1) for _ in range(layers))
        for number, (box, score) in enumerate(zip(self.boxes, self.classes, strict=True)):
            nn.init.zeros_(box[-1].weight)
            nn.init.zeros_(box[-1].bias)
            nn.init.constant_(box[-1].bias[2:], 0.0 if number else -2.0)
            nn.init.constant_(score.bias, -math.log(99))

    def reference(self, number, anchors, ratios):
        """Anchors (T, Q, 4) in the image, ratios (L, 2)  ->  (T, Q, L, 4) in the padded levels"""
        boxes = anchors[:, :, None]
        if number == 0 and self.broadcast_anchors:
            boxes = anchors[..., None]              # see docs/cma.md: works only because 4 levels meet 4 coordinates
        return boxes * ratios.repeat(1, 2)

    def forward(self, memory, masks, sentence=None):
        """sentence (1, C): is added to the queries' content where the config wishes it"""
        frames, sizes = len(memory), [tuple(mask.shape) for mask in masks]
        ratios = torch.stack([valid_ratio(mask) for mask in masks]).to(memory.dtype)
        mask = torch.cat([mask.flatten() for mask in masks])
        content = self.content_embed if sentence is None else self.content_embed + sentence
        x, anchors = (one.expand(frames, -1, -1) for one in (content, self.anchor_embed.sigmoid()))
        states, boxes, logits = [], [], []
        for number, layer in enumerate(self.layers):
            reference = self.reference(number, anchors, ratios)
            position = self.position(box_code(reference[:, :, 0], self.content_embed.shape[1] // 2))
            position = position * self.scale(x) if number else position
            x = layer(x, position, reference, memory, sizes, mask)
            refined = (self.boxes[number](x) + inverse_sigmoid(anchors)).sigmoid()
            states, boxes = [*states, x], [*boxes, refined]
            logits.append(self.classes[number](x)[..., 0])
            anchors = refined.detach()
        return Decoded(torch.stack(states), torch.stack(boxes), torch.stack(logits))
