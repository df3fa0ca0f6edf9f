"""Train on one fold: config -> data -> method -> epochs -> validate -> checkpoint.

    python train.py --config config/vipmt_ytvis.yaml --fold 1 [--output DIR] [--resume] [key.sub=value ...]
"""
import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from dataloaders import build_index, build_train_loader, build_validation_loader
from dataloaders.sampling import rng_for
from models import get_method
from utils.checkpoint import atomic_file, load_checkpoint, load_weights, rng_state, save_checkpoint, set_rng_state
from utils.config import add_config_arguments, differences, load_config, to_dict, user_errors
from utils.evaluator import evaluate
from utils.logger import JsonLines, describe_run, get_logger, plot_curves, read_json_lines, setup_logger
from utils.metrics import aggregate

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
RESUME_MAY_CHANGE = {"name", "train.epochs", "train.log_every", "data.workers", "backbone.cache_frames"}


@dataclass
class Progress:
    """Where the run stands: epochs done, steps done within the next one, all steps, best validation J."""
    epoch: int = 0
    step: int = 0
    steps: int = 0
    best: float = -1.0


class Run:
    """One training run: everything that a checkpoint has to remember, and where it goes."""

    def __init__(self, cfg, fold, output, device):
        self.cfg, self.fold, self.output, self.device = cfg, fold, output, device
        self.method, self.progress = get_method(cfg.model.method), Progress()
        torch.manual_seed(cfg.seed)
        self.model = self.method.build(cfg, pretrained=True).to(device)
        self.step = self.method.TrainStep(self.model, cfg)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            trained, lr=cfg.train.lr, betas=tuple(cfg.train.betas), weight_decay=cfg.train.weight_decay)
        self.amp = AMP.get(cfg.train.amp) if device.type == "cuda" else None
        if self.amp is torch.bfloat16 and not torch.cuda.is_bf16_supported():
            raise ValueError("train.amp: this GPU has no bf16.\n  Set train.amp=fp16 or train.amp=off.")
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp is torch.float16)

    def save(self, name="last"):
        save_checkpoint(self.output / f"{name}.pth", {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(), "rng": rng_state(), "config": to_dict(self.cfg), "fold": self.fold,
            "epoch": self.progress.epoch, "progress": asdict(self.progress)})

    def resume(self):
        """Continue where last.pth stands; ValueError where it belongs to other settings."""
        path = self.output / "last.pth"
        state = load_checkpoint(path)
        changed = {k: v for k, v in differences(state["config"], self.cfg).items() if k not in RESUME_MAY_CHANGE}
        if changed or state["fold"] != self.fold:
            key, (old, new) = next(iter(changed.items()), ("--fold", (state["fold"], self.fold)))
            raise ValueError(f"{path} was made with {key} = {old}, now it is {new}.\n"
                             "  Resume with the settings of config.yaml beside it, or choose another --output.")
        load_weights(self.model, state["model"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        self.forget_lines_after(self.progress.steps)
        set_rng_state(state["rng"])

    def forget_lines_after(self, steps):
        """The log may be ahead of the checkpoint by a few steps, which will be done again."""
        log = self.output / "log.jsonl"
        lines = read_json_lines(log) if log.is_file() else []
        with atomic_file(log, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines if line["step"] <= steps)


def optimise(run, batch):
    """One step on an EpisodeBatch: clip after clip, then the optimiser  ->  {name: mean over clips}"""
    per_clip = run.cfg.train.backward == "per_clip"
    run.optimizer.zero_grad(set_to_none=True)
    clips = []
    with torch.autocast(run.device.type, dtype=run.amp, enabled=run.amp is not None):
        encoded = run.step.encode(batch)
        for number in range(encoded.num_clips):
            losses, statistics = run.step(encoded, number)
            total = sum(losses.values())
            if per_clip:
                run.scaler.scale(total).backward()
            clips.append((losses, statistics, total))
    values = fetch(clips)
    check_finite(values, run.progress.steps + 1, batch.ids)
    if not per_clip:
        run.scaler.scale(sum(total for *_, total in clips)).backward()
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return values


def fetch(clips):
    """Means over the clips, in one transfer from the device  ->  {"losses": {name: value}, statistic: value}"""
    losses, statistics = list(clips[0][0]), list(clips[0][1])
    table = torch.stack([torch.stack([*a.values(), *b.values()]).detach().double() for a, b, _ in clips])
    means = table.mean(dim=0).tolist()
    return {"losses": dict(zip(losses, means, strict=False))} | dict(zip(statistics, means[len(losses):], strict=True))


def check_finite(values, step, ids):
    """FloatingPointError naming loss, step and episodes; weights and checkpoints are still those before the step."""
    for name, value in values["losses"].items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"loss '{name}' is {value} at step {step}; episodes: {', '.join(ids)}.\n"
                "  The last checkpoint is intact. Look at these episodes, lower train.lr, or set train.amp=off.")


def train_one_epoch(run, loader, log, bar):
    """Steps of one epoch from where the run stands; a JSON line every train.log_every steps."""
    started = time.perf_counter()
    for batch in loader:
        loaded = time.perf_counter()
        values = optimise(run, batch.to(run.device))
        run.progress.step, run.progress.steps = run.progress.step + 1, run.progress.steps + 1
        now = time.perf_counter()
        rate, waited = len(batch.ids) / (now - started), loaded - started
        bar.update()
        bar.set_postfix({k: f"{v:.3f}" for k, v in values["losses"].items()}
                        | {"iou": f"{values['iou']:.3f}", "samples/s": f"{rate:.1f}"})
        if run.progress.steps % run.cfg.train.log_every == 0:
            log.append({"step": run.progress.steps, "epoch": run.progress.epoch, **values,
                        "samples_per_s": round(rate, 3), "data_s": round(waited, 4)})
        if run.cfg.checkpoint.every_steps and run.progress.steps % run.cfg.checkpoint.every_steps == 0:
            run.save()
        started = time.perf_counter()


def validate(run, index, log):
    """J, F and VC on the validation episodes; keeps the best checkpoint by J."""
    cfg = run.cfg
    loader = build_validation_loader(cfg, index, run.fold)
    if loader is None or run.progress.epoch % cfg.validate.every:
        return
    run.model.eval()

    def segment(episode):
        rng = rng_for(cfg.seed, "memory", episode.run, episode.class_id, episode.video)
        truth = episode.query_masks if cfg.validate.memory == "ground_truth" else None
        return run.method.segment_video(run.model, episode, memory=cfg.memory, clip_length=cfg.data.clip_length,
                                        rng=rng, memory_masks=truth)

    results = []
    evaluate(segment, loader, cfg, run.fold, results.append)
    score = aggregate(results)
    log.append({"step": run.progress.steps, "epoch": run.progress.epoch, "videos": len(results),
                "validation": {k: score[k] for k in ("j", "f", "vc")}})
    if score["j"] > run.progress.best:
        run.progress.best = score["j"]
        run.save("best")


def train(run, index):
    """All epochs that are left."""
    cfg, progress = run.cfg, run.progress
    with JsonLines(run.output / "log.jsonl") as log, tqdm(initial=progress.steps, desc=f"fold {run.fold}") as bar:
        while progress.epoch < cfg.train.epochs:
            loader = build_train_loader(cfg, index, run.fold, progress.epoch, start=progress.step,
                                        pin_memory=run.device.type == "cuda")
            bar.total = cfg.train.epochs * len(loader)
            run.step.train()
            train_one_epoch(run, loader, log, bar)
            progress.epoch, progress.step = progress.epoch + 1, 0
            validate(run, index, log)
            run.save()
            plot_curves(run.output / "log.jsonl", run.output / "curves.png")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument("--fold", "--group", type=int, required=True, choices=(1, 2, 3, 4))
    parser.add_argument("--batch_size", type=int, help="the same as train.batch_size=N")
    parser.add_argument("--output", type=Path, help="default: output/<name>/fold<k>")
    parser.add_argument("--resume", action="store_true", help="continue from last.pth in the output folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_intermixed_args()


def main():
    args = parse_arguments()
    overrides = args.overrides + ([f"train.batch_size={args.batch_size}"] if args.batch_size else [])
    cfg = load_config(args.config, overrides)
    output = args.output or Path("output") / cfg.name / f"fold{args.fold}"
    if (output / "last.pth").exists() and not args.resume:
        raise ValueError(f"{output} holds a run already.\n  Continue it with --resume, or choose another --output.")
    setup_logger(output)
    index = build_index(cfg, output / "cache")
    run = Run(cfg, args.fold, output, torch.device(args.device))
    if args.resume and (output / "last.pth").exists():
        run.resume()
    describe_run(cfg, output)
    get_logger().info("fold %d, %.1f M trained parameters, IoUNet %s, %s", args.fold,
                      sum(p.numel() for p in run.model.parameters() if p.requires_grad) / 1e6,
                      run.step.iou_training, run.device)
    train(run, index)


if __name__ == "__main__":
    with user_errors():
        main()
