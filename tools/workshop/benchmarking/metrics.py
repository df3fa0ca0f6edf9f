"""Metrics the released way: frame by frame with scikit-image, windows in a loop; and the job that times ours on it.

In: masks (T, H, W) bool arrays. Out: the same numbers as evaluation/metrics.py. scikit-image is asked for here only.
"""
import math
import warnings
from functools import partial

import cv2
import numpy as np

from tools.workshop.benchmarking.data import moving_masks
from utils.evaluation.metrics import boundary_f, jaccard, vc_windows

try:
    from skimage.morphology import binary_dilation, disk
except ImportError:
    binary_dilation = None

warnings.filterwarnings("ignore", message=".binary_dilation. is deprecated", category=FutureWarning)

NO_SKIMAGE = "scikit-image is not installed: the released boundary F cannot be timed (pip install scikit-image)"
BOUND = 0.008


def has_skimage():
    return binary_dilation is not None


def reference_jaccard(pred, gt):
    """One frame, (H, W) bool twice"""
    union = np.logical_or(pred, gt).sum()
    return 1.0 if union == 0 else float(np.logical_and(pred, gt).sum() / union)


def reference_boundary(mask):
    """Pixels that differ from their right, lower or lower-right neighbour, by three shifted copies."""
    right, lower, both = mask.copy(), mask.copy(), mask.copy()
    right[:, :-1], lower[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge = (mask ^ right) | (mask ^ lower) | (mask ^ both)
    edge[-1], edge[:, -1] = mask[-1] ^ right[-1], mask[:, -1] ^ lower[:, -1]
    edge[-1, -1] = False
    return edge


def reference_boundary_f(pred, gt):
    """One frame, (H, W) bool twice"""
    radius = math.ceil(BOUND * math.hypot(*pred.shape))
    pred_edge, gt_edge = reference_boundary(pred), reference_boundary(gt)
    pred_near, gt_near = (binary_dilation(edge, disk(radius)) for edge in (pred_edge, gt_edge))
    if not pred_edge.any() or not gt_edge.any():
        return float(not pred_edge.any() and not gt_edge.any())
    precision = (pred_edge & gt_near).sum() / pred_edge.sum()
    recall = (gt_edge & pred_near).sum() / gt_edge.sum()
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


def reference_consistency(preds, gts, window=7):
    """VC of every window, (T, H, W) bool twice  ->  list of float32"""
    preds, gts, values = preds.astype(np.float32), gts.astype(np.float32), []
    for start in range(len(gts) - window + 1):
        common_gt, common = np.ones_like(gts[0]), np.ones_like(gts[0])
        for t in range(start, start + window):
            common_gt, common = common_gt * gts[t], common * gts[t] * preds[t]
        values.append(common.sum() / (common_gt.sum() + np.float32(1e-10)))
    return values


def reference_video_metrics(preds, gts):
    """J and F of every frame and VC of every window; without scikit-image F is ours, which understates the time."""
    f = reference_boundary_f if has_skimage() else boundary_f
    return ([reference_jaccard(*pair) for pair in zip(preds, gts, strict=True)],
            [f(*pair) for pair in zip(preds, gts, strict=True)], reference_consistency(preds, gts))


def our_video_metrics(preds, gts):
    """The same as reference_video_metrics, by utils/evaluation/metrics.py"""
    return jaccard(preds, gts), boundary_f(preds, gts), vc_windows(preds, gts)


def metrics(bench):
    """One core. Masks of a moving object and a ragged prediction that lags behind."""
    s, rows = bench.settings, []
    cv2.setNumThreads(1)
    preds, gts = moving_masks(8 if s.quick else 20, bench.cfg.data.size)
    for name, ours, theirs, *masks in (
            ("boundary F, one frame", boundary_f, reference_boundary_f, preds[0], gts[0]),
            (f"J, F, VC of {len(gts)} frames", our_video_metrics, reference_video_metrics, preds, gts),
            (f"VC of {len(gts)} frames", vc_windows, reference_consistency, preds, gts)):
        possible = has_skimage() or " F" not in name
        modes = {"ours": partial(ours, *masks)} | ({"reference": partial(theirs, *masks)} if possible else {})
        seconds = bench.take_turns(modes, 10 * s.repeats)
        rows.append({"what": name, **{f"{mode}_ms": 1000 * x for mode, x in seconds.items()},
                     "ratio": seconds["reference"] / seconds["ours"] if possible else None,
                     "note": None if possible else NO_SKIMAGE})
    return rows
