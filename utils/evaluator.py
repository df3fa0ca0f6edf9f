"""evaluate: every test episode through a method, its masks through the metrics, one JSON line per video.

The network and the metrics overlap: while it segments the next video, threads measure the last ones. Lines come
in the order of the episodes and each is handed on as soon as it is complete.
"""
import json
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.checkpoint import atomic_file, fingerprint
from utils.config import differences, flatten, to_dict
from utils.logger import JsonLines, get_logger, read_json_lines
from utils.metrics import aggregate, boundary_f, jaccard, vc_windows

# Config keys that change no number of a test: a change of these still continues results.jsonl.
HARMLESS = ("name", "train.", "loss.", "validate.", "checkpoint.", "iou_net.training", "iou_net.loss",
            "iou_net.weights", "test.runs", "data.workers", "data.clips", "data.samples_per_class", "data.augmentation",
            "data.first_frame_augmented", "data.short_video", "backbone.cache_frames", "backbone.weights")

SAME_AS_TRAINED = ("model.", "backbone.name", "backbone.stem", "backbone.stride", "iou_net.similarity", "data.dataset",
                   "data.size", "data.shots", "data.clip_length", "data.mask_resize", "memory.length")


def evaluate(segment, episodes, cfg, fold, on_result, restore=None, on_masks=None, workers=2, total=None):
    """Run and measure every episode; on_result is called with one dict per video, in order.

    segment(episode)  ->  object with margins (T, H, W) (> 0 is object), ious (T,) or None, remembered (T,) bool
    restore(margins, original_size)  ->  margins at the video's own size; needed for test.resolution: original
    on_masks(episode, masks (T, H, W) bool array), optional, at the resolution that is measured
    workers: threads for the metrics, 0 measures inline

    Returns the list of dicts. An exception of the network or of a metric goes up after all else that was segmented
    so far has been measured and handed on.
    """
    if cfg.test.resolution == "original" and restore is None:
        raise ValueError("test.resolution: original needs restore(margins, original_size)")
    total = len(episodes) if total is None and hasattr(episodes, "__len__") else total
    results, pending = [], deque()

    def hand_on(progress, leave):
        while len(pending) > leave or (pending and pending[0].done()):
            result = pending.popleft().result()
            on_result(result)
            results.append(result)
            progress.set_postfix_str(_running(results), refresh=False)
            progress.update()

    with _Pool(workers) as submit, tqdm(total=total, desc=f"fold {fold}", unit="video") as progress:
        try:
            for episode in episodes:
                masks, truth, parts = _segmented(segment, episode, cfg, restore)
                if on_masks is not None:
                    on_masks(episode, masks)
                pending.append(submit(_measure, masks, truth, _facts(episode, fold) | parts, cfg.metrics))
                hand_on(progress, leave=2 * workers)
        finally:
            hand_on(progress, leave=0)
    return results


def open_results(output, header):
    """results.jsonl of a test, continued if it is of the same test  ->  (JsonLines, lines already there)

    header: what the numbers depend on (checkpoint's SHA-256, config, fold). It is kept in test.json beside them.
    ValueError if the folder holds results of something else.
    """
    output = Path(output)
    note, lines = output / "test.json", output / "results.jsonl"
    if note.is_file() and lines.is_file():
        changed = _changed(json.loads(note.read_text()), header)
        if changed:
            raise ValueError(f"{lines} belongs to another test: {'; '.join(changed)}.\n"
                             f"  Choose another --output, or delete {output}")
    elif lines.is_file():
        raise ValueError(f"{lines} has no test.json beside it, so nobody knows what it was measured with.\n"
                         f"  Choose another --output, or delete {output}")
    output.mkdir(parents=True, exist_ok=True)
    with atomic_file(note, "w") as file:
        json.dump(header, file, indent=1)
    writer = JsonLines(lines)
    return writer, read_json_lines(lines)


def describe_test(checkpoint_path, cfg, fold):
    """What the numbers of a test depend on, as plain values."""
    config = {key: value for key, value in flatten(to_dict(cfg)).items() if not key.startswith(HARMLESS)}
    return {"checkpoint": str(checkpoint_path), "sha256": fingerprint(checkpoint_path), "fold": fold, "config": config}


def warn_of_other_config(trained, cfg, source):
    """Log the keys in which a checkpoint's config differs so that the same weights compute something else."""
    for key, (then, now) in differences(trained, cfg).items():
        if key.startswith(SAME_AS_TRAINED) and "dropout" not in key:
            get_logger().warning("%s: trained with %s %s, tested with %s", source, key, then, now)


def _changed(old, new):
    """What differs between two headers, in words."""
    changed = []
    if old.get("sha256") != new["sha256"]:
        changed.append(f"checkpoint {old.get('checkpoint')} (another content than {new['checkpoint']})")
    if old.get("fold") != new["fold"]:
        changed.append(f"fold {old.get('fold')}, not {new['fold']}")
    before, now = old.get("config", {}), new["config"]
    keys = [key for key in before | now if before.get(key) != now.get(key)]
    changed += [f"{key} was {before.get(key)}, is {now.get(key)}" for key in keys[:5]]
    return changed + ([f"{len(keys) - 5} more keys"] if len(keys) > 5 else [])


def _segmented(segment, episode, cfg, restore):
    """One episode through the network  ->  masks and truth (T, H, W) bool arrays, and what the network said"""
    start = time.perf_counter()
    video = segment(episode)
    margins, truth = video.margins, episode.query_masks
    if cfg.test.resolution == "original":
        margins, truth = restore(margins, episode.original_size), episode.original_masks
        assert truth is not None, f"{episode.id}: test.resolution original needs original_masks"
    masks = (margins > 0).cpu().numpy()
    return masks, truth.cpu().numpy().astype(bool), {
        "pred_iou": None if video.ious is None else _rounded(video.ious.float().cpu().numpy()),
        "remembered": [bool(x) for x in video.remembered.tolist()],
        "seconds": round(time.perf_counter() - start, 6)}


def _facts(episode, fold):
    return {
        "fold": fold, "run": episode.run, "class_id": episode.class_id, "class": episode.class_name,
        "video": episode.video, "frames": list(episode.frames), "support_frames": list(episode.support_frames),
        "supports_share_video": bool(episode.supports_share_video)}


def _measure(masks, truth, facts, metrics):
    """Masks and truth (T, H, W) bool  ->  the JSON line of one video"""
    j, f = jaccard(masks, truth), boundary_f(masks, truth)
    windows = vc_windows(masks, truth, metrics.vc_window, metrics.vc)
    return facts | {
        "j": _rounded(j), "f": _rounded(f), "vc": _rounded(windows), "vc_variant": metrics.vc,
        "vc_window": metrics.vc_window, "true_iou": _rounded(j)}


def _rounded(values):
    """Array  ->  list of floats with 6 digits; NaN, which JSON lacks, becomes None"""
    return [None if np.isnan(x) else round(float(x), 6) for x in values]


def _running(results):
    means = aggregate(results)
    return f"J {100 * means['j']:.1f} F {100 * means['f']:.1f} VC {100 * means['vc']:.1f}"


class _Now:
    """A future whose work was done inline."""

    def __init__(self, function, *arguments):
        self._value = function(*arguments)

    def done(self):
        return True

    def result(self):
        return self._value


class _Pool:
    """submit(function, *arguments) of a thread pool, or of none: NumPy and OpenCV free the interpreter lock."""

    def __init__(self, workers):
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="metrics") if workers else None

    def __enter__(self):
        return self._threads.submit if self._threads else _Now

    def __exit__(self, *_):
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
