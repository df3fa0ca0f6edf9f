"""Where an object is searched, and back: windows, crops, paste-back (Section 3.5; the details are the release's).

Coordinates are (row, column), pixel centres at integers. Rounding is half to even, truncation toward zero.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

WHOLE = 1e-3        # added before truncation where sizes are whole up to their last bit
OUTSIDE = -100.0    # logit of what the window does not show


@dataclass(frozen=True)
class Window:
    """rows x columns samples of an image from (top, left) on, `step` pixels apart

    top, left and size count steps; offset: of the first sample that the image has, in pixels. It may leave the image.
    """
    top: int
    left: int
    size: tuple
    step: int = 1
    offset: tuple = (0, 0)

    def pixels(self, keep_offset=False):
        """(top, left, bottom, right) in pixels of the image; the release forgets the offset."""
        row, column = self.offset if keep_offset else (0, 0)
        return (self.top * self.step + row, self.left * self.step + column,
                (self.top + self.size[0]) * self.step + row, (self.left + self.size[1]) * self.step + column)


def search_window(centre, size, out, image, inside=True):
    """The window around a centre for an output of `out` pixels, in an image of (H, W)  ->  Window

    inside: not larger than the image in both directions, and moved into it as far as it fits.
    """
    if inside:
        factor = max(1.0, min(s / z for s, z in zip(size, image, strict=True)))
        size = [int(s / factor + WHOLE) for s in size]
    step = max(1, int(min(s / o for s, o in zip(size, out, strict=True)) - 0.1))
    starts, counts, offsets = [], [], []
    for place, s, z in zip(centre, size, image, strict=True):
        offset = int(place) % step
        n, place = max(2, round(s / step)), (int(place) - offset) // step
        start, seen = place - (n - 1) // 2, -(-(z - offset) // step)
        starts.append(moved_inside(start, n, seen) if inside else start)
        counts.append(n)
        offsets.append(offset)
    return Window(*starts, tuple(counts), step, tuple(offsets))


def moved_inside(start, length, limit):
    """Start of an interval that is moved into [0, limit), or centred on it where it is longer."""
    start += max(0, -start) - max(0, start + length - limit)
    excess = (max(0, -start) + max(0, start + length - limit)) // 2
    return -excess if excess > 0 else start


def crop_image(image, window, out):
    """image (C, H, W)  ->  (C, *out), bilinear; beyond its border the image repeats its last pixels."""
    for axis, (start, n) in enumerate(zip((window.top, window.left), window.size, strict=True), 1):
        index = window.step * torch.arange(start, start + n, device=image.device) + window.offset[axis - 1]
        last = window.offset[axis - 1] + (image.shape[axis] - 1 - window.offset[axis - 1]) // window.step * window.step
        image = image.index_select(axis, index.clamp(window.offset[axis - 1], last))
    if tuple(image.shape[1:]) == tuple(out):
        return image
    return F.interpolate(image[None], size=tuple(out), mode="bilinear", align_corners=False)[0]


def crop_mask(mask, window, out):
    """mask or probabilities (H, W)  ->  (*out,), nearest with whole numbers; beyond its border there is nothing."""
    for axis, (start, n) in enumerate(zip((window.top, window.left), window.size, strict=True)):
        nearest = start + torch.arange(out[axis], device=mask.device) * n // out[axis]
        index = window.step * nearest + window.offset[axis]
        seen = (index >= 0) & (index < mask.shape[axis])
        shape = [-1, 1] if axis == 0 else [1, -1]
        mask = mask.index_select(axis, index.clamp(0, mask.shape[axis] - 1)) * seen.view(shape).to(mask.dtype)
    return mask


def first_crop(image, mask, centre, scale, out):
    """Image (C, H, W) and mask (H, W) of the frame in which an object starts  ->  crops, displacement in pixels of out

    The window has twice the side and is not moved into the image; a window of it is, as the release does it.
    """
    size, limits = [scale * o for o in out], image.shape[-2:]
    factor = max(1.0, min(s / z for s, z in zip(size, limits, strict=True)))
    scale, size = scale / factor, [s / factor for s in size]
    move = []
    for c, s, z in zip(centre, size, limits, strict=True):
        needed = (max(0.0, -(c - (s - 1) / 2)) - max(0.0, c + s / 2 + 1 - z)) / scale
        move.append(int(needed + math.copysign(WHOLE, needed) if needed else 0))
    double = [2 * o for o in out]
    window = search_window([round(c) for c in centre], [2 * s for s in size], double, limits, inside=False)
    image, mask = crop_image(image, window, double), crop_mask(mask, window, double)
    for axis, (o, m) in enumerate(zip(out, move, strict=True)):
        index = (o // 2 + m + torch.arange(o, device=image.device)).clamp(0, 2 * o - 1)
        image, mask = image.index_select(axis + 1, index), mask.index_select(axis, index)
    return image, mask, move


def placement(window, out, keep_offset=False):
    """Centre of the window in the image, and the one factor for both axes by which the release enlarges its logits."""
    top, left, bottom, right = window.pixels(keep_offset)
    factor = math.sqrt((bottom - top) / out[0] * (right - left) / out[1])
    return ((top + bottom - 1) / 2, (left + right - 1) / 2), factor


def paste(logits, window, image, tracking):
    """Logits (h, w) of a window  ->  (H, W) of the image, OUTSIDE beyond it; and the block (row, column, h, w)"""
    top, left, bottom, right = window.pixels(tracking.keep_offset)
    if tracking.paste == "per_axis":
        corner, size = (top, left), (bottom - top, right - left)
        block = F.interpolate(logits[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    else:
        centre, factor = placement(window, logits.shape, tracking.keep_offset)
        block = F.interpolate(logits[None, None], scale_factor=factor, mode="bilinear", align_corners=False,
                              recompute_scale_factor=False)[0, 0]
        corner = [int(c - n / 2) for c, n in zip(centre, block.shape, strict=True)]
    full = logits.new_full(tuple(image), OUTSIDE)
    first = [max(0, c) for c in corner]
    last = [min(z, c + n) for z, c, n in zip(image, corner, block.shape, strict=True)]
    if all(a < b for a, b in zip(first, last, strict=True)):
        rows, columns = (slice(a - c, b - c) for a, b, c in zip(first, last, corner, strict=True))
        full[first[0]:last[0], first[1]:last[1]] = block[rows, columns]
    return full, (*corner, *block.shape)
