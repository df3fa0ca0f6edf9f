"""What every job of tools/workshop/benchmark.py needs: a model, videos, a clock that knows the device, and turns.

In: a job's settings. Out: a Bench, handed to the job, and Contestants: ways of running one and the same video.
"""
import ctypes
import resource
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from statistics import median
from types import SimpleNamespace

import cv2
import numpy as np
import torch

from models import get_method
from models.vipmt.inference import VideoSegmenter
from tools.workshop.benchmarking.data import Video
from utils.checkpoint import load_checkpoint, load_weights
from utils.config import load_config
from utils.runtime import keep_freed_memory, prepare_runtime, set_allocator

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
OBJECT_SHARE = 1 / 8        # of the pixels that random weights are made to call object
MIB = 2 ** 20


class Bench:
    """What the jobs share.

    settings: config (files), overrides, device, checkpoint or None, allocator (of the CPU; see `allocate`), and the
    job's own.
    """

    def __init__(self, settings):
        self.settings = SimpleNamespace(**settings)
        self.device = torch.device(self.settings.device)
        cv2.setNumThreads(torch.get_num_threads())
        self.cfg = load_config(self.settings.config, self.settings.overrides)
        prepare_runtime(self.cfg.speed, self.device)
        self.allocated = None
        self.cfg.memory.min_iou = 0.0           # every frame is remembered: memory is full from the third clip on
        self.method = get_method(self.cfg.model.method)

    def allocate(self, mode):
        """Before a turn of ours or of the reference: how the C library treats freed memory, as settings.allocator says.

        shipped: ours keeps it, as train.py and test.py do, and the reference gives it back, as the release does;
        kept, default: both alike
        """
        if self.device.type == "cpu" and sys.platform == "linux" and mode != self.allocated:
            self.allocated = mode
            kept = {"shipped": mode == "ours", "kept": True, "default": False}[self.settings.allocator]
            if kept:
                keep_freed_memory()
            else:           # what glibc's own thresholds have become after a few large blocks
                set_allocator(mmap_threshold=32 * MIB, trim_threshold=64 * MIB, mmap_max=65536)
            getattr(ctypes.CDLL(None), "malloc_trim", int)(0)

    def model(self):
        """In eval mode, with the checkpoint's weights or random ones whose masks are neither empty nor full."""
        torch.manual_seed(self.cfg.seed)
        model = self.method.build(self.cfg).to(self.device).eval()
        if self.settings.checkpoint:
            load_weights(model, load_checkpoint(self.settings.checkpoint)["model"], self.settings.checkpoint)
        else:
            self.calibrate(model)
        return model

    def calibrate(self, model):
        """Moves the last bias: what similarity search costs depends on how many pixels are object."""
        video = self.video(self.cfg.data.size, 1, 3 * self.cfg.data.clip_length)
        segment = self.segmenter(VideoSegmenter, model, video, select="ground_truth")
        for images, masks in video.clips():
            margins = segment(images, masks).margins
        middle = [slice(n // 8, n - n // 8) for n in margins.shape[1:]]      # without the border, which fades
        with torch.no_grad():
            model.final_classifier[-1].bias[1] -= margins[:, *middle].flatten().float().quantile(1 - OBJECT_SHARE)

    def video(self, size, shots, frames):
        return Video(size, shots, self.cfg.data.clip_length, frames)

    def segmenter(self, kind, network, video, amp=None, keep=0, **changes):
        """keep: at least as many remembered frames; then both modes draw the same ones; changes: of cfg.memory"""
        memory = SimpleNamespace(**{**self.cfg.memory, "keep": max(keep, self.cfg.memory.keep), **changes})
        return kind(network, video.support_images, video.support_masks, memory=memory,
                    rng=np.random.default_rng(self.cfg.seed), amp=amp)

    def timed(self, function, *arguments):
        """->  (value, seconds), by device events on CUDA"""
        if self.device.type != "cuda":
            start = time.perf_counter()
            value = function(*arguments)
            return value, time.perf_counter() - start
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        value = function(*arguments)
        end.record()
        end.synchronize()
        return value, start.elapsed_time(end) / 1000

    def take_turns(self, functions, repeats):
        """ABAB after one warm-up each: {name: function}  ->  {name: median seconds}

        AABB where the two allocate differently: changing over costs either of them its memory.
        """
        seconds = defaultdict(list)
        for name, _ in self.in_turns(functions, repeats + 1):
            self.allocate(name)
            seconds[name].append(self.timed(functions[name])[1])
        return {name: median(values[1:]) for name, values in seconds.items()}

    def in_turns(self, modes, count):
        """(mode, number) of everything there is to run, in the order that `take_turns` describes."""
        if self.settings.allocator == "shipped":
            return [(mode, number) for mode in modes for number in range(count)]
        return [(mode, number) for number in range(count) for mode in modes]

    def peak(self):
        """MiB: of the process on the CPU, of tensors on the GPU"""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / MIB
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def ratio(slow, fast):
    """slow / fast, None where one of them was not measured"""
    return None if not slow or not fast else slow / fast


class Contestant:
    """One way of running a video, its seconds and its masks; `spent` counts against the time limit."""

    def __init__(self, bench, kind, network, video, amp=None, keep=0, around=ExitStack):
        self.bench, self.around, self.frames = bench, around, 0
        self.mode = "ours" if kind is VideoSegmenter else "reference"
        self.bench.allocate(self.mode)
        with around():
            self.segmenter, self.start = bench.timed(lambda: bench.segmenter(kind, network, video, amp, keep))
        self.clips = []

    @property
    def spent(self):
        return self.start + sum(self.clips)

    def run(self, images):
        """->  masks (T, H, W) bool"""
        self.bench.allocate(self.mode)
        with self.around():
            said, seconds = self.bench.timed(self.segmenter, images)
        self.clips.append(seconds)
        self.frames += len(images)
        return (said.margins > 0).cpu()

    def later_clip(self):
        """Median seconds of a clip with full memory, None if there was none"""
        return median(self.clips[2:]) if len(self.clips) > 2 else None
