"""Get the data: what to download from where, unpack it into place, check it; or bring videos of your own.

    python -m tools.prepare_data explain ytvis
    python -m tools.prepare_data arrange ytvis --archives downloads --output data/Youtube-VOS/train
    python -m tools.prepare_data check ytvis data/Youtube-VOS/train
    python -m tools.prepare_data check weights pretrain_model/resnet50_v2.pth
    python -m tools.prepare_data from-davis DAVIS --categories davis_semantics.json --output data/davis
    python -m tools.prepare_data from-frames my_videos --output data/mine
    python -m tools.prepare_data from-frames my_videos --write-table objects.csv

Data sets: ytvis, vspw, minivspw, coco2014, coco2017, davis, ytvos, weights. Nothing is downloaded: `explain` names
official pages.
`arrange` and `from-*` write into --output only, never over another file; interrupted, the same command continues.
Exit code: 0 complete, 1 something is wrong with the data, 2 with the command or what it names. See docs/data.md.
"""
import json
import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from tqdm import tqdm

from dataloaders.json_values import shown
from tools import check_dataset
from tools.dataset_check.findings import Findings, table
from tools.dataset_preparation.archives import arrange
from tools.dataset_preparation.categories import Table, assign_ids, category_of, tested_in, write_table
from tools.dataset_preparation.lists import check_lists
from tools.dataset_preparation.sources import SOURCES
from tools.dataset_preparation.videos import add_video, copy_frames, find_davis, find_frames, other_kinds, scan
from utils.command_line import Parser
from utils.config import user_errors
from utils.files import atomic_file

COMPLETE = 0
PAPER_SHOTS = 5
CHECKS = {                       # what tools/check_dataset.py calls them
    "ytvis": ["ytvis"], "vspw": ["vspw"], "davis": ["davis"], "ytvos": ["ytvos"],
    "coco2014": ["coco", "--annotations", "annotations/instances_train2014.json"],
    "coco2017": ["coco", "--annotations", "annotations/instances_train2017.json"]}
ELSEWHERE = ("published_counts", "category_name", "few_videos_shared")   # not of videos of one's own, or in `advice`


def explain(args):
    """What to download, from where, and what to do with it."""
    source = SOURCES[args.dataset]
    print(f"{source.title}: {source.page}\nDownload {source.files}\nWhat it becomes: docs/data.md. Then:")
    print(f"    python -m tools.prepare_data arrange {args.dataset} --archives DOWNLOADS --output {source.root}")
    print(f"    python -m tools.prepare_data check {args.dataset} {source.root}")
    return COMPLETE


def check(args):
    """What is wrong with data in its place  ->  exit code"""
    if args.dataset == "weights":
        return check_weight_files(args)
    if args.dataset == "minivspw":
        return check_lists(args.root)
    options = check_dataset.parse([*CHECKS[args.dataset], str(args.root)])
    if not (args.root / options.annotations).exists() and args.dataset != "vspw":
        raise FileNotFoundError(f"{SOURCES[args.dataset].title}: no {options.annotations} in {args.root}.\n  What to "
                                f"download: python -m tools.prepare_data explain {args.dataset}")
    return check_dataset.main([*CHECKS[args.dataset], str(args.root), *["--deep"] * args.deep])


def check_weight_files(args):
    from tools.dataset_preparation.weights import check_weights, find_weights  # here, since it takes seconds to import
    for path in find_weights(args.root):
        digest, keys = check_weights(path, args.sha256)
        print(f"{path}: loads strictly\n  SHA-256 {digest}\n  backbone.weights={path} "
              + " ".join(f"{key}={value}" for key, value in keys.items()))
    return COMPLETE


def arrange_archives(args):
    """Unpack what was downloaded, then check it  ->  exit code"""
    source = SOURCES[args.dataset]
    with tqdm(unit=" files", desc=args.dataset, disable=None) as bar:
        done = arrange(args.archives, args.output, source.destination, bar)
    print(f"{args.output}: {done.written} files written, {done.kept} were there already, {done.unused} not needed")
    for file, name in list(done.examples.items())[:6]:
        print(f"    not needed: {file}: {shown(name)}")
    if not done.written + done.kept:
        raise ValueError(f"--archives {args.archives}: nothing of {source.title} is in there.\n  What to download: "
                         f"python -m tools.prepare_data explain {args.dataset}")
    args.root = args.output
    return COMPLETE if args.no_check else check(args)


