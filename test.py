"""Every test episode of a fold through a trained model: results.jsonl, and J, F and VC7 as a table.

    python test.py --config config/vipmt_ytvis.yaml --fold 1
    python test.py --fold all --checkpoint fold1.pth fold2.pth fold3.pth fold4.pth --output output/table1
    python test.py --episodes episodes.json --checkpoint fold1.pth --output output/replayed   (see tools/episodes.py)

An interrupted test continues where it stopped: videos already in results.jsonl are not run again.
"""
import argparse
from functools import partial
from pathlib import Path

import torch

from dataloaders import build_index, build_listed_runs, build_runs_loader
from dataloaders.episode_file import read_episode_list
from dataloaders.sampling import rng_for
from dataloaders.transforms import undo_letterbox
from models import get_method
from models.vipmt.build import read_iou_net, with_iou_net
from utils.checkpoint import load_trained, load_weights
from utils.config import add_config_arguments, load_config, split_overrides, user_errors
from utils.evaluator import describe_test, evaluate, open_results, warn_of_other_config
from utils.logger import describe_run, setup_logger
from utils.runtime import prepare_runtime
from utils.tables import FOLDS, class_table, paper_table, summary
from utils.visualise import recording


def test_fold(args, cfg, index, fold, file, output, listed=None):
    """All runs of one fold, drawn or `listed` (list of ListedEpisodes)  ->  the lines of its results.jsonl"""
    checkpoint = load_trained(file, fold)
    judge = args.iou_net[fold]
    warn_of_other_config(checkpoint.get("config", cfg), cfg, file, own_iou_net=judge is None)
    method = get_method(cfg.model.method)
    model = method.build(cfg).to(args.device).eval()
    weights = with_iou_net(model, checkpoint["model"], judge, cfg, fold) if judge else checkpoint["model"]
    load_weights(model, weights, file)
    amp = prepare_runtime(cfg.speed, torch.device(args.device))
    if cfg.speed.compile:
        method.compile_parts(model)
    header = describe_test(file, cfg, fold, listed and listed[0].source, iou_net=judge)
    writer, results = open_results(output, header)
    describe_run(cfg, output)
    record = partial(recording, masks_folder=args.save_masks, films_folder=args.save_overlays, restore=undo_letterbox)

    def start(episode):
        rng = rng_for(cfg.seed, "memory", episode.run, episode.class_id, episode.video)
        return method.VideoSegmenter(
            model, episode.support_images, episode.support_masks, memory=cfg.memory, rng=rng, amp=amp).shared

    with writer:
        done = frozenset((line["run"], line["class_id"], line["video"]) for line in results)
        episodes = build_runs_loader(cfg, index, fold, skip=done, pin_memory=args.device == "cuda", runs=listed)
        results += evaluate(start, episodes, cfg, fold, writer.append, undo_letterbox, record)
    wanted = [episodes.run for episodes in listed] if listed else range(cfg.test.runs)
    return [line for line in results if line["run"] in wanted]


def judges(files, cfg, folds):
    """--iou-net: one file for all folds, one per fold, or none  ->  {fold: file or None}, none of them a wrong one"""
    files = files * len(folds) if len(files) == 1 else files or [None] * len(folds)
    if len(files) != len(folds):
        raise ValueError(f"--iou-net: {len(files)} files for {len(folds)} folds; name one for all, or one per fold")
    for fold, file in zip(folds, files, strict=True):
        if file:
            read_iou_net(file, cfg, fold, "--iou-net")
    return dict(zip(folds, files, strict=True))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    args.checkpoint, more = split_overrides(args.checkpoint)
    args.iou_net, late = split_overrides(args.iou_net)
    args.episodes, others = split_overrides(args.episodes)
    args.overrides += more + others + late + ([f"test.runs={args.runs}"] if args.runs else [])
    return args


def main():
    args = parse_arguments()
    cfg, lists = load_config(args.config, args.overrides), [read_episode_list(file) for file in args.episodes]
    folds = FOLDS if args.fold == "all" else (int(args.fold),) if args.fold else tuple(one.fold for one in lists)
    every, base = len(folds) > 1, Path("output", cfg.name)
    files = args.checkpoint or [base / f"fold{fold}" / f"{cfg.checkpoint.select}.pth" for fold in folds]
    if len(files) != len(folds):
        raise ValueError(f"--checkpoint: {len(files)} files for {len(folds)} folds; name one per fold, in order")
    if len(lists) not in (0, len(folds)) or len(set(folds)) < len(folds):
        raise ValueError(f"--episodes: {len(lists)} files for folds {folds}; name one per fold, in order")
    for fold, file in zip(folds, files, strict=True):
        load_trained(file, fold)   # a wrong one is found now, not hours later
    args.iou_net = judges(args.iou_net, cfg, folds)
    output = Path(args.output or base / ("" if every else f"fold{folds[0]}") / "test")
    log, results = setup_logger(output), {}
    index = build_index(cfg, output / "cache")
    listed = {one.fold: build_listed_runs(cfg, index, fold, one) for fold, one in zip(folds, lists, strict=False)}
    for fold, file in zip(folds, files, strict=True):
        folder = output / f"fold{fold}" if every else output
        results[fold] = test_fold(args, cfg, index, fold, file, folder, listed.get(fold))
        log.info("fold %s: %s\n\n%s", fold, summary(results[fold]), class_table(results[fold]).write(folder))
    if every:
        log.info("all folds\n\n%s", paper_table(results, cfg.data.dataset, cfg.name).write(output))


if __name__ == "__main__":
    with user_errors():
        main()
