"""Jobs of tools/workshop/benchmark.py that run the network over videos: test loop, its parts, memory, precision.

Each function is one job, run in a process of its own. In: a Bench with the job's settings. Out: rows, plain dicts that
become JSON. Ours and the reference mode take turns, clip by clip or video by video, after a warm-up.
"""
import copy
import itertools
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch

from dataloaders import build_index, build_test_loader
from dataloaders.datasets.ytvis import YouTubeVISIndex
from dataloaders.episode import Clip
from dataloaders.transforms import TestTransform
from models.vipmt.inference import VideoSegmenter
from tools.workshop.benchmarking import metrics as released
from tools.workshop.benchmarking.data import NOVEL, moving_masks, one_test, write_videos
from tools.workshop.benchmarking.setup import PRECISIONS, Contestant, ratio
from tools.workshop.reference_mode import ReferenceNetwork, ReferenceSegmenter
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import jaccard


def network(bench):
    """One video through the network: settings size, shots, frames, precision, modes, cap (seconds of each mode)"""
    s, model = bench.settings, bench.model()
    video, amp = bench.video(s.size, s.shots, s.frames), PRECISIONS[s.precision]
    keep = s.frames if "reference" in s.modes else 0
    kinds = {"ours": (VideoSegmenter, model, amp)}
    if "reference" in s.modes:
        kinds["reference"] = ReferenceSegmenter, ReferenceNetwork(model), None       # in float32 always, as released
    runs, masks = {}, {mode: [] for mode in kinds}
    for mode, number in bench.in_turns(kinds, video.count):
        if mode not in runs:
            kind, net, precision = kinds[mode]
            warm_up(bench, Contestant(bench, kind, net, video, precision, keep), video)
            runs[mode] = Contestant(bench, kind, net, video, precision, keep)
        if runs[mode].spent < s.cap:
            masks[mode].append(runs[mode].run(video.clip(number)[0]))
    objects = [found.double().mean().item() for found in masks["ours"]]
    pairs = zip(masks["ours"], masks.get("reference", []), strict=False)
    differ = [(a != b).double().mean().item() for a, b in pairs]
    return [network_row(bench, runs, differ, objects)]


def warm_up(bench, contestant, video):
    for number in range(min(video.count, bench.settings.warm_up)):
        contestant.run(video.clip(number)[0])


def network_row(bench, runs, differ, objects):
    s, ours, theirs = bench.settings, runs["ours"], runs.get("reference")
    common = min(len(run.clips) for run in runs.values())
    first = {mode: run.start + sum(run.clips[:common]) for mode, run in runs.items()}
    return {
        "size": s.size, "frames": s.frames, "shots": s.shots, "precision": s.precision,
        "ours_fps": ours.frames / ours.spent, "reference_fps": theirs and theirs.frames / theirs.spent,
        "ratio": theirs and ratio(first["reference"], first["ours"]),
        "ours_later_clip_s": ours.later_clip(), "reference_later_clip_s": theirs and theirs.later_clip(),
        "later_clip_ratio": theirs and ratio(theirs.later_clip(), ours.later_clip()),
        "ours_frames": ours.frames, "reference_frames": theirs.frames if theirs else 0,
        "pixels_differ": mean(differ), "object_share": mean(objects)}


def mean(values):
    return float(np.mean(values)) if values else None


def end_to_end(bench):
    """The evaluation loop with decoding and metrics: settings size, shots, frames, precision, modes, repeats, recorded

    Ours: utils/evaluator.evaluate as test.py calls it. Reference: one after the other in one process, metrics by
    scikit-image. recorded: size of the JPEG frames.
    """
    s, model, cfg = bench.settings, bench.model(), bench.cfg
    cfg.data.size, cfg.data.shots, cfg.test.protocol = list(s.size), s.shots, "II"
    cfg.memory.keep = max(cfg.memory.keep, s.frames if "reference" in s.modes else 0)
    skip = {(NOVEL, f"support_{k}") for k in range(s.shots)}
    with TemporaryDirectory() as root:
        write_videos(root, one_test(s.frames, s.shots), s.recorded)
        cfg.data.root = root
        index, quiet = build_index(cfg), copy.deepcopy(cfg)
        quiet.data.workers = 0
        modes = {"ours": lambda: evaluate(starter(bench, VideoSegmenter, model, PRECISIONS[s.precision]),
                                          build_test_loader(cfg, index, 1, 0, skip=skip), cfg, 1, results.append)}
        if "reference" in s.modes:
            start = starter(bench, ReferenceSegmenter, ReferenceNetwork(model))
            modes["reference"] = lambda: released_loop(start, build_test_loader(quiet, index, 1, 0, skip=skip))
        results = []
        seconds = bench.take_turns(modes, s.repeats)
    return [{"size": s.size, "frames": s.frames, "shots": s.shots, "precision": s.precision, "recorded": s.recorded,
             "ours_fps": s.frames / seconds["ours"],
             "reference_fps": s.frames / seconds["reference"] if "reference" in seconds else None,
             "ratio": ratio(seconds.get("reference"), seconds["ours"]), "repeats": s.repeats,
             "note": None if released.has_skimage() else "reference with our boundary F: " + released.NO_SKIMAGE}]


