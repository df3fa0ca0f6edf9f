"""J, F and VC against slow loops written from the definitions, against known edge cases and the golden numbers."""
import json
import math

import numpy as np
import pytest
from material import SHARED

from utils.evaluation.metrics import aggregate, boundary, boundary_f, jaccard, vc_windows, video_consistency

SIZE = (240, 424)
rng = np.random.default_rng(0)


# ---- a second implementation: loops over pixels

def slow_j(pred, gt):
    both = sum(bool(p) and bool(g) for p, g in zip(pred.flat, gt.flat, strict=True))
    either = sum(bool(p) or bool(g) for p, g in zip(pred.flat, gt.flat, strict=True))
    return 1.0 if either == 0 else both / either


def slow_boundary(mask):
    h, w = mask.shape
    return {(y, x) for y in range(h) for x in range(w)
            if any(yy < h and xx < w and mask[yy, xx] != mask[y, x]
                   for yy, xx in ((y, x + 1), (y + 1, x), (y + 1, x + 1)))}


def slow_f(pred, gt, bound_th=0.008):
    radius = math.ceil(bound_th * math.sqrt(pred.shape[0] ** 2 + pred.shape[1] ** 2))
    p, g = slow_boundary(pred), slow_boundary(gt)

    def near(point, others):
        return any((point[0] - y) ** 2 + (point[1] - x) ** 2 <= radius ** 2 for y, x in others)

    if not p and not g:
        return 1.0
    if not p or not g:
        return 0.0
    precision = sum(near(point, g) for point in p) / len(p)
    recall = sum(near(point, p) for point in g) / len(g)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def slow_windows(preds, gts, n, variant):
    frames, h, w = gts.shape
    values = []
    for start in range(frames - n + (1 if variant == "vipmt" else 0)):
        kept = total = 0
        for y in range(h):
            for x in range(w):
                p, g = (m[start:start + n, y, x] for m in (preds, gts))
                if variant == "vspw":
                    total += len(set(g.tolist())) == 1
                    kept += len(set(g.tolist())) == 1 and len(set(p.tolist())) == 1
                else:
                    total += all(g)
                    kept += all(g) and all(p)
        values.append(math.nan if variant == "vspw" and not total else kept / max(total, 1))
    return values


