"""Every test episode of a fold through a trained model: results.jsonl, and J, F and VC7 as a table.

    python test.py --config config/vipmt_ytvis.yaml --fold 1
    python test.py --fold all --checkpoint fold1.pth fold2.pth fold3.pth fold4.pth --output output/table1

    torchrun --nproc_per_node=4 test.py ...     shares the videos among four GPUs

An interrupted test (Ctrl-C or SIGTERM: exit status 75) continues where it stopped with the same command: videos already
in results.jsonl are not run again.
"""
import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from dataloaders import build_index, build_runs_loader, data_fingerprint
from dataloaders.sampling import rng_for
from dataloaders.transforms import undo_letterbox
from models import get_method
from utils.checkpoint import load_trained, load_weights
from utils.config import add_config_arguments, load_config, split_overrides, user_errors
from utils.distributed import is_main, processes, rank, world_size
from utils.evaluator import collect_results, describe_test, evaluate, key_of, open_results, warn_of_other_config
from utils.logger import describe_run, get_logger, setup_logger
from utils.runtime import prepare_runtime
from utils.stopping import STOPPED, Stopped, StopRequest
from utils.tables import FOLDS, class_table, paper_table, summary
from utils.visualise import recording


def test_fold(args, cfg, index, fold, file, output, device, stop):
    """All runs of one fold  ->  the lines of its results.jsonl"""
    checkpoint = load_trained(file, fold)
    warn_of_other_config(checkpoint.get("config", cfg), cfg, file)
    method = get_method(cfg.model.method)
    model = method.build(cfg).to(device).eval()
    load_weights(model, checkpoint["model"], file)
    amp = prepare_runtime(cfg.speed, device)
    if cfg.speed.compile:
        method.compile_parts(model)
    writer, results = open_results(output, describe_test(file, cfg, fold))
    if is_main():
        describe_run(cfg, output, data_fingerprint(cfg))
    record = partial(recording, masks_folder=args.save_masks, films_folder=args.save_overlays, restore=undo_letterbox)

    def start(episode):
        rng = rng_for(cfg.seed, "memory", episode.run, episode.class_id, episode.video)
        return stop.before(method.VideoSegmenter(
            model, episode.support_images, episode.support_masks, memory=cfg.memory, rng=rng, amp=amp).shared)

    with writer:
        stream = partial(build_runs_loader, cfg, index, fold, pin_memory=device.type == "cuda")
        rest = stream(skip=frozenset(map(key_of, results)), part=(rank(), world_size()))
        evaluate(start, rest, cfg, fold, writer.append, undo_letterbox, record)
    return [line for line in collect_results(output, stream().episodes.keys()) if line["run"] < cfg.test.runs]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument("--fold", "--group", choices=[*map(str, FOLDS), "all"], required=True)
    parser.add_argument("--checkpoint", nargs="+", default=[], help="one per fold; default: output/NAME/foldK/*.pth")
    parser.add_argument("--runs", metavar="N", help="short for test.runs=N")
    parser.add_argument("--output", help="folder of results.jsonl and tables; default: output/NAME/foldK/test")
    parser.add_argument("--save-masks", metavar="DIR", help="masks as palette PNGs")
    parser.add_argument("--save-overlays", metavar="DIR", help="films of the masks over the frames")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_intermixed_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no GPU here; use --device cpu or check nvidia-smi")
    args.checkpoint, more = split_overrides(args.checkpoint)
    args.overrides += more + ([f"test.runs={args.runs}"] if args.runs else [])
    return args


def main():
    args = parse_arguments()
    cfg = load_config(args.config, args.overrides)
    with processes(args.device) as device, StopRequest() as stop:
        try:
            run(args, cfg, device, stop)
        except Stopped:
            get_logger().info("stopped; the same command continues here")
            sys.exit(STOPPED)


def run(args, cfg, device, stop):
    """Every fold that was asked for, and its tables."""
    every = args.fold == "all"
    folds, base = FOLDS if every else (int(args.fold),), Path("output", cfg.name)
    files = args.checkpoint or [base / f"fold{fold}" / f"{cfg.checkpoint.select}.pth" for fold in folds]
    if len(files) != len(folds):
        raise ValueError(f"--checkpoint: {len(files)} files for {len(folds)} folds; name one per fold, in order")
    for fold, file in zip(folds, files, strict=True):
        load_trained(file, fold)   # a wrong one is found now, not hours later
    output = Path(args.output or base / ("" if every else f"fold{args.fold}") / "test")
    log, results = setup_logger(output, main=is_main()), {}
    index = build_index(cfg, output / "cache")
    for fold, file in zip(folds, files, strict=True):
        folder = output / f"fold{fold}" if every else output
        results[fold] = test_fold(args, cfg, index, fold, file, folder, device, stop)
        if is_main():
            log.info("fold %s: %s\n\n%s", fold, summary(results[fold]), class_table(results[fold]).write(folder))
    if every and is_main():
        log.info("all folds\n\n%s", paper_table(results, cfg.data.dataset, cfg.name).write(output))


if __name__ == "__main__":
    with user_errors():
        main()
