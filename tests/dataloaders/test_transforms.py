"""Transforms: golden inputs of the official code, OpenCV as second opinion on geometry, slow loops for masks."""
import json
import sys

import cv2
import numpy as np
import pytest
import torch
from material import SHARED

from dataloaders.transforms import (
    Augmentation,
    TestTransform,
    TrainTransform,
    crop_window,
    draw_augmentation,
    letterbox_area,
    resize_mask,
    undo_letterbox,
)

PARITY = SHARED / "parity"
SIZE = (240, 424)
SOURCES = ["720x1280", "1280x720", "480x854", "360x480", "1080x1920", "100x200"]

needs_parity = pytest.mark.skipif(not PARITY.is_dir(), reason="needs the golden numbers")


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
    return images * 255


# -- letterbox

@needs_parity
@pytest.mark.parametrize("source", SOURCES)
def test_letterbox_equals_the_official_input(golden, raw_frame, source):
    facts, arrays = golden[0][source], golden[1]
    frame, mask = raw_frame(facts["seed"], tuple(int(n) for n in source.split("x")))
    images, masks = TestTransform(SIZE, "released")([frame], [mask.astype(bool)])
    assert letterbox_area(mask.shape, SIZE) == (*facts["size"], facts["pad_top"], facts["pad_left"])
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    seen = (images[0, :, ::5, ::5].numpy() - mean) / std
    np.testing.assert_allclose(seen, arrays[f"{source}/image"], rtol=0, atol=1e-5)
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


def test_border_is_black():
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


def expected(pair, area, forward):
    """OpenCV's frame and mask: `forward` (3, 3) takes (x, y) in shares of the frame to shares of the output."""
    (rows0, cols0), (rows, cols) = pair[1].shape, area
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])                        # pixel centres lie at n + 0.5
    matrix = np.linalg.inv(half) @ np.diag([cols, rows, 1]) @ forward @ np.diag([1 / cols0, 1 / rows0, 1]) @ half
    image, mask = (cv2.warpAffine(x.astype(np.float32), matrix[:2], (cols, rows)) for x in pair)
    return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask >= 0.5)


def stretch(top, bottom, left, right, scale=1.0):
    """The crop stretched back to the frame, then resized about its centre."""
    x, y = 1 / (1 - left - right), 1 / (1 - top - bottom)
    crop = np.array([[x, 0, -left * x], [0, y, -top * y], [0, 0, 1]])
    return np.array([[scale, 0, (1 - scale) / 2], [0, scale, (1 - scale) / 2], [0, 0, 1]]) @ crop


def about_centre(linear, aspect):
    """A (2, 2) matrix acting on (x, y) in pixels about the centre, in shares of a frame; aspect = columns / rows."""
    matrix = np.eye(3)
    matrix[:2, :2] = np.diag([1 / aspect, 1]) @ linear @ np.diag([aspect, 1])
    matrix[:2, 2] = 0.5 - matrix[:2, :2] @ [0.5, 0.5]
    return matrix


@pytest.mark.parametrize("mask_resize", ["nearest", "released"])
@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_a_draw_that_changes_nothing_is_the_letterbox(monkeypatch, recipe, mask_resize):
    use_draw(monkeypatch, still())
    pair = picture(720, 960)
    images, masks = transform(recipe, mask_resize=mask_resize)([pair[0]], [pair[1]], None)
    plain, plain_masks = TestTransform((120, 160), mask_resize)([pair[0]], [pair[1]])
    assert (to_pixels(images) - to_pixels(plain)).abs().max() < 1.1               # uint8 against float
    assert (masks != plain_masks).float().mean() < (0.01 if mask_resize == "nearest" else 1e-4)


@pytest.mark.parametrize("crop, scale", [((0.1, 0.05, 0.0, 0.075), 1.0), ((0, 0, 0, 0), 1.05), ((0, 0, 0, 0), 0.95),
                                         ((0.0, 0.1, 0.1, 0.0), 0.95), ((0.1, 0.1, 0.05, 0.05), 1.04)])
def test_crop_and_resize_agree_with_opencv(monkeypatch, crop, scale):
    """With scale < 1 the window leaves the frame on the uncropped sides: black there, and no mask."""
    use_draw(monkeypatch, still(crop=crop, scale=scale))
    pair = picture(480, 640)
    images, masks = transform()([pair[0]], [pair[1]], None)
    other, other_mask = expected(pair, (120, 160), stretch(*crop, scale))
    difference = (to_pixels(images)[0] - other).abs()
    assert difference[:, 5:-5, 6:-6].max() < 4 and difference.mean() < 2
    assert (masks[0] != other_mask).float().mean() < 0.005
    if scale == 0.95:
        assert (to_pixels(images)[0, :, 0, -1].abs() < 1e-3).all()               # a corner beyond the frame


@pytest.mark.parametrize("mask_resize", ["nearest", "released"])
def test_beyond_the_frame_there_is_no_object(monkeypatch, mask_resize):
    use_draw(monkeypatch, still(scale=0.95))
    frame, mask = np.full((240, 320, 3), 255, np.uint8), np.ones((240, 320), bool)
    images, masks = transform(mask_resize=mask_resize)([frame], [mask], None)
    assert not masks[0, :3].any() and not masks[0, :, -4:].any() and masks[0, 4:-4, 5:-5].all()
    assert to_pixels(images)[0, :, :2].abs().max() < 1e-3 and (to_pixels(images)[0, :, 4:-4, 5:-5] > 254).all()


