"""Training crops: the numbers of the release, and cases that can be counted by hand."""
import importlib.util

import numpy as np
import pytest
from material import SHARED

from dataloaders.vos import crops

FOLDER = SHARED / "parity" / "lwl"


@pytest.fixture(scope="module")
def golden():
    """fill.py, its case a and the arrays that the release made of it"""
    if not (FOLDER / "units_a.npz").is_file():
        pytest.skip(f"no golden numbers of LWL: {FOLDER}")
    spec = importlib.util.spec_from_file_location("lwl_fill", FOLDER / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    return fill, fill.UNITS["a"], np.load(FOLDER / "units_a.npz")


def pictures(fill, case):
    mask = fill.soft_mask("a/image_mask", case["image"]) > 0.5
    return fill.picture("a/image", case["image"]), mask.astype(np.uint8)


def test_windows_and_crops_are_those_of_the_release(golden):
    fill, case, arrays = golden
    image, mask = pictures(fill, case)
    for i, (box, area) in enumerate(case["train"]):
        window = crops.window_of(np.array(box, float), case["image"], case["output"], area)
        assert list(window) == arrays[f"train{i}/window"].tolist()
        found = crops.cut(image, mask, window, case["output"])
        for name, value in zip(("image", "mask"), found, strict=True):
            assert np.array_equal(value, arrays[f"train{i}/{name}"]), (i, name)


def test_warps_are_those_of_the_release(golden):
    fill, case, arrays = golden
    image, mask = pictures(fill, case)
    for i, (angle, scale) in enumerate(case["affine"]):
        for name, value in zip(("image", "mask", "matrix"), crops.turned(image, mask, angle, scale), strict=True):
            assert np.allclose(value, arrays[f"affine{i}/{name}"], atol=1e-12 if name == "matrix" else 0), (i, name)


def test_jitter_is_that_of_the_release(golden):
    _, case, arrays = golden
    for i, (box, scales, places) in enumerate(case["jitter"]):
        for name, sigma, reach in (("train", 0.25, (3, 3)), ("test", 0.5, (5.5, 4.5))):
            found = crops.jittered(np.array(box), scales, places, sigma, reach)
            assert np.abs(found - arrays[f"jitter{i}/{name}"]).max() < 1e-12


def test_a_window_inside_the_image_is_its_part():
    image, mask = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
    mask[12:16, 20:28] = 1
    assert crops.box_of(mask > 0).tolist() == [20, 12, 8, 4]
    # The object is as large as the input, 32 = 8 x 4: twice its size is 16 x 8 around (24, 14).
    window = crops.window_of(np.array([20.0, 12, 8, 4]), (40, 60), (4, 8), 2)
    assert window == (16, 10, 16, 8)
    found = crops.cut(image, mask, window, (8, 16))
    assert np.array_equal(found[0], image[10:18, 16:32]) and np.array_equal(found[1], mask[10:18, 16:32])


def test_a_window_at_the_border_is_moved_and_a_larger_one_sticks_out_on_both_sides():
    assert crops.window_of(np.array([0.0, 0, 8, 4]), (40, 60), (4, 8), 2) == (0, 0, 16, 8)
    assert crops.window_of(np.array([55.0, 38, 8, 4]), (40, 60), (4, 8), 2) == (44, 32, 16, 8)
    # 80 x 40 of an image of 60 x 20: shrunk until one side fits, 60 x 30, and 5 rows stick out above and below.
    assert crops.window_of(np.array([10.0, 5, 40, 10]), (20, 60), (4, 8), 4) == (0, -5, 60, 30)


def test_the_last_column_is_dropped_only_as_released():
    image = np.arange(6, dtype=np.uint8)[None, :, None].repeat(4, 0).repeat(3, 2)
    mask = np.ones((4, 6), np.uint8)
    found = {border: crops.cut(image, mask, (2, 0, 4, 4), (4, 4), border) for border in ("released", "exact")}
    assert found["exact"][0][0, :, 0].tolist() == [2, 3, 4, 5] and found["exact"][1].all()
    assert found["released"][0][0, :, 0].tolist() == [2, 3, 4, 4]
    assert found["released"][1][0].tolist() == [1, 1, 1, 0] and found["released"][1][-1].tolist() == [0] * 4
