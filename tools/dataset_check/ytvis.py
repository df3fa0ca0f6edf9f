"""YouTube-VIS 2019, and whatever has its format, for tools/check_dataset.py.

In: the folder with train.json and JPEGImages/. Out: findings, counts beside the published ones, a table of classes and
one of folds. The rules are those of dataloaders/datasets/ytvis_json.py and ytvis.py, which stop at the first problem.
"""
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from dataloaders.datasets.folds import FOLDS, YTVIS_CLASSES, split_classes
from dataloaders.datasets.ytvis_json import Rle, compress
from tools.dataset_check.files import FileTask, check_files
from tools.dataset_check.findings import check_class_sizes, compare_published, shown
from tools.dataset_check.json_records import is_file_name, is_size, read_categories, read_document, records, safely

PUBLISHED = {"videos": 2238, "objects": 3774, "categories": 40}      # YouTube-VIS 2019, training split
LISTS = ("videos", "categories", "annotations")
REFERENCES = {"videos": "video_id", "categories": "category_id"}
IMAGES = "JPEGImages"


@dataclass
class Video:
    """position: in the file; size: (rows, columns) or None; files: usable names, None where one is not"""
    position: int
    label: str
    size: tuple
    files: list
    annotated: bool = False


@dataclass
class ClassCount:
    """What a category shows: {video id: frames with the object}, number of objects."""
    frames: dict = field(default_factory=lambda: defaultdict(set))
    objects: int = 0


def check_ytvis(args, findings):
    """Command line, Findings  ->  tables for the report"""
    path = args.root / args.annotations
    document = read_document(path, LISTS, safely(compress, keep_counts=False))
    categories = read_categories(document, findings)
    videos = read_videos(document, findings)
    counts = read_annotations(document, videos, categories, findings)
    for video in videos.values():
        if not video.annotated:
            findings.add("unannotated_video", video.label)
    rows = class_rows(categories, counts, findings)
    if not any(row["videos"] for row in rows):
        findings.add("no_class", str(path))
    check_class_sizes([row for row in rows if row["videos"]], args.shots, args.few_videos, findings)
    here = {"videos": len(document["videos"]), "objects": len(document["annotations"]),
            "categories": len(document["categories"])}
    tables = {
        "counts": compare_published([(what, here[what], PUBLISHED[what]) for what in PUBLISHED], findings),
        "classes": rows, "folds": fold_rows(rows, counts, findings)}
    check_images(args, videos, findings)
    return tables


def read_videos(document, findings):
    """{video id: Video}"""
    videos, names, folders = {}, {}, {}
    for position, record, label in records(document, "videos", ("height", "width", "file_names"), findings):
        drop = {"repair": ("leave-out", label), "drop": ("videos", position)}
        size = (record["height"], record["width"])
        if not is_size(size):
            findings.add("bad_size", label, f"height and width {shown(size)}", **drop)
            size = None
        files = record["file_names"]
        if not isinstance(files, list) or not files:
            findings.add("bad_record", label, "no file names", **drop)
            files = []
        files = [_file_name(file, f"{label}, frame {t}", names, drop, findings) for t, file in enumerate(files)]
        if record.get("length", len(files)) != len(files):
            findings.add("length", label, f"{shown(record['length'])}, but {len(files)} file names")
        _check_folder(files, label, folders, drop, findings)
        videos[record["id"]] = Video(position, label, size, files)
    return videos


def _file_name(file, where, names, drop, findings):
    """The name if it can be used, else None; names: those seen so far, which it joins"""
    if not is_file_name(file, folders=1):
        findings.add("bad_file_name", where, f"{shown(file)} is not <video folder>/<frame>.jpg", **drop)
        return None
    same = str(PurePosixPath(file))
    if same in names:
        findings.add("duplicate_file_name", where, f"{shown(file)} is {names[same]}, too", **drop)
    names.setdefault(same, where)
    return file


def _check_folder(files, label, folders, drop, findings):
    """The folder is the video's name in results and in random draws: one each."""
    own = {str(PurePosixPath(file).parent) for file in files if file is not None}
    taken = [folder for folder in sorted(own) if folder in folders]
    if taken:
        findings.add("shared_folder", label, f"{shown(taken[0])} is the folder of {folders[taken[0]]}, too", **drop)
    elif len(own) > 1:
        findings.add("shared_folder", label, f"its frames lie in {len(own)} folders: {shown(sorted(own))}", **drop)
    folders.update({folder: label for folder in own if folder not in folders})


