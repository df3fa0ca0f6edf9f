"""Every test video of a split through a trained model: results.jsonl, and J, F and VC7 as a table.

    python test.py --config config/vipmt/ytvis.yaml --fold 1
    python test.py --fold all --checkpoint fold1.pth fold2.pth fold3.pth fold4.pth --output output/table1
    python test.py --episodes episodes.json --checkpoint fold1.pth --output output/replayed   (see tools/episodes.py)
    torchrun --nproc_per_node=4 test.py --fold 1            shares the videos among four GPUs

An interrupted test (Ctrl-C or SIGTERM: exit status 75) continues where it stopped with the same command: videos already
in results.jsonl are not run again.
"""
import shutil
import sys
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from utils.command_line import Parser, say
from utils.config import add_config_arguments, apply_overrides, load_config, split_overrides, to_dict, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--fold", "--group", help="the split: 1, 2, 3, 4 or all; with --episodes it is the files'; "
                        "none where a task has no folds")
    parser.add_argument("--episodes", nargs="+", default=[], metavar="FILE", help="replay these, one file per fold")
    parser.add_argument("--checkpoint", nargs="+", default=[], help="one per fold; default: output/NAME/foldK/*.pth")
    parser.add_argument("--iou-net", nargs="+", default=[], metavar="FILE",
                        help="short for iou_net.replace=FILE, one for all folds or one per fold")
    parser.add_argument("--runs", metavar="N", help="short for test.runs=N")
    parser.add_argument("--output", help="folder of results.jsonl and tables; default: output/NAME/foldK/test")
    parser.add_argument("--save-masks", metavar="DIR", help="masks as palette PNGs")
    parser.add_argument("--save-overlays", metavar="DIR", help="films of the masks over the frames")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    args = parser.parse_intermixed_args()
    if args.episodes and args.runs:
        raise ValueError("--runs: with --episodes the runs are those of the list; leave it out")
    earlier = []
    for name in ("checkpoint", "iou_net", "episodes"):
        files, more = split_overrides(getattr(args, name))
        setattr(args, name, files)
        earlier += more
    words = sys.argv[::-1]
    args.overrides = sorted(earlier + args.overrides, key=lambda text: -words.index(text))   # the last one counts
    args.overrides += [f"test.runs={args.runs}"] if args.runs else []
    return args


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
    say("loading PyTorch")

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
from dataloaders import build_index, check_split, data_fingerprint, get_task
from dataloaders.transforms import undo_letterbox
from models import get_method
from models.trained import trained_model
from utils.distributed import is_main, processes, rank, world_size
from utils.evaluation.evaluate import evaluate
from utils.evaluation.listening import Listening, listening_table
from utils.evaluation.object_table import object_table, papers_of, write_csv
from utils.evaluation.results import collect_results, describe_test, key_of, open_results, warn_of_other_config
from utils.evaluation.tables import class_table, note_of, paper_table, summary
from utils.files import owned
from utils.logger import get_logger, setup_logger
from utils.pictures.images import keep_supports
from utils.pictures.overlay import recording
from utils.records import describe_run, require_agreement
from utils.report.write import refresh_report
from utils.runtime import choose_device, prepare_runtime
from utils.seeds import rng_for
from utils.training.stopping import STOPPED, Stopped, StopRequest


@dataclass
class SplitTest:
    """What is tested in one split: its config, a file of weights, a list of episodes or None (drawn), a folder."""
    split: int
    cfg: dict
    checkpoint: Path
    listed: object
    output: Path


def plan(args, cfg, task):
    """Command line and config  ->  output folder, list of SplitTest"""
    lists = [task.read_episode_list(file) for file in args.episodes]
    splits = ((task.SPLITS or (None,)) if args.fold == "all" else (int(args.fold),) if args.fold else
              tuple(x.fold for x in lists) or (None,))
    if len(lists) not in (0, len(splits)) or len(set(splits)) < len(splits):
        raise ValueError(f"--episodes: {len(lists)} files for folds {splits}; name one per fold, in order")
    for split in splits:
        check_split(task, split)
    base = Path("output", cfg.name)
    places = [base / (f"fold{split}" if split else "") for split in splits]
    untrained = getattr(get_method(cfg.model.method), "UNTRAINED", False)
    files = args.checkpoint or [None if untrained else place / f"{cfg.checkpoint.select}.pth" for place in places]
    iou_nets = args.iou_net * len(splits) if len(args.iou_net) == 1 else args.iou_net or [None] * len(splits)
    for name, given in (("--checkpoint", files), ("--iou-net", iou_nets)):
        if len(given) != len(splits):
            raise ValueError(f"{name}: {len(given)} files for {len(splits)} folds; name one per fold, in order")
    several = len(splits) > 1
    output = Path(args.output or (base if several else places[0]) / "test")
    settings = [apply_overrides(to_dict(cfg), [f"iou_net.replace={file}"]) if file else deepcopy(cfg)
                for file in iou_nets]
    return output, [SplitTest(split, own, file, listed, output / f"fold{split}" if several else output)
                    for split, own, file, listed in zip(splits, settings, files, lists or [None] * len(splits),
                                                        strict=True)]


