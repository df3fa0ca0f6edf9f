"""What every job of tools/workshop/benchmark.py needs: a model, a video, a clock, and turns."""
import ctypes
import resource
import sys
from collections import defaultdict
from statistics import median
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from torch.utils.benchmark import timer

from models import get_method
from tools.workshop.benchmarking.data import RECORDED, Video
from tools.workshop.reference_mode import ReferenceNetwork, ReferenceSegmenter
from utils.checkpoint import load_checkpoint, load_weights
from utils.config import load_config
from utils.runtime import AMP, prepare_runtime, set_allocator, tune_malloc

PRECISIONS = AMP | {"fp32": None}
OBJECT_SHARE = 1 / 8        # of the pixels that random weights are made to call object
MIB = 2 ** 20
RSS_UNIT = 1 if sys.platform == "darwin" else 1024      # bytes that the system counts memory in


def timed(function, *arguments):
    """->  (value, seconds); PyTorch's clock waits for the GPU where there is one"""
    start = timer()
    return function(*arguments), timer() - start


def predict(segmenter, clip):
    """Clip  ->  Prediction"""
    return segmenter(segmenter.prepare(clip), clip)


class Bench:
    """What the jobs share; settings: the command line's, and what a job differs in. Sizes are those of the config."""

    def __init__(self, settings):
        self.settings = s = SimpleNamespace(**settings)
        self.device, self.allocated = torch.device(s.device), None
        cv2.setNumThreads(torch.get_num_threads())
        self.cfg = load_config(s.config, s.overrides)
        prepare_runtime(self.cfg.speed, self.device)
        self.cfg.memory.min_iou = 0.0           # every frame is remembered: memory is full from the third clip on
        self.cfg.memory.keep = max(s.frames, self.cfg.memory.keep)      # then both modes draw the same frames
        self.method = get_method(self.cfg.model.method)
        self.recorded = (90, 160) if s.quick else RECORDED

    def allocate(self, mode):
        """Before a turn of ours or of the reference: how the C library treats freed memory, as --allocator says."""
        if self.device.type == "cpu" and sys.platform == "linux" and mode != self.allocated:
            self.allocated = mode
            if {"shipped": mode != "reference", "kept": True, "default": False}[self.settings.allocator]:
                tune_malloc()
            else:           # what glibc's own thresholds have become after a few large blocks
                set_allocator(mmap_threshold=32 * MIB, trim_threshold=64 * MIB, mmap_max=65536)
            getattr(ctypes.CDLL(None), "malloc_trim", int)(0)

    def model(self):
        """In eval mode, with the checkpoint's weights or random ones whose masks are neither empty nor full: what the
        similarity search costs depends on how many pixels are object."""
        torch.manual_seed(self.cfg.seed)
        model, file = self.method.build(self.cfg).to(self.device).eval(), self.settings.checkpoint
        if file:
            load_weights(model, load_checkpoint(file)["model"], file)
            return model
        video, select = self.video(3 * self.cfg.data.clip_length), self.cfg.memory.select
        self.cfg.memory.select = "ground_truth"
        segmenter = self.ours(model)(video.supports)
        for clip in video.clips():
            margins = predict(segmenter, clip).margins[0]
        self.cfg.memory.select = select
        middle = [slice(n // 8, n - n // 8) for n in margins.shape[1:]]      # without the border, which fades
        with torch.no_grad():
            model.final_classifier[-1].bias[1] -= margins[:, *middle].flatten().float().quantile(1 - OBJECT_SHARE)
        return model

    def video(self, frames):
        return Video(self.cfg.data.size, self.cfg.data.shots, self.cfg.data.clip_length, frames)

    def ours(self, model, precision="fp32"):
        """start(reference)  ->  a Segmenter"""
        return lambda reference: self.method.Segmenter(model, reference, self.cfg, amp=PRECISIONS[precision],
                                                       rng=np.random.default_rng(self.cfg.seed))

    def reference(self, model):
        """The same for the released way, always in float32; model: ours, or a ReferenceNetwork of it"""
        network = model if isinstance(model, ReferenceNetwork) else ReferenceNetwork(model)
        return lambda reference: ReferenceSegmenter(network, reference, self.cfg,
                                                    rng=np.random.default_rng(self.cfg.seed))

    def take_turns(self, functions, repeats):
        """One warm-up each, then measured: {mode: function}  ->  {mode: median seconds}"""
        seconds = defaultdict(list)
        for mode, _ in self.in_turns(functions, repeats + 1):
            self.allocate(mode)
            seconds[mode].append(timed(functions[mode])[1])
        return {mode: median(values[1:]) for mode, values in seconds.items()}

    def in_turns(self, modes, count):
        """(mode, number) of everything there is to run: ABAB, and AABB where the two allocate differently, since
        changing over costs either of them its memory."""
        if self.settings.allocator == "shipped":
            return [(mode, number) for mode in modes for number in range(count)]
        return [(mode, number) for number in range(count) for mode in modes]

    def peak(self):
        """MiB: of the process on the CPU, of tensors on the GPU"""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / MIB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / MIB


class Contestant:
    """One way of running a video, and its seconds; `spent` counts against the time limit."""

    def __init__(self, bench, mode, start, video):
        self.bench, self.mode, self.frames, self.clips = bench, mode, 0, []
        bench.allocate(mode)
        self.segmenter, self.start = timed(start, video.supports)

    @property
    def spent(self):
        return self.start + sum(self.clips)

    def run(self, clip):
        """->  masks (T, H, W) bool"""
        self.bench.allocate(self.mode)
        prediction, seconds = timed(predict, self.segmenter, clip)
        self.clips.append(seconds)
        self.frames += len(clip.images)
        return prediction.masks[0].cpu()

    def later_clip(self):
        """Median seconds of a clip with full memory, None if there was none"""
        return median(self.clips[2:]) if len(self.clips) > 2 else None