def starter(bench, kind, network, amp=None):
    """start(episode) of the evaluation loop"""
    def start(episode):
        segment = bench.segmenter(kind, network, episode, amp)
        return lambda clip: segment(clip.images)
    return start


def released_loop(start, episodes):
    """Whole videos, one thing after the other  ->  J, F and VC of each"""
    results = []
    for episode in episodes:
        segment, masks, truth = start(episode), [], []
        for clip in list(episode.clips):                  # the release reads the whole video first
            masks.append((segment(clip).margins > 0).cpu().numpy())
            truth.append(clip.masks.numpy())
        results.append(released.reference_video_metrics(np.concatenate(masks), np.concatenate(truth)))
    return results


def runs(bench):
    """Several runs over one video, together and apart: settings size, shots, runs, clips"""
    s, model = bench.settings, bench.model()
    video = bench.video(s.size, s.shots, bench.cfg.data.clip_length * (s.clips + 2))
    segmenters = {mode: [bench.segmenter(VideoSegmenter, model, video) for _ in range(s.runs)]
                  for mode in ("together", "apart")}
    seconds = defaultdict(list)
    bench.allocate("ours")
    for images, masks in video.clips():
        clip = Clip(images, masks)
        turns = {"together": lambda clip=clip: [x.shared(clip) for x in segmenters["together"]],
                 "apart": lambda clip=clip: [x(clip.images) for x in segmenters["apart"]]}
        for mode, turn in turns.items():
            seconds[mode].append(bench.timed(turn)[1])
    later = {mode: median(values[2:]) for mode, values in seconds.items()}
    return [{"size": s.size, "shots": s.shots, "runs": s.runs, "together_clip_s": later["together"],
             "apart_clip_s": later["apart"], "ratio": ratio(later["apart"], later["together"])}]


# -- parts -------------------------------------------------------------------------------------------------------------

class Parts:
    """Seconds spent in chosen methods, which are replaced by timed ones."""

    def __init__(self, device):
        self.device, self.seconds = device, defaultdict(float)

    def watch(self, part, owner, method):
        """Calls of owner.method count as `part`; a method that is not there leaves its cell empty."""
        inner = getattr(owner, method, None)
        if inner is None:
            return

        def call(*arguments, **named):
            with self.measure(part):
                return inner(*arguments, **named)
        setattr(owner, method, call)

    @contextmanager
    def measure(self, part):
        self.wait()
        start = time.perf_counter()
        yield
        self.wait()
        self.seconds[part] += time.perf_counter() - start

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def watch_ours(parts, model):
    parts.watch("backbone", model.backbone, "forward")
    parts.watch("prior", model.activation, "prior")
    parts.watch("prior", model.activation, "search_keys")
    for layer in model.layers:
        parts.watch("layers", layer, "forward")
    parts.watch("similarity maps", model, "similarity_maps")
    if model.iou_net is not None:
        parts.watch("IoUNet", model.iou_net, "fuse")
        parts.watch("IoUNet", model.iou_net, "forward")


def watch_reference(parts, network):
    for part, method in (("backbone", "encode"), ("prior", "prior"), ("layers", "iterate"),
                         ("similarity maps", "similarity_maps"), ("IoUNet", "score")):
        parts.watch(part, network, method)


def parts(bench):
    """ms per later clip by part, both modes: settings size, shots, clips, precision, recorded"""
    s, model = bench.settings, bench.model()
    reference = ReferenceNetwork(model)
    length = bench.cfg.data.clip_length
    video = bench.video(s.size, s.shots, length * (s.clips + 2))
    timers = {"ours": Parts(bench.device), "reference": Parts(bench.device)}
    watch_ours(timers["ours"], model)
    watch_reference(timers["reference"], reference)
    segment = {"ours": bench.segmenter(VideoSegmenter, model, video, PRECISIONS[s.precision]),
               "reference": bench.segmenter(ReferenceSegmenter, reference, video)}
    for mode, number in bench.in_turns(timers, video.count):
        bench.allocate(mode)
        if number == 2:                                    # memory is full from here on
            timers[mode].seconds.clear()
        with timers[mode].measure("network"):
            segment[mode](video.clip(number)[0])
    rows = {mode: {part: 1000 * x / s.clips for part, x in timer.seconds.items()} for mode, timer in timers.items()}
    for row in rows.values():
        row["other"] = 2 * row["network"] - sum(row.values())
    rows["ours"] |= outside(bench, released.our_video_metrics)
    rows["reference"] |= outside(bench, released.reference_video_metrics)
    return [parts_row(s, part, *(rows[mode].get(part) for mode in rows)) for part in rows["ours"]]