def blobs(*shape):
    """Random masks with some structure: thresholded coarse noise."""
    coarse = rng.random((shape[0], -(-shape[1] // 4), -(-shape[2] // 4)))
    return (np.kron(coarse, np.ones((1, 4, 4)))[:, :shape[1], :shape[2]] + 0.3 * rng.random(shape)) > 0.65


def test_j_and_f_equal_slow_loops():
    pred, gt = blobs(12, 19, 26), blobs(12, 19, 26)
    pred[0], gt[1], pred[2], gt[2] = False, False, False, False
    pred[3], gt[4] = True, True
    assert jaccard(pred, gt).tolist() == [slow_j(p, g) for p, g in zip(pred, gt, strict=True)]
    for th in (0.008, 0.1):
        assert boundary_f(pred, gt, th).tolist() == [slow_f(p, g, th) for p, g in zip(pred, gt, strict=True)]


def test_boundary_equals_slow_loop():
    for mask in blobs(5, 11, 7):
        assert set(zip(*np.nonzero(boundary(mask)), strict=True)) == slow_boundary(mask)


@pytest.mark.parametrize("variant", ["vipmt", "tti", "vspw"])
def test_windows_equal_slow_loops(variant):
    gts = np.repeat(blobs(1, 9, 10), 11, axis=0) ^ (rng.random((11, 9, 10)) < 0.05)
    preds = gts ^ (rng.random(gts.shape) < 0.03)
    for n in (2, 7):
        np.testing.assert_allclose(vc_windows(preds, gts, n, variant), slow_windows(preds, gts, n, variant), rtol=1e-6)


def test_one_frame_gives_a_float_and_a_stack_an_array():
    pred, gt = blobs(3, 20, 20), blobs(3, 20, 20)
    for metric in (jaccard, boundary_f):
        assert isinstance(metric(pred[0], gt[0]), float)
        assert metric(pred, gt).shape == (3,) and metric(pred, gt)[0] == metric(pred[0], gt[0])


def test_masks_of_other_types_count_as_foreground_where_not_zero():
    pred, gt = blobs(2, 20, 20), blobs(2, 20, 20)
    assert (jaccard(pred * np.uint8(255), gt.astype(float)) == jaccard(pred, gt)).all()
    assert (boundary_f(pred * np.int64(3), gt[:, ::1]) == boundary_f(pred, gt)).all()


def test_different_sizes_are_an_error():
    with pytest.raises(ValueError, match=r"got \(3, 4\) and \(4, 3\)"):
        jaccard(np.zeros((3, 4)), np.zeros((4, 3)))


def frame(*boxes):
    """A mask of the input size with boxes (top, left, bottom, right), the last two excluded."""
    mask = np.zeros(SIZE, bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


FULL = (0, 0, *SIZE)
DOT = (100, 200, 101, 201)


def dot(dy, dx):
    return (100 + dy, 200 + dx, 101 + dy, 201 + dx)


@pytest.mark.parametrize("pred, gt, j, f", [
    ([], [], 1, 1), ([], [DOT], 0, 0), ([DOT], [], 0, 0), ([FULL], [FULL], 1, 1),
    ([FULL], [], 0, 1), ([], [FULL], 0, 1),                                  # a full mask has no boundary
    ([DOT], [DOT], 1, 1), ([dot(0, 1)], [DOT], 0, 1), ([dot(0, 4)], [DOT], 0, 1),
    ([dot(0, 5)], [DOT], 0, 0.5), ([dot(0, 6)], [DOT], 0, 0), ([dot(3, 3)], [DOT], 0, 0.75),
    ([(239, 423, 240, 424)], [(239, 423, 240, 424)], 1, 1),
    ([(0, 0, 1, 1), (239, 423, 240, 424)], [], 0, 0), ([(239, 423, 240, 424)], [(239, 422, 240, 423)], 0, 1),
    ([(0, 0, 10, 10)], [(200, 300, 230, 400)], 0, 0),
])
def test_edge_cases_of_the_toolkit(pred, gt, j, f):
    assert jaccard(frame(*pred), frame(*gt)) == j
    assert boundary_f(frame(*pred), frame(*gt)) == f


def video(length, gt_boxes, pred_boxes):
    return tuple(np.stack([frame(*boxes(t)) for t in range(length)]) for boxes in (pred_boxes, gt_boxes))


BOX = (60, 100, 160, 300)


@pytest.mark.parametrize("length, gt, pred, expected", [
    (6, lambda t: [BOX], lambda t: [BOX], None),
    (7, lambda t: [BOX], lambda t: [BOX], 1.0),
    (9, lambda t: [], lambda t: [BOX], 0.0),                                  # no ground truth: 0, not undefined
    (9, lambda t: [BOX], lambda t: [], 0.0),
    (8, lambda t: [BOX] if t else [DOT], lambda t: [BOX] if t else [DOT], 1.0),
    (8, lambda t: [BOX] if t else [(0, 0, 9, 9)], lambda t: [BOX] if t else [(0, 0, 9, 9)], 0.5),
    (9, lambda t: [] if t == 3 else [BOX], lambda t: [BOX], 0.0),
    (9, lambda t: [BOX], lambda t: [] if t == 8 else [BOX], 0.6666666865348816),   # float32
    (8, lambda t: [BOX], lambda t: [(60, 100, 110, 300)], 0.5),
    (8, lambda t: [BOX], lambda t: [FULL], 1.0),                              # a recall: too large costs nothing
])
def test_vc7_edge_cases(length, gt, pred, expected):
    assert video_consistency(*video(length, gt, pred)) == expected


def test_short_videos_by_variant():
    masks = np.ones((7, 4, 4), bool)
    assert video_consistency(masks, masks, 7, "vipmt") == 1.0
    assert video_consistency(masks, masks, 7, "tti") == 0.0
    assert video_consistency(masks, masks, 7, "vspw") is None
    assert len(vc_windows(masks, masks, 8, "vipmt")) == 0


def test_unknown_variant_is_an_error():
    with pytest.raises(ValueError, match="vipmt, tti or vspw"):
        vc_windows(np.ones((9, 2, 2)), np.ones((9, 2, 2)), 7, "other")


def line(name, j, f=None, vc=(), variant="vipmt"):
    return {"class": name, "j": j, "f": j if f is None else f, "vc": list(vc), "vc_variant": variant}


def test_long_videos_weigh_more_for_j_and_the_same_for_vc():
    means = aggregate([line("cat", [1.0] * 3, [0.5] * 3, [1.0, 1.0, 1.0]), line("cat", [0.0], [0.1], [0.0]),
                       line("dog", [0.5, 0.7], vc=[0.4])])
    assert means["classes"]["cat"] == {"j": 0.75, "f": 0.4, "vc": 0.5, "videos": 2, "frames": 4}
    assert means["j"] == pytest.approx((0.75 + 0.6) / 2) and means["vc"] == pytest.approx((0.5 + 0.4) / 2)


def test_class_without_frames_counts_zero():
    means = aggregate([line("cat", [1.0], vc=[1.0])], classes=["cat", "dog"])
    assert (means["j"], means["f"], means["vc"]) == (0.5, 0.5, 0.5)


def test_short_videos_are_skipped_or_count_zero():
    lines = [("cat", [1.0] * 8, None, [0.8]), ("cat", [1.0] * 3, None, []), ("dog", [1.0] * 3, None, [])]
    assert aggregate([line(*x) for x in lines])["classes"]["cat"]["vc"] == 0.8
    assert aggregate([line(*x) for x in lines])["vc"] == 0.4                  # dog has short videos only: 0
    assert aggregate([line(*x, "tti") for x in lines])["classes"]["cat"]["vc"] == 0.4


def test_vspw_averages_all_windows_at_once():
    lines = [line("cat", [1.0], vc=[1.0, 0.5, None], variant="vspw"), line("dog", [1.0], vc=[0.0], variant="vspw")]
    assert aggregate(lines)["vc"] == 0.5


def test_nothing_to_average_is_zero():
    assert aggregate([]) == {"j": 0.0, "f": 0.0, "vc": 0.0, "classes": {}}


# ---- golden numbers of the released code and of the DAVIS 2017 toolkit

@pytest.fixture(scope="module")
def golden():
    folder = SHARED / "parity"
    if not (folder / "metrics_golden.npz").is_file():
        pytest.skip("needs the golden numbers")
    return json.loads((folder / "metrics_golden.json").read_text()), np.load(folder / "metrics_golden.npz")


def unpacked(packed, frames):
    return np.unpackbits(packed)[:frames * SIZE[0] * SIZE[1]].reshape(frames, *SIZE).astype(bool)


def test_real_masks_equal_the_golden_numbers_to_the_last_digit(golden):
    numbers, arrays = golden
    for name, entry in numbers["sequences"].items():
        pred, gt = (unpacked(arrays[f"{name}/{kind}"], entry["n_frames"]) for kind in ("pred", "gt"))
        assert jaccard(pred, gt).tolist() == entry["J"], name
        assert boundary_f(pred, gt).tolist() == entry["F"], name
        assert vc_windows(pred, gt).tolist() == entry["vc7_windows"], name
        assert video_consistency(pred, gt) == entry["vc7"], name


def test_edge_masks_equal_the_golden_numbers(golden):
    numbers, arrays = golden
    pred, gt = (unpacked(arrays[f"edge/{kind}"], len(numbers["edge"])) for kind in ("pred", "gt"))
    j, f = jaccard(pred, gt), boundary_f(pred, gt)
    assert {name: (j[e["index"]], f[e["index"]]) for name, e in numbers["edge"].items()} == {
        name: (e["J"], e["F"]) for name, e in numbers["edge"].items()}
    for name, entry in numbers["vc_edge"].items():
        masks = (unpacked(arrays[f"vc_edge/{name}/{kind}"], entry["n_frames"]) for kind in ("pred", "gt"))
        assert video_consistency(*masks) == entry["vc7"], name
