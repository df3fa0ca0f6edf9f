"""Jobs of tools/workshop/benchmark.py that run the network over videos: test loop, its parts, memory, precision.

Each function is one job, run in a process of its own. In: a Bench. Out: rows, plain dicts; the first paragraph of its
docstring stands above the table. Ours and the reference take turns, clip by clip or video by video, after a warm-up.
"""
import copy
import time
from collections import defaultdict
from contextlib import contextmanager
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np
import torch

from dataloaders import build_index, get_task
from dataloaders.datasets.ytvis import YouTubeVISIndex
from dataloaders.transforms import TestTransform
from tools.workshop.benchmarking import metrics as released
from tools.workshop.benchmarking.bench import Contestant
from tools.workshop.benchmarking.data import NOVEL, moving_masks, one_test, write_videos
from tools.workshop.reference_mode import ReferenceNetwork
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import jaccard


def network(bench):
    """Frames in memory to masks and IoUs, supports included; no decoding, no metrics. Every frame is remembered. ratio:
    same clips of both; later clip: median from the third on, with full memory. The reference is always float32. A video
    that exceeds the time limit is cut: see the frame counts."""
    s, model, video = bench.settings, bench.model(), bench.video(bench.settings.frames)
    ways = {"ours": bench.ours(model, s.precision), "reference": bench.reference(model)}
    runs, masks = {}, defaultdict(list)
    for mode, number in bench.in_turns(ways, video.count):
        if mode not in runs:
            warm = Contestant(bench, mode, ways[mode], video)
            for early in range(min(video.count, 1 if s.quick else 3)):
                warm.run(video.clip(early))
            runs[mode] = Contestant(bench, mode, ways[mode], video)
        if runs[mode].spent < s.cap:
            masks[mode].append(runs[mode].run(video.clip(number)))
    common = min(len(run.clips) for run in runs.values())
    ours, theirs = (run.start + sum(run.clips[:common]) for run in runs.values())
    later = {f"{mode}_later_clip_s": run.later_clip() for mode, run in runs.items()}
    pairs = list(zip(masks["ours"], masks["reference"], strict=False))
    return [{"precision": s.precision, **{f"{mode}_fps": run.frames / run.spent for mode, run in runs.items()},
             "ratio": divide(theirs, ours), **later,
             "later_clip_ratio": divide(later["reference_later_clip_s"], later["ours_later_clip_s"]),
             **{f"{mode}_frames": run.frames for mode, run in runs.items()},
             "pixels_differ": mean((a != b).double().mean().item() for a, b in pairs) if pairs else None,
             "object_share": mean(a.double().mean().item() for a, _ in pairs) if pairs else None}]


def divide(slow, fast):
    """None where one of them was not measured"""
    return None if not slow or not fast else slow / fast


def end_to_end(bench):
    """Ours: the evaluation loop with JPEG decoding, resizing, network, J, F, VC. Reference: the same, one after the
    other in one process, metrics frame by frame. Medians of whole videos."""
    s, cfg, task, model = bench.settings, bench.cfg, get_task("fewshot"), bench.model()
    cfg.test.protocol, cfg.test.runs, cfg.data.few_videos = "II", 1, "error"
    start = {"ours": bench.ours(model, s.precision), "reference": bench.reference(model)}
    with TemporaryDirectory() as root:
        write_videos(root, one_test(s.frames, cfg.data.shots), bench.recorded)
        cfg.data.root = root
        index, quiet = build_index(cfg), copy.deepcopy(cfg)
        quiet.data.workers = 0

        def videos(cfg):
            return task.test_videos(cfg, index, 1, done={(0, NOVEL, f"support_{k}") for k in range(cfg.data.shots)})
        seconds = bench.take_turns({
            "ours": lambda: evaluate(start["ours"], videos(cfg), cfg, [].append),
            "reference": lambda: released_loop(start["reference"], videos(quiet))}, s.repeats)
    return [{"precision": s.precision, **{f"{mode}_fps": s.frames / x for mode, x in seconds.items()},
             "ratio": seconds["reference"] / seconds["ours"], "repeats": s.repeats,
             "note": None if released.has_skimage() else "reference with our boundary F: " + released.NO_SKIMAGE}]


def released_loop(start, videos):
    """Whole videos, one thing after the other  ->  J, F and VC of each"""
    results = []
    for video in videos:
        segment, masks, truth = start(video.references[0]), [], []
        for clip in list(video.clips):                    # the release reads the whole video first
            masks.append(segment(clip).masks[0].cpu().numpy())
            truth.append(clip.masks[0].numpy())
        results.append(released.reference_video_metrics(np.concatenate(masks), np.concatenate(truth)))
    return results


# -- parts -------------------------------------------------------------------------------------------------------------

class Parts:
    """Seconds spent in chosen methods, which are replaced by timed ones."""

    def __init__(self, device):
        self.device, self.seconds = device, defaultdict(float)

    def watch(self, part, owner, *methods):
        for method in methods:
            inner = getattr(owner, method)

            def call(*arguments, inner=inner, **named):
                with self.measure(part):
                    return inner(*arguments, **named)
            setattr(owner, method, call)

    @contextmanager
    def measure(self, part):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[part] += time.perf_counter() - start


