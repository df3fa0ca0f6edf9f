"""Find everything that is wrong with a data set before a long run does, and say what to do about it.

    python -m tools.check_dataset ytvis data/Youtube-VOS/train                     existence, headers, annotations
    python -m tools.check_dataset vspw data/VSPW_480p --deep                       and every image and mask decoded
    python -m tools.check_dataset coco data/coco --report report.json --fix-list repair.txt
    python -m tools.check_dataset referring data/Mini-Ref-YouTube-VOS              or data/Mini-Ref-SAIL-VOS
    python -m tools.check_dataset davis data/DAVIS --annotations ImageSets/2016    default: ImageSets/2017
    python -m tools.check_dataset ytvos data/YouTube-VOS/train                     or data/YouTube-VOS/valid

Exit code: 0 nothing wrong (warnings may be printed), 1 problems, 2 it cannot be read at all, 130 interrupted.
--fix-list has one line per file to download again and per annotation, video or list line to leave out, each with the
reason. --write-clean writes an annotation file without them (data.annotations=FILE uses it); nothing is ever repaired
in place. Tools and indexes share their rules: what is clean here loads there.
"""
import json
import os
import sys
from pathlib import Path

from dataloaders.images import real_path
from tools.dataset_check import coco, referring, vos, vspw, ytvis
from tools.dataset_check.findings import ERRORS, WARNINGS, Findings, table
from utils.command_line import Parser
from utils.config import user_errors

CHECKS = {"ytvis": ytvis.check_ytvis, "vspw": vspw.check_vspw, "coco": coco.check_coco,
          "referring": referring.check_referring, "davis": vos.check_davis, "ytvos": vos.check_ytvos}
ANNOTATIONS = {"ytvis": "train.json", "vspw": "minivspw_lists", "coco": "annotations/instances_train2017.json",
               "referring": ".",       # its files are found
               "davis": "ImageSets/2017", "ytvos": "meta.json"}
REFERENCES = {"ytvis": ytvis.REFERENCES, "coco": coco.REFERENCES}
INTERRUPTED = 130


def parse(arguments=None):
    parser = Parser(__doc__)
    parser.add_argument("dataset", choices=CHECKS)
    parser.add_argument("root", type=Path, help="data.root: the folder with the annotations and the images")
    parser.add_argument("--annotations", help="data.annotations, below ROOT (default: train.json; coco: annotations/"
                                              "instances_train2017.json; vspw: minivspw_lists, a folder; "
                                              "davis: a list, or ImageSets/2017 for train and val; ytvos: meta.json)")
    parser.add_argument("--deep", action="store_true", help="decode every image and mask, in parallel")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of --deep (default: all cores)")
    parser.add_argument("--shots", type=int, default=5, help="K: classes need K + 1 videos (default 5)")
    parser.add_argument("--few-videos", choices=("error", "repeat"), default="error",
                        help="data.few_videos; with repeat, small classes are a warning (default error)")
    parser.add_argument("--strict", action="store_true", help="warnings end with exit code 1, too")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="everything found, for programs")
    parser.add_argument("--fix-list", type=Path, metavar="FILE", help="what to download again or to leave out")
    parser.add_argument("--write-clean", type=Path, metavar="FILE.json",
                        help="ytvis, coco: the annotations without what is wrong; FILE must not exist")
    args = parser.parse_args(arguments)
    args.annotations = args.annotations or ANNOTATIONS[args.dataset]
    if args.workers < 1 or args.shots < 1:
        parser.error("--workers and --shots have to be 1 or more")
    return args


def check_outputs(args):
    """ValueError before the long check rather than after it."""
    if args.write_clean and args.dataset not in REFERENCES:
        raise ValueError("--write-clean: of ytvis and coco alone.\n  Lists of MiniVSPW are made again: "
                         "tools/make_minivspw_lists.py")
    if args.write_clean and args.write_clean.exists():
        raise ValueError(f"--write-clean {args.write_clean}: this file exists.\n  Nothing was changed. Name a new one.")
    folders = (real_path(args.root), real_path(args.root / args.annotations))
    for path in filter(None, (args.report, args.fix_list, args.write_clean)):
        if not path.absolute().parent.is_dir() or path.is_dir():
            raise ValueError(f"{path}: no file can be written there.\n  Name a file in an existing folder.")
        if path.exists() and any(real_path(path).is_relative_to(folder) for folder in folders):
            raise ValueError(f"{path} exists within the data set.\n  Nothing was changed. Name another file.")


def describe(args, tables, findings, status):
    """What --report writes."""
    return {"dataset": args.dataset, "root": str(args.root), "annotations": args.annotations, "deep": args.deep,
            "shots": args.shots, "status": status, "errors": findings.total(ERRORS),
            "warnings": findings.total(WARNINGS), "problems": findings.problems(), **tables}


def print_tables(tables):
    for name, rows in tables.items():
        if rows:
            print(f"{name}\n{table(rows)}\n")


def main(arguments=None):
    args, findings, tables, status = parse(arguments), Findings(), {}, None
    with user_errors():
        check_outputs(args)
        try:
            tables = CHECKS[args.dataset](args, findings)
        except KeyboardInterrupt:
            status = "interrupted"
            print("Interrupted: only what was found so far.", file=sys.stderr)
        code = INTERRUPTED if status else findings.exit_code(args.strict)
        print_tables(tables)
        print(findings.text())
        if args.report:
            report = describe(args, tables, findings, status or ("problems" if code else "clean"))
            args.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        if args.fix_list:
            findings.write_repairs(args.fix_list)
            print(f"{args.fix_list}: {len(findings.repairs)} repairs")
        if args.write_clean and not status:
            gone = findings.write_clean(args.root / args.annotations, args.write_clean, REFERENCES[args.dataset])
            print(f"{args.write_clean}: {gone} records left out")
    return code


if __name__ == "__main__":
    sys.exit(main())
