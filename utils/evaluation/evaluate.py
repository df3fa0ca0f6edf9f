"""evaluate: every test episode through a method, its masks through the metrics, one JSON line per video.

All of it goes clip by clip, so that memory does not depend on how long a video is. Network and metrics overlap: while
it segments the next clip, threads measure the last ones. Lines come in the order of the episodes and each is handed on
as soon as it is complete.
"""
import time
from collections import deque
from contextlib import ExitStack

from tqdm import tqdm

from utils.command_line import bar_hidden
from utils.config import differences
from utils.distributed import is_main
from utils.evaluation.measuring import MeasuredVideo, MetricsPool, Stopwatch
from utils.evaluation.metrics import aggregate
from utils.logger import get_logger

SAME_AS_TRAINED = ("model.", "backbone.name", "backbone.stem", "backbone.stride", "iou_net.similarity", "data.dataset",
                   "data.size", "data.shots", "data.clip_length", "data.mask_resize", "memory.length")


def evaluate(start, episodes, cfg, fold, on_result, restore=None, record=None, workers=2):
    """Run and measure every TestEpisode, clip by clip; on_result is called with one dict per video and run, in order.

    Runs over the same video go through it together. Of their lines the first has the time that was spent for all.

    start(episode)  ->  a function that is called with clip after clip and gives objects with margins (T, H, W)
        (> 0 is object), ious (T,) or None, remembered (T,) bool
    restore(margins, original_size)  ->  margins at the video's own size; needed for test.resolution: original
    record(episode), optional  ->  context manager around the video; its value is called with each clip and its masks,
        a (T, H, W) bool array at the resolution that is measured
    workers: threads for the metrics, 0 measures inline

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

    with MetricsPool(workers) as submit, _Progress(episodes, fold) as progress:
        try:
            for episode in data.around(episodes):
                videos = [MeasuredVideo(run, fold, cfg.metrics, submit) for run in episode.runs]
                with ExitStack() as stack:
                    writers = [stack.enter_context(record(run)) for run in episode.runs] if record else []
                    for clip, masks in _segmented(start, episode, videos, data, cfg, restore):
                        for write, run_masks in zip(writers, masks, strict=False):
                            write(clip, run_masks)
                        hand_on()
                        progress.count_frames(sum(map(len, masks)))
                videos[0].data_seconds = data.reset()
                segmented.extend(videos)
                hand_on()
        finally:
            hand_on(everything=True)
    return results


def warn_of_other_config(trained, cfg, source, own_iou_net=True):
    """Log the keys in which a checkpoint's config differs so that the same weights compute something else.

    Not model.method: several methods test the same weights. own_iou_net: False where another file's IoUNet is used
    """
    ignored = ("model.method", "model.dropout", "model.feature_dropout", *(() if own_iou_net else ("iou_net.",)))
    for key, (then, now) in differences(trained, cfg).items():
        if key.startswith(SAME_AS_TRAINED) and not key.startswith(ignored):
            get_logger().warning("%s: trained with %s %s, tested with %s", source, key, then, now)


def _segmented(start, episode, videos, data, cfg, restore):
    """Every clip through the network, run by run, and on to the metrics: yields clip, a (T, H, W) bool array per run"""
    original, segments = cfg.test.resolution == "original", []
    for run, video in zip(episode.runs, videos, strict=True):
        with video.network:
            segments.append(start(run))
    for clip in data.around(episode.clips):
        truth = clip.original_masks if original else clip.masks
        assert truth is not None, f"{episode.id}: test.resolution original needs original_masks"
        truth, masks = truth.cpu().numpy().astype(bool), []
        for segment, video in zip(segments, videos, strict=True):
            with video.network:
                said = segment(clip)
                margins = restore(said.margins, episode.original_size) if original else said.margins
                masks.append((margins > 0).cpu().numpy())
            video.add(said, masks[-1], truth)
        yield clip, masks
    count = len(videos[0].remembered)
    assert count == len(episode.frames), f"{episode.id}: {len(episode.frames)} frames, but {count} in its clips"


class _Progress:
    """The bar: counts videos, shows their mean J, F and VC so far, and how fast frames go through."""

    def __init__(self, episodes, fold):
        total = getattr(episodes, "results", len(episodes) if hasattr(episodes, "__len__") else None)
        self.bar = tqdm(total=total, desc=f"fold {fold}", unit="video", miniters=0, disable=bar_hidden(is_main()))
        self.frames, self.total_frames = 0, getattr(episodes, "frames", None)
        self.scores, self.started = "", time.perf_counter()

    def count_frames(self, count):
        """A clip is segmented: the bar of a long video moves, too."""
        self.frames += count
        of = f"/{self.total_frames}" if self.total_frames else ""
        rate = self.frames / (time.perf_counter() - self.started)
        self.bar.set_postfix_str(f"{self.scores}{self.frames}{of} frames, {rate:.1f}/s", refresh=False)
        self.bar.update(0)

    def count_video(self, results):
        """A line is handed on, the last one of results."""
        means = aggregate(results)
        self.scores = f"J {100 * means['j']:.1f} F {100 * means['f']:.1f} VC {100 * means['vc']:.1f}, "
        self.bar.update()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.count_frames(0)
        self.bar.close()
