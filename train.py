"""Train on one fold: config -> data -> method -> epochs -> validate -> checkpoint.

    python train.py --config config/demo/ytvis.yaml --fold 1
    python train.py --config config/vipmt/ytvis.yaml --config config/vipmt/ablation/clip.yaml --fold 1 data.shots=1
    python train.py --config config/vipmt/ytvis.yaml --fold 1 [--output DIR] [--resume] [key.sub=value ...]
    torchrun --nproc_per_node=4 train.py --config config/vipmt/ytvis.yaml --fold 1 --resume

SIGTERM or Ctrl-C: the step is finished, a checkpoint is written, the exit status is 75; --resume continues exactly
there. A second Ctrl-C stops at once.
"""
import math
import sys
import time
from pathlib import Path

import torch
from easydict import EasyDict
from tqdm import tqdm

from dataloaders import build_index, build_train_loader, build_validation_loader, data_fingerprint
from dataloaders.fewshot.sampling import rng_for
from models import get_method
from models.vipmt.build import check_iou_net
from utils.checkpoint import older_checkpoints, remove_leftovers
from utils.command_line import Parser, bar_hidden
from utils.config import add_config_arguments, load_config, user_errors
from utils.distributed import gather_objects, in_parallel, is_main, processes, rank, world_size
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import aggregate
from utils.logger import describe_run, get_logger, setup_logger
from utils.report.write import refresh_report
from utils.runtime import prepare_runtime
from utils.seeds import seed_generators
from utils.training.log import TrainingLog, plot_curves
from utils.training.state import TrainingState
from utils.training.step import note_spike, optimise
from utils.training.stopping import STOPPED, Stopped, StopRequest


class Run:
    """One training run: the method, what it trains, and what has to be remembered of it."""

    def __init__(self, cfg, fold, output, device, stop):
        self.cfg, self.fold, self.output, self.device, self.stop = cfg, fold, output, device, stop
        self.method = get_method(cfg.model.method)
        self.test_amp = prepare_runtime(cfg.speed, device)
        seed_generators(cfg.seed)
        check_iou_net(cfg, fold)
        self.model = self.method.build(cfg, pretrained=True).to(device)
        self.step = self.method.TrainStep(self.model, cfg)
        self.parallel = in_parallel(self.step, device)
        self.state = TrainingState(self.model, cfg, fold, output, device)
        if rank():
            seed_generators(cfg.seed + rank())       # the weights are those of rank 0, dropout differs


def train_one_epoch(run, loader, log, bar):
    """Steps of one epoch from where the run stands; checkpoints where they are due or a stop is wished for."""
    state, started = run.state, time.perf_counter()
    for batch in run.stop.awaited(loader):
        waited = time.perf_counter() - started
        wishes = run.stop.requested, is_main() and state.save_is_due()
        values, (stop, save) = optimise(run, batch.to(run.device), wishes)
        rate = run.cfg.train.batch_size / (time.perf_counter() - started)
        note(run, values, {"samples_per_s": round(rate, 3), "data_s": round(waited, 4)}, batch.ids, log)
        bar.update()
        bar.set_postfix({k: f"{v:.3f}" for k, v in values["losses"].items()}
                        | {"iou": f"{values['iou']:.3f}", "samples/s": f"{rate:.1f}"})
        if stop or save:
            state.save()
        if stop:
            raise Stopped
        started = time.perf_counter()


def note(run, values, times, ids, log):
    """A step is done: progress, a JSON line every train.log_every steps, and one for each spike of the loss."""
    progress = run.state.progress
    progress.step, progress.steps = progress.step + 1, progress.steps + 1
    if not math.isfinite(values["grad_norm"]):         # of fp16 only: see check_finite
        values["grad_norm"], progress.overflows = None, progress.overflows + 1
    if progress.steps % run.cfg.train.log_every == 0:
        overflows = {"overflows": progress.overflows} if run.state.scaler.is_enabled() else {}
        rate = {"lr": run.state.optimizer.param_groups[0]["lr"]}
        log.append({"step": progress.steps, "epoch": progress.epoch, **values, **rate, **overflows, **times})
    typical = progress.typical_loss
    if note_spike(progress, values, run.cfg.train.spike_factor):
        total = sum(values["losses"].values())
        get_logger().warning("step %d: the loss is %.3f, %.1f times the usual; episodes: %s",
                             progress.steps, total, total / typical, ", ".join(ids))
        log.append({"step": progress.steps, "spike": total, "typical": typical, "episodes": ids})


