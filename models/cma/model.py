"""The network of CMA: frames, masks and two sentences in; logits, boxes and masks of five queries out.

One episode at a time: T query frames, S support frames, four levels at strides 8, 16, 32 and 64.
"""
from dataclasses import dataclass

import torch
from torch import nn

from models.cma.affinity import Affinity
from models.cma.decoder import Decoder
from models.cma.deformable import Encoder
from models.cma.fusion import Fusion, Projection, amplify
from models.cma.mask_head import MaskHead
from models.cma.pixel_decoder import PixelDecoder
from models.cma.positions import padding_mask, pixel_code
from models.cma.text import Resizer, SentenceReader, TinyWords, place_words


@dataclass
class Frames:
    """Encoded frames of a clip, without any sentence.

    c2 (N, C2, H/4, W/4); levels: four of (N, C, h, w), projected; valid: rows and columns (H, W) that are image;
    padded: with padding; fine (N, C, H/4, W/4): of c2, what the pixel decoder has read, or None
    """
    c2: torch.Tensor
    levels: list
    valid: tuple
    padded: tuple
    fine: torch.Tensor | None = None

    def mask(self, size):
        """->  (h, w) bool, True = padding"""
        return padding_mask(self.valid, self.padded, size, self.c2.device)


@dataclass
class Output:
    """Of every decoder layer: logits (layers, T, Q), boxes (layers, T, Q, 4), masks (layers, T, Q, H/4, W/4) logits"""
    logits: torch.Tensor
    boxes: torch.Tensor
    masks: torch.Tensor


class CMA(nn.Module):
    """backbone: Pyramid; text_encoder: see models.cma.text; affinity: settings of Affinity; amplified: as released

    sentence: the queries start from the sentence, too, its start token
    """

    def __init__(self, backbone, text_encoder=None, *, text_dim=768, dim=256, heads=8, hidden=2048, layers=4, queries=5,
                 dropout=0.1, inner=128, affinity=None, amplified=True, broadcast_anchors=False, sentence=False):
        super().__init__()
        self.backbone, self.dim, self.amplified, self.sentence = backbone, dim, amplified, sentence
        self.reader = SentenceReader(text_encoder or TinyWords(text_dim))
        self.project = Projection(backbone.channels[1:], dim)
        self.resizer, self.fusion = Resizer(text_dim, dim, dropout), Fusion(dim, heads)
        self.affinity = Affinity(dim, inner, dropout=dropout, **affinity or {})
        self.encoder = Encoder(dim, heads, hidden, layers, dropout)
        self.decoder = Decoder(dim, heads, hidden, layers, dropout, queries=queries,
                               broadcast_anchors=broadcast_anchors)
        self.pixel_decoder = PixelDecoder(backbone.channels[0], dim, heads, hidden, dropout)
        self.mask_head = MaskHead(dim)

    @property
    def text_encoder(self):
        return self.reader.encoder

    def read_by(self, text_encoder, keep=True):
        """Another text encoder, see models.cma.text; keep: it says the same of a sentence each time"""
        self.reader = SentenceReader(text_encoder, keep)

    @property
    def device(self):
        return self.resizer.linear.weight.device

    def words(self, sentence):
        """A sentence  ->  Words"""
        return place_words(self.resizer(self.reader(sentence).to(self.resizer.linear.weight)))

    def encode(self, images, pad=False):
        """images (N, 3, H, W), RGB in [0, 1]  ->  Frames; pad: to multiples of 32, right and bottom

        What the backbone makes 0 is its mean, so that the padding is 0 after the normalisation.
        """
        valid = padded = tuple(images.shape[-2:])
        if pad and any(n % 32 for n in valid):
            padded = tuple(-(-n // 32) * 32 for n in valid)
            whole = self.backbone.normalise.mean.expand(len(images), 3, *padded).clone()
            whole[..., :valid[0], :valid[1]] = images
            images = whole
        with torch.no_grad():
            c2, *levels = self.backbone(images)
        return Frames(c2, self.project(levels), valid, padded)

    def fuse(self, levels, words, support=False):
        """Projected levels and words  ->  the same after MCA (Eq. 1), of a support amplified before"""
        if support and self.amplified:
            levels = [*map(amplify, levels[:-1]), levels[-1]]
        return [self.fusion(level, words) for level in levels]

    def read_support(self, levels, masks, sizes):
        """Fused levels of the support, masks (S, H, W), sizes (h, w) of the query's levels  ->  what Affinity reads"""
        return [self.affinity.read_support(level, masks, size) for level, size in zip(levels, sizes, strict=True)]

    def read_fine(self, query):
        """Frames  ->  their `fine`: for all sentences and supports"""
        code = pixel_code(query.mask(query.c2.shape[-2:]), self.dim)
        return self.pixel_decoder.stages[-1].read(query.c2, code)

    def ask(self, query, words):
        """Frames, Words  ->  what Affinity reads of them, level by level: for all supports"""
        return [self.affinity.read_itself(level) for level in self.fuse(query.levels, words)]

    def decode(self, query, support, words, asked=None):
        """Frames, what Affinity reads of the support, Words, what `ask` gave  ->  Decoded, pixel decoder's inputs"""
        levels = [self.affinity(*one) for one in zip(asked or self.ask(query, words), support, strict=True)]
        sizes = [tuple(level.shape[-2:]) for level in levels]
        masks = [query.mask(size) for size in sizes]
        codes = [pixel_code(mask, self.dim) for mask in masks]
        memory = self.encoder(levels, masks, codes)
        decoded = self.decoder(memory, masks, words.features[:, 0] if self.sentence else None)
        parts = memory.split([h * w for h, w in sizes], dim=1)
        below = [part.mT.unflatten(2, size) for part, size in zip(parts[:3], sizes, strict=False)]
        fine = pixel_code(query.mask(query.c2.shape[-2:]), self.dim)
        return decoded, ([*below[::-1], query.c2], [*codes[2::-1], fine], words)

    def centres(self, boxes, query):
        """Boxes (..., 4)  ->  their centres in pixels of the image, without gradient"""
        height, width = query.valid
        return boxes[..., :2].detach() * boxes.new_tensor([width, height])

    def forward(self, query, support, words):
        """As `decode`  ->  Output"""
        decoded, inputs = self.decode(query, support, words)
        features = self.pixel_decoder(*inputs)
        masks = [self.mask_head(features, states, self.centres(boxes, query))
                 for states, boxes in zip(decoded.states, decoded.boxes, strict=True)]
        return Output(decoded.logits, decoded.boxes, torch.stack(masks))

    def best(self, query, support, words, asked=None):
        """As `decode`  ->  the query with the largest mean score, its logits (T, H/4, W/4), all scores (T, Q)"""
        decoded, inputs = self.decode(query, support, words, asked)
        scores = decoded.logits[-1].sigmoid()
        chosen = scores.mean(0).argmax(0, keepdim=True)      # (1,): as a number it would wait for the GPU
        states, boxes = decoded.states[-1][:, chosen, :][:, 0], decoded.boxes[-1][:, chosen, :][:, 0]
        masks = self.mask_head.one_per_frame(self.pixel_decoder.decode(*inputs, query.fine), self.pixel_decoder.output,
                                             states, self.centres(boxes, query))
        return chosen[0], masks, scores