def watched(bench, model, network):
    """Parts of both modes: a model of ours, a ReferenceNetwork"""
    ours, theirs = Parts(bench.device), Parts(bench.device)
    ours.watch("backbone", model.backbone, "forward")
    ours.watch("prior", model.activation, "prior", "search_keys")
    for layer in model.layers:
        ours.watch("layers", layer, "forward")
    ours.watch("similarity maps", model, "similarity_maps")
    if model.iou_net is not None:
        ours.watch("IoUNet", model.iou_net, "fuse", "forward")
    for part, method in (("backbone", "encode"), ("prior", "prior"), ("layers", "iterate"),
                         ("similarity maps", "similarity_maps"), ("IoUNet", "score")):
        theirs.watch(part, network, method)
    return {"ours": ours, "reference": theirs}


def parts(bench):
    """One clip with full memory, milliseconds. network: all of it, other: what the named parts leave."""
    s, model = bench.settings, bench.model()
    video = bench.video(bench.cfg.data.clip_length * (s.repeats + 2))
    network = ReferenceNetwork(model)
    timers = watched(bench, model, network)
    segment = {"ours": bench.ours(model, s.precision)(video), "reference": bench.reference(network)(video)}
    for mode, number in bench.in_turns(timers, video.count):
        bench.allocate(mode)
        if number == 2:                                    # memory is full from here on
            timers[mode].seconds.clear()
        with timers[mode].measure("network"):
            segment[mode](video.clip(number))
    rows = {mode: {part: 1000 * x / s.repeats for part, x in timer.seconds.items()} for mode, timer in timers.items()}
    for row in rows.values():
        row["other"] = 2 * row["network"] - sum(row.values())
    rows["ours"] |= outside(bench, released.our_video_metrics)
    rows["reference"] |= outside(bench, released.reference_video_metrics)
    return [{"part": part, "precision": s.precision, "ours_ms": ms, "reference_ms": rows["reference"].get(part),
             "ratio": divide(rows["reference"].get(part), ms)}
            for part, ms in rows["ours"].items()]


def outside(bench, metrics):
    """ms per clip of metrics and of decoding and resizing, which both modes share"""
    length, size = bench.cfg.data.clip_length, bench.cfg.data.size
    masks = moving_masks(length + 6, size)                # VC's windows reach over six earlier frames
    with TemporaryDirectory() as root:
        write_videos(root, [("video", NOVEL, length)], bench.recorded)
        index, transform = YouTubeVISIndex(root), TestTransform(size, bench.cfg.data.mask_resize)

        def decode():
            frames = [(index.read_image(1, t), index.read_mask(1, t, NOVEL)) for t in range(length)]
            return transform(*zip(*frames, strict=True))
        seconds = bench.take_turns({"metrics": lambda: metrics(*masks), "decoding": decode}, bench.settings.repeats)
    return {"metrics": 1000 * seconds["metrics"] * length / (length + 6), "decoding": 1000 * seconds["decoding"]}


# -- memory and precision ---------------------------------------------------------------------------------------------

def memory(bench):
    """Peak of the process (CPU: libraries and weights included) or of tensors (CUDA) over a streamed video. growth:
    against the shorter video of the same mode."""
    s, model, started, frames = bench.settings, bench.model(), time.perf_counter(), 0
    video, start = bench.video(s.frames), getattr(bench, s.mode)(model)
    del model
    bench.allocate(s.mode)
    segment = start(video)
    for clip in video.clips():
        segment(clip)
        frames += len(clip.images)
        if time.perf_counter() - started > 10 * s.cap:
            break
    return [{"mode": s.mode, "frames": frames, "peak_mib": bench.peak()}]


def precision(bench):
    """Ours against ours in float32, turn by turn on one video; J against the generated truth. With random weights the
    masks are of a kind that the slightest change flips."""
    s, model, runs, masks = bench.settings, bench.model(), {}, defaultdict(list)
    video, names = bench.video(s.frames), ("fp32", "bf16") + (("fp16",) if bench.device.type == "cuda" else ())
    ways = {name: bench.ours(model, name) for name in names}
    if not s.quick:
        compiled = copy.deepcopy(model)
        bench.method.compile_parts(compiled)
        ways |= {f"{name} compiled": bench.ours(compiled, name) for name in names}
    for warm in (True, False):
        runs = {name: Contestant(bench, "ours", start, video) for name, start in ways.items()}
        for number in range(min(video.count, 3) if warm else video.count):
            for name, run in runs.items():
                said = run.run(video.clip(number))
                masks[name] += [] if warm else [said]
    truth = torch.cat([clip.masks[0] for clip in video.clips()]).numpy()
    masks = {name: torch.cat(found).numpy() for name, found in masks.items()}
    j = {name: float(np.mean(jaccard(m, truth))) for name, m in masks.items()}
    return [{"precision": name, "fps": run.frames / run.spent, "later_clip_s": run.later_clip(),
             "ratio": runs["fp32"].spent / run.spent, "j_difference": j[name] - j["fp32"],
             "pixels_differ": float((masks[name] != masks["fp32"]).mean())} for name, run in runs.items()]