def validate(run, index, log):
    """J, F and VC on the validation episodes, shared by the processes; keeps the best checkpoint by J."""
    cfg, progress = run.cfg, run.state.progress
    loader = build_validation_loader(cfg, index, run.fold, run.device.type == "cuda", (rank(), world_size()))
    if loader is None or progress.epoch % cfg.validate.every:
        return
    run.model.eval()
    memory = EasyDict(cfg.memory, select=cfg.validate.memory)

    def start(episode):
        rng = rng_for(cfg.seed, "memory", episode.run, episode.class_id, episode.video)
        return run.stop.before(run.method.VideoSegmenter(
            run.model, episode.support_images, episode.support_masks, memory=memory, rng=rng, amp=run.test_amp).shared)

    own = evaluate(start, loader, cfg, run.fold, lambda line: None)
    results = [line for lines in gather_objects(own) for line in lines]
    score = aggregate(results)
    log.append({"step": progress.steps, "epoch": progress.epoch, "videos": len(results),
                "validation": {k: score[k] for k in ("j", "f", "vc")}})
    if score["j"] > progress.best:
        progress.best = score["j"]
        run.state.save("best")


def train(run, index):
    """All epochs that are left. Each ends with a checkpoint, its validation, and a checkpoint that knows of it."""
    cfg, progress, state = run.cfg, run.state.progress, run.state
    path = run.output / "log.jsonl" if is_main() else None
    hidden = bar_hidden(is_main())
    with TrainingLog(path) as log, tqdm(initial=progress.steps, desc=f"fold {run.fold}", disable=hidden) as bar:
        while progress.validation_due or progress.epoch < cfg.train.epochs:
            if not progress.validation_due:
                loader = build_train_loader(cfg, index, run.fold, progress.epoch, progress.step,
                                            run.device.type == "cuda", (rank(), world_size()))
                bar.total = cfg.train.epochs * len(loader)
                run.step.train()
                train_one_epoch(run, loader, log, bar)
                progress.epoch, progress.step, progress.validation_due = progress.epoch + 1, 0, True
                state.save()
            validate(run, index, log)
            progress.validation_due = False
            state.save()
            if log.drawing_is_due(at_end=progress.epoch >= cfg.train.epochs):
                plot_curves(path, run.output / "curves.png")
                refresh_report(run.output)


def parse_arguments():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--fold", "--group", type=int, required=True, choices=(1, 2, 3, 4))
    parser.add_argument("--batch_size", type=int, help="the same as train.batch_size=N")
    parser.add_argument("--output", type=Path, help="default: output/<name>/fold<k>")
    parser.add_argument("--resume", action="store_true", help="continue from last.pth in the output folder")
    parser.add_argument("--keep", type=int, help="checkpoints that stay, short for checkpoint.keep=N")
    parser.add_argument("--deterministic", action="store_true", help="short for speed.deterministic=true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_intermixed_args()
    args.overrides += [f"{key}={value}" for key, value in (
        ("train.batch_size", args.batch_size), ("checkpoint.keep", args.keep),
        ("speed.deterministic", "true" if args.deterministic else None)) if value is not None]
    return args


def start(args, cfg, device, stop):
    """Everything before the first step, and then all of them."""
    output = args.output or Path("output") / cfg.name / f"fold{args.fold}"
    exists = bool(older_checkpoints(output / "last.pth"))
    if exists and not args.resume:
        raise ValueError(f"{output} holds a run already.\n  Continue it with --resume, or choose another --output.")
    setup_logger(output, main=is_main())
    index = build_index(cfg, output / "cache")
    run = Run(cfg, args.fold, output, device, stop)
    if exists:
        run.state.resume()
    if is_main():
        remove_leftovers(output)
        describe_run(cfg, output, data_fingerprint(cfg))
    get_logger().info("fold %d, %.1f M trained parameters, IoUNet %s, %s", args.fold,
                      sum(p.numel() for p in run.model.parameters() if p.requires_grad) / 1e6,
                      run.step.iou_training, run.device)
    train(run, index)


def main():
    args = parse_arguments()
    cfg = load_config(args.config, args.overrides)
    with processes(args.device) as device, StopRequest() as stop:
        try:
            start(args, cfg, device, stop)
        except Stopped:
            get_logger().info("stopped; the same command with --resume continues here")
            sys.exit(STOPPED)


if __name__ == "__main__":
    with user_errors():
        main()