@pytest.mark.parametrize("angle, shear, scale", [(12.0, 0.0, 1.0), (0.0, 9.0, 1.0), (0.0, 0.0, 1.05), (-7.0, 0.0, .95),
                                                 (14.0, -8.0, 1.03)])
def test_rotation_shear_and_scale_agree_with_opencv(monkeypatch, angle, shear, scale):
    """Angles turn clockwise as seen (y points down), shear moves what is above the centre to the right."""
    use_draw(monkeypatch, still(crop=(0.1, 0, 0, 0.05), rotation=angle, shear=shear, scale=scale))
    pair = picture(480, 640)
    images, masks = transform("released")([pair[0]], [pair[1]], None)
    a, s = np.deg2rad(angle), np.tan(np.deg2rad(shear))
    linear = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ [[1, -s], [0, 1]] * scale
    other, other_mask = expected(pair, (120, 160), about_centre(linear, 160 / 120) @ stretch(0.1, 0, 0, 0.05))
    inner = np.s_[:, 25:-25, 25:-25]                                              # no black corner reaches here
    assert (to_pixels(images)[0] - other)[inner].abs().max() < 4
    assert (masks[:1] != other_mask)[inner].float().mean() < 0.01


def test_a_crop_is_the_same_part_of_frames_of_every_size():
    draw = still(crop=(0.1, 0.05, 0.0, 0.075))
    assert crop_window(draw, (200, 400), 1.0) == (20, 0, 170, 370)
    assert crop_window(draw, (400, 800), 1.0) == (40, 0, 340, 740)
    assert crop_window(still(), (200, 400), 0.8) == (-25, -50, 250, 500)
    assert crop_window(still(), (200, 400), 1.25) == (20, 40, 160, 320)


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
    """Also when frames of another size lie between them, as among supports."""
    frame, mask = picture(240, 320)
    other, other_mask = picture(90, 160, seed=1)
    frames, masks = [frame, frame, other, frame, other], [mask, mask, other_mask, mask, other_mask]
    images, out = transform(recipe)(frames, masks, np.random.default_rng(3))
    for t, twin in ((1, 0), (3, 0), (4, 2)):
        assert torch.equal(images[t], images[twin]) and torch.equal(out[t], out[twin])
    alone, alone_masks = transform(recipe)([other], [other_mask], np.random.default_rng(3))
    assert torch.equal(images[2], alone[0]) and torch.equal(out[2], alone_masks[0])


def test_released_slip_leaves_the_first_frame_in_its_place():
    frame, mask = picture()
    rng = np.random.default_rng(1)
    draw = draw_augmentation(np.random.default_rng(1), "released")
    images, masks = transform("released", first=False)([frame] * 3, [mask] * 3, rng)
    plain, plain_masks = transform("none")([frame], [mask], None)
    flipped = plain.flip(-1) if draw.mirror else plain
    wanted = to_pixels(flipped) * draw.contrast + draw.offset                   # jitter and mirror still apply
    torch.testing.assert_close(to_pixels(images[:1]), wanted, rtol=0, atol=1e-2)
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


@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_image_and_mask_move_together(recipe):
    """A white object on black: image and mask of the augmented frame agree, and neither lies beside the other."""
    mask = picture(480, 640)[1]
    frame = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    for seed in range(8):
        images, masks = transform(recipe)([frame], [mask], np.random.default_rng(seed))
        seen = to_pixels(images)[0].mean(dim=0) > 127
        assert (seen != masks[0]).float().mean() < 0.01
        for axis in (0, 1):
            at = [x.nonzero()[:, axis].float().mean() for x in (seen, masks[0])]
            assert abs(at[0] - at[1]) < 0.2                                       # of a pixel


@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_released_masks_are_eroded_once(recipe):
    """Resizing erodes them, moving does not: the loss is that of the letterbox."""
    frame, mask = picture(480, 640)
    lost = [1 - TestTransform((120, 160), "released")([frame], [mask])[1].sum() / (mask.sum() / 16)]
    for seed in range(8):
        nearest, released = (transform(recipe, mode)([frame], [mask], np.random.default_rng(seed))[1].sum()
                             for mode in ("nearest", "released"))
        lost.append(1 - released / nearest)
    assert 0 < min(lost) and max(lost) < 1.5 * lost[0]


@pytest.mark.parametrize("recipe", ["none", "paper", "released"])
def test_portrait_frames_are_transposed_before_anything_else(recipe):
    frame, mask = picture(160, 120)
    upright = [np.ascontiguousarray(frame.transpose(1, 0, 2))], [mask.T.copy()]
    swapped = transform(recipe, portrait="transpose")([frame], [mask], np.random.default_rng(2))
    for a, b in zip(swapped, transform(recipe)(*upright, np.random.default_rng(2)), strict=True):
        assert torch.equal(a, b)


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


@pytest.mark.parametrize("kwargs, key", [({"augmentation": "more"}, "data.augmentation"),
                                         ({"mask_resize": "area"}, "data.mask_resize"),
                                         ({"portrait": "rotate"}, "data.portrait")])
def test_unknown_choice_names_its_key(kwargs, key):
    with pytest.raises(ValueError, match=key):
        transform(**kwargs)
