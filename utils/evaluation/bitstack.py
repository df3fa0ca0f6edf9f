"""Up to eight masks as the bits of one byte per pixel: what NumPy does to the bytes happens to all masks at once."""
import math

import cv2
import numpy as np

FRAMES = 8


def pack(masks):
    """masks (T, H, W) bool, T up to 8  ->  (H, W) uint8; bit t is mask t"""
    packed, bit = np.zeros(masks.shape[1:], np.uint8), np.empty(masks.shape[1:], np.uint8)
    for t, mask in enumerate(masks):
        packed |= np.multiply(mask.view(np.uint8), np.uint8(1 << t), out=bit)       # ten times as fast as a shift
    return packed


def count(packed, frames):
    """Pixels set in each mask: (H, W) uint8  ->  (frames,) int64"""
    bit = np.empty_like(packed)
    return np.array([cv2.countNonZero(np.bitwise_and(packed, np.uint8(1 << t), out=bit)) for t in range(frames)])


def dilate(packed, radius):
    """Every mask grown by a disk, {x^2 + y^2 <= radius^2}: (H, W) uint8  ->  the same

    A disk is a pile of rows: `row` is grown sideways step by step and laid down at the heights of its width. Rows are
    laid end to end with room between them, so that a shift is a slice and nothing reaches the next row.
    """
    height, width = packed.shape
    stride, room = width + radius, radius * (width + radius) + radius
    flat = np.zeros(height * stride + 2 * room, np.uint8)
    flat[room:room + height * stride].reshape(height, stride)[:, :width] = packed
    heights = {}
    for y in range(-radius, radius + 1):
        heights.setdefault(math.isqrt(radius * radius - y * y), []).append(y)
    row, grown, inner = flat.copy(), np.zeros_like(flat), slice(room, room + height * stride)
    for reach in range(radius + 1):
        if reach:
            row[reach:] |= flat[:-reach]
            row[:-reach] |= flat[reach:]
        for y in heights.get(reach, ()):
            grown[inner] |= row[room + y * stride:room + y * stride + height * stride]
    return grown[inner].reshape(height, stride)[:, :width]
