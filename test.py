"""Every test episode of a fold through a trained model: results.jsonl, and J, F and VC7 as a table.

    python test.py --config config/vipmt/ytvis.yaml --fold 1
    python test.py --fold all --checkpoint fold1.pth fold2.pth fold3.pth fold4.pth --output output/table1
    python test.py --episodes episodes.json --checkpoint fold1.pth --output output/replayed   (see tools/episodes.py)
    torchrun --nproc_per_node=4 test.py --fold 1            shares the videos among four GPUs

An interrupted test (Ctrl-C or SIGTERM: exit status 75) continues where it stopped with the same command: videos already
in results.jsonl are not run again.
"""
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from dataloaders import build_index, build_listed_runs, build_runs_loader, data_fingerprint
from dataloaders.fewshot.episode_list import EpisodeList, read_episode_list
from dataloaders.fewshot.sampling import rng_for
from dataloaders.transforms import undo_letterbox
from models import get_method
from models.vipmt.build import read_iou_net, with_iou_net
from tools.report import refresh_report
from utils.checkpoint import load_trained, load_weights
from utils.command_line import Parser
from utils.config import add_config_arguments, load_config, split_overrides, user_errors
from utils.distributed import is_main, processes, rank, world_size
from utils.evaluation.evaluate import (
    collect_results,
    describe_test,
    evaluate,
    key_of,
    open_results,
    warn_of_other_config,
)
from utils.evaluation.tables import FOLDS, class_table, paper_table, summary
from utils.logger import describe_run, get_logger, setup_logger
from utils.pictures.overlay import recording
from utils.runtime import prepare_runtime
from utils.training.stopping import STOPPED, Stopped, StopRequest


@dataclass
class FoldTest:
    """What is tested in one fold: files of weights, of another IoUNet or None, a list of episodes or None (drawn)."""
    fold: int
    checkpoint: Path
    iou_net: str | None
    episodes: EpisodeList | None
    output: Path


def plan(args, cfg):
    """Command line and config  ->  list of FoldTest, none of them with a wrong file: that is found now, not later"""
    lists = [read_episode_list(file) for file in args.episodes]
    folds = FOLDS if args.fold == "all" else (int(args.fold),) if args.fold else tuple(one.fold for one in lists)
    if len(lists) not in (0, len(folds)) or len(set(folds)) < len(folds):
        raise ValueError(f"--episodes: {len(lists)} files for folds {folds}; name one per fold, in order")
    base = Path("output", cfg.name)
    files = args.checkpoint or [base / f"fold{fold}" / f"{cfg.checkpoint.select}.pth" for fold in folds]
    judges = args.iou_net * len(folds) if len(args.iou_net) == 1 else args.iou_net or [None] * len(folds)
    for name, given in (("--checkpoint", files), ("--iou-net", judges)):
        if len(given) != len(folds):
            raise ValueError(f"{name}: {len(given)} files for {len(folds)} folds; name one per fold, in order")
    several = len(folds) > 1
    output = Path(args.output or base / ("" if several else f"fold{folds[0]}") / "test")
    tests = [FoldTest(fold, file, judge, episodes, output / f"fold{fold}" if several else output)
             for fold, file, judge, episodes in zip(folds, files, judges, lists or [None] * len(folds), strict=True)]
    for test in tests:
        load_trained(test.checkpoint, test.fold)
        if test.iou_net:
            read_iou_net(test.iou_net, cfg, test.fold, "--iou-net")
    return output, tests


def trained_model(test, cfg, method, device):
    """The checkpoint's model in eval mode, with the IoUNet of another file where one was named."""
    checkpoint = load_trained(test.checkpoint, test.fold)
    warn_of_other_config(checkpoint.get("config", cfg), cfg, test.checkpoint, own_iou_net=test.iou_net is None)
    model, weights = method.build(cfg).to(device).eval(), checkpoint["model"]
    if test.iou_net:
        weights = with_iou_net(model, weights, test.iou_net, cfg, test.fold)
    load_weights(model, weights, test.checkpoint)
    return model


