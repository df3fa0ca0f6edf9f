"""VSPW_480p with the lists of MiniVSPW, for tools/check_dataset.py.

In: the folder with data/<video>/{origin,mask} and the lists, one per fold and side. Out: findings, the size of every
list beside the published ones and, once the masks are decoded (--deep), what each class of each fold is shown by.
Rules as in dataloaders/datasets/minivspw.py.
"""
import os
from collections import Counter, defaultdict

from dataloaders.datasets.folds import FOLDS, MINIVSPW_CLASSES, minivspw_classes
from dataloaders.datasets.index import real_below
from dataloaders.datasets.minivspw import MIN_PIXELS, SIDES, is_folder_name, read_list, text_lines
from dataloaders.datasets.minivspw_lists import NAMES
from dataloaders.images import real_path
from dataloaders.json_values import shown
from tools.dataset_check.files import FileTask, check_files
from tools.dataset_check.findings import check_class_sizes, compare_published

PUBLISHED = {                    # videos and frames of the published lists; train_0, 1 and 3 are not to be had
    "test_0": (61, 3140), "test_1": (96, 5883), "test_2": (261, 17660), "test_3": (64, 4060),
    "val_0": (36, 2348), "val_1": (49, 2938), "val_2": (51, 3210), "val_3": (51, 3210), "train_2": (1159, 71813)}
LABELS = {*range(125), 255}      # 0 others, 1 to 124 the classes of VSPW, 255 void
SPLITS = ("train.txt", "val.txt")
FOLDERS = {"mask": ".png", "origin": ".jpg"}


def check_vspw(args, findings):
    """Command line, Findings  ->  tables for the report"""
    data = real_path(args.root / "data")
    if not data.is_dir():
        raise FileNotFoundError(f"MiniVSPW: no folder {data}.\n  Name the folder of VSPW_480p, with data/<video>/.")
    lists = read_lists(args.root / args.annotations, findings)
    check_sides(lists, findings)
    listed = defaultdict(list)
    for name, frames in lists.items():
        for frame in frames:
            listed[frame].append(f"{name}.txt")
    videos = dict.fromkeys([*read_splits(args.root, data, findings), *(video for video, _ in listed)])
    frames = find_frames(data, videos, listed, findings)
    labels = check_frames(args, data, frames, listed, findings)
    tables = {"counts": compare_published(list_sizes(lists), findings)}
    if args.deep:
        tables["classes"] = class_rows(lists, labels)
        check_class_sizes([{**row, "videos": row["support videos"]} for row in tables["classes"] if row["videos"]],
                          args.shots, args.few_videos, findings)
        check_rule(lists, labels, findings)
        check_folds(tables["classes"], lists, findings)
    return tables


def read_lists(folder, findings):
    """{train_0: [(video, frame)], ..., test_3: ...} of the lists that are there"""
    lists = {}
    for name in NAMES:
        path = folder / f"{name}.txt"
        if not path.is_file():
            findings.add("missing_list" if name.split("_")[0] in SIDES else "missing_optional", str(path))
            continue
        videos = read_list(path, lambda kind, where, what: findings.add(kind, where, what, left=("lines", where)))
        lists[name] = [(video, frame) for video, frames in videos.items() for frame in frames]
    return lists


def check_sides(lists, findings):
    """No fold tests a video that it trains on."""
    for fold in range(FOLDS):
        train, test = ({video for video, _ in lists.get(f"{side}_{fold}", ())} for side in SIDES)
        for video in sorted(train & test):
            findings.add("both_sides", f"fold {fold + 1}, video {video}", "leave it out of one list",
                         left=("videos", video))


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
                findings.add("missing_video", where, text, download=f"data/{text}")
            else:
                videos.append(text)
    return videos


def find_frames(data, videos, listed, findings):
    """{(video, frame): {mask, origin: whether it is there}} of all frames that are listed or have a mask"""
    wanted, frames = defaultdict(set), {}
    for video, frame in listed:
        wanted[video].add(frame)
    for video in videos:
        try:
            real_below(data, video, "link")
        except ValueError as error:
            findings.add("bad_file", f"data/{video}", str(error).partition("\n")[0], left=("videos", video))
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


def check_frames(args, data, frames, listed, findings):
    """Both files of every frame  ->  {(video, frame): {label: pixels}} of the masks that were decoded"""
    labels, sizes = {}, {}
    for folder in FOLDERS:                                   # masks first: they give a video its size
        tasks = [FileTask(data, file_of(video, folder, frame).removeprefix("data/"), mask=folder == "mask")
                 for (video, frame), there in frames.items() if there[folder]]
        results = check_files(tasks, args.deep, args.workers, folder)
        for (video, frame), there in frames.items():
            found = next(results) if there[folder] else None
            kind, what = (found.kind, found.what) if found else ("missing_file", "")
            if found and found.size is not None and sizes.setdefault(video, found.size) != found.size:
                kind, what = "bad_file", f"{found.size}, the first mask of the video has {sizes[video]}"
            if found and found.labels is not None:
                labels[video, frame] = found.labels
                if set(found.labels) - LABELS:
                    kind, what = "unknown_label", f"labels {shown(sorted(set(found.labels) - LABELS))}"
            if kind is not None:
                name, told = file_of(video, folder, frame), listed.get((video, frame), ())
                told = f"{told[0]}{f' and {len(told) - 1} more' if len(told) > 1 else ''}" if told else ""
                findings.add(kind, name, ", ".join(filter(None, (what, told))), download=name)
    return labels


def list_sizes(lists):
    """[(what, here, published)], two rows per list"""
    rows = []
    for name, frames in lists.items():
        videos, published = PUBLISHED.get(name, (None, None))
        rows.append((f"{name} videos", len({video for video, _ in frames}), videos))
        rows.append((f"{name} frames", len(frames), published))
    return rows


def class_rows(lists, labels):
    """One dict per fold, side and class: videos and listed frames that show it at all, and with enough of it"""
    rows = []
    for fold in range(1, FOLDS + 1):
        for side in SIDES:
            frames = lists.get(f"{side}_{fold - 1}", ())
            for number in minivspw_classes(fold, side):
                pixels = [(frame[0], labels.get(frame, {}).get(number, 0)) for frame in frames]
                any_, enough = ([video for video, count in pixels if count > least] for least in (0, MIN_PIXELS))
                rows.append({
                    "fold": fold, "side": side, "id": number, "class": MINIVSPW_CLASSES[number],
                    "videos": len(set(any_)), "frames": len(any_), "support videos": len(set(enough)),
                    "support frames": len(enough)})
    return rows


def check_rule(lists, labels, findings):
    """Lists hold the frames in which a class of theirs has more than MIN_PIXELS; once per list and frame."""
    for name, frames in lists.items():
        side, fold = name.split("_")
        classes = minivspw_classes(int(fold) + 1, side)
        for frame in frames:
            areas = labels.get(frame)
            if areas is not None and all(areas.get(number, 0) <= MIN_PIXELS for number in classes):
                findings.add("against_the_rule", f"{name}.txt", file_of(frame[0], "mask", frame[1]))


def check_folds(rows, lists, findings):
    """A fold whose list shows none of its classes cannot be trained or tested."""
    shown_by = Counter()
    for row in rows:
        shown_by[row["fold"], row["side"]] += row["videos"]
    for (fold, side), videos in shown_by.items():
        if not videos and f"{side}_{fold - 1}" in lists:
            findings.add("empty_fold", f"fold {fold}, {side}")