def read_annotations(document, videos, categories, findings):
    """{category id: ClassCount} of the annotations that can be used; marks the videos that have some"""
    counts = defaultdict(ClassCount)
    needed = ("video_id", "category_id", "segmentations")
    for position, record, label in records(document, "annotations", needed, findings):
        drop = {"repair": ("leave-out", label), "drop": ("annotations", position)}
        video_id, category = record["video_id"], record["category_id"]
        if not (type(video_id) is int and video_id in videos):
            findings.add("unknown_video", label, f"video_id {shown(video_id)}", **drop)
            continue
        videos[video_id].annotated = True
        if not (type(category) is int and category in categories):
            findings.add("unknown_category", label, f"category_id {shown(category)}", **drop)
            continue
        seen = read_masks(record["segmentations"], label, videos[video_id], drop, findings)
        if seen:
            counts[category].frames[video_id].update(seen)
            counts[category].objects += 1
    return counts


def read_masks(masks, label, video, drop, findings):
    """Segmentations of one annotation  ->  the frames in which it shows something"""
    if not isinstance(masks, list) or len(masks) != len(video.files):
        given = len(masks) if isinstance(masks, list) else "no list of"
        findings.add("segmentation_count", label, f"{given} segmentations, {video.label} has {len(video.files)} frames",
                     **drop)
        return []
    shown_in, faulty = [], False
    for frame, mask in enumerate(masks):
        if mask is None:
            continue
        kind, what = mask_fault(mask, video.size)
        if kind is None:
            shown_in.append(frame)
            continue
        where = f"{label}, {video.label}, frame {frame}"
        findings.add(kind, where, what, **(drop if kind != "empty_mask" else {}))
        faulty |= kind != "empty_mask"
    if not shown_in and not faulty:
        findings.add("empty_annotation", label, f"{video.label}: null or empty in all {len(masks)} frames")
    return shown_in


def mask_fault(mask, size):
    """A segmentation that is not null, its video's size or None  ->  (kind, words), (None, '') if nothing is wrong"""
    if not isinstance(mask, Rle):
        return "bad_segmentation", f"{shown(mask)} is neither null nor an RLE"
    if mask.problem is not None:
        return "bad_segmentation", f"RLE {mask.problem}"
    if size is not None and tuple(mask.size) != size:
        return "mask_size", f"{mask.size[0]} x {mask.size[1]}, the video has {size[0]} x {size[1]}"
    return (None, "") if mask.area else ("empty_mask", "area 0")


def class_rows(categories, counts, findings):
    """One dict per category, by fold and id; the names are compared with the published ones."""
    rows = []
    for number, name in categories.items():
        count = counts.get(number, ClassCount())
        rows.append({"fold": fold_of(number), "id": number, "class": name, "videos": len(count.frames),
                     "frames": sum(map(len, count.frames.values())), "objects": count.objects})
        if number in YTVIS_CLASSES and plain(name) != plain(YTVIS_CLASSES[number]):
            findings.add("category_name", f"category {number}", f"{shown(name)}, published {YTVIS_CLASSES[number]!r}")
        if not count.objects:
            findings.add("unused_category", f"category {number}", shown(name))
    return sorted(rows, key=lambda row: (row["fold"], row["id"]))


def plain(name):
    return name.lower().replace(" ", "_")


def fold_of(category):
    """The fold that tests a category."""
    known = {category, *YTVIS_CLASSES}                      # no fold is without classes
    return next(fold for fold in range(1, FOLDS + 1) if category in split_classes(known, fold)[1])


def fold_rows(rows, counts, findings):
    """One dict per fold: what its test classes show, and how many classes are published for it"""
    folds = []
    for fold in range(1, FOLDS + 1):
        tested = [row for row in rows if row["fold"] == fold and row["videos"]]
        if not tested:
            findings.add("empty_fold", f"fold {fold}")
        videos = {video for row in tested for video in counts[row["id"]].frames}
        folds.append({
            "fold": fold, "test classes": len(tested), "published classes": len(split_classes(YTVIS_CLASSES, fold)[1]),
            "videos": len(videos), "episodes of a run": sum(row["videos"] for row in tested),
            "frames": sum(row["frames"] for row in tested), "objects": sum(row["objects"] for row in tested)})
    return folds


def check_images(args, videos, findings):
    """Every file of every video."""
    root = args.root / IMAGES
    if not root.is_dir():
        findings.add("missing_folder", str(root))
    frames = [(video, t, file) for video in videos.values() for t, file in enumerate(video.files) if file is not None]
    tasks = [FileTask(f"{root}/{file}", str(root)) for _, _, file in frames]
    results = check_files(tasks, args.deep, args.workers, IMAGES)
    for (video, t, file), found in zip(frames, results, strict=True):
        where = f"{video.label}, frame {t}, {IMAGES}/{file}"
        repair = {"repair": ("download", f"{IMAGES}/{file}"), "drop": ("videos", video.position)}
        if found.kind is not None:
            findings.add(found.kind, where, found.what, **repair)
        if found.size is not None and video.size is not None and found.size != video.size:
            findings.add("image_size", where, f"{found.size[0]} x {found.size[1]}, the video has {video.size[0]} x "
                                              f"{video.size[1]}", **repair)