def parts_row(s, part, ours, theirs):
    return {"part": part, "size": s.size, "shots": s.shots, "precision": s.precision, "ours_ms": ours,
            "reference_ms": theirs, "ratio": ratio(theirs, ours)}


def outside(bench, metrics):
    """ms per clip of metrics and of decoding and resizing, which both modes share"""
    s, length = bench.settings, bench.cfg.data.clip_length
    masks = moving_masks(length + 6, s.size)              # VC's windows reach over six earlier frames
    with TemporaryDirectory() as root:
        write_videos(root, [("video", NOVEL, length)], s.recorded)
        index, transform = YouTubeVISIndex(root), TestTransform(s.size, bench.cfg.data.mask_resize)

        def decode():
            frames = [(index.read_image(1, t), index.read_mask(1, t, NOVEL)) for t in range(length)]
            return transform(*zip(*frames, strict=True))
        seconds = bench.take_turns({"metrics": lambda: metrics(*masks), "decoding": decode}, s.clips)
    share = {"metrics": length / (length + 6), "decoding": 1}
    return {part: 1000 * x * share[part] for part, x in seconds.items()}


# -- memory and precision ---------------------------------------------------------------------------------------------

def memory(bench):
    """Peak memory of one mode over a streamed video: settings size, shots, frames, mode, cap"""
    s, model = bench.settings, bench.model()
    video = bench.video(s.size, s.shots, s.frames)
    kind, network = VideoSegmenter, model
    if s.mode == "reference":
        kind, network = ReferenceSegmenter, ReferenceNetwork(model)
        del model
    bench.allocate(s.mode)
    segment, start, frames = bench.segmenter(kind, network, video), time.perf_counter(), 0
    for images, _ in video.clips():
        segment(images)
        frames += len(images)
        if time.perf_counter() - start > s.cap:
            break
    return [{"mode": s.mode, "size": s.size, "shots": s.shots, "frames": frames, "asked_frames": s.frames,
             "peak_mib": bench.peak()}]


@contextmanager
def tf32():
    """Float32 products with ten-bit mantissas."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [x.allow_tf32 for x in switches]
    for x in switches:
        x.allow_tf32 = True
    try:
        yield
    finally:
        for x, value in zip(switches, before, strict=True):
            x.allow_tf32 = value


def variants(bench, model):
    """name  ->  (model, autocast dtype, context): float32 first; tf32 and compile where the device has them"""
    found = {"fp32": (model, None, ExitStack), "bf16": (model, torch.bfloat16, ExitStack)}
    if bench.device.type == "cuda":
        found |= {"fp16": (model, torch.float16, ExitStack), "tf32": (model, None, tf32)}
    if bench.settings.compiled:
        compiled = copy.deepcopy(model)
        bench.method.compile_parts(compiled)
        found |= {"fp32 compiled": (compiled, None, ExitStack), "bf16 compiled": (compiled, torch.bfloat16, ExitStack)}
    return found


def precision(bench):
    """Speed and change of masks against float32: settings size, shots, frames, warm_up, compiled"""
    s, model = bench.settings, bench.model()
    video, runs, masks = bench.video(s.size, s.shots, s.frames), {}, defaultdict(list)
    found = variants(bench, model)
    for warm in (True, False):
        for name, (net, amp, around) in found.items():
            runs[name] = Contestant(bench, VideoSegmenter, net, video, amp, s.frames, around)
        clips = itertools.islice(video.clips(), s.warm_up) if warm else video.clips()
        for images, _ in clips:
            for name, run in runs.items():
                said = run.run(images)
                if not warm:
                    masks[name].append(said)
    truth = torch.cat([m for _, m in video.clips()]).numpy()
    masks = {name: torch.cat(parts).numpy() for name, parts in masks.items()}
    j = {name: float(np.mean(jaccard(m, truth))) for name, m in masks.items()}
    differ = {name: float((m != masks["fp32"]).mean()) for name, m in masks.items()}
    return [{"precision": name, "size": s.size, "fps": run.frames / run.spent, "later_clip_s": run.later_clip(),
             "ratio": ratio(runs["fp32"].spent, run.spent), "pixels_differ": differ[name],
             "j_difference": j[name] - j["fp32"]} for name, run in runs.items()]
