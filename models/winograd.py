"""Winograd's F(4x4, 3x3) for 3x3 convolutions of stride 1 on CPUs: 36 products instead of 144 for 4 x 4 outputs.

Only speed hangs on this file (`speed.winograd`): nn.Conv2d computes the same to rounding. After Lavin and Gray, Fast
Algorithms for Convolutional Neural Networks (arXiv 1509.09308), with the interpolation points 0, 1, -1, 2, -2.
"""
import torch
import torch.nn.functional as F
from torch import nn

LEAST_CHANNELS = 256       # in and out; with 128 the transforms cost what the products save (benchmarks/speed.md)
LEAST_TILES = 64           # of all frames; with fewer the filters' transform does
MOST_PADDING = 1.5         # outputs of whole tiles to those that are asked for
CHUNK = 2 ** 22            # numbers of the transformed tiles held at a time

# One-dimensional transforms of input (6 x 6), filter (6 x 3) and output (4 x 6); in two dimensions both sides are
# transformed, which for a flattened tile is one product with the Kronecker square.
INPUT = torch.tensor([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                      [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]], dtype=torch.float64)
FILTER = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
                      dtype=torch.float64) / 24
OUTPUT = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
                      dtype=torch.float64)
ON_INPUT, ON_FILTER, ON_OUTPUT = (torch.kron(x, x) for x in (INPUT, FILTER, OUTPUT))


def winograd(x, weight, bias=None, dilation=1):
    """A 3x3 convolution of stride 1 that is padded by its dilation: x (N, C, h, w), weight (K, C, 3, 3), bias (K,)

    ->  (N, K, h, w), channels last. A dilated convolution is an ordinary one on every dilation-th row and column.
    The filters are transformed in every call, which is 5 % of it: kept, they would take four times the weights.
    """
    (n, c, h, w), outputs, d = x.shape, len(weight), dilation
    on_input, on_filter, on_output = (m.to(x) for m in (ON_INPUT, ON_FILTER, ON_OUTPUT))
    filters = (on_filter @ weight.flatten(2).transpose(1, 2)).permute(1, 2, 0)                      # (36, C, K)
    rows, columns = (-(-size // (4 * d)) for size in (h, w))
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, d, (4 * columns + 1) * d - w, d, (4 * rows + 1) * d - h))
    out = x.new_empty(n, rows, 4, d, columns, 4, d, outputs)
    frames = max(1, CHUNK // (36 * rows * columns * d * d * max(c, outputs)))
    for part, place in zip(padded.split(frames), out.split(frames), strict=True):
        of_frame, of_row, of_column, of_channel = part.stride()
        tiles = part.as_strided(                                  # 6 x 6 with two rows and columns of the next tile
            (6, 6, len(part), rows, d, columns, d, c),
            (d * of_row, d * of_column, of_frame, 4 * d * of_row, of_row, 4 * d * of_column, of_column, of_channel),
            part.storage_offset())
        products = (on_input @ tiles.reshape(36, -1)).view(36, -1, c) @ filters                     # (36, tiles, K)
        found = (on_output @ products.view(36, -1)).view(4, 4, len(part), rows, d, columns, d, outputs)
        place.copy_(found.permute(2, 3, 0, 4, 5, 1, 6, 7))
    out = out.view(n, rows * 4 * d, columns * 4 * d, outputs)[:, :h, :w]
    return (out.contiguous() if bias is None else out + bias).permute(0, 3, 1, 2)


class WinogradConv2d(nn.Conv2d):
    """An nn.Conv2d that computes so where it is faster, in float32 on a CPU without gradients."""

    def _conv_forward(self, x, weight, bias):
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not self.suits(x):
            return super()._conv_forward(x, weight, bias)
        return winograd(x, weight, bias, self.dilation[0])

    def suits(self, x):
        """By device, precision and shape alone, so that the same input always takes the same way."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu") or x.dim() != 4:
            return False
        d, (h, w) = self.dilation[0], x.shape[-2:]
        tiles = -(-h // (4 * d)) * -(-w // (4 * d)) * d * d
        return len(x) * tiles >= LEAST_TILES and 16 * tiles <= MOST_PADDING * h * w


def use_winograd(model, choice):
    """`speed.winograd`: auto makes WinogradConv2d of the convolutions that may be, off leaves the model as it is."""
    for conv in model.modules() if choice == "auto" else ():
        if (type(conv) is nn.Conv2d and conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.groups == 1
                and conv.padding == conv.dilation == conv.dilation[:1] * 2 and conv.padding_mode == "zeros"
                and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS):
            conv.__class__ = WinogradConv2d
