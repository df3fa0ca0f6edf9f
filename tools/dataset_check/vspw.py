"""VSPW_480p with the lists of MiniVSPW, for tools/check_dataset.py.

In: the folder with data/<video>/{origin,mask} and the lists, one per fold and side. Out: findings, the size of every
list beside the published ones and, once the masks are decoded (--deep), what each class of each fold is shown by.
Rules are those of dataloaders/datasets/minivspw.py and minivspw_lists.py.
"""
from collections import Counter, defaultdict

from dataloaders.datasets.folds import FOLDS, MINIVSPW_CLASSES, minivspw_classes
from dataloaders.datasets.minivspw import MIN_PIXELS, SIDES, read_list
from dataloaders.datasets.minivspw_lists import NAMES, find_masks
from dataloaders.images import real_path
from dataloaders.json_values import shown
from tools.dataset_check.files import FileTask, check_files
from tools.dataset_check.findings import check_class_sizes, compare_published

PUBLISHED = {                    # videos and frames of the published lists; train_0, 1 and 3 are not to be had
    "test_0": (61, 3140), "test_1": (96, 5883), "test_2": (261, 17660), "test_3": (64, 4060),
    "val_0": (36, 2348), "val_1": (49, 2938), "val_2": (51, 3210), "val_3": (51, 3210), "train_2": (1159, 71813)}
LABELS = {*range(125), 255}      # 0 others, 1 to 124 the classes of VSPW, 255 void
FILE = {"mask": "{}/mask/{:08d}.png", "origin": "{}/origin/{:08d}.jpg"}       # of a frame, below data/


def check_vspw(args, findings):
    """Command line, Findings  ->  tables for the report"""
    data = real_path(args.root / "data")
    if not data.is_dir():
        raise FileNotFoundError(f"MiniVSPW: no folder {data}.\n  Name the folder of VSPW_480p, with data/<video>/.")
    lists = read_lists(args.root / args.annotations, findings)
    check_sides(lists, findings)
    listed = defaultdict(list)
    for name, videos in lists.items():
        for frame in frames_of(videos):
            listed[frame].append(f"{name}.txt")
    labels = check_frames(args, data, sorted({*find_frames(args.root, findings), *listed}), listed, findings)
    tables = {"counts": compare_published(list_sizes(lists), findings)}
    if args.deep:
        tables["classes"] = class_rows(lists, labels)
        check_class_sizes([{**row, "videos": row["support videos"]} for row in tables["classes"] if row["videos"]],
                          args.shots, args.few_videos, findings)
        check_rule(lists, labels, findings)
        check_folds(tables["classes"], lists, findings)
    return tables


def read_lists(folder, findings):
    """{train_0: {video: [frame numbers]}, ..., test_3: ...} of the lists that are there"""
    lists = {}
    for name in NAMES:
        path = folder / f"{name}.txt"
        if path.is_file():
            lists[name] = read_list(path, findings.add_line)
        else:
            findings.add("missing_list" if name.split("_")[0] in SIDES else "missing_optional", str(path))
    return lists


def frames_of(videos):
    """{video: [frame numbers]}  ->  [(video, frame)]"""
    return [(video, frame) for video, frames in videos.items() for frame in frames]


def check_sides(lists, findings):
    """No fold tests a video that it trains on."""
    for fold in range(FOLDS):
        for video in sorted(set.intersection(*({*lists.get(f"{side}_{fold}", ())} for side in SIDES))):
            findings.add("both_sides", f"fold {fold + 1}, video {video}", "leave it out of one list",
                         left=("videos", video))


def find_frames(root, findings):
    """(video, frame) of every mask of VSPW's train.txt and val.txt: lists are made of them, runs do not need them."""
    for split in ("train", "val"):
        if (root / f"{split}.txt").is_file():
            for video, files in find_masks(root, split, findings.add_line).items():
                yield from ((video, int(file.stem)) for file in files)
        else:
            findings.add("missing_optional", str(root / f"{split}.txt"), "tools/make_minivspw_lists.py needs it")


def check_frames(args, data, frames, listed, findings):
    """Both files of every frame  ->  {(video, frame): {label: pixels}} of the masks that were decoded"""
    labels, sizes = {}, {}
    for folder, pattern in FILE.items():                     # masks first: they give a video its size
        tasks = [FileTask(data, pattern.format(*frame), mask=folder == "mask") for frame in frames]
        for frame, task, found in zip(frames, tasks, check_files(tasks, args.deep, args.workers, folder), strict=True):
            kind, what, unknown = found.kind, found.what, set(found.labels or ()) - LABELS
            if found.size is not None and sizes.setdefault(frame[0], found.size) != found.size:
                kind, what = "bad_file", f"{found.size}, the first mask of the video has {sizes[frame[0]]}"
            if found.labels is not None:
                labels[frame] = found.labels
            if unknown:
                kind, what = "unknown_label", f"labels {shown(sorted(unknown))}"
            if kind is not None:
                told = listed.get(frame, ())
                told = f"{told[0]}{f' and {len(told) - 1} more' if len(told) > 1 else ''}" if told else ""
                findings.add(kind, f"data/{task.name}", ", ".join(filter(None, (what, told))),
                             download=f"data/{task.name}")
    return labels


def list_sizes(lists):
    """[(what, here, published)], two rows per list"""
    return [(f"{name} {what}", here, published) for name, videos in lists.items() for what, here, published in zip(
        ("videos", "frames"), (len(videos), len(frames_of(videos))), PUBLISHED.get(name, (None, None)), strict=True)]


def class_rows(lists, labels):
    """One dict per fold, side and class: videos and listed frames that show it at all, and with enough of it"""
    rows = []
    for fold in range(1, FOLDS + 1):
        for side in SIDES:
            frames = frames_of(lists.get(f"{side}_{fold - 1}", {}))
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
    for name, videos in lists.items():
        side, fold = name.split("_")
        classes = minivspw_classes(int(fold) + 1, side)
        for frame in frames_of(videos):
            areas = labels.get(frame)
            if areas is not None and all(areas.get(number, 0) <= MIN_PIXELS for number in classes):
                findings.add("against_the_rule", f"{name}.txt", "data/" + FILE["mask"].format(*frame))


def check_folds(rows, lists, findings):
    """A fold whose list shows none of its classes cannot be trained or tested."""
    shown_by = Counter()
    for row in rows:
        shown_by[row["fold"], row["side"]] += row["videos"]
    for (fold, side), videos in shown_by.items():
        if not videos and f"{side}_{fold - 1}" in lists:
            findings.add("empty_fold", f"fold {fold}, {side}")
