"""Transforms: golden inputs of the official code, torchvision as second opinion on geometry, slow loops for masks."""
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from dataloaders.transforms import (
    MEAN,
    STD,
    Augmentation,
    TestTransform,
    TrainTransform,
    augmentation_matrix,
    draw_augmentation,
    letterbox_area,
    resize_mask,
    undo_letterbox,
)

SHARED = Path(__file__).resolve().parents[2] / "shared"
PARITY = SHARED / "parity"
SIZE = (240, 424)
SOURCES = ["720x1280", "1280x720", "480x854", "360x480", "1080x1920", "100x200"]

needs_parity = pytest.mark.skipif(not PARITY.is_dir(), reason="needs the golden numbers in ../shared/parity")


@pytest.fixture(scope="module")
def golden():
    with np.load(PARITY / "preprocess_golden.npz") as arrays:
        return json.loads((PARITY / "preprocess_golden.json").read_text())["frames"], dict(arrays)


@pytest.fixture(scope="module")
def raw_frame():
    sys.path.insert(0, str(PARITY))
    try:
        import fill
    finally:
        sys.path.remove(str(PARITY))
    return fill.raw_frame


def picture(rows=120, cols=160, seed=0):
    """A smooth frame with two discs as its mask."""
    rng = np.random.default_rng(seed)
    frame = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (cols, rows), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros((rows, cols), np.uint8)
    cv2.circle(mask, (cols // 3, rows // 3), rows // 6, 1, -1)
    cv2.circle(mask, (cols * 2 // 3, rows // 2), rows // 4, 1, -1)
    return frame, mask.astype(bool)


def to_pixels(images):
    """Normalised (..., 3, H, W) back to the 0-255 scale."""
    return (images * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255


# -- letterbox

@needs_parity
@pytest.mark.parametrize("source", SOURCES)
def test_letterbox_equals_the_official_input(golden, raw_frame, source):
    facts, arrays = golden[0][source], golden[1]
    frame, mask = raw_frame(facts["seed"], tuple(int(n) for n in source.split("x")))
    images, masks = TestTransform(SIZE, "released")([frame], [mask.astype(bool)])
    assert letterbox_area(mask.shape, SIZE) == (*facts["size"], facts["pad_top"], facts["pad_left"])
    np.testing.assert_allclose(images[0, :, ::5, ::5].numpy(), arrays[f"{source}/image"], rtol=0, atol=1e-5)
    official = np.unpackbits(arrays[f"{source}/mask"])[:SIZE[0] * SIZE[1]].reshape(SIZE).astype(bool)
    np.testing.assert_array_equal(masks[0].numpy(), official)
    assert TestTransform(SIZE, "nearest")([frame], [mask.astype(bool)])[1].sum() == facts["mask_pixels_if_nearest"]


def test_nearest_and_released_masks_against_slow_loops():
    mask = picture(50, 70)[1]
    rows, cols = 30, 42
    nearest, released = np.zeros((rows, cols), bool), np.zeros((rows, cols), bool)
    for i in range(rows):
        for j in range(cols):
            nearest[i, j] = mask[i * 50 // rows, j * 70 // cols]
            y, x = (i + 0.5) * 50 / rows - 0.5, (j + 0.5) * 70 / cols - 0.5
            taps = [mask[a, b] for a in (int(y), int(np.ceil(y))) for b in (int(x), int(np.ceil(x)))]
            released[i, j] = all(taps)
    np.testing.assert_array_equal(resize_mask(mask, rows, cols, "nearest"), nearest)
    np.testing.assert_array_equal(resize_mask(mask, rows, cols, "released"), released)
    assert released.sum() < nearest.sum()                                         # the released mask is eroded


def test_border_is_black_before_normalisation():
    images, masks = TestTransform(SIZE, "nearest")([np.full((100, 200, 3), 255, np.uint8)], [np.ones((100, 200), bool)])
    assert images.dtype == torch.float32 and masks.dtype == torch.bool
    pixels = to_pixels(images)[0]
    assert pixels[:, :14].abs().max() < 1e-3 and pixels[:, 226:].abs().max() < 1e-3
    assert (pixels[:, 14:226] - 255).abs().max() < 1e-3
    assert masks[0].sum() == 212 * 424


def test_frames_of_different_sizes_share_one_input_size():
    frames, masks = zip(picture(60, 90), picture(90, 60), picture(48, 48), strict=True)
    images, out = TestTransform((48, 64), "nearest")(frames, masks)
    assert images.shape == (3, 3, 48, 64) and out.shape == (3, 48, 64) and images.is_contiguous()


@pytest.mark.parametrize("original", [(720, 1280), (1280, 720), (100, 200), (270, 480)])
def test_undo_letterbox_returns_the_frame_without_borders(original):
    """A linear ramp survives letterbox and return; bars never leak into the frame."""
    rows, cols, top, left = letterbox_area(original, SIZE)
    ramp = (torch.arange(cols) + 0.5) / cols
    maps = torch.full((2, *SIZE), -1000.0)
    maps[:, top:top + rows, left:left + cols] = ramp
    back = undo_letterbox(maps, original)
    assert back.shape == (2, *original) and back.min() >= 0
    wanted = ((torch.arange(original[1]) + 0.5) / original[1]).clamp(ramp[0], ramp[-1])
    torch.testing.assert_close(back[1, original[0] // 2], wanted, rtol=0, atol=1e-5)


# -- augmentation

def still(**changes):
    draw = {"crop": (0, 0, 0, 0), "scale": 1.0, "shear": 0.0, "rotation": 0.0, "mirror": False, "contrast": 1.0,
            "offset": 0.0}
    return Augmentation(**{**draw, **changes})


def transform(augmentation="paper", mask_resize="nearest", first=True, portrait="letterbox", size=(120, 160)):
    return TrainTransform(size, mask_resize, augmentation, first, portrait)


def use_draw(monkeypatch, draw):
    monkeypatch.setattr("dataloaders.transforms.draw_augmentation", lambda rng, recipe: draw)


def close(images, others, limit):
    """Mean absolute difference in grey levels, away from the frame's border."""
    inner = (..., slice(4, -4), slice(4, -4))
    return (to_pixels(images)[inner] - to_pixels(others)[inner]).abs().mean() < limit


@pytest.mark.parametrize("mask_resize", ["nearest", "released"])
def test_a_draw_that_changes_nothing_is_the_letterbox(monkeypatch, mask_resize):
    use_draw(monkeypatch, still())
    pair = picture(300, 400)
    images, masks = transform(mask_resize=mask_resize)([pair[0]], [pair[1]], None)
    plain, plain_masks = TestTransform((120, 160), mask_resize)([pair[0]], [pair[1]])
    assert close(images, plain, 0.7)
    assert (masks != plain_masks).float().mean() < 0.01


@pytest.mark.parametrize("angle, shear, scale", [(12.0, 0.0, 1.0), (0.0, 9.0, 1.0), (0.0, 0.0, 1.05), (-7.0, 0.0, .95)])
def test_rotation_shear_and_scale_agree_with_torchvision(monkeypatch, angle, shear, scale):
    use_draw(monkeypatch, still(rotation=angle, shear=shear, scale=scale))
    frame, mask = picture()
    images, masks = transform("released")([frame], [mask], None)
    other = vision.affine(torch.from_numpy(frame).permute(2, 0, 1), angle, [0, 0], scale, [-shear, 0.0],
                          interpolation=InterpolationMode.BILINEAR)
    other_mask = vision.affine(torch.from_numpy(mask)[None].float(), angle, [0, 0], scale, [-shear, 0.0],
                               interpolation=InterpolationMode.BILINEAR)[0] >= 0.5
    assert (to_pixels(images)[0] - other).abs().mean() < 1.0
    assert (masks[0] != other_mask).float().mean() < 0.01


def test_crop_agrees_with_torchvision(monkeypatch):
    use_draw(monkeypatch, still(crop=(0.1, 0.05, 0.0, 0.075)))
    frame, mask = picture()
    images, _ = transform()([frame], [mask], None)
    box = [12, 0, 120 - 12 - 6, 160 - 12]                                         # top, left, rows, columns
    other = vision.resized_crop(torch.from_numpy(frame).permute(2, 0, 1), *box, [120, 160], antialias=False)
    difference = (to_pixels(images)[0] - other).abs()[:, 2:-2, 2:-2]
    assert difference.mean() < 1.0


def test_mirror_flips_image_and_mask_together(monkeypatch):
    pair = picture(110, 160)
    use_draw(monkeypatch, still())
    plain = transform()([pair[0]], [pair[1]], None)
    use_draw(monkeypatch, still(mirror=True))
    for a, b in zip(transform()([pair[0]], [pair[1]], None), plain, strict=True):
        torch.testing.assert_close(a, b.flip(-1))


def test_jitter_is_linear_and_not_clipped(monkeypatch):
    frame = np.full((120, 160, 3), 255, np.uint8)
    use_draw(monkeypatch, still(contrast=1.03, offset=5.0))
    images, _ = transform()([frame], [np.ones((120, 160), bool)], None)
    assert abs(to_pixels(images)[0, :, 60, 80].mean().item() - (255 * 1.03 + 5)) < 1e-2


@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_all_frames_of_a_sequence_get_the_same_draw(recipe):
    frame, mask = picture()
    images, masks = transform(recipe)([frame] * 4, [mask] * 4, np.random.default_rng(3))
    assert all(torch.equal(images[t], images[0]) and torch.equal(masks[t], masks[0]) for t in range(4))


def test_released_slip_leaves_the_first_frame_in_its_place():
    frame, mask = picture()
    rng = np.random.default_rng(1)
    draw = draw_augmentation(np.random.default_rng(1), "released")
    images, masks = transform("released", first=False)([frame] * 3, [mask] * 3, rng)
    plain, plain_masks = transform("none")([frame], [mask], None)
    flipped = plain.flip(-1) if draw.mirror else plain
    expected = to_pixels(flipped) * draw.contrast + draw.offset                   # jitter and mirror still apply
    torch.testing.assert_close(to_pixels(images[:1]), expected, rtol=0, atol=1e-2)
    assert torch.equal(masks[0], plain_masks[0].flip(-1) if draw.mirror else plain_masks[0])
    assert torch.equal(images[1], images[2]) and not torch.equal(images[0], images[1])


def test_draws_stay_within_their_ranges():
    rng = np.random.default_rng(0)
    draws = [draw_augmentation(rng, "released") for _ in range(400)]
    assert 0 <= min(min(d.crop) for d in draws) and 0.095 < max(max(d.crop) for d in draws) <= 0.10
    for name, low, high in (("scale", 0.95, 1.05), ("shear", -10, 10), ("rotation", -15, 15),
                            ("contrast", 0.97, 1.03), ("offset", -5, 5)):
        values = np.array([getattr(d, name) for d in draws])
        assert low <= values.min() < low + 0.05 * (high - low) and high - 0.05 * (high - low) < values.max() <= high
    assert 0.4 < np.mean([d.mirror for d in draws]) < 0.6
    plain = draw_augmentation(rng, "paper")
    assert plain.shear == 0 and plain.rotation == 0


def test_same_generator_gives_the_same_images():
    frame, mask = picture()
    a, b = (transform("released")([frame], [mask], np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_image_and_mask_move_together():
    """A white object on black: image and mask of the augmented frame agree."""
    mask = picture(240, 320)[1]
    frame = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    for seed in range(8):
        images, masks = transform("released")([frame], [mask], np.random.default_rng(seed))
        seen = to_pixels(images)[0].mean(dim=0) > 127
        assert (seen != masks[0]).float().mean() < 0.01


def test_portrait_frames_are_transposed_only_on_request():
    frame, mask = picture(160, 120)
    swapped, swapped_masks = transform("none", portrait="transpose")([frame], [mask], None)
    wanted = TestTransform((120, 160), "nearest")([np.ascontiguousarray(frame.transpose(1, 0, 2))], [mask.T.copy()])
    assert torch.equal(swapped, wanted[0]) and torch.equal(swapped_masks, wanted[1])
    kept, _ = transform("none")([frame], [mask], None)
    assert torch.equal(kept, TestTransform((120, 160), "nearest")([frame], [mask])[0])


def test_without_augmentation_the_input_is_the_letterbox():
    frame, mask = picture(100, 180)
    images, masks = transform("none")([frame], [mask], None)
    plain, plain_masks = TestTransform((120, 160), "nearest")([frame], [mask])
    assert torch.equal(images, plain) and torch.equal(masks, plain_masks)


def test_matrix_moves_the_corners_of_a_crop_to_the_corners_of_the_frame():
    matrix = augmentation_matrix(still(crop=(0.1, 0.1, 0.05, 0.05)), (100, 200), (50, 100))
    corners = np.array([[10 - 0.5, 10 - 0.5, 1], [190 - 0.5, 90 - 0.5, 1]]).T      # (x, y) of the crop's corners
    np.testing.assert_allclose(matrix @ corners, np.array([[-0.5, -0.5], [99.5, 49.5]]).T, atol=1e-9)


@pytest.mark.parametrize("kwargs, key", [({"augmentation": "more"}, "data.augmentation"),
                                         ({"mask_resize": "area"}, "data.mask_resize"),
                                         ({"portrait": "rotate"}, "data.portrait")])
def test_unknown_choice_names_its_key(kwargs, key):
    with pytest.raises(ValueError, match=key):
        transform(**kwargs)
