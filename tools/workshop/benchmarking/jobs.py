"""Jobs of tools/workshop/benchmark.py: the network over videos, its parts, memory, precision, a training step.

Each function is one job, run in a process of its own. In: a Bench. Out: rows, plain dicts; the first paragraph of its
docstring stands above the table. Ours and the reference take turns, clip by clip or video by video, after a warm-up.
"""
import copy
from collections import defaultdict
from statistics import mean, median
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import torch

from dataloaders import build_index, get_task
from dataloaders.datasets.ytvis import YouTubeVISIndex
from dataloaders.transforms import TestTransform
from tools.workshop.benchmarking import metrics as released
from tools.workshop.benchmarking.bench import PRECISIONS, Contestant, predict, timed
from tools.workshop.benchmarking.data import NOVEL, moving_masks, one_test, one_training, write_videos
from tools.workshop.benchmarking.floor import floor
from tools.workshop.benchmarking.index import index
from tools.workshop.reference_mode import ReferenceNetwork, ReferenceTrainStep
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import jaccard
from utils.training.step import optimise


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
        segmenter, clips = start(video.references[0]), list(video.clips)      # the release reads the whole video first
        masks = [predict(segmenter, clip).masks[0].cpu().numpy() for clip in clips]
        truth = np.concatenate([clip.masks[0].numpy() for clip in clips])
        results.append(released.reference_video_metrics(np.concatenate(masks), truth))
    return results


# -- parts -------------------------------------------------------------------------------------------------------------

def parts(bench):
    """One clip with full memory, milliseconds. network: all of it, other: what the named parts leave."""
    s, model = bench.settings, bench.model()
    video, network = bench.video(bench.cfg.data.clip_length * (s.repeats + 2)), ReferenceNetwork(model)
    seconds = watched(model, network)
    segmenters = {"ours": bench.ours(model, s.precision)(video.supports),
                  "reference": bench.reference(network)(video.supports)}
    for mode, number in bench.in_turns(seconds, video.count):
        bench.allocate(mode)
        if number == 2:                                    # memory is full from here on
            seconds[mode].clear()
        seconds[mode]["network"] += timed(predict, segmenters[mode], video.clip(number))[1]
    rows = {mode: {part: 1000 * x / s.repeats for part, x in found.items()} for mode, found in seconds.items()}
    for row in rows.values():
        row["other"] = 2 * row["network"] - sum(row.values())
    rows["ours"] |= outside(bench, released.our_video_metrics)
    rows["reference"] |= outside(bench, released.reference_video_metrics)
    return [{"part": part, "precision": s.precision, "ours_ms": ms, "reference_ms": rows["reference"].get(part),
             "ratio": divide(rows["reference"].get(part), ms)}
            for part, ms in rows["ours"].items()]


def watched(model, network):
    """The methods of each part, of a model of ours and a ReferenceNetwork, are timed  ->  {mode: {part: seconds}}"""
    ours = {"backbone": [(model.backbone, "forward")], "layers": [(layer, "forward") for layer in model.layers],
            "prior": [(model.activation, "prior"), (model.activation, "search_keys")],
            "similarity maps": [(model, "similarity_maps")],
            "IoUNet": [(model.iou_net, "fuse"), (model.iou_net, "forward")] if model.iou_net is not None else []}
    theirs = {part: [(network, method)] for part, method in (
        ("backbone", "encode"), ("prior", "prior"), ("layers", "iterate"), ("similarity maps", "similarity_maps"),
        ("IoUNet", "score"))}
    seconds = {"ours": defaultdict(float), "reference": defaultdict(float)}
    for mode, parts in (("ours", ours), ("reference", theirs)):
        for part, methods in parts.items():
            for owner, method in methods:
                setattr(owner, method, adding(getattr(owner, method), seconds[mode], part))
    return seconds


def adding(function, seconds, part):
    """The function, which adds to seconds[part] what it takes"""
    def call(*arguments, **named):
        value, took = timed(lambda: function(*arguments, **named))
        seconds[part] += took
        return value
    return call


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
    s, model = bench.settings, bench.model()
    video, start = bench.video(s.frames), getattr(bench, s.mode)(model)
    del model
    run = Contestant(bench, s.mode, start, video)
    for clip in video.clips():
        run.run(clip)
        if run.spent > 10 * s.cap:
            break
    return [{"mode": s.mode, "frames": run.frames, "peak_mib": bench.peak()}]


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


# -- training ----------------------------------------------------------------------------------------------------------

def our_step(bench, model):
    """train.py's own step, without its files."""
    amp, groups = PRECISIONS[bench.settings.precision], bench.method.parameter_groups(model.train(), bench.cfg)
    state = SimpleNamespace(
        amp=amp, model=model, cfg=bench.cfg, device=bench.device, progress=SimpleNamespace(global_step=0),
        optimizer=torch.optim.Adam([{"params": group["params"]} for group in groups], lr=bench.cfg.train.lr),
        scaler=torch.amp.GradScaler(bench.device.type, enabled=amp == torch.float16))
    step = bench.method.TrainStep(model, bench.cfg)

    def call(batch):
        optimise(state, step, batch)
        state.optimizer.zero_grad(set_to_none=True)
    return call


def reference_step(bench, model):
    """The released step, in float32."""
    step = ReferenceTrainStep(model, bench.cfg)
    trained = [p for p in step.network.model.train().parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=bench.cfg.train.lr)

    def call(batch):
        float(step.backward(batch))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return call


def training_batches(bench):
    """A loader over generated videos; on the CPU of two samples, whatever the config says"""
    cfg, small = bench.cfg, bench.device.type == "cpu" or bench.settings.quick
    cfg.train.batch_size, cfg.validate.classes, cfg.data.workers = 2 if small else cfg.train.batch_size, "none", 0
    with TemporaryDirectory() as root:
        write_videos(root, one_training(cfg.data.shots + 1, cfg.data.clip_length * cfg.data.clips + 1), bench.recorded)
        cfg.data.root = root
        yield from get_task("fewshot").train_batches(cfg, build_index(cfg), 1, 0)


def train(bench):
    """Forward, backward and Adam on one batch in memory, each mode in a process of its own; the reference in float32.
    data: reading, decoding and augmenting one batch in one process; with data: one after the other. peak: weights and
    optimiser included; share: of the reference's."""
    s, model, batches = bench.settings, bench.model(), training_batches(bench)
    next(batches)                                          # what is imported and opened once
    loaded = [timed(next, batches) for _ in range(max(2, s.repeats))]
    data, batch = median(seconds for _, seconds in loaded), loaded[0][0].to(bench.device)
    batches.close()
    bench.allocate(s.mode)
    step = (our_step if s.mode == "ours" else reference_step)(bench, model)
    del model
    seconds = median([timed(step, batch)[1] for _ in range(s.repeats + 1)][1:])
    size = bench.cfg.train.batch_size
    return [{"mode": s.mode, "batch": size, "precision": s.precision, "data_s": data, "step_s": seconds,
             "samples_per_s": size / seconds, "samples_per_s_with_data": size / (seconds + data),
             "peak_mib": bench.peak()}]


JOBS = {job.__name__: job for job in (
    network, end_to_end, parts, memory, precision, train, released.metrics, index, floor)}
