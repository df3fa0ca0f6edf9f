"""Masks packed into bits against the same done mask by mask."""
import cv2
import numpy as np
import pytest

from utils.evaluation.bitstack import count, dilate, pack

rng = np.random.default_rng(0)


def unpack(packed, frames):
    return np.array([(packed >> t) & 1 for t in range(frames)]).astype(bool)


@pytest.mark.parametrize("frames", [1, 5, 8])
def test_packing_loses_nothing_and_counts_are_those_of_each_mask(frames):
    masks = rng.random((frames, 13, 17)) < np.linspace(0, 1, frames)[:, None, None]
    packed = pack(masks)
    assert packed.dtype == np.uint8 and packed.shape == (13, 17) and np.array_equal(unpack(packed, frames), masks)
    assert count(packed, frames).tolist() == masks.sum((1, 2)).tolist()


def disk(radius):
    y, x = np.mgrid[-radius:radius + 1, -radius:radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


@pytest.mark.parametrize("radius", [0, 1, 2, 4, 8, 30])
@pytest.mark.parametrize("size", [(1, 1), (9, 5), (24, 43)])
def test_growing_by_a_disk_equals_opencv_on_every_mask(radius, size):
    masks = rng.random((8, *size)) < 0.03
    masks[0, 0, 0] = masks[1, -1, -1] = masks[2, 0, -1] = True          # what leaves the image enters nowhere else
    masks[3:5] = [[[False]], [[True]]]
    expected = [cv2.dilate(mask.view(np.uint8), disk(radius)) > 0 for mask in masks]
    assert np.array_equal(unpack(dilate(pack(masks), radius), 8), expected)


def test_growing_leaves_its_input_alone():
    packed = pack(rng.random((8, 9, 9)) < 0.1)
    before = packed.copy()
    dilate(packed, 3)
    assert np.array_equal(packed, before)
