"""Jobs of tools/workshop/benchmark.py that train: samples/s and peak memory of a step, ours against the released way.

Ours is the step of train.py. The reference step is ReferenceTrainStep. Both end with the same optimiser;
batches come from generated videos through the training loader.
"""
import copy
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch

from dataloaders import build_index, build_train_loader
from tools.workshop.benchmarking.data import one_training, write_videos
from tools.workshop.benchmarking.setup import PRECISIONS
from tools.workshop.reference_mode import ReferenceTrainStep
from utils.training.step import optimise


class OurTraining:
    """train.py's own step, without its files."""

    def __init__(self, bench, model, amp):
        self.model = copy.deepcopy(model).train()
        optimizer = torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], lr=bench.cfg.train.lr)
        scaler = torch.amp.GradScaler(bench.device.type, enabled=amp == torch.float16)
        state = SimpleNamespace(amp=amp, optimizer=optimizer, scaler=scaler, progress=SimpleNamespace(steps=0))
        step = bench.method.TrainStep(self.model, bench.cfg)
        self.run = SimpleNamespace(cfg=bench.cfg, device=bench.device, state=state, model=self.model, step=step,
                                   parallel=step)

    def __call__(self, batch):
        optimise(self.run, batch)
        self.run.state.optimizer.zero_grad(set_to_none=True)      # the other mode's step finds the memory free


class ReferenceTraining:
    """The released step, in float32."""

    def __init__(self, bench, model):
        self.step = ReferenceTrainStep(model, bench.cfg)
        trained = self.step.network.model.train()
        self.optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], lr=bench.cfg.train.lr)

    def __call__(self, batch):
        float(self.step.backward(batch))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def training_batches(bench):
    """A loader over generated videos: settings batch, shots of the config, recorded"""
    s, cfg = bench.settings, bench.cfg
    cfg.train.batch_size, cfg.validate.classes, cfg.data.workers = s.batch, "none", 0
    needed = cfg.data.clip_length * cfg.data.clips + 1
    with TemporaryDirectory() as root:
        write_videos(root, one_training(cfg.data.shots + 1, needed), s.recorded)
        cfg.data.root = root
        yield from build_train_loader(cfg, build_index(cfg), 1, 0)


def train(bench):
    """Seconds and peak memory of one mode's step: settings mode, batch, precision, repeats, recorded"""
    s, model = bench.settings, bench.model()
    batches = training_batches(bench)
    next(batches)                                          # what is imported and opened once
    timed = [bench.timed(next, batches) for _ in range(max(2, s.repeats))]
    data, batch = median(seconds for _, seconds in timed), timed[0][0].to(bench.device)
    batches.close()
    bench.allocate(s.mode)
    step = OurTraining(bench, model, PRECISIONS[s.precision]) if s.mode == "ours" else ReferenceTraining(bench, model)
    del model
    seconds = median([bench.timed(step, batch)[1] for _ in range(s.repeats + 1)][1:])
    return [{"mode": s.mode, "size": bench.cfg.data.size, "batch": s.batch, "precision": s.precision,
             "data_s": data, "step_s": seconds, "samples_per_s": s.batch / seconds,
             "samples_per_s_with_data": s.batch / (seconds + data), "peak_mib": bench.peak()}]