def from_davis(args):
    return convert(args, *find_davis(args.root, args.annotations, args.resolution))


def from_frames(args):
    return convert(args, *find_frames(args.root))


def convert(args, videos, others):
    """Videos with masks  ->  the layout of YouTube-VIS, checked, and what to do with it  ->  exit code"""
    seen = {folder: other_kinds(folder) for folder in others[:5]}
    if not videos:
        raise ValueError(f"{args.root}: no video with frames (JPEG, PNG) and masks (PNG)"
                         + "".join(f"; {folder} has {kinds}" for folder, kinds in seen.items() if kinds)
                         + ".\n  Layouts: docs/data.md. JPEGImages/ beside Annotations/ is that of from-davis, a "
                         "folder per video that of from-frames.")
    for folder, kinds in seen.items():
        print(f"left out: {folder} has no frames with masks of the same names{kinds and f', but {kinds}'}")
    if args.output and (args.output / "train.json").exists():
        raise ValueError(f"--output {args.output}: holds a train.json.\n  Nothing was changed. Name another folder, or "
                         f"remove this one first.")
    given = Table(args.categories) if args.categories else None
    for video in tqdm(videos, desc="masks", unit="video", disable=None):
        video.category = args.category or video.category
        scan(video)
    for what, other in (("frames", "mask"), ("masks", "frame")):
        if count := sum(len(getattr(video, what)) - len(video.stems) for video in videos):
            print(f"{count} {what} have no {other} of their name and are left out")
    for note in {video.note: None for video in videos if video.note}:
        names = [video.name for video in videos if video.note == note]
        print(f"{len(names)} videos ({', '.join(names[:3])}{', ...' * (len(names) > 3)}): {note}")
    if args.write_table:
        write_table(videos, args.write_table)
        print(f"{args.write_table}: {sum(len(video.tracks) for video in videos)} objects; write their categories, then "
              f"--categories {args.write_table}")
        return COMPLETE
    return write(args, videos, given)


def write(args, videos, given):
    """Scanned videos, the Table of categories or None  ->  files, a check, advice, exit code"""
    named = given.categories if given else {}
    names = [category_of(named, video, number) for video in videos for number in video.tracks]
    ids = assign_ids({*names} - {None}, given and given.ids, args.novel)
    document = {"info": {"description": f"made from {args.root.name} by tools/prepare_data.py"}, "videos": [],
                "categories": [{"id": number, "name": name} for number, name in sorted((n, c) for c, n in ids.items())],
                "annotations": []}
    for video in tqdm(videos, desc="frames", unit="video", disable=None):
        if any(category_of(named, video, number) for number in video.tracks):
            add_video(document, video, copy_frames(video, args.output), named, ids)
    if not document["annotations"]:
        raise ValueError(f"{args.root}: no mask shows an object that is not left out.\n  Masks are 0 where nothing is.")
    with atomic_file(args.output / "train.json", "w") as file:      # where it exists, the data set is complete
        json.dump(document, file)
    return check_own(args)


def check_own(args):
    """As `check`, without what is said of the published data set, and how to go on  ->  exit code"""
    findings = Findings()
    options = check_dataset.parse(["ytvis", str(args.output), "--few-videos", "repeat", "--shots", str(args.shots)])
    rows = [row for row in check_dataset.CHECKS["ytvis"](options, findings)["classes"] if row["videos"]]
    for kind in ELSEWHERE:
        findings.counts.pop(kind, None)
    print(f"\n{args.output}\n{table(rows)}\n\n{findings.text()}\n\n{advice(rows, args)}")
    return findings.exit_code()


