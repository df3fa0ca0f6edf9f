"""Train on one fold: config -> data -> method -> epochs -> validate -> checkpoint.

    python train.py --config config/vipmt_ytvis.yaml --fold 1 [--output DIR] [--resume] [key.sub=value ...]
"""
import argparse
import math
import time
from functools import partial
from pathlib import Path

import torch
from easydict import EasyDict
from tqdm import tqdm

from dataloaders import build_index, build_train_loader, build_validation_loader
from dataloaders.sampling import rng_for
from models import get_method
from models.vipmt.build import check_iou_net
from utils.config import add_config_arguments, load_config, user_errors
from utils.evaluator import evaluate
from utils.logger import JsonLines, describe_run, get_logger, plot_curves, setup_logger
from utils.metrics import aggregate
from utils.runtime import prepare_runtime
from utils.training_state import TrainingState


class Run:
    """One training run: the method, what it trains, and what has to be remembered of it."""

    def __init__(self, cfg, fold, output, device):
        self.cfg, self.fold, self.output, self.device = cfg, fold, output, device
        self.method = get_method(cfg.model.method)
        self.test_amp = prepare_runtime(cfg.speed, device)
        torch.manual_seed(cfg.seed)
        check_iou_net(cfg, fold)
        self.model = self.method.build(cfg, pretrained=True).to(device)
        self.step = self.method.TrainStep(self.model, cfg)
        self.state = TrainingState(self.model, cfg, fold, output, device)


def optimise(run, batch):
    """One step on an EpisodeBatch: clip after clip, then the optimiser  ->  {name: mean over clips}"""
    state, per_clip, clips, waiting = run.state, run.cfg.train.backward == "per_clip", [], []
    autocast = partial(torch.autocast, run.device.type, dtype=state.amp, enabled=state.amp is not None)
    state.optimizer.zero_grad(set_to_none=True)
    with autocast():
        encoded = run.step.encode(batch)
    for number in range(encoded.num_clips):
        with autocast():
            losses, statistics = run.step(encoded, number)
        total = sum(losses.values())
        if per_clip:
            state.scaler.scale(total).backward()
        else:
            waiting.append(total)
        clips.append(({name: loss.detach() for name, loss in losses.items()}, statistics))
        del losses, total         # or their graph would outlive the next clip's forward pass
    values = fetch(clips)
    check_finite(values, state.progress.steps + 1, batch.ids)
    if not per_clip:
        state.scaler.scale(sum(waiting)).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return values


def fetch(clips):
    """Means over the clips, in one transfer from the device  ->  {"losses": {name: value}, statistic: value}"""
    losses, statistics = list(clips[0][0]), list(clips[0][1])
    table = torch.stack([torch.stack([*a.values(), *b.values()]).detach().double() for a, b in clips])
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
    progress, started = run.state.progress, time.perf_counter()
    for batch in loader:
        waited = time.perf_counter() - started
        values = optimise(run, batch.to(run.device))
        progress.step, progress.steps = progress.step + 1, progress.steps + 1
        rate = len(batch.ids) / (time.perf_counter() - started)
        bar.update()
        bar.set_postfix({k: f"{v:.3f}" for k, v in values["losses"].items()}
                        | {"iou": f"{values['iou']:.3f}", "samples/s": f"{rate:.1f}"})
        if progress.steps % run.cfg.train.log_every == 0:
            log.append({"step": progress.steps, "epoch": progress.epoch, **values,
                        "samples_per_s": round(rate, 3), "data_s": round(waited, 4)})
        if run.cfg.checkpoint.every_steps and progress.steps % run.cfg.checkpoint.every_steps == 0:
            run.state.save()
        started = time.perf_counter()


def validate(run, index, log):
    """J, F and VC on the validation episodes; keeps the best checkpoint by J."""
    cfg, progress = run.cfg, run.state.progress
    loader = build_validation_loader(cfg, index, run.fold, pin_memory=run.device.type == "cuda")
    if loader is None or progress.epoch % cfg.validate.every:
        return
    run.model.eval()
    memory = EasyDict(cfg.memory, select=cfg.validate.memory)

    def start(episode):
        rng = rng_for(cfg.seed, "memory", episode.run, episode.class_id, episode.video)
        return run.method.VideoSegmenter(
            run.model, episode.support_images, episode.support_masks, memory=memory, rng=rng, amp=run.test_amp).shared

    results = []
    evaluate(start, loader, cfg, run.fold, results.append)
    score = aggregate(results)
    log.append({"step": progress.steps, "epoch": progress.epoch, "videos": len(results),
                "validation": {k: score[k] for k in ("j", "f", "vc")}})
    if score["j"] > progress.best:
        progress.best = score["j"]
        run.state.save("best")


def train(run, index):
    """All epochs that are left."""
    cfg, progress = run.cfg, run.state.progress
    with JsonLines(run.output / "log.jsonl") as log, tqdm(initial=progress.steps, desc=f"fold {run.fold}") as bar:
        while progress.epoch < cfg.train.epochs:
            loader = build_train_loader(cfg, index, run.fold, progress.epoch, start=progress.step,
                                        pin_memory=run.device.type == "cuda")
            bar.total = cfg.train.epochs * len(loader)
            run.step.train()
            train_one_epoch(run, loader, log, bar)
            progress.epoch, progress.step = progress.epoch + 1, 0
            validate(run, index, log)
            run.state.save()
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
        run.state.resume()
    describe_run(cfg, output)
    get_logger().info("fold %d, %.1f M trained parameters, IoUNet %s, %s", args.fold,
                      sum(p.numel() for p in run.model.parameters() if p.requires_grad) / 1e6,
                      run.step.iou_training, run.device)
    train(run, index)


if __name__ == "__main__":
    with user_errors():
        main()
