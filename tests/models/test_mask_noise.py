"""Mask noise: every kind changes what it says, and the IoUs of what comes out are evenly spread."""
import cv2
import numpy as np
import pytest

from models.iou_training import mask_noise
from models.iou_training.mask_noise import KINDS, MOST_KINDS, degrade, iou, noisy_masks

SIZE = 96, 160
ROWS, COLS = np.ogrid[:SIZE[0], :SIZE[1]]
OBJECT = (ROWS - 45) ** 2 / 25 ** 2 + (COLS - 60) ** 2 / 35 ** 2 < 1
OTHER = (ROWS > 30) & (ROWS < 70) & (COLS > 90) & (COLS < 140)        # overlaps the object a little
EMPTY, FULL = np.zeros(SIZE, bool), np.ones(SIZE, bool)
STRENGTHS = (0.05, 0.3, 0.7)


def family(name, seed=0, mask=OBJECT):
    return KINDS[name](mask, np.random.default_rng(seed), OTHER)


def objects(count, seed=0):
    """Ellipses of many sizes, some of them cut off by the border: (count, H, W) bool"""
    rng, masks = np.random.default_rng(seed), []
    for _ in range(count):
        mask = np.zeros(SIZE, np.uint8)
        centre, axes = rng.integers(0, SIZE[::-1]), rng.integers(4, 40, 2)
        cv2.ellipse(mask, centre.tolist(), axes.tolist(), int(rng.integers(180)), 0, 360, 1, -1)
        masks.append(mask > 0)
    return np.stack(masks)


def counted_iou(a, b):
    """Pixel by pixel."""
    pairs = list(zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True))
    union = sum(x or y for x, y in pairs)
    return sum(x and y for x, y in pairs) / union if union else 0.0


# The kinds

@pytest.mark.parametrize("name", KINDS)
def test_no_strength_is_no_change(name):
    assert np.array_equal(family(name)(0), OBJECT)


@pytest.mark.parametrize("name", KINDS)
def test_more_strength_is_a_lower_iou_on_the_whole(name):
    values = [iou(family(name)(s), OBJECT) for s in np.linspace(0, 1, 9)]
    assert values[-1] < 0.7 and max(b - a for a, b in zip(values, values[1:], strict=False)) < 0.05


def distances(points, others):
    """From each pixel of a mask to the nearest one of another, one by one"""
    (rows, cols), (other_rows, other_cols) = np.nonzero(points), np.nonzero(others)
    return np.hypot(rows[:, None] - other_rows, cols[:, None] - other_cols).min(axis=1)


def test_dilation_adds_exactly_what_is_near_and_erosion_keeps_what_is_deep():
    outside, depth = distances(~OBJECT, OBJECT), distances(OBJECT, ~OBJECT)
    for strength in STRENGTHS:
        grown, kept = family("dilate")(strength), family("erode")(strength)
        assert grown[OBJECT].all() and not kept[~OBJECT].any()
        for found, expected, distance in ((grown[~OBJECT], outside <= strength * outside.max(), outside),
                                          (kept[OBJECT], depth > strength * depth.max(), depth)):
            clear = abs(distance - strength * distance.max()) > 1.5          # cv2's distances are approximate
            assert np.array_equal(found[clear], expected[clear])


def test_an_object_at_the_border_is_eroded_there_too():
    touching = (ROWS < 30) & (COLS < 30)
    assert not family("erode", mask=touching)(0.2)[:2].any()


def test_jitter_moves_the_boundary_both_ways_and_leaves_the_rest():
    moved = family("jitter")(0.1)
    reach = 0.1 * np.sqrt(OBJECT.sum()) + 2
    near = (cv2.distanceTransform(OBJECT.astype(np.uint8), cv2.DIST_L2, 5) < reach) & (
        cv2.distanceTransform((~OBJECT).astype(np.uint8), cv2.DIST_L2, 5) < reach)
    assert (moved & ~OBJECT).any() and (OBJECT & ~moved).any() and np.array_equal(moved[~near], OBJECT[~near])


@pytest.mark.parametrize("name", ["holes", "cut"])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_holes_and_cuts_remove_their_share_of_the_object(name, strength):
    left = family(name)(strength)
    assert not (left & ~OBJECT).any() and left.sum() == pytest.approx((1 - strength) * OBJECT.sum(), abs=2)


def test_a_cut_is_straight_and_holes_are_in_many_places():
    missing = OBJECT & ~family("cut")(0.4)
    hull = cv2.convexHull(np.argwhere(missing)[:, ::-1].astype(np.int32))
    filled = cv2.fillConvexPoly(np.zeros(SIZE, np.uint8), hull, 1) > 0
    assert np.count_nonzero(filled & ~missing) < 0.05 * missing.sum()       # half an ellipse is convex
    pieces = [cv2.connectedComponents((OBJECT & ~family("holes", seed)(0.2)).astype(np.uint8))[0] - 1
              for seed in range(20)]
    assert np.mean(pieces) > 2


