"""YouTube-VIS 2019, and whatever has its format, for tools/check_dataset.py.

In: the folder with train.json and JPEGImages/. Out: findings, counts beside the published ones, a table of classes and
one of folds. All rules are those of the reader and the index: dataloaders/datasets/ytvis_json.py and ytvis.py.
"""
import numpy as np

from dataloaders.datasets.folds import FOLDS, YTVIS_CLASSES, split_classes
from dataloaders.datasets.tables import TableIndex
from dataloaders.datasets.ytvis import IMAGES
from dataloaders.datasets.ytvis_json import read_tables
from dataloaders.images import real_path
from tools.dataset_check.files import FileTask, check_files
from tools.dataset_check.findings import check_class_sizes, compare_published

PUBLISHED = {"videos": 2238, "objects": 3774, "categories": 40}      # YouTube-VIS 2019, training split
REFERENCES = {"videos": "video_id", "categories": "category_id"}


def check_ytvis(args, findings):
    """Command line, Findings  ->  tables for the report"""
    path = args.root / args.annotations
    tables = read_tables(path, findings.add)
    index = TableIndex(path, args.root / IMAGES, tables)
    rows = class_rows(index, tables, findings)
    check_use(index, tables, findings)
    check_class_sizes([row for row in rows if row["videos"]], args.shots, args.few_videos, findings)
    here = {"videos": len(tables["video_id"]), "objects": len(tables["annotation_id"]), "categories": len(rows)}
    found = {
        "counts": compare_published([(what, here[what], PUBLISHED[what]) for what in PUBLISHED], findings),
        "classes": rows, "folds": fold_rows(index, rows, findings)}
    check_images(args, index, tables, findings)
    return found


def check_use(index, tables, findings):
    """What is annotated, and shows nothing; what is there, and has no annotation."""
    for row in np.flatnonzero(np.diff(tables["mask_start"]) == 0):
        findings.add("empty_annotation", f"annotation {tables['annotation_id'][row]}", "null or empty in all frames")
    for video in np.delete(tables["video_id"], np.unique(tables["annotation_video"])):
        findings.add("unannotated_video", f"video {video}")
    if not index.class_ids:
        findings.add("no_class", str(index.path))


def class_rows(index, tables, findings):
    """One dict per category, by fold and id; the names are compared with the published ones."""
    rows, shown = [], np.diff(tables["mask_start"]) > 0
    for number in tables["category_id"].tolist():
        name, videos = index.class_name(number), index.videos(number)
        rows.append({"fold": fold_of(number), "id": number, "class": name, "videos": len(videos),
                     "frames": sum(len(index.frames(video, number)) for video in videos),
                     "objects": int(np.count_nonzero(shown & (tables["annotation_category"] == number)))})
        if number in YTVIS_CLASSES and name.lower().replace(" ", "_") != YTVIS_CLASSES[number]:
            findings.add("category_name", f"category {number}", f"{name!r}, published {YTVIS_CLASSES[number]!r}")
        if not videos:
            findings.add("unused_category", f"category {number}", repr(name))
    return sorted(rows, key=lambda row: (row["fold"], row["id"]))


def fold_of(category):
    """The fold that tests a category."""
    known = {category, *YTVIS_CLASSES}                      # no fold is without classes
    return next(fold for fold in range(1, FOLDS + 1) if category in split_classes(known, fold)[1])


def fold_rows(index, rows, findings):
    """One dict per fold: what its test classes show, and how many classes are published for it"""
    folds = []
    for fold in range(1, FOLDS + 1):
        tested = [row for row in rows if row["fold"] == fold and row["videos"]]
        if not tested:
            findings.add("empty_fold", f"fold {fold}")
        folds.append({
            "fold": fold, "test classes": len(tested), "published classes": len(split_classes(YTVIS_CLASSES, fold)[1]),
            "videos": len({video for row in tested for video in index.videos(row["id"])}),
            "episodes of a run": sum(row["videos"] for row in tested),
            "frames": sum(row["frames"] for row in tested), "objects": sum(row["objects"] for row in tested)})
    return folds


def check_images(args, index, tables, findings, folder=None, name="videos"):
    """Every file of every video, as the index would read it."""
    folder = real_path(folder or args.root / IMAGES)
    if not folder.is_dir():
        findings.add("missing_folder", str(folder))
        return
    frames = [(video, frame) for video in tables["video_id"].tolist() for frame in range(index.length(video))]
    tasks = [FileTask(folder, index.file_name(video, frame), index.size(video), f"{name.removesuffix('s')} {video}"
                      + (f", frame {frame}" if name == "videos" else "")) for video, frame in frames]
    results = check_files(tasks, args.deep, args.workers, folder.name)
    for (video, _), task, found in zip(frames, tasks, results, strict=True):
        if found.kind is not None:
            file = f"{folder.name}/{task.name}"
            findings.add(found.kind, f"{task.where}, {file}", found.what, left=(name, video), download=file)
