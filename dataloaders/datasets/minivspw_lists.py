"""The rule by which the lists of MiniVSPW were made: VSPW_480p -> the frames of every list; what contradicts it.

In: VSPW's train.txt, val.txt and masks. Out: {train_0: {video: [frame numbers]}, ..., test_3: ...}, folds from 0.
The rule: of the videos of train.txt (training lists) or val.txt (validation and test lists), the frames in which at
least one class of the list covers more than MIN_PIXELS pixels.
"""
import re
from graphlib import CycleError, TopologicalSorter

from dataloaders.datasets.folds import FOLDS, minivspw_classes
from dataloaders.datasets.minivspw import MIN_PIXELS, is_folder_name, raising, read_list, text_lines, write_list
from dataloaders.datasets.vspw_masks import count_labels, silent
from dataloaders.json_values import shown

SPLITS = {"train": "train", "val": "val", "test": "val"}       # VSPW's own test videos have no public masks
NAMES = [f"{side}_{fold}" for side in SPLITS for fold in range(FOLDS)]
MASK = re.compile(r"\d{8}\.png")


def find_masks(root, split, fault=None):
    """The videos of VSPW's train.txt or val.txt, in its order  ->  {video: [mask files, in order]}

    fault: as in read_list, is told of what cannot be used, which is left out; None: the first one raises
    """
    path, masks = root / f"{split}.txt", {}
    fault = fault or raising(path, "Unpack VSPW_480p completely, with the file that comes with it.")
    for number, name in enumerate(" ".join(text_lines(path)).split(), start=1):
        where = f"{path.name} number {number}"
        if not is_folder_name(name) or name in masks:
            fault("bad_line", where, f"expected one folder name per line, each once, got {shown(name)}")
            continue
        files = sorted((root / "data" / name / "mask").glob("*.png"))
        wrong = [file.name for file in files if not MASK.fullmatch(file.name)]
        if files and not wrong:
            masks[name] = files
        else:
            what = f"the mask {wrong[0]}, not <8 digits>.png" if wrong else "no masks"
            fault("missing_video", where, f"video {name} of {path.name} has {what}")
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


def contradictions(lists, classes=None):
    """What of published lists no masks whatever could yield by the rule, in words: [] if all of it could be.

    lists: any of the twelve by name; classes: of each, the published ones unless given. Per frame: a class that is also
    one of a list without the frame cannot be shown; each list with it needs a class that can.
    """
    classes = classes or {name: minivspw_classes(int(name[-1]) + 1, name[:-2]) for name in lists}
    words = []
    for split in ("train", "val"):
        side = {name: videos for name, videos in lists.items() if SPLITS[name[:-2]] == split}
        words += _impossible(side, classes) + _without_order(side)
    videos = [{video for name in lists if SPLITS[name[:-2]] == split for video in lists[name]}
              for split in ("train", "val")]
    return words + [f"{video}: in training lists and in others" for video in sorted(videos[0] & videos[1])]


def _impossible(lists, classes):
    """The frames of one split's lists whose membership asks for a class that may not be shown"""
    member = {}
    for name, videos in lists.items():
        for video, frames in videos.items():
            for frame in frames:
                member.setdefault((video, frame), set()).add(name)
    wrong = {}
    for names in set(map(frozenset, member.values())):
        excluded = {c for name in lists if name not in names for c in classes[name]}
        wrong[names] = [name for name in sorted(names) if excluded.issuperset(classes[name])]
    return [f"{video}/{frame:08d}: in {name}, but each of its classes would put it into another list, too"
            for (video, frame), names in member.items() for name in wrong[frozenset(names)]]


def _without_order(lists):
    """Lists of one split name their videos in the order of its file: one order must suit all"""
    before = {}
    for videos in lists.values():
        names = list(videos)
        for earlier, later in zip(names, names[1:], strict=False):
            before.setdefault(later, set()).add(earlier)
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        return [f"no order of the videos suits all lists: {' before '.join(error.args[1])}"]
    return []
