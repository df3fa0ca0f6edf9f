"""Train: config -> data -> method -> epochs -> validate -> checkpoint.

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
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from utils.command_line import Parser, say
from utils.config import Affects, add_config_arguments, for_validation, load_config, settings, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--fold", "--group", type=int, help="the split: 1 to 4, in the vos task none")
    parser.add_argument("--batch_size", type=int, help="the same as train.batch_size=N")
    parser.add_argument("--output", type=Path, help="default: output/<name>/fold<k>, without folds output/<name>")
    parser.add_argument("--resume", action="store_true", help="continue from last.pth in the output folder")
    parser.add_argument("--keep", type=int, help="checkpoints that stay, short for checkpoint.keep=N")
    parser.add_argument("--deterministic", action="store_true", help="short for speed.deterministic=true")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    args = parser.parse_intermixed_args()
    args.overrides += [f"{key}={value}" for key, value in (
        ("train.batch_size", args.batch_size), ("checkpoint.keep", args.keep),
        ("speed.deterministic", "true" if args.deterministic else None)) if value is not None]
    return args


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
    say("loading PyTorch")

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
from dataloaders import build_index, check_split, data_fingerprint, get_task
from models import get_method
from utils.checkpoint import older_checkpoints, remove_leftovers
from utils.distributed import gather_objects, in_parallel, is_main, processes, rank, world_size
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import aggregate
from utils.files import owned
from utils.logger import get_logger, setup_logger
from utils.records import describe_run, require_agreement
from utils.report.write import refresh_report
from utils.runtime import choose_device, prepare_runtime
from utils.seeds import rng_for, seed_generators
from utils.training.log import StepBar, TrainingLog
from utils.training.state import TrainingState
from utils.training.step import note_spike, optimise
from utils.training.stopping import STOPPED, Stopped, StopRequest


class Run:
    """One training run: the method, what it trains, and what has to be remembered of it."""

    def __init__(self, cfg, split, output, device, stop):
        self.cfg, self.split, self.output, self.device, self.stop = cfg, split, output, device, stop
        self.method = get_method(cfg.model.method)
        self.task = get_task(self.method.TASK)
        self.test_amp = prepare_runtime(cfg.speed, device)
        seed_generators(cfg.seed)
        self.model = self.method.build(cfg, pretrained=True, split=split).to(device)
        self.step = self.method.TrainStep(self.model, cfg)
        self.parallel = in_parallel(self.step, device)
        groups = self.method.parameter_groups(self.model, cfg)
        self.state = TrainingState(self.model, groups, cfg, split, output, device)
        self.part = {"part": (rank(), world_size()), "pin_memory": device.type == "cuda"}
        if rank():
            seed_generators(cfg.seed + rank())       # the weights are those of rank 0, dropout differs


def train_one_epoch(run, loader, log, bar):
    """Steps of one epoch from where the run stands; checkpoints where they are due or a stop is wished for."""
    state, started = run.state, time.perf_counter()
    for batch in run.stop.iterate(loader):
        waited = time.perf_counter() - started
        flags = run.stop.requested, is_main() and state.save_is_due()
        values, (stop, save) = optimise(state, run.parallel, batch.to(run.device), flags)
        rate = run.cfg.train.batch_size / (time.perf_counter() - started)
        log_step(run, values, {"samples_per_s": round(rate, 3), "data_s": round(waited, 4)}, batch.ids, log)
        bar.step(values, rate)
        if stop or save:
            state.save()
        if stop:
            raise Stopped
        started = time.perf_counter()


def log_step(run, values, times, ids, log):
    """A step is done: progress, a JSON line every train.log_every steps, and one for each spike of the loss."""
    progress = run.state.progress
    progress.epoch_step, progress.global_step = progress.epoch_step + 1, progress.global_step + 1
    if not math.isfinite(values["grad_norm"]):         # of fp16 only: see check_finite
        values["grad_norm"], progress.overflows = None, progress.overflows + 1
    if progress.global_step % run.cfg.train.log_every == 0:
        overflows = {"overflows": progress.overflows} if run.state.scaler.is_enabled() else {}
        rate = {"lr": run.state.optimizer.param_groups[0]["lr"]}
        log.append({"step": progress.global_step, "epoch": progress.epoch, **values, **rate, **overflows, **times})
    typical = progress.typical_loss
    if note_spike(progress, values, run.cfg.train.spike_factor):
        total = sum(values["losses"].values())
        get_logger().warning("step %d: the loss is %.3f, %.1f times the usual; episodes: %s",
                             progress.global_step, total, total / typical, ", ".join(ids))
        log.append({"step": progress.global_step, "spike": total, "typical": typical, "episodes": ids})


def validate(run, index, log):
    """J, F and VC on the validation videos, shared by the processes; keeps the best checkpoint by J."""
    cfg, progress = run.cfg, run.state.progress
    if progress.epoch % cfg.validate.every:
        return
    videos = run.task.validation_videos(cfg, index, run.split, **run.part)
    if videos is None:
        return
    run.model.eval()
    settings = for_validation(cfg)

    def start(reference):
        segmenter = run.method.Segmenter(run.model, reference, settings, amp=run.test_amp,
                                         rng=rng_for(cfg.seed, "memory", *reference.key))
        return run.stop.guard(segmenter)

    own = evaluate(start, videos, cfg, lambda line: None, {"fold": run.split} if run.split else {})
    results = [line for lines in gather_objects(own) for line in lines]
    score = aggregate(results)
    log.append({"step": progress.global_step, "epoch": progress.epoch, "videos": len(results),
                "validation": {k: score[k] for k in ("j", "f", "vc")}})
    if score["j"] > progress.best:
        progress.best = score["j"]
        run.state.save("best")


def train(run, index):
    """All epochs that are left. Each ends with a checkpoint, its validation, and a checkpoint that knows of it."""
    cfg, progress, state = run.cfg, run.state.progress, run.state
    path = run.output / "log.jsonl" if is_main() else None
    name = f"fold {run.split}" if run.split else cfg.name
    with TrainingLog(path) as log, StepBar(progress.global_step, name, is_main()) as bar:
        while progress.validation_due or progress.epoch < cfg.train.epochs:
            if not progress.validation_due:
                loader = run.task.train_batches(
                    cfg, index, run.split, progress.epoch, progress.epoch_step, **run.part)
                bar.of(cfg.train.epochs * len(loader))
                run.step.train()
                state.set_rates()
                train_one_epoch(run, loader, log, bar)
                progress.epoch, progress.epoch_step, progress.validation_due = progress.epoch + 1, 0, True
                state.save()
            validate(run, index, log)
            progress.validation_due = False
            state.save()
            if log.drawing_is_due(at_end=progress.epoch >= cfg.train.epochs):
                refresh_report(run.output)


def start(args, cfg, device, stop):
    """Everything before the first step, and then all of them."""
    task = get_task(get_method(cfg.model.method).TASK)
    check_split(task, args.fold)
    output = args.output or Path("output", cfg.name, f"fold{args.fold}" if args.fold else "")
    exists = bool(older_checkpoints(output / "last.pth"))
    if not args.resume if exists else (output / "best.pth").is_file():
        raise ValueError(f"{output} holds a run already.\n  Continue its last.pth with --resume, or choose another "
                         "--output.")
    if (output / "results.jsonl").is_file():
        raise ValueError(f"{output} holds a test.\n  Choose another --output.")
    with owned(output) if is_main() else nullcontext():
        log = setup_logger(output, main=is_main())
        log.info("reading the annotations of %s", cfg.data.root)
        require_agreement(fold=args.fold, config=settings(cfg, Affects.TRAINING), checkpoint=exists)
        index = build_index(cfg, output / "cache", task)
        run = Run(cfg, args.fold, output, device, stop)
        run.state.data = data = data_fingerprint(cfg, index, task)
        if exists:
            run.state.resume()
        require_agreement(data=data | {"annotations": None}, progress=asdict(run.state.progress))
        if is_main():
            remove_leftovers(output, with_log=not exists)
            describe_run(cfg, output, data, args.fold)
        trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad) / 1e6
        log.info("%s%.1f M trained parameters, %s, %s", f"fold {args.fold}, " if args.fold else "", trained,
                 run.step.about, run.device)
        train(run, index)
    log.info("done: %s has last.pth, log.jsonl and report.html; next: python test.py ... --checkpoint %s",
             output, output / "last.pth")


def main(args=None):
    args = args or parse_arguments()
    cfg = load_config(args.config, args.overrides)
    with processes(choose_device(args.device)) as device, StopRequest() as stop:
        try:
            start(args, cfg, device, stop)
        except Stopped:
            get_logger().info("stopped; the same command with --resume continues here")
            sys.exit(STOPPED)


if __name__ == "__main__":
    with user_errors():
        main(arguments)