def test_split(args, test, method, index, videos, device, stop):
    """All runs of one SplitTest; index: what is tested; videos(part=, done=): its stream  ->  lines of its results"""
    cfg = test.cfg
    model, checkpoint = trained_model(test.cfg, test.checkpoint, test.split)
    warn_of_other_config(checkpoint.get("config", cfg), cfg, test.checkpoint)
    model, amp = model.to(device), prepare_runtime(cfg.speed, device)
    if cfg.speed.compile:
        method.compile_parts(model)
    submission = getattr(cfg.test, "submission", "none") != "none" and test.output / "Annotations"
    whole, data = videos().episodes, data_fingerprint(cfg, index)
    kept = whole.kept(submission) if submission else ()      # before anybody writes
    header = describe_test(test.checkpoint, cfg, test.split, test.listed and test.listed.source, data)
    require_agreement(**header | {"checkpoint": None, "data": data | {"annotations": None}})
    writer, results = open_results(test.output, header, whole.keys())
    if is_main():
        describe_run(cfg, test.output, data, test.split)
    kept_as = {"masks_folder": args.save_masks, "films_folder": args.save_overlays, "submission": submission}
    done = frozenset(map(key_of, results))

    def write(line):
        if key_of(line) not in done:         # of a video whose objects were not all written
            writer.append(line)

    def record(video, reference):
        keep_supports(test.output / "supports", video, reference)
        return recording(video, reference, restore=undo_letterbox, **kept_as)

    def start(reference):
        rng = rng_for(cfg.seed, "memory", *reference.key)
        segment = method.Segmenter(model, reference, cfg, rng=rng, amp=amp)
        if getattr(reference, "swapped", None):
            rng = rng_for(cfg.seed, "memory", *reference.swapped.key)
            segment = Listening(segment, method.Segmenter(model, reference.swapped, cfg, rng=rng, amp=amp))
        return stop.guard(segment)

    with writer:
        rest = videos(part=(rank(), world_size()), done=done.union(kept))
        restore = getattr(get_task(method.TASK), "restore", undo_letterbox)
        evaluate(start, rest, cfg, write, {"fold": test.split} if test.split else {}, restore, record)
    return collect_results(test.output, whole.keys())


def write_tables(results, test, cfg):
    """Lines of a SplitTest  ->  table.md; per object as well where that is how they are averaged; what is submitted"""
    log, name = get_logger(), f"fold {test.split}" if test.split else cfg.name
    if results:
        table = class_table(results).write(test.output)
        log.info("%s: %s\n\n%s", name, summary(results), table)
    if note := note_of(cfg.data.dataset):
        log.info("%s", note)
    if listening := listening_table(results):
        (test.output / "listening.md").write_text(listening.markdown(), encoding="utf-8")
        log.info("%s: supports of the right and of a wrong category\n\n%s", name, listening.markdown())
    if results and cfg.metrics.average == "object":
        objects = object_table(results, cfg.name, papers_of(cfg.data.dataset, len(results))).markdown()
        (test.output / "objects.md").write_text(objects, encoding="utf-8")
        write_csv(results, test.output, Path(cfg.data.annotations).stem)
        log.info("%s per object\n\n%s", name, objects)
    if getattr(cfg.test, "submission", "none") == "zip":
        shutil.make_archive(test.output / "submission", "zip", test.output, "Annotations")


def run(args, cfg, device, stop):
    """Every split that was asked for, and its tables."""
    method = get_method(cfg.model.method)
    task = get_task(method.TASK)
    output, tests = plan(args, cfg, task)
    log, results = setup_logger(output, main=is_main()), {}
    log.info("reading %d checkpoint%s and the annotations of %s", len(tests), "s" * (len(tests) > 1), cfg.data.root)
    for test in tests:          # a wrong file is found now, not after hours
        trained_model(test.cfg, test.checkpoint, test.split)
    with ExitStack() as stack:
        for folder in {output, *(test.output for test in tests)} if is_main() else ():
            stack.enter_context(owned(folder))
        index = build_index(cfg, output / "cache", task)
        streams = [partial(task.test_videos, test.cfg, index, test.split, listed=test.listed,
                           pin_memory=device.type == "cuda") for test in tests]
        for stream, test in zip(streams, tests, strict=True):
            if test.listed:
                stream()            # so is a name in a list that the data have not
        for stream, test in zip(streams, tests, strict=True):
            results[test.split] = test_split(args, test, method, index, stream, device, stop)
            if is_main():
                write_tables(results[test.split], test, cfg)
                refresh_report(test.output, args.save_overlays)
        if len(tests) > 1 and is_main():
            log.info("all folds\n\n%s", paper_table(results, cfg.data.dataset, cfg.name).write(output))
            refresh_report(output, args.save_overlays)
    log.info("done: %s has results.jsonl, table.md and report.html", output)


def main(args=None):
    args = args or parse_arguments()
    cfg = load_config(args.config, args.overrides)
    with processes(choose_device(args.device)) as device, StopRequest() as stop:
        try:
            run(args, cfg, device, stop)
        except Stopped:
            get_logger().info("stopped; the same command continues here")
            sys.exit(STOPPED)


if __name__ == "__main__":
    with user_errors():
        main(arguments)