def test_fold(args, cfg, index, test, listed, device, stop):
    """All runs of one FoldTest, drawn or `listed` (list of ListedEpisodes)  ->  the lines of its results.jsonl"""
    method = get_method(cfg.model.method)
    model = trained_model(test, cfg, method, device)
    amp = prepare_runtime(cfg.speed, device)
    if cfg.speed.compile:
        method.compile_parts(model)
    header = describe_test(test.checkpoint, cfg, test.fold, test.episodes and test.episodes.source, test.iou_net)
    writer, results = open_results(test.output, header)
    if is_main():
        describe_run(cfg, test.output, data_fingerprint(cfg))
    record = partial(recording, masks_folder=args.save_masks, films_folder=args.save_overlays, restore=undo_letterbox)

    def start(episode):
        rng = rng_for(cfg.seed, "memory", episode.run, episode.class_id, episode.video)
        return stop.before(method.VideoSegmenter(
            model, episode.support_images, episode.support_masks, memory=cfg.memory, rng=rng, amp=amp).shared)

    with writer:
        stream = partial(build_runs_loader, cfg, index, test.fold, pin_memory=device.type == "cuda", runs=listed)
        rest = stream(skip=frozenset(map(key_of, results)), part=(rank(), world_size()))
        evaluate(start, rest, cfg, test.fold, writer.append, undo_letterbox, record)
    everything = stream().episodes.keys()
    wanted = {run for run, *_ in everything}
    return [line for line in collect_results(test.output, everything) if line["run"] in wanted]


def run(args, cfg, device, stop):
    """Every fold that was asked for, and its tables."""
    output, tests = plan(args, cfg)
    log, results = setup_logger(output, main=is_main()), {}
    index = build_index(cfg, output / "cache")
    listed = {test.fold: build_listed_runs(cfg, index, test.fold, test.episodes) for test in tests if test.episodes}
    for test in tests:
        results[test.fold] = test_fold(args, cfg, index, test, listed.get(test.fold), device, stop)
        if is_main():
            table = class_table(results[test.fold]).write(test.output)
            refresh_report(test.output, args.save_overlays, args.save_masks)
            log.info("fold %s: %s\n\n%s", test.fold, summary(results[test.fold]), table)
    if len(tests) > 1 and is_main():
        log.info("all folds\n\n%s", paper_table(results, cfg.data.dataset, cfg.name).write(output))
        refresh_report(output, args.save_overlays, args.save_masks)


def parse_arguments():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--fold", "--group", choices=[*map(str, FOLDS), "all"], help="with --episodes it is the files'")
    parser.add_argument("--episodes", nargs="+", default=[], metavar="FILE", help="replay these, one file per fold")
    parser.add_argument("--checkpoint", nargs="+", default=[], help="one per fold; default: output/NAME/foldK/*.pth")
    parser.add_argument("--iou-net", nargs="+", default=[], metavar="FILE",
                        help="checkpoint whose IoUNet (section iou_net describes it) replaces that of the tested one; "
                             "one for all folds, or one per fold")
    parser.add_argument("--runs", metavar="N", help="short for test.runs=N")
    parser.add_argument("--output", help="folder of results.jsonl and tables; default: output/NAME/foldK/test")
    parser.add_argument("--save-masks", metavar="DIR", help="masks as palette PNGs")
    parser.add_argument("--save-overlays", metavar="DIR", help="films of the masks over the frames")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_intermixed_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no GPU here; use --device cpu or check nvidia-smi")
    if not (args.fold or args.episodes):
        parser.error("name the --fold: 1, 2, 3, 4 or all")
    if args.episodes and args.runs:
        raise ValueError("--runs: with --episodes the runs are those of the list; leave it out")
    for name in ("checkpoint", "iou_net", "episodes"):
        files, more = split_overrides(getattr(args, name))
        setattr(args, name, files)
        args.overrides += more
    args.overrides += [f"test.runs={args.runs}"] if args.runs else []
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


if __name__ == "__main__":
    with user_errors():
        main()