def advice(rows, args):
    """Rows of classes  ->  which commands can be given now, or what keeps train.py and test.py from working"""
    folds, fewest = sorted({tested_in(row["id"]) for row in rows}), min(rows, key=lambda row: row["videos"])
    lines = []
    if len(folds) == 1:
        lines.append(f"All categories are tested in fold {folds[0]}, none is left to train on: train.py and test.py "
                     "refuse.\nAdd videos of other categories, give ids of several folds (column id, --novel), or use "
                     "segment.py, which needs no fold.")
    if fewest["videos"] <= args.shots and args.few_videos == "error":
        lines.append(f"{args.shots} supports and a query need {args.shots + 1} videos of a category; {fewest['class']} "
                     f"has {fewest['videos']}: train.py and test.py refuse. Add videos, ask for --shots "
                     f"{max(1, fewest['videos'] - 1)}, or for --few-videos repeat: supports may then come from the "
                     "query's own video, and scores are no longer those of few-shot segmentation.")
    if lines:
        return "\n".join(lines)
    keys = f"data.root={args.output}" + (f" data.shots={args.shots}" if args.shots != PAPER_SHOTS else "")
    keys += " data.few_videos=repeat" if args.few_videos == "repeat" else ""
    command = "python {}.py --config config/vipmt/ytvis.yaml --fold {} --output output/own/fold{} {}"
    for fold in folds:
        tested = ", ".join(row["class"] for row in rows if tested_in(row["id"]) == fold)
        lines.append(f"fold {fold} tests {tested}:\n    {command.format('test', fold, fold, keys)}")
    return "\n".join([*lines, f"train on the others (here fold {folds[0]}):\n    "
                      f"{command.format('train', folds[0], folds[0], keys)}"])


def add_own_options(parser):
    parser.add_argument("root", type=Path, help="folder of your videos, which is only read")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", type=Path, metavar="DIR", help="data.root to be: new, or of an interrupted run")
    target.add_argument("--write-table", type=Path, metavar="FILE.csv", help="list the objects, and stop there")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--categories", type=Path, metavar="FILE", help="CSV with video,object,category[,id], or JSON "
                      "{video: category} or {video: {object: category}}; object * is all, category - leaves out")
    what.add_argument("--category", metavar="NAME", help="of all objects of all videos")
    parser.add_argument("--novel", nargs="+", default=[], metavar="NAME", help="categories that fold 1 is to test; it "
                        "trains on all others. Default: published ids where YouTube-VIS has the name, else from 41 on")
    parser.add_argument("--shots", type=int, default=PAPER_SHOTS, metavar="K", help="for the advice (5)")
    parser.add_argument("--few-videos", choices=("error", "repeat"), default="error", help="data.few_videos (error)")


def command(commands, name, run, words, example):
    """A sub-command whose help has an example of its own."""
    parser = commands.add_parser(name, help=words, description=f"{words}\n\n    {example}",
                                 formatter_class=RawDescriptionHelpFormatter)
    parser.set_defaults(run=run)
    return parser


def parse(arguments=None):
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    tool = "python -m tools.prepare_data"
    one = command(commands, "explain", explain, "what to download, from where, for what", f"{tool} explain vspw")
    one.add_argument("dataset", choices=SOURCES)
    one = command(commands, "check", check, "find what is wrong with data in its place",
                  f"{tool} check vspw data/VSPW_480p --deep")
    one.add_argument("dataset", choices=SOURCES)
    one.add_argument("root", type=Path, help="its folder (weights: also a file)")
    add_check_options(one)
    one = command(commands, "arrange", arrange_archives, "unpack downloads into place, then check",
                  f"{tool} arrange vspw --archives downloads --output data/VSPW_480p")
    one.add_argument("dataset", choices=SOURCES)
    one.add_argument("--archives", type=Path, required=True, metavar="DIR",
                     help=".zip and .tar.* files, or parts of them that are unpacked already; only read")
    one.add_argument("--output", type=Path, required=True, metavar="DIR", help="data.root to be")
    one.add_argument("--no-check", action="store_true", help="only unpack")
    add_check_options(one)
    one = command(commands, "from-davis", from_davis, "videos in the layout of DAVIS",
                  f"{tool} from-davis DAVIS --write-table objects.csv")
    add_own_options(one)
    one.add_argument("--annotations", default="Annotations", metavar="NAME", help="e.g. Annotations_unsupervised")
    one.add_argument("--resolution", metavar="NAME", help="480p, Full-Resolution, ... (480p if it is there, else none)")
    one = command(commands, "from-frames", from_frames, "a folder per video, with a mask per frame",
                  f"{tool} from-frames my_videos --category dog --output data/mine")
    add_own_options(one)
    return parser.parse_args(arguments)


def add_check_options(parser):
    parser.add_argument("--deep", action="store_true", help="decode every image and mask, in parallel")
    parser.add_argument("--sha256", metavar="HEX", help="weights: what the file's checksum has to be")


def main(arguments=None):
    args = parse(arguments)
    with user_errors():
        return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
