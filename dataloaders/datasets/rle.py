"""Run-length masks of COCO and YouTube-VIS, as lists of numbers or compressed strings, and whether they fill an image.

In: {"size": [rows, columns], "counts": [background, foreground, background, ...] or a string}. Out: compressed strings.
"""
import msgspec
import numpy as np
from pycocotools import mask as mask_utils

from dataloaders.images import MAX_PIXELS
from dataloaders.json_values import Side, shown


class RunLengths(msgspec.Struct):
    """One mask as a file gives it."""
    size: tuple[Side, Side]
    counts: list[int] | str


def compressed(mask):
    """RunLengths  ->  (compressed string, area in pixels); ValueError with what is wrong

    A string is looked at before pycocotools gets it, which reads past the end of one that stops within a number.
    """
    (rows, cols), counts = mask.size, mask.counts
    if rows * cols > MAX_PIXELS:
        raise ValueError(f"RLE of size {rows} x {cols}, more than {MAX_PIXELS} pixels")
    if isinstance(counts, str):
        rle = counts.encode("utf-8")
        runs = rle_counts(np.frombuffer(rle, np.uint8))
        if not fills(runs, rows * cols):
            raise ValueError(f"RLE: its string does not fill {rows} x {cols} pixels")
        return rle, int(runs[1::2].sum())
    total = sum(counts)
    if total != rows * cols or min(counts) < 0:
        raise ValueError(f"RLE: counts sum up to {shown(total)}, not to {rows * cols} = {rows} x {cols}, or some are "
                         "negative")
    rle = mask_utils.frPyObjects({"size": [rows, cols], "counts": counts}, rows, cols)["counts"]
    return rle, sum(counts[1::2])


def rle_counts(rle):
    """The run lengths of a compressed COCO RLE: background, foreground, background, ...

    rle: (bytes,) uint8  ->  (runs,) int64. Each value is base 32, low digits first, with a continuation bit and a sign;
    from the fourth on it is the difference to the value before the last one.
    """
    digits = rle.astype(np.int64) - 48
    last = (digits & 32) == 0
    start = np.flatnonzero(np.concatenate([[True], last[:-1]])) if len(digits) else np.zeros(0, np.int64)
    place = np.arange(len(digits)) - np.repeat(start, np.diff(np.append(start, len(digits))))
    if len(digits) == 0 or not last[-1] or place.max() > 10 or digits.min() < 0 or digits.max() > 63:
        return np.zeros(0, np.int64)                                  # no valid string: its sum fits no image
    counts = np.add.reduceat((digits & 31) << 5 * place, start)
    ends = np.flatnonzero(last)
    counts -= ((digits[ends] & 16) != 0) * (np.int64(1) << 5 * (place[ends] + 1))
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts


def fills(counts, pixels):
    """Whether run lengths cover an image, no more and no less.

    counts: (runs,) int64. Their sum alone says nothing: absurd ones overflow, so that it may be right by design.
    """
    return len(counts) > 0 and counts.min() >= 0 and counts.max() <= pixels and counts.sum() == pixels
