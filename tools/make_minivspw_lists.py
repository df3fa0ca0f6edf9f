"""The lists of MiniVSPW, made from VSPW_480p by the published rule, and compared with published ones.

    python tools/make_minivspw_lists.py data/VSPW_480p --output data/VSPW_480p/minivspw_lists
    python tools/make_minivspw_lists.py data/VSPW_480p --check PUBLISHED

The rule: of the videos of VSPW's train.txt (training lists) or val.txt (validation and test lists), the frames in which
at least one class of the list covers more than 100 pixels. Lists are named train_0.txt to test_3.txt, folds from 0.
"""
import argparse
import re
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataloaders.folds import FOLDS, minivspw_classes  # noqa: E402  (the project root has to be on the path first)
from dataloaders.minivspw import MIN_PIXELS, is_folder_name, read_list, write_list  # noqa: E402
from dataloaders.vspw_masks import count_labels, silent  # noqa: E402

SPLITS = {"train": "train", "val": "val", "test": "val"}       # VSPW's own test videos have no public masks
MASK = re.compile(r"\d{8}\.png")


def find_masks(root, split):
    """The videos of VSPW's train.txt or val.txt, in its order  ->  {video: [mask files, in order]}"""
    names = (root / f"{split}.txt").read_text(encoding="utf-8", errors="replace").split()
    if len(set(names)) < len(names) or not all(map(is_folder_name, names)):
        raise ValueError(f"{root / f'{split}.txt'}: expected one folder name per line, each once.\n"
                         f"  Take the file that comes with VSPW_480p.")
    masks = {name: sorted((root / "data" / name / "mask").glob("*.png")) for name in names}
    for name, files in masks.items():
        wrong = [file.name for file in files if not MASK.fullmatch(file.name)]
        if not files or wrong:
            what = f"the mask {wrong[0]}, not <8 digits>.png" if wrong else "no masks"
            raise ValueError(f"{root / 'data' / name / 'mask'}: video {name} of {split}.txt has {what}.\n"
                             f"  Unpack VSPW_480p completely.")
    return masks


def select(masks, areas, classes):
    """The rule: {video: files}, their LabelAreas, the classes of a list  ->  {video: [frame numbers]}, none empty"""
    files = [(video, file) for video, files in masks.items() for file in files]
    chosen = {}
    for position in areas.showing(classes, MIN_PIXELS).tolist():
        video, file = files[position]
        chosen.setdefault(video, []).append(int(file.stem))
    return chosen


def make_lists(root, progress=silent):
    """Folder of VSPW_480p  ->  {train_0: {video: [frame numbers]}, ..., test_3: ...}"""
    for part in ("train.txt", "val.txt", "data"):
        if not (root / part).exists():
            raise FileNotFoundError(f"MiniVSPW: no {part} in {root}.\n  Name the folder of VSPW_480p, with train.txt, "
                                    f"val.txt and data/<video>/mask/*.png.")
    masks = {split: find_masks(root, split) for split in ("train", "val")}
    areas = {split: count_labels([file for files in masks[split].values() for file in files], progress=progress)
             for split in masks}
    return {f"{side}_{fold - 1}": select(masks[split], areas[split], minivspw_classes(fold, side))
            for side, split in SPLITS.items() for fold in range(1, FOLDS + 1)}


def write_lists(lists, output):
    """One file per list; ValueError before anything is written if a file with other content is there."""
    output.mkdir(parents=True, exist_ok=True)
    for name, videos in lists.items():
        path = output / f"{name}.txt"
        if path.exists() and read_list(path) != videos:
            raise ValueError(f"{path} exists and names other frames.\n  Nothing was changed. Choose another "
                             f"--output, or compare the two: --check {output}")
    for name, videos in lists.items():
        write_list(output / f"{name}.txt", videos)


def compare(made, published):
    """Two lists {video: [frame numbers]}  ->  what differs, in words; '' if nothing does"""
    pairs = [{(video, frame) for video, frames in videos.items() for frame in frames} for videos in (made, published)]
    words = []
    for what, difference in (("missing", pairs[1] - pairs[0]), ("too many", pairs[0] - pairs[1])):
        if difference:
            first = ", ".join(f"{video}/{frame:08d}" for video, frame in sorted(difference)[:3])
            words.append(f"{len(difference)} frames {what} ({first}{', ...' if len(difference) > 3 else ''})")
    return "; ".join(words) or ("the order of the videos" if list(made) != list(published) else "")


def check_lists(lists, published):
    """Compare with every list of a folder, one line each  ->  whether all of them agree"""
    files = {name: published / f"{name}.txt" for name in lists}
    if not any(file.is_file() for file in files.values()):
        raise FileNotFoundError(f"--check {published}: none of {', '.join(lists)} (.txt) is there.\n"
                                f"  Name the folder with the published lists.")
    agree = True
    for name, file in files.items():
        difference = compare(lists[name], read_list(file)) if file.is_file() else None
        agree &= not difference
        print(f"{name}: " + ("nothing to compare with" if difference is None else difference or "the same"))
    return agree


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        lists = make_lists(args.root, partial(tqdm, desc="masks", unit=" masks"))
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
