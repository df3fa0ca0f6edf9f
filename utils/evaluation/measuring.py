"""Measuring: one video on its way from masks to its JSON line, clip by clip, on threads beside the network.

In: masks and truth of clip after clip. Out: the line, with the very numbers the whole video at once would give.
"""
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from utils.evaluation.metrics import DAVIS, boundary_f, jaccard, vc_counts, vc_shares


class MeasuredVideo:
    """A video on its way: clips come in, one JSON line goes out when all of them are measured.

    submit(function, *arguments)  ->  future. VC's windows reach over clips: frames with which no window has started
    yet are carried over, and `vc_windows` of them and the next clip gives just the windows that come next.
    """

    def __init__(self, facts, metrics, submit):
        self.facts, self.metrics, self.submit = facts, metrics, submit
        self.network, self.data_seconds = Stopwatch(), 0.0     # in the network, and waiting for data
        self.per_frame, self.frames = {}, 0
        self.pixels = 0 if metrics.average == "frame" else None      # intersection and union, for the overall IoU
        self.in_work, self.measured = deque(), {"j": [], "f": [], "vc": [], "vc_possible": [], "f_davis": []}
        # tti and vspw leave out the last window of what they are given: it starts one frame later with the next clip.
        self.carried, self.reach = None, metrics.vc_window - (metrics.vc == "vipmt")

    def add(self, prediction, masks, truth, others=()):
        """The next clip: Prediction; masks and truth (T, H, W) bool arrays; others: truth of other objects, likewise"""
        self.frames += len(masks)
        if self.pixels is not None:
            counts = np.array([[(masks & one).sum(), (masks | one).sum()] for one in (truth, *others)])
            self.pixels = self.pixels + counts
        for name, values in prediction.per_frame.items():
            self.per_frame.setdefault(name, []).extend(as_plain(values))
        recent = masks, truth
        if self.carried is not None:
            recent = [np.concatenate(pair) for pair in zip(self.carried, recent, strict=True)]
        self.carried = [x[max(len(x) - self.reach, 0):] for x in recent]
        self.in_work.append(self.submit(_measure, *recent, len(masks), self.metrics))
        while self.in_work and self.in_work[0].done():    # a metric's error shows now, not at the end of the video
            self._collect()

    def is_measured(self):
        """Whether `line` need not wait."""
        return all(clip.done() for clip in self.in_work)

    def line(self):
        """The JSON line of the video."""
        while self.in_work:
            self._collect()
        j, f, vc, possible, f_davis = self.measured.values()
        return self.facts | self.per_frame | {
            "seconds": round(self.network.seconds, 6), "data_seconds": round(self.data_seconds, 6),
            "j": j, "f": f, "vc": vc, "vc_possible": sum(possible), "true_iou": j,
            "vc_variant": self.metrics.vc, "vc_window": self.metrics.vc_window} | (
                {} if self.metrics.average == "class" else {"average": self.metrics.average}) | (
                {"f_davis": f_davis} if f_davis else {}) | (
                {} if self.pixels is None else {"tolerance": self.metrics.tolerance, "pixels": self.pixels.tolist()})

    def _collect(self):
        for key, values in self.in_work.popleft().result().items():
            self.measured[key] += values


def _measure(masks, truth, new, metrics):
    """Masks and truth (T, H, W) bool: frames carried over, then `new` ones  ->  {"j", "f", "vc", ...}: lists

    J and F of the new frames, VC of all windows, and in which of these the truth lets any mask score; where all frames
    are averaged at once, F by DAVIS' tolerance as well.
    """
    pair = masks[-new:], truth[-new:]
    kept, total = vc_counts(masks, truth, metrics.vc_window, metrics.vc)
    davis = boundary_f(*pair, DAVIS) if metrics.average == "frame" and metrics.tolerance != DAVIS else ()
    return {"j": _rounded(jaccard(*pair)), "f": _rounded(boundary_f(*pair, metrics.tolerance)),
            "vc": _rounded(vc_shares(kept, total, metrics.vc)), "vc_possible": (total > 0).tolist(),
            "f_davis": _rounded(davis)}


def as_plain(values):
    """A tensor (T,)  ->  list of bool, int or float with 6 digits, None for NaN"""
    values = values.detach().cpu()
    return _rounded(values.float().numpy()) if values.is_floating_point() else values.tolist()


def _rounded(values):
    """Array  ->  list of floats with 6 digits; NaN, which JSON lacks, becomes None"""
    return [None if np.isnan(x) else round(float(x), 6) for x in values]


class _Now:
    """A future whose work was done inline."""

    def __init__(self, function, *arguments):
        self._value = function(*arguments)

    def done(self):
        return True

    def result(self):
        return self._value


class MetricsPool:
    """submit(function, *arguments)  ->  future, of threads or inline: NumPy and OpenCV free the interpreter lock.

    With more than two pieces of work per thread unfinished it waits for the oldest: masks do not pile up.
    """

    def __init__(self, workers):
        self._limit, self._unfinished = 2 * workers, deque()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="metrics") if workers else None

    def __enter__(self):
        return self._submit if self._threads else _Now

    def __exit__(self, *_):
        if self._threads:
            self._threads.shutdown(cancel_futures=True)

    def _submit(self, function, *arguments):
        if len(self._unfinished) >= self._limit:
            wait([self._unfinished.popleft()])
        self._unfinished.append(self._threads.submit(function, *arguments))
        return self._unfinished[-1]


class Stopwatch:
    """Adds up the seconds spent in its `with` blocks."""

    def __init__(self):
        self.seconds = 0.0

    def __enter__(self):
        self._started = time.perf_counter()

    def __exit__(self, *_):
        self.seconds += time.perf_counter() - self._started

    def around(self, items):
        """The same items; waiting for each is measured."""
        items = iter(items)
        while True:
            with self:
                item = next(items, self)
            if item is self:
                return
            yield item
            del item          # or it would stay while the next one is waited for

    def reset(self):
        """The seconds so far; starts again from 0."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds
