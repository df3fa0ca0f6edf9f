"""VSPW_480p with the lists of MiniVSPW, for tools/check_dataset.py.

In: the folder with data/<video>/{origin,mask} and the lists, one per fold and side. Out: findings, the size of every
list beside the published ones and, once the masks are decoded (--deep), what each class of each fold is shown by.
Rules as in dataloaders/datasets/minivspw.py.
"""
import os
from collections import Counter, defaultdict
from typing import NamedTuple

from dataloaders.datasets.folds import FOLDS, MINIVSPW_CLASSES, minivspw_classes
from dataloaders.datasets.minivspw import LINE, MIN_PIXELS, SIDES, is_folder_name, text_lines
from tools.dataset_check.files import FileTask, check_files, inside
from tools.dataset_check.findings import check_class_sizes, compare_published, shown

PUBLISHED = {                    # videos and frames of the published lists; train_0, 1 and 3 are not to be had
    "test_0": (61, 3140), "test_1": (96, 5883), "test_2": (261, 17660), "test_3": (64, 4060),
    "val_0": (36, 2348), "val_1": (49, 2938), "val_2": (51, 3210), "val_3": (51, 3210), "train_2": (1159, 71813)}
LABELS = {*range(125), 255}      # 0 others, 1 to 124 the classes of VSPW, 255 void
SPLITS = ("train.txt", "val.txt")
FOLDERS = {"mask": ".png", "origin": ".jpg"}


class Line(NamedTuple):
    """One usable line of a list."""
    name: str
    number: int
    video: str
    frame: int

    def __str__(self):
        return f"{self.name}.txt line {self.number}"


def check_vspw(args, findings):
    """Command line, Findings  ->  tables for the report"""
    data, folder = args.root / "data", args.root / args.annotations
    if not data.is_dir():
        raise FileNotFoundError(f"MiniVSPW: no folder {data}.\n  Name the folder of VSPW_480p, with data/<video>/.")
    lists = read_lists(folder, findings)
    check_sides(lists, findings)
    listed = defaultdict(list)
    for line in (line for lines in lists.values() for line in lines):
        listed[line.video, line.frame].append(line)
    videos = dict.fromkeys([*read_splits(args.root, data, findings), *(video for video, _ in listed)])
    frames = find_frames(data, videos, listed, findings)
    labels = check_frames(args, frames, listed, findings)
    tables = {"counts": compare_published(list_sizes(lists), findings)}
    if args.deep:
        tables["classes"] = class_rows(lists, labels)
        tested = [row for row in tables["classes"] if row["videos"]]
        check_class_sizes([{**row, "videos": row["support videos"]} for row in tested], args.shots, args.few_videos,
                          findings)
        check_rule(lists, labels, findings)
        check_folds(tables["classes"], lists, findings)
    return tables


def read_lists(folder, findings):
    """{train_0: [Line], ..., test_3: ...} of the lists that are there"""
    lists = {}
    for name in (f"{side}_{fold}" for side in ("train", "val", "test") for fold in range(FOLDS)):
        path = folder / f"{name}.txt"
        if not path.is_file():
            findings.add("missing_list" if name.split("_")[0] in SIDES else "missing_optional", str(path))
            continue
        lists[name] = list(read_lines(path, name, findings))
    return lists


def read_lines(path, name, findings):
    """Yields the usable Lines of one list."""
    seen, videos, last = set(), set(), None
    for number, text in enumerate(text_lines(path), start=1):
        match, where = LINE.fullmatch(text), f"{name}.txt line {number}"
        repair = {"repair": ("leave-out", where)}
        if match is None or not is_folder_name(match["video"]):
            findings.add("bad_line", where, f"{shown(text)} is not <video> <video>/mask/<8 digits>.png", **repair)
            continue
        line = Line(name, number, match["video"], int(match["frame"]))
        torn = last is not None and line.video != last.video and line.video in videos
        backwards = last is not None and line.video == last.video and line.frame <= last.frame
        if (line.video, line.frame) in seen or torn or backwards:
            findings.add("duplicate_line", where, shown(text), **repair)
            continue
        seen.add((line.video, line.frame))
        videos.add(line.video)
        last = line
        yield line


def check_sides(lists, findings):
    """No fold tests a video that it trains on."""
    for fold in range(FOLDS):
        train, test = ({line.video for line in lists.get(f"{side}_{fold}", ())} for side in SIDES)
        for video in sorted(train & test):
            findings.add("both_sides", f"fold {fold + 1}, video {video}", "", ("leave-out", f"{video} of one list"))


def read_splits(root, data, findings):
    """The videos of VSPW's own train.txt and val.txt: the lists are made from them, runs do not need them."""
    videos = []
    for name in SPLITS:
        if not (root / name).is_file():
            findings.add("missing_optional", str(root / name), "tools/make_minivspw_lists.py needs it")
            continue
        for number, text in enumerate(" ".join(text_lines(root / name)).split(), start=1):
            where = f"{name} number {number}"
            if not is_folder_name(text) or text in videos:
                findings.add("bad_line", where, f"{shown(text)} is no folder name, or occurs twice")
            elif not (data / text / "mask").is_dir():
                findings.add("missing_video", where, text, ("download", f"data/{text}"))
            else:
                videos.append(text)
    return videos


def find_frames(data, videos, listed, findings):
    """{(video, frame): {mask: path or None, origin: path or None}} of all frames that are listed or have a mask"""
    wanted = defaultdict(set)
    for video, frame in listed:
        wanted[video].add(frame)
    frames = {}
    for video in videos:
        if (data / video).exists() and not inside(data / video, data):
            findings.add("outside_root", f"data/{video}", "it is a link that leaves the data folder",
                         ("leave-out", f"data/{video}"))
            continue
        there = {folder: numbered(data / video / folder, suffix) for folder, suffix in FOLDERS.items()}
        for frame in sorted(wanted[video] | there["mask"]):
            frames[video, frame] = {folder: frame in there[folder] for folder in FOLDERS}
        for frame in sorted(there["origin"] - there["mask"] - wanted[video]):
            findings.add("frame_without_mask", file_of(video, "origin", frame))
    return frames


def numbered(folder, suffix):
    """Numbers of the files <8 digits><suffix> of a folder; an empty set where there is none"""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return set()
    stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return {int(stem) for stem in stems if len(stem) == 8 and stem.isascii() and stem.isdigit()}


def file_of(video, folder, frame):
    return f"data/{video}/{folder}/{frame:08d}{FOLDERS[folder]}"


def check_frames(args, frames, listed, findings):
    """Both files of every frame  ->  {(video, frame): {label: pixels}} of the masks that were decoded"""
    for (video, frame), there in frames.items():
        for folder, kind in (("mask", "missing_mask"), ("origin", "missing_image")):
            if not there[folder]:
                report(kind, video, folder, frame, "", listed, findings)
    root, labels, sizes = str(args.root / "data"), {}, {}
    for folder in FOLDERS:                                   # masks first: they give a video its size
        keys = [key for key, there in frames.items() if there[folder]]
        tasks = [FileTask(f"{args.root}/{file_of(v, folder, t)}", root, mask=folder == "mask") for v, t in keys]
        for (video, frame), found in zip(keys, check_files(tasks, args.deep, args.workers, folder), strict=True):
            if found.kind is not None:
                report(found.kind, video, folder, frame, found.what, listed, findings)
            if found.size is not None and sizes.setdefault(video, found.size) != found.size:
                what = f"{shown(found.size)}, the first mask of the video has {shown(sizes[video])}"
                report("mask_size" if folder == "mask" else "image_size", video, folder, frame, what, listed, findings)
            if found.labels is not None:
                labels[video, frame] = found.labels
                strange = sorted(set(found.labels) - LABELS)
                if strange:
                    report("unknown_label", video, folder, frame, f"labels {shown(strange)}", listed, findings)
    return labels


def report(kind, video, folder, frame, what, listed, findings):
    """One file, with the list lines that name it."""
    name, lines = file_of(video, folder, frame), listed.get((video, frame), ())
    told = f"{lines[0]}{f' and {len(lines) - 1} more' if len(lines) > 1 else ''}" if lines else ""
    findings.add(kind, name, ", ".join(filter(None, (what, told))), ("download", name))


def list_sizes(lists):
    """[(what, here, published)], two rows per list"""
    rows = []
    for name, lines in lists.items():
        videos, frames = PUBLISHED.get(name, (None, None))
        rows.append((f"{name} videos", len({line.video for line in lines}), videos))
        rows.append((f"{name} frames", len(lines), frames))
    return rows


def class_rows(lists, labels):
    """One dict per fold, side and class: videos and listed frames that show it at all, and with enough of it"""
    rows = []
    for fold in range(1, FOLDS + 1):
        for side in SIDES:
            lines = lists.get(f"{side}_{fold - 1}", ())
            for number in minivspw_classes(fold, side):
                pixels = [(line.video, labels.get((line.video, line.frame), {}).get(number, 0)) for line in lines]
                any_, enough = ([video for video, count in pixels if count > least] for least in (0, MIN_PIXELS))
                rows.append({
                    "fold": fold, "side": side, "id": number, "class": MINIVSPW_CLASSES[number],
                    "videos": len(set(any_)), "frames": len(any_), "support videos": len(set(enough)),
                    "support frames": len(enough)})
    return rows


def check_rule(lists, labels, findings):
    """Lists hold the frames in which a class of theirs has more than MIN_PIXELS; once per list and frame."""
    for name, lines in lists.items():
        side, fold = name.split("_")
        classes = minivspw_classes(int(fold) + 1, side)
        for line in lines:
            areas = labels.get((line.video, line.frame))
            if areas is not None and all(areas.get(number, 0) <= MIN_PIXELS for number in classes):
                findings.add("against_the_rule", str(line), file_of(line.video, "mask", line.frame))


def check_folds(rows, lists, findings):
    """A fold whose list shows none of its classes cannot be trained or tested."""
    shown_by = Counter()
    for row in rows:
        shown_by[row["fold"], row["side"]] += row["videos"]
    for (fold, side), videos in shown_by.items():
        if not videos and f"{side}_{fold - 1}" in lists:
            findings.add("empty_fold", f"fold {fold}, {side}")
