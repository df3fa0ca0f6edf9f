"""Pixel decoder: a feature pyramid whose stages read themselves and the words. Memory and c2 in, mask features out."""
import torch.nn.functional as F
from torch import nn

from models.cma.deformable import FeedForward, initialise_xavier
from models.cma.text import WordAttention

REDUCTION = (1, 2, 4, 8)         # of the self-attention at strides 32, 16, 8, 4: it always sees every 32nd pixel


class LanguageBlock(nn.Module):
    """What read_itself gave (T, C, h, w), its position code (C, h, w), words  ->  (T, C, h, w)

    All positions of all frames read each other at 1 / reduction of the size, then the words. Padding needs no mask
    there: it is narrower than the 32 pixels between two of these positions.
    """

    def __init__(self, dim, heads, hidden, dropout, reduction):
        super().__init__()
        self.reduction, self.dropout = reduction, nn.Dropout(dropout)
        self.self_attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.word_attention = WordAttention(dim, heads, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, hidden, dropout)

    def forward(self, x, code, words):
        code = code.to(x.dtype).flatten(1).mT
        tokens = x.flatten(2).mT                                                         # (T, h w, C)
        tokens = self.norm2(tokens + self.dropout(self.word_attention(tokens + code, words)))
        return self.norm3(tokens + self.ffn(tokens)).mT.view_as(x)

    def read_itself(self, x, code):
        """x (T, C, h, w)  ->  the same after the self-attention, which no word changes"""
        size, tokens = x.shape[-2:], x.flatten(2).mT
        found = self.norm1(tokens + self.dropout(self.attend(tokens, code.to(x.dtype).flatten(1).mT, size)))
        return found.mT.unflatten(2, size)

    def attend(self, tokens, code, size):
        small = [max(1, n // self.reduction) for n in size]

        def reduce(x):
            return F.interpolate(x.mT.unflatten(2, size), small).flatten(2).mT.flatten(0, 1)[None]

        q, v = reduce(tokens + code), reduce(tokens)
        found = self.self_attention(q, q, v, need_weights=False)[0]
        found = found.unflatten(1, (len(tokens), -1))[0].mT.unflatten(2, small)
        return F.interpolate(found, size, mode="bilinear").flatten(2).mT


class Stage(nn.Module):
    """What `read` gave of one level, and what is decoded so far  ->  the next of it, (T, C, h, w)"""

    def __init__(self, inputs, dim, heads, hidden, dropout, reduction):
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(inputs, dim, 1, bias=False), nn.GroupNorm(8, dim))
        self.block = LanguageBlock(dim, heads, hidden, dropout, reduction)
        self.out = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.GroupNorm(8, dim), nn.ReLU())

    def read(self, level, code):
        """->  (T, C, h, w), what of the level needs neither words nor other levels"""
        return self.block.read_itself(self.reduce(level), code)

    def forward(self, read, code, words, above=None):
        x = self.block(read, code, words)
        return self.out(x if above is None else x + F.interpolate(above, x.shape[-2:]))


class PixelDecoder(nn.Module):
    """Levels at strides 32, 16, 8 and 4 with their position codes, words  ->  mask features (T, C, H/4, W/4)"""

    def __init__(self, fine, dim, heads, hidden, dropout):
        super().__init__()
        self.stages = nn.ModuleList(Stage(fine if r == REDUCTION[-1] else dim, dim, heads, hidden, dropout, r)
                                    for r in REDUCTION)
        self.output = nn.Conv2d(dim, dim, 3, padding=1)
        for stage in self.stages:
            initialise_xavier(stage.block)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
        nn.init.zeros_(self.output.bias)

    def decode(self, levels, codes, words, fine=None):
        """fine: what the last stage has read  ->  all that comes before the last convolution, (T, C, H/4, W/4)"""
        above = None
        for stage, level, code in zip(self.stages, levels, codes, strict=True):
            known = fine if stage is self.stages[-1] else None
            above = stage(stage.read(level, code) if known is None else known, code, words, above)
        return above

    def forward(self, levels, codes, words):
        return self.output(self.decode(levels, codes, words))
