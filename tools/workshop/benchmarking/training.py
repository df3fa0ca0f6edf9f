"""The job of tools/workshop/benchmark.py that trains: samples/s and peak memory of a step, ours and the released way.

Batches come from generated videos through the training loader.
"""
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch

from dataloaders import build_index, get_task
from tools.workshop.benchmarking.bench import PRECISIONS
from tools.workshop.benchmarking.data import one_training, write_videos
from tools.workshop.reference_mode import ReferenceTrainStep
from utils.training.step import optimise


def our_step(bench, model, amp):
    """train.py's own step, without its files."""
    model.train()
    groups = bench.method.parameter_groups(model, bench.cfg)
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
    s, model = bench.settings, bench.model()
    batches = training_batches(bench)
    next(batches)                                          # what is imported and opened once
    timed = [bench.timed(next, batches) for _ in range(max(2, s.repeats))]
    data, batch = median(seconds for _, seconds in timed), timed[0][0].to(bench.device)
    batches.close()
    bench.allocate(s.mode)
    step = our_step(bench, model, PRECISIONS[s.precision]) if s.mode == "ours" else reference_step(bench, model)
    del model
    seconds = median([bench.timed(step, batch)[1] for _ in range(s.repeats + 1)][1:])
    size = bench.cfg.train.batch_size
    return [{"mode": s.mode, "batch": size, "precision": s.precision, "data_s": data, "step_s": seconds,
             "samples_per_s": size / seconds, "samples_per_s_with_data": size / (seconds + data),
             "peak_mib": bench.peak()}]
