"""Dynamic mask head: each query's state becomes three small convolutions that look for its object in its frame."""
import torch
import torch.nn.functional as F
from torch import nn

from models.cma.decoder import MLP

HIDDEN = 8                 # channels of the dynamic convolutions


class MaskHead(nn.Module):
    """States (..., C)  ->  the numbers of three 1x1 convolutions (C + 2) -> 8 -> 8 -> 1"""

    def __init__(self, dim):
        super().__init__()
        self.shapes = [(HIDDEN, dim + 2), (HIDDEN, HIDDEN), (1, HIDDEN), (HIDDEN,), (HIDDEN,), (1,)]
        self.controller = MLP(dim, dim, dim, sum(torch.Size(shape).numel() for shape in self.shapes))
        for layer in [layer for layer in self.controller.children() if isinstance(layer, nn.Linear)]:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def kernels(self, states):
        """->  w1, w2, w3, b1, b2, b3, each (..., *shape)"""
        numbers = self.controller(states)
        parts = numbers.split([torch.Size(shape).numel() for shape in self.shapes], dim=-1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def forward(self, features, states, centres):
        """Mask features (T, C, h, w), states (T, Q, C), centres (T, Q, 2) x, y in pixels  ->  logits (T, Q, h, w)"""
        w1, w2, w3, b1, b2, b3 = self.kernels(states)
        x = torch.einsum("tqoc,tchw->tqohw", w1[..., :-2], features)
        return self.finish(x + b1[..., None, None], w1[..., -2:], centres, (w2, b2), (w3, b3))

    def one_per_frame(self, decoded, last, states, centres):
        """The same for one query per frame, from what comes before the last convolution of the pixel decoder.

        Two linear maps after one another are one: decoded (T, C, h, w), last: nn.Conv2d; states (T, C), centres (T, 2)
        ->  (T, h, w)
        """
        w1, w2, w3, b1, b2, b3 = self.kernels(states)
        kernel = torch.einsum("toc,cikl->toikl", w1[..., :-2], last.weight)
        bias = b1 + w1[..., :-2] @ last.bias
        x = F.conv2d(decoded.flatten(0, 1)[None], kernel.flatten(0, 1), bias.flatten(), padding=1, groups=len(states))
        x = x[0].unflatten(0, (-1, 1, HIDDEN))
        rest = [[one[:, None] for one in pair] for pair in ((w2, b2), (w3, b3))]
        return self.finish(x, w1[:, None, :, -2:], centres[:, None], *rest)[:, 0]

    @staticmethod
    def finish(x, place, centres, *layers):
        """First convolution's output without the two channels of relative places (T, Q, 8, h, w)  ->  logits

        place (T, Q, 8, 2): its weights for these channels: centre minus pixel, in pixels of the image
        """
        h, w = x.shape[-2:]
        pixels = [4 * torch.arange(n, device=x.device, dtype=x.dtype) + 2 for n in (w, h)]
        across, down = (centres[..., i, None] - pixels[i] for i in (0, 1))                # (T, Q, w), (T, Q, h)
        x = x + place[..., 0, None, None] * across[:, :, None, None]
        x = x + place[..., 1, None, None] * down[:, :, None, :, None]
        for weight, bias in layers:
            x = torch.einsum("tqoi,tqihw->tqohw", weight, x.relu()) + bias[..., None, None]
        return x[:, :, 0]
