"""evaluate: every test video through a method, its masks through the metrics, one JSON line per video and object.

All of it goes clip by clip, so that memory does not depend on how long a video is. Network and metrics overlap: while
it segments the next clip, threads measure the last ones. Lines come in the order of the videos and each is handed on
as soon as it is complete.
"""
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain

import numpy as np
from tqdm import tqdm

from utils.command_line import EveryMinute, bar_hidden
from utils.distributed import is_main
from utils.evaluation.measuring import MeasuredVideo, MetricsPool, Stopwatch
from utils.evaluation.metrics import aggregate
from utils.logger import get_logger


def evaluate(start, videos, cfg, on_result, facts=None, restore=None, record=None, workers=2):
    """Run and measure every Video, clip by clip; on_result gets one dict per video, reference and object, in order.

    References of the same video go through it together. Of their lines the first has the time that was spent for all.

    start(reference)  ->  a Segmenter of the contract (models/method.py)
    facts: what every line says, such as the fold
    restore(margins, original_size)  ->  margins at the video's own size; needed for test.resolution: original
    record(video, reference), optional  ->  context manager around the video; its value is called with each clip and
        its masks, an (O, T, H, W) bool array at the resolution that is measured
    workers: threads for the metrics, 0 measures inline

    Objects whose truth nobody knows give no line.

    Returns the list of dicts. An exception of the data, the network or a metric goes up after every video that was
    segmented so far has been measured and handed on.
    """
    if cfg.test.resolution == "original" and restore is None:
        raise ValueError("test.resolution: original needs restore(margins, original_size)")
    results, segmented, data = [], deque(), Stopwatch()

    def hand_on(everything=False):
        while segmented and (everything or segmented[0].is_measured()):
            results.append(segmented.popleft().line())
            on_result(results[-1])
            progress.count_video(results)

    with MetricsPool(workers) as submit, _Progress(videos, facts) as progress:
        try:
            for video in data.around(videos):
                measured = [[MeasuredVideo((facts or {}) | own, cfg.metrics, submit) for own in reference.facts]
                            for reference in video.references]
                with ExitStack() as stack:
                    writers = [stack.enter_context(record(video, one)) for one in video.references] if record else []
                    for clip, masks in _segmented(start, video, measured, data, cfg, restore):
                        for write, its_masks in zip(writers, masks, strict=False):
                            write(clip, its_masks)
                        hand_on()
                        progress.count_frames(sum(len(one[0]) for one in masks))
                measured[0][0].data_seconds = data.reset()
                segmented.extend(one for one in chain(*measured) if one.frames)
                hand_on()
        finally:
            hand_on(everything=True)
    return results


def _segmented(start, video, measured, data, cfg, restore):
    """Every clip through the network, reference by reference, and on to the metrics: yields clip, a bool array
    (O, T, H, W) per reference"""
    original, segmenters, count = cfg.test.resolution == "original", [], 0
    rows, swapped = [getattr(one, "row", 0) for one in video.references], getattr(cfg.test, "swap_sentences", False)
    for reference, its in zip(video.references, measured, strict=True):
        with its[0].network:
            segmenters.append(start(reference))
    for clip in data.around(video.clips):
        truth, masks, count = clip.original_masks if original else clip.masks, [], count + len(clip.images)
        assert truth is not None or not original, f"{video.id}: test.resolution original needs original_masks"
        truth = None if truth is None else truth.cpu().numpy().astype(bool)
        with measured[0][0].network:
            prepared = segmenters[0].prepare(clip)
        for segment, its, first in zip(segmenters, measured, rows, strict=True):
            with its[0].network:
                prediction = segment(prepared, clip)
                margins = prediction.margins
                if original:
                    margins = restore(margins.flatten(0, 1), video.original_size).unflatten(0, margins.shape[:2])
                masks.append((margins > 0).cpu().numpy())
            if truth is not None:
                for o, one in enumerate(its):
                    chosen, row = slice(None) if clip.scored is None else clip.scored[o].numpy(), first + o
                    others = np.delete(truth, row, axis=0) if swapped else ()
                    if len(masks[-1][o, chosen]):
                        one.add(_of_object(prediction, o, chosen), masks[-1][o, chosen], truth[row, chosen], others)
        yield clip, masks
    assert count == len(video.frames), f"{video.id}: {len(video.frames)} frames, but {count} in its clips"


def _of_object(prediction, o, frames):
    """What a Prediction says per frame, of one object and some frames: values (T,) or (O, T)  ->  (frames,)"""
    return replace(prediction, per_frame={name: (values[o] if values.ndim == 2 else values)[frames]
                                          for name, values in prediction.per_frame.items()})


class _Progress:
    """The bar: counts videos, shows their mean J, F and VC so far, and how fast frames go through."""

    def __init__(self, videos, facts):
        total = getattr(videos, "results", len(videos) if hasattr(videos, "__len__") else None)
        self.name, self.videos, self.total = " ".join(f"{k} {v}" for k, v in (facts or {}).items()), 0, total
        self.bar = tqdm(total=total, desc=self.name, unit="video", miniters=0, disable=bar_hidden(is_main()))
        self.frames, self.total_frames = 0, getattr(videos, "frames", None)
        self.scores, self.started, self.minute = "", time.perf_counter(), EveryMinute(is_main() and self.bar.disable)

    def count_frames(self, count):
        """A clip is segmented: the bar of a long video moves, too."""
        self.frames += count
        of = f"/{self.total_frames}" if self.total_frames else ""
        rate = self.frames / (time.perf_counter() - self.started)
        self.bar.set_postfix_str(f"{self.scores}{self.frames}{of} frames, {rate:.1f}/s", refresh=False)
        self.bar.update(0)
        if self.minute.over():
            get_logger().info("%s: %d of %s videos, %s%d%s frames, %.1f/s", self.name, self.videos, self.total,
                              self.scores, self.frames, of, rate)

    def count_video(self, results):
        """A line is handed on, the last one of results."""
        means, self.videos = aggregate(results), len(results)
        self.scores = f"J {100 * means['j']:.1f} F {100 * means['f']:.1f} VC {100 * means['vc']:.1f}, "
        self.bar.update()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.count_frames(0)
        self.bar.close()
