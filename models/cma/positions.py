"""Where a position is: sine codes of pixels, words and boxes; and which positions are padding.

All frames of a clip have one size, so masks and codes are made for one frame. Codes are computed in float64: in rows
and columns of padding alone the angle is -3e6, of which float32 keeps no meaning.
"""
import math

import torch


def padding_mask(valid, padded, size, device):
    """Rows and columns (H, W) that are image, all of them, a level's size (h, w)  ->  (h, w) bool, True = padding

    The mask of the padded image, brought to the level's size by the nearest neighbour.
    """
    rows, columns = (torch.arange(n, device=device) * whole // n >= inside
                     for n, whole, inside in zip(size, padded, valid, strict=True))
    return rows[:, None] | columns[None, :]


def valid_ratio(mask):
    """(h, w) bool, True = padding  ->  (2,): share of the columns and of the rows, x before y, that are image"""
    return torch.stack([(~mask[0]).double().mean(), (~mask[:, 0]).double().mean()])


def sine_code(coordinates, dim):
    """Angles (...,)  ->  (..., dim): sine and cosine in turn, wavelengths up to 10000 times 2 pi"""
    step = torch.arange(dim // 2, device=coordinates.device, dtype=torch.float64)
    angles = coordinates.double()[..., None] / 10000 ** (2 * step / dim)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def pixel_code(mask, dim):
    """(h, w) bool, True = padding  ->  (dim, h, w) float64: rows, then columns"""
    codes = []
    for axis in (0, 1):
        count = (~mask).double().cumsum(axis)
        last = count[-1:] if axis == 0 else count[:, -1:]
        codes.append(sine_code((count - 0.5) / (last + 1e-6) * 2 * math.pi, dim // 2))
    return torch.cat(codes, dim=-1).permute(2, 0, 1)


def word_code(count, dim, device):
    """Number of words  ->  (count, dim) float64"""
    place = torch.arange(1, count + 1, device=device, dtype=torch.float64)
    return sine_code(place / (count + 1e-6) * 2 * math.pi, dim)


def box_code(boxes, dim):
    """Boxes (..., 4): cx, cy, w, h in [0, 1]  ->  (..., 4 dim) in their dtype: y, x, w, h"""
    codes = [sine_code(boxes[..., i] * 2 * math.pi, dim) for i in (1, 0, 2, 3)]
    return torch.cat(codes, dim=-1).to(boxes.dtype)


def inverse_sigmoid(x, eps=1e-5):
    """Finite at 0 and 1"""
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
