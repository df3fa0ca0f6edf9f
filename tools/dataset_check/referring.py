"""Mini-Ref-YouTube-VOS, Mini-Ref-SAIL-VOS and what has their layout, for tools/check_dataset.py.

In: the folder, or the one above it. Out: findings, counts beside the published ones, a table of classes. All rules are
those of the index: dataloaders/datasets/refytvos.py.
"""
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dataloaders.datasets.folds import FOLDS
from dataloaders.datasets.refytvos import RefSailVosIndex, RefYouTubeVosIndex
from tools.dataset_check.files import READERS, FileTask, check_files
from tools.dataset_check.findings import compare_published

PUBLISHED = {RefYouTubeVosIndex: {"videos": 1668, "categories": 48}, RefSailVosIndex: {"videos": 68, "categories": 3}}


def check_referring(args, findings):
    """Command line, Findings  ->  tables for the report"""
    sail = any((args.root / name / RefSailVosIndex.IMAGES).is_dir() for name in (".", *RefSailVosIndex.FOLDERS))
    kind = RefSailVosIndex if sail else RefYouTubeVosIndex
    index = kind(args.root, fault=findings.add)
    rows = [{"fold": (c - 1) % FOLDS + 1, "id": c, "class": index.class_name(c), "videos": len(index.videos(c)),
             "sentences": sum(len(index.sentences(v, c)) for v in index.videos(c)),
             "frames": sum(len(index.frames(v)) for v in index.videos(c))} for c in index.class_ids]
    for row in rows:
        if row["videos"] < 2:
            findings.add("few_videos", f"{row['class']} (id {row['id']})", f"{row['videos']} videos; query and support "
                         "are of different ones")
    for c in sorted(set(index.classes) - set(index.class_ids)):
        findings.add("unused_category", f"category {c}", repr(index.class_name(c)))
    here = {"videos": len(index.sentences_of), "categories": len(index.class_ids)}
    counts = compare_published([(what, here[what], number) for what, number in PUBLISHED[kind].items()], findings)
    check_frames(args, index, findings)
    return {"counts": counts, "classes": sorted(rows, key=lambda row: (row["fold"], row["id"]))}


def check_frames(args, index, findings):
    """Every frame and its mask, as the index would read them; deep: which objects no mask shows"""
    frames, tasks, whole = [], [], set(index.sentences_of)
    for video in index.sentences_of:
        for frame in index.frames(video):
            try:
                paths = index.image_path(video, frame), index.mask_path(video, frame)
            except ValueError as error:                        # a link that leads out of the data set
                findings.add("bad_file", f"video {video}, frame {frame}", str(error).partition("\n")[0])
                whole.discard(video)
                continue
            frames.append((video, frame))
            tasks += [FileTask(folder, str(path.relative_to(folder)), None, f"video {video}, frame {frame}")
                      for folder, path in zip((index.images, index.masks), paths, strict=True)]
    results = list(check_files(tasks, args.deep, args.workers, index.root.name))
    for task, found in zip(tasks, results, strict=True):
        if found.kind:
            file = f"{task.folder.relative_to(index.root)}/{task.name}"
            findings.add(found.kind, f"{task.where}, {file}", found.what, left=("videos", task.where), download=file)
            whole.discard(task.name.partition("/")[0])
    for (video, frame), image, mask in zip(frames, results[::2], results[1::2], strict=True):
        if image.size and mask.size and tuple(image.size) != tuple(mask.size):
            findings.add("bad_file", f"video {video}, frame {frame}", f"its mask has {mask.size[0]} x {mask.size[1]} "
                         f"pixels, the frame {image.size[0]} x {image.size[1]}")
    with ThreadPoolExecutor(READERS) as threads:
        for found in threads.map(lambda video: hidden_objects(index, video), sorted(whole) if args.deep else ()):
            for kind, where, what in found:
                findings.add(kind, where, what)


def hidden_objects(index, video):
    """Of a video whose files can all be read  ->  [(kind, where, what)]: objects of sentences that no mask shows"""
    shown = set()
    for frame in index.frames(video):
        try:
            shown |= set(np.unique(index.read_labels(video, frame)).tolist())
        except (OSError, ValueError) as error:
            return [("bad_file", f"video {video}, frame {frame}", str(error).partition("\n")[0])]
    missing = {one.object for one in index.sentences_of[video]} - shown
    return [("empty_annotation", f"video {video}, object {number}", "no mask shows it") for number in sorted(missing)]
