"""What a training run has to remember to continue exactly: model, optimiser, scaler, generators, progress."""
import json
import time
from dataclasses import asdict, dataclass

import torch

from utils.checkpoint import UNREADABLE, check_origin, load_newest, load_weights, save_checkpoint
from utils.config import Affects, affected, apply_overrides, differences, to_dict
from utils.distributed import gather_objects, is_main, rank, world_size
from utils.files import atomic_file
from utils.logger import get_logger
from utils.records import changed_data, read_json_lines
from utils.seeds import rng_state, set_rng_state

EARLIER_NAMES = {"step": "epoch_step", "steps": "global_step"}      # of checkpoints that are there already
AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Progress:
    """Where the run stands."""
    epoch: int = 0                 # epochs done
    epoch_step: int = 0            # steps done within the next one
    global_step: int = 0           # all steps
    best: float = -1.0             # best validation J
    validation_due: bool = False   # an epoch is done, its validation is not
    overflows: int = 0             # steps that fp16's loss scaling left out
    typical_loss: float | None = None


def read_progress(values):
    """What a checkpoint says  ->  Progress; ValueError where a count is none."""
    progress = Progress(**{EARLIER_NAMES.get(name, name): value for name, value in values.items()})
    counts = (progress.epoch, progress.epoch_step, progress.global_step, progress.overflows)
    if any(type(count) is not int or count < 0 for count in counts) or type(progress.best) not in (int, float):
        raise ValueError(f"progress {str(values)[:200]}")
    return progress


class TrainingState:
    """Adam as in the config, mixed precision where the device has it, and last.pth in the output folder.

    groups: of the method's parameter_groups; each may take a share of train.lr
    """
    data = None                    # identity of what is trained on, once it is known

    def __init__(self, model, groups, cfg, fold, output, device):
        self.model, self.cfg, self.fold, self.output, self.device = model, cfg, fold, output, device
        self.progress, self.saved_at = Progress(), time.monotonic()
        kind = torch.optim.AdamW if cfg.train.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = kind(
            [{"params": group["params"], "lr": cfg.train.lr * group.get("share", 1)} for group in groups],
            lr=cfg.train.lr, betas=tuple(cfg.train.betas), weight_decay=cfg.train.weight_decay)
        on_gpu = device.type == "cuda"
        self.amp = AMP.get(cfg.train.amp.partition("_")[0]) if on_gpu or cfg.train.amp == "bf16_always" else None
        if self.amp is torch.bfloat16 and on_gpu and not torch.cuda.is_bf16_supported():
            raise ValueError("train.amp: this GPU has no bf16.\n  Set train.amp=fp16 or train.amp=off.")
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp is torch.float16)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def set_rates(self):
        """The learning rates of the epoch that comes next: train.lr_drops"""
        factor = self.cfg.train.lr_factor ** sum(self.progress.epoch >= drop for drop in self.cfg.train.lr_drops)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def save(self, name="last"):
        """Write output/<name>.pth, whole or not at all; called by every process, written by one.

        Of last.pth the checkpoint.keep newest stay: last.1.pth is the one before, and so on.
        """
        generators = gather_objects(rng_state())
        if is_main():
            path = self.output / f"{name}.pth"
            save_checkpoint(path, {
                "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(), "rng": generators, "config": to_dict(self.cfg), "fold": self.fold,
                "data": self.data, "epoch": self.progress.epoch, "progress": asdict(self.progress)},
                keep=self.cfg.checkpoint.keep if name == "last" else 1)
        self.saved_at = time.monotonic()

    def save_is_due(self):
        """Whether the config wants a checkpoint after the step that comes next."""
        every, minutes = self.cfg.checkpoint.every_steps, self.cfg.checkpoint.every_minutes
        return bool(every and (self.progress.global_step + 1) % every == 0
                    or minutes and time.monotonic() - self.saved_at > 60 * minutes)

    def resume(self):
        """Continue where the newest undamaged checkpoint stands; ValueError where it belongs to other settings."""
        path, state = load_newest(self.output / "last.pth")
        if "progress" not in state:
            raise ValueError(f"{path} holds weights, but no training to continue.\n  Choose another --output.")
        check_origin(state, path)
        try:
            self._continue(path, state)
        except UNREADABLE as error:
            if str(path) in str(error) or isinstance(error, torch.OutOfMemoryError):
                raise
            what = f"{type(error).__name__}: {error}"[:300]
            raise ValueError(f"{path}: what it says of its training is damaged ({what}).\n"
                             "  Restore it from a backup, or choose another --output.") from error

    def _continue(self, path, state):
        """Take over everything of a checkpoint; what is wrong in it fails somewhere here."""
        trained = apply_overrides(state["config"], source=str(path))       # keys that are newer have their defaults
        matters = affected(self.cfg, Affects.TRAINING)
        changed = {k: v for k, v in differences(trained, self.cfg).items() if k in matters}
        if changed or state["fold"] != self.fold:
            key, (old, new) = next(iter(changed.items()), ("--fold", (state["fold"], self.fold)))
            raise ValueError(f"{path} was made with {key} = {str(old)[:200]}, now it is {new}.\n"
                             "  Resume with the settings of config.yaml beside it, or choose another --output.")
        if others := changed_data(state.get("data"), self.data):
            raise ValueError(f"{path} was trained with other data: {others[0]}.\n"
                             "  Restore the data, or choose another --output.")
        load_weights(self.model, state["model"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = read_progress(state["progress"])
        if is_main():
            self._forget_lines_after(self.progress)
        self._set_generators(state["rng"], path)

    def _set_generators(self, generators, path):
        if len(generators) != world_size():
            get_logger().warning("%s: made by %d processes, continued by %d: with dropout not bit for bit the same run",
                                 path, len(generators), world_size())
        if rank() < len(generators):
            set_rng_state(generators[rank()])

    def _forget_lines_after(self, progress):
        """The log may be ahead of the checkpoint by a few steps and a validation, which will be done again."""
        log = self.output / "log.jsonl"
        lines = read_json_lines(log) if log.is_file() else []

        def stays(line):
            again = progress.validation_due and "validation" in line
            return line["step"] < progress.global_step + (not again)

        with atomic_file(log, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines if stays(line))
