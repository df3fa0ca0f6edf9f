"""The lists of MiniVSPW, made from VSPW_480p by the published rule, and compared with published ones.

    python -m tools.make_minivspw_lists data/VSPW_480p --output data/VSPW_480p/minivspw_lists
    python -m tools.make_minivspw_lists data/VSPW_480p --check PUBLISHED

The rule: of the videos of VSPW's train.txt (training lists) or val.txt (validation and test lists), the frames in which
at least one class of the list covers more than 100 pixels. Lists are named train_0.txt to test_3.txt, folds from 0.
Without VSPW, `python -m tools.prepare_data check minivspw` says whether any masks could yield lists by the rule.
"""
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from dataloaders.datasets.minivspw import read_list
from dataloaders.datasets.minivspw_lists import NAMES, compare, make_lists, write_lists
from utils.command_line import Parser


def check_lists(lists, folder):
    """Compare with every list of a folder, one line each  ->  whether all of them agree"""
    known = {name: read_list(folder / f"{name}.txt") for name in NAMES if (folder / f"{name}.txt").is_file()}
    if not known:
        raise FileNotFoundError(f"--check {folder}: none of {', '.join(NAMES)} (.txt) is there.\n"
                                f"  Name the folder with the published lists.")
    agree = True
    for name in lists:
        difference = compare(lists[name], known[name]) if name in known else None
        agree &= not difference
        print(f"{name}: " + ("nothing to compare with" if difference is None else difference or "the same"))
    return agree


def parse():
    parser = Parser(__doc__)
    parser.add_argument("root", type=Path, help="folder of VSPW_480p: train.txt, val.txt, data/<video>/mask/*.png")
    parser.add_argument("--output", type=Path, help="folder for the lists; files of other content are never replaced")
    parser.add_argument("--check", type=Path, metavar="PUBLISHED", help="folder with lists to compare with")
    args = parser.parse_args()
    if args.output is None and args.check is None:
        parser.error("say what to do: --output FOLDER writes the lists, --check PUBLISHED compares them")
    return args


def main():
    args = parse()
    try:
        lists = make_lists(args.root, partial(tqdm, desc="masks", unit=" masks", disable=None))
        for name, videos in lists.items():
            print(f"{name}: {len(videos)} videos, {sum(map(len, videos.values()))} frames")
        agree = args.check is None or check_lists(lists, args.check)
        if args.output:
            write_lists(lists, args.output)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    sys.exit(0 if agree else "The lists differ: is VSPW_480p complete, and unchanged?")


if __name__ == "__main__":
    main()
