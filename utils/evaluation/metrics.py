"""J, F and VC_n of binary masks: NumPy in, floats out, no state.

J is region similarity, F contour accuracy as the DAVIS toolkit computes it, VC_n temporal consistency over
windows of n frames. `aggregate` averages the per-video numbers of one fold and one run as the released code does.
"""
import numpy as np

from utils.evaluation.bitstack import FRAMES, count, dilate, pack
from utils.evaluation.sentences import sentence_scores

DAVIS = 0.008                # tolerance of F, a share of the image's diagonal


def jaccard(pred, gt):
    """J, intersection over union; two empty masks agree: 1.

    pred, gt (H, W) bool  ->  float;  (T, H, W)  ->  (T,) float64
    """
    intersection, union = _counts(pred, gt, lambda pred, gt: (pred & gt, pred | gt))
    return _plain(np.where(union == 0, 1.0, intersection / np.maximum(union, 1)))


def boundary_f(pred, gt, bound_th=DAVIS):
    """F, harmonic mean of the boundaries' precision and recall within a tolerance, after the DAVIS toolkit.

    pred, gt (H, W) bool  ->  float;  (T, H, W)  ->  (T,) float64
    bound_th: tolerance as a share of the image diagonal (4 pixels at 240 x 424)

    Two masks without boundary agree: 1. A full mask has none, so full against empty gives 1.
    """
    reach = int(np.ceil(bound_th * np.hypot(*np.shape(pred)[-2:])))

    def edges_and_hits(pred, gt):
        pred_edge, gt_edge = boundary(pred), boundary(gt)
        return pred_edge, gt_edge, pred_edge & dilate(gt_edge, reach), gt_edge & dilate(pred_edge, reach)

    pred_count, gt_count, pred_hits, gt_hits = _counts(pred, gt, edges_and_hits)
    precision = np.where(pred_count == 0, 1.0, pred_hits / np.maximum(pred_count, 1))
    recall = np.where(gt_count == 0, 1.0, gt_hits / np.maximum(gt_count, 1))
    precision = np.where((pred_count > 0) & (gt_count == 0), 0.0, precision)
    recall = np.where((pred_count == 0) & (gt_count > 0), 0.0, recall)
    both = precision + recall
    return _plain(np.where(both == 0, 0.0, 2 * precision * recall / np.where(both == 0, 1.0, both)))


def boundary(masks):
    """Pixels that differ from their right, lower or lower-right neighbour, (..., H, W) bool or packed  ->  the same

    The image border itself is no boundary.
    """
    edge = np.zeros_like(masks)
    edge[..., :, :-1] |= masks[..., :, :-1] ^ masks[..., :, 1:]
    edge[..., :-1, :] |= masks[..., :-1, :] ^ masks[..., 1:, :]
    edge[..., :-1, :-1] |= masks[..., :-1, :-1] ^ masks[..., 1:, 1:]
    return edge


def video_consistency(preds, gts, window=7, variant="vipmt"):
    """VC_n of one video, preds and gts (T, H, W) bool  ->  float, or None where the variant skips the video

    `vipmt` and `vspw` skip videos without windows; `tti` counts them as 0.
    """
    return _mean_of_windows(vc_windows(preds, gts, window, variant), variant)


def vc_windows(preds, gts, window=7, variant="vipmt"):
    """The share of every window of `window` frames, preds and gts (T, H, W) bool  ->  (windows,) float32

    vipmt  foreground in all predictions and all ground truths, over foreground in all ground truths (+ 1e-10);
           T - n + 1 windows, 0 where the ground truth has no common pixel. A recall: too large masks cost nothing.
    tti    the same, T - n windows
    vspw   pixels of constant prediction among the pixels of constant ground truth; T - n windows, NaN if none
    float32 as in the released code.
    """
    return vc_shares(*vc_counts(preds, gts, window, variant), variant)


def vc_shares(kept, total, variant):
    if variant == "vspw":
        return np.divide(kept, total, out=np.full(len(total), np.nan, np.float32), where=total > 0)
    return kept / (total + np.float32(1e-10))


def vc_counts(preds, gts, window=7, variant="vipmt"):
    """Both sides of the shares of `vc_windows`, (windows,) float32 each; where the second is 0 no mask can score"""
    preds, gts = _binary_pair(preds, gts)
    windows = len(gts) - window + (variant == "vipmt")
    if windows <= 0:
        return np.zeros((2, 0), np.float32)
    common_pred, common_gt = (_in_all(masks, window)[:windows] for masks in (preds, gts))
    if variant == "vspw":
        common_pred = common_pred | _in_all(~preds, window)[:windows]
        common_gt = common_gt | _in_all(~gts, window)[:windows]
    elif variant not in ("vipmt", "tti"):
        raise ValueError(f"metrics.vc: unknown variant '{variant}'; write vipmt, tti or vspw")
    return _counts(common_pred, common_gt, lambda pred, gt: (pred & gt, gt)).astype(np.float32)