@pytest.mark.parametrize("strength", STRENGTHS)
def test_islands_add_blobs_of_background(strength):
    seen = family("islands")(strength)
    assert seen[OBJECT].all() and (seen & ~OBJECT).sum() == pytest.approx(strength * (~OBJECT).sum(), abs=2)


def test_shift_moves_the_object_and_keeps_its_kind():
    for seed in range(10):
        moved = family("shift", seed)(0.1)
        rows, cols = (np.abs(np.nonzero(moved)[i].mean() - np.nonzero(OBJECT)[i].mean()) for i in (0, 1))
        extent = np.hypot(50, 70)
        assert np.hypot(rows, cols) == pytest.approx(0.1 * extent, abs=2)
        assert 0.9 < moved.sum() / OBJECT.sum() < 1.15                      # scaled by 0.97 to 1.05


def test_merge_takes_the_other_object_along():
    assert np.array_equal(family("merge")(1), OBJECT | OTHER)
    half = family("merge")(0.5)
    assert half[OBJECT].all() and not half[~(OBJECT | OTHER)].any()
    assert (half & ~OBJECT).sum() == pytest.approx((OTHER & ~OBJECT).sum() / 2, abs=20)


def test_swap_ends_with_the_other_object_alone():
    assert np.array_equal(family("swap")(1), OTHER)
    half = family("swap")(0.5)
    assert 0 < (half & OBJECT).sum() < OBJECT.sum() and 0 < (half & OTHER).sum() < OTHER.sum()


# The sampler

@pytest.mark.parametrize("with_others", [True, False])
def test_ious_are_evenly_spread(with_others):
    masks = objects(300)
    others = np.roll(masks, 1, axis=0) if with_others else None
    rng, clips = np.random.default_rng(1), range(0, 300, 5)
    noisy = np.concatenate([noisy_masks(masks[i:i + 5], rng, None if others is None else others[i:i + 5])
                            for i in clips])
    values = np.sort([iou(a, b) for a, b in zip(noisy, masks, strict=True)])
    assert np.abs(values - np.linspace(0, 1, 300)).max() < 0.06             # Kolmogorov's distance to even
    assert np.histogram(values, 10, (0, 1))[0].min() >= 18                  # of 30


def test_one_mask_meets_its_target():
    masks, rng = objects(60, seed=3), np.random.default_rng(2)
    targets = rng.random(60)
    errors = [abs(counted_iou(degrade(mask, target, OTHER, rng), mask) - target)
              for mask, target in zip(masks, targets, strict=True)]
    assert np.mean(np.array(errors) < 0.02) > 0.95 and max(errors) < 0.1


def test_same_seed_same_noise_another_seed_another():
    masks = objects(6)
    first, second, third = (noisy_masks(masks, np.random.default_rng(seed), masks[::-1]) for seed in (5, 5, 6))
    assert np.array_equal(first, second) and not np.array_equal(first, third)
    assert first.dtype == bool and first.shape == masks.shape


def test_masks_that_are_given_stay_as_they_are():
    masks = objects(4)
    kept = masks.copy()
    noisy_masks(masks, np.random.default_rng(0), masks)
    assert np.array_equal(masks, kept)


def test_empty_and_full_predictions_occur_where_they_fit():
    rng = np.random.default_rng(0)
    nothing = [degrade(OBJECT, 0.0, None, rng) for _ in range(40)]
    everything = [degrade(OBJECT, OBJECT.mean(), None, rng) for _ in range(40)]
    assert 5 < sum(not mask.any() for mask in nothing) < 35 and 5 < sum(mask.all() for mask in everything) < 35


@pytest.mark.parametrize("other", [OTHER, EMPTY, None], ids=["other", "empty other", "no other"])
@pytest.mark.parametrize("truth", [EMPTY, FULL, ROWS + COLS == 0], ids=["empty", "full", "one pixel"])
def test_strange_truths_are_survived(truth, other):
    rng = np.random.default_rng(0)
    for target in np.linspace(0, 1, 21):
        mask = degrade(truth, target, other, rng)
        assert mask.shape == SIZE and mask.dtype == bool and 0 <= iou(mask, truth) <= 1


def test_work_is_bounded(monkeypatch):
    calls, honest = [], mask_noise.search
    monkeypatch.setattr(mask_noise, "search", lambda *args: calls.append(1) or honest(*args))
    for truth in (OBJECT, ROWS + COLS == 0):
        for target in (0.0, 0.37, 1.0):
            calls.clear()
            degrade(truth, target, OTHER, np.random.default_rng(0))
            assert len(calls) <= mask_noise.ATTEMPTS * MOST_KINDS


def test_no_frames_give_no_masks():
    assert noisy_masks(np.zeros((0, *SIZE), bool), np.random.default_rng(0)).shape == (0, *SIZE)
