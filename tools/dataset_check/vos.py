"""DAVIS and YouTube-VOS, for tools/check_dataset.py.

In: the folder. Out: findings, counts beside the published ones, a line per list. All rules are those of the indexes:
dataloaders/datasets/vos.py.
"""
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np

from dataloaders.datasets.davis import DavisIndex
from dataloaders.datasets.vos import below_or_anywhere
from dataloaders.datasets.ytvos import YouTubeVosIndex
from tools.dataset_check.files import READERS, FileTask, check_files
from tools.dataset_check.findings import compare_published

LISTS = "train.txt", "val.txt"
PUBLISHED = {"2016/train.txt": 30, "2016/val.txt": 20, "2017/train.txt": 60, "2017/val.txt": 30,
             "train/meta.json": 3471}                        # folder and name of a list: its videos


def check_davis(args, findings):
    """Command line, Findings  ->  tables for the report; --annotations: a list, or a folder with train and val"""
    path = below_or_anywhere(args.root, args.annotations)
    lists = [path / name for name in LISTS if (path / name).is_file()] if path.is_dir() else [path]
    if not lists:
        raise FileNotFoundError(f"{path}: neither {LISTS[0]} nor {LISTS[1]}.\n  Name a list: --annotations FILE")
    return check_lists(args, findings, DavisIndex, lists)


def check_ytvos(args, findings):
    """The same of YouTube-VOS; --annotations: meta.json, or a list of some of its videos"""
    return check_lists(args, findings, YouTubeVosIndex, [below_or_anywhere(args.root, args.annotations)])


def check_lists(args, findings, kind, lists):
    counts, rows = [], []
    for path in lists:
        index = kind(args.root, path, fault=findings.add)
        counts.append((f"videos of {path.name}", len(index.names), PUBLISHED.get(f"{path.parent.name}/{path.name}")))
        masks = {name: its for name in index.names if (its := masks_of(index, name, findings)) is not None}
        whole = check_pictures(args, index, masks, findings)
        rows.append({"list": path.name, "videos": len(masks), "masks": sum(map(len, masks.values())),
                     "frames": sum(len(index.files_of[name]) for name in masks)})
        if args.deep:
            with ThreadPoolExecutor(READERS) as threads:
                rows[-1]["objects"] = sum(threads.map(count_objects, repeat(index), whole, map(masks.get, whole),
                                                      repeat(findings)))
    return {"counts": compare_published(counts, findings), "lists": rows}


def masks_of(index, name, findings):
    """->  positions of the frames with masks; None where a mask has no frame"""
    try:
        found = index.annotated(name)
    except FileNotFoundError as error:
        findings.add("missing_file", f"video {name}", str(error).partition("\n")[0], left=("videos", name))
        return None
    if not found:
        findings.add("unannotated_video", f"video {name}")
    return found


def check_pictures(args, index, masks, findings):
    """Every frame and mask as the index reads them: all of a video have one size  ->  the videos that are whole"""
    tasks, whole = [], set(masks)
    for name, frames in masks.items():
        tasks += [FileTask(index.images, f"{name}/{file}", None, f"video {name}") for file in index.files_of[name]]
        tasks += [FileTask(index.masks, f"{name}/{index.frames_of[name][t]}.png", None, f"video {name}")
                  for t in frames]
    sizes = {}
    for task, found in zip(tasks, check_files(tasks, args.deep, args.workers, index.path.name), strict=True):
        name, file = task.name.partition("/")[0], f"{task.folder.relative_to(index.root)}/{task.name}"
        if found.kind:
            findings.add(found.kind, f"{task.where}, {file}", found.what, left=("videos", name), download=file)
        elif (first := sizes.setdefault(name, tuple(found.size))) != tuple(found.size):
            findings.add("bad_file", f"{task.where}, {file}", f"has {found.size[0]} x {found.size[1]} pixels, the "
                         f"first frame {first[0]} x {first[1]}", left=("videos", name), download=file)
        else:
            continue
        whole.discard(name)
    return sorted(whole)


def count_objects(index, name, frames, findings):
    """Reads the numbers in a video's masks  ->  how many objects they show"""
    shown = set()
    for t in frames:
        try:
            shown |= set(np.unique(index.read_labels(name, t)).tolist()) - {0}
        except (OSError, ValueError) as error:
            findings.add("bad_file", f"video {name}", str(error).partition("\n")[0], left=("videos", name))
    listed = {int(number) for number in index.meta[name].objects} if hasattr(index, "meta") else set()
    for number in sorted(listed - shown) if frames else ():
        findings.add("empty_annotation", f"video {name}, object {number}", "no mask shows it")
    if frames and not shown:
        findings.add("unannotated_video", f"video {name}", "no mask shows an object")
    return len(shown)
