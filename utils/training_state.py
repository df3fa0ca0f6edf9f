"""What a training run has to remember to continue exactly: model, optimiser, scaler, generators, progress."""
import json
from dataclasses import asdict, dataclass

import torch

from utils.checkpoint import atomic_file, load_checkpoint, load_weights, rng_state, save_checkpoint, set_rng_state
from utils.config import differences, to_dict
from utils.logger import read_json_lines

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
RESUME_MAY_CHANGE = {"name", "train.epochs", "train.log_every", "data.workers", "backbone.cache_frames"}


@dataclass
class Progress:
    """Where the run stands: epochs done, steps done within the next one, all steps, best validation J."""
    epoch: int = 0
    step: int = 0
    steps: int = 0
    best: float = -1.0


class TrainingState:
    """Adam as in the config, mixed precision where the device has it, and last.pth in the output folder."""

    def __init__(self, model, cfg, fold, output, device):
        self.model, self.cfg, self.fold, self.output = model, cfg, fold, output
        self.progress = Progress()
        self.optimizer = torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad], lr=cfg.train.lr, betas=tuple(cfg.train.betas),
            weight_decay=cfg.train.weight_decay)
        self.amp = AMP.get(cfg.train.amp) if device.type == "cuda" else None
        if self.amp is torch.bfloat16 and not torch.cuda.is_bf16_supported():
            raise ValueError("train.amp: this GPU has no bf16.\n  Set train.amp=fp16 or train.amp=off.")
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp is torch.float16)

    def save(self, name="last"):
        """Write output/<name>.pth, whole or not at all."""
        save_checkpoint(self.output / f"{name}.pth", {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(), "rng": rng_state(), "config": to_dict(self.cfg), "fold": self.fold,
            "epoch": self.progress.epoch, "progress": asdict(self.progress)})

    def resume(self):
        """Continue where last.pth stands; ValueError where it belongs to other settings or is no training's."""
        path = self.output / "last.pth"
        state = load_checkpoint(path)
        if "progress" not in state:
            raise ValueError(f"{path} holds weights, but no training to continue.\n  Choose another --output.")
        changed = {k: v for k, v in differences(state["config"], self.cfg).items() if k not in RESUME_MAY_CHANGE}
        if changed or state["fold"] != self.fold:
            key, (old, new) = next(iter(changed.items()), ("--fold", (state["fold"], self.fold)))
            raise ValueError(f"{path} was made with {key} = {old}, now it is {new}.\n"
                             "  Resume with the settings of config.yaml beside it, or choose another --output.")
        load_weights(self.model, state["model"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        self._forget_lines_after(self.progress.steps)
        set_rng_state(state["rng"])

    def _forget_lines_after(self, steps):
        """The log may be ahead of the checkpoint by a few steps, which will be done again."""
        log = self.output / "log.jsonl"
        lines = read_json_lines(log) if log.is_file() else []
        with atomic_file(log, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines if line["step"] <= steps)