def aggregate(results, classes=None):
    """Results of one fold and one run (the lines of results.jsonl)  ->  means, as the released code takes them

    {"j", "f", "vc", "classes": {class: {"j", "f", "vc", "videos", "frames"}}}, all in [0, 1]
    J and F: over all frames of a class, so long videos weigh more, then over classes. VC: windows, videos,
    classes; `vspw` alone averages all windows at once. A class of `classes` without frames counts 0.
    Lines that say "average": "object" are averaged over their frames and then over lines, "frame": all frames at once.
    Those of the referring task have more numbers (sentences.py).
    """
    by_class = {name: [] for name in classes or ()}
    for result in results:
        by_class.setdefault(result["class"], []).append(result)
    table = {name: _class_means(lines) for name, lines in by_class.items()}
    average = {result.get("average", "class") for result in results} or {"class"}
    assert len(average) == 1, f"averages are mixed: {average}"
    parts = {"class": list(table.values()),
             "object": [_class_means([line]) | ({} if line["vc"] else {"vc": None}) for line in results],
             "frame": [_class_means(results)] if results else []}[average.pop()]
    means = {key: _mean([row[key] for row in parts if row[key] is not None]) for key in ("j", "f", "vc")}
    if any(result["vc_variant"] == "vspw" for result in results):
        means["vc"] = _vspw_mean(results)
    return {**means, **sentence_scores(results, means["j"], means["f"]), "classes": table}


def _class_means(lines):
    variants = {line["vc_variant"] for line in lines}
    assert len(variants) <= 1, f"VC variants are mixed: {variants}"
    if variants == {"vspw"}:
        vc = _vspw_mean(lines)
    else:
        videos = [_mean_of_windows(np.array(line["vc"], float), line["vc_variant"]) for line in lines]
        vc = _mean([value for value in videos if value is not None])
    frames = [len(line["j"]) for line in lines]
    j, f = (_mean([x for line in lines for x in line[key]]) for key in ("j", "f"))
    return {"j": j, "f": f, "vc": vc, "videos": len(lines), "frames": sum(frames), **sentence_scores(lines, j, f)}


def _vspw_mean(lines):
    """Over all windows of all videos; windows without constant ground truth (null in JSON) are left out."""
    return _mean([x for line in lines for x in line["vc"] if x is not None and not np.isnan(x)])


def _mean_of_windows(windows, variant):
    valid = windows[~np.isnan(windows)]
    if len(valid) == 0:
        return 0.0 if variant == "tti" else None
    return float(_float32_mean(valid) if valid.dtype == np.float32 else valid.mean())


def _float32_mean(values):
    """Summed in eight lanes, as torch does for the released code; another order changes the last digit."""
    lanes = np.zeros((-(-len(values) // 8), 8), np.float32)
    lanes.flat[:len(values)] = values
    return np.cumsum(lanes.sum(axis=0))[-1] / np.float32(len(values))


def _mean(values):
    return float(np.mean(values)) if len(values) else 0.0


def _in_all(masks, window):
    """True where a pixel is set in all frames of a window, (T, H, W) bool  ->  (T - window + 1, H, W) bool"""
    common, reach = masks, 1                 # `common` covers windows of `reach` frames
    while reach < window:
        step = min(reach, window - reach)
        common, reach = common[:-step] & common[step:], reach + step
    return common


def _counts(pred, gt, combine):
    """Set pixels of what `combine` makes of prediction and truth: masks (H, W) or (T, H, W)  ->  (sets, [T]) int64

    Eight frames are combined at a time, packed into the bits of a byte.
    """
    pred, gt = _binary_pair(pred, gt)
    single = pred.ndim == 2
    stacks = [(m[None] if single else m) for m in (pred, gt)]
    parts = []
    for start in range(0, len(stacks[0]), FRAMES):
        some = [stack[start:start + FRAMES] for stack in stacks]
        parts.append(np.array([count(x, len(some[0])) for x in combine(*map(pack, some))]))
    counts = np.concatenate(parts, axis=1)
    return counts[:, 0] if single else counts


def _binary_pair(pred, gt):
    pred, gt = (np.ascontiguousarray(mask if mask.dtype == bool else mask != 0) for mask in map(np.asarray, (pred, gt)))
    if pred.shape != gt.shape or pred.ndim not in (2, 3):
        raise ValueError(f"metrics: expected two masks (H, W) or two stacks (T, H, W) of one size, "
                         f"got {pred.shape} and {gt.shape}")
    return pred, gt


def _plain(values):
    return float(values) if values.ndim == 0 else values
