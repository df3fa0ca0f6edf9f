"""train.json of YouTube-VIS -> small tables of NumPy arrays, checked once and kept in a cache.

In: the annotation file. Out: a dict of the arrays named in TABLES. Masks become compressed RLE strings in one blob,
since the file itself (130 MB of run lengths) takes many seconds and a lot of memory to read; arrays, unlike lists of
objects, are also shared between loader processes without being copied.
"""
import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec
import numpy as np

from dataloaders.datasets.cache import read_cache, write_cache
from dataloaders.datasets.rle import RunLengths, compressed
from dataloaders.images import MAX_PIXELS
from dataloaders.json_values import Id, Side, Text, file_names, read_typed, records, shown

CACHE_VERSION = 2            # raise it whenever a table changes its meaning
TABLES = (
    "category_id", "category_name",                               # (categories,)
    "video_id", "video_rows", "video_cols",                       # (videos,)
    "file_start", "file_name",                                    # (videos + 1,), (all frames,) bytes
    "annotation_id", "annotation_video", "annotation_category",   # (annotations,): own id, row of video_id, category id
    "mask_start", "mask_frame",                                   # (annotations + 1,), (masks that are not empty,)
    "rle_start", "rle",                                           # (masks + 1,), (all bytes,)
)


class Category(msgspec.Struct):
    id: Id
    name: Text


class Video(msgspec.Struct):
    id: Id
    height: Side
    width: Side
    file_names: Annotated[list[Text], msgspec.Meta(min_length=1)]

    def __post_init__(self):
        check_size(self.height, self.width)
        self.file_names = file_names(self.file_names, folders=1)
        folders = {str(PurePosixPath(file).parent) for file in self.file_names}
        if len(folders) > 1:
            raise ValueError(f"its frames lie in {len(folders)} folders, {shown(sorted(folders))}")
        if len(set(map(PurePosixPath, self.file_names))) < len(self.file_names):
            raise ValueError("a file name occurs twice")

    @property
    def folder(self):
        return str(PurePosixPath(self.file_names[0]).parent)


class Annotation(msgspec.Struct):
    id: Id
    video_id: Id
    category_id: Id
    segmentations: list[RunLengths | None]


class Document(msgspec.Struct):
    """Records are decoded one by one, so that run lengths never pile up and a bad one hides no other."""
    videos: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw]


def load_tables(path, cache_dir=None):
    """path of train.json, folder of the cache or None (no cache)  ->  dict of TABLES"""
    if cache_dir is None:
        return read_tables(path)
    stat, absolute = path.stat(), str(path.resolve())
    key = json.dumps([CACHE_VERSION, absolute, stat.st_size, stat.st_mtime_ns])
    cache = Path(cache_dir) / f"ytvis_{hashlib.sha256(absolute.encode()).hexdigest()[:16]}.npz"
    tables = read_cache(cache, key, TABLES)
    if tables is None:
        tables = read_tables(path)
        write_cache(cache, key, tables)
    return tables


def read_tables(path, fault=None):
    """path of train.json  ->  dict of TABLES

    fault(kind, where, what, drop): is told of every record that cannot be used, which is left out; None: the first one
    raises a ValueError. drop: (list of the file, position).
    """
    document, fault = read_typed(path, Document, bad_file), fault or raising(path, bad_file)
    categories = read_categories(document.categories, fault)
    videos, folders = {}, {}
    for position, video in records(document.videos, Video, "videos", fault):
        if folders.setdefault(video.folder, video.id) != video.id:
            fault("shared_folder", f"video {video.id}",
                  f"video {folders[video.folder]} has the folder {shown(video.folder)}, too", ("videos", position))
        else:
            videos[video.id] = video
    return {**category_tables(categories), **_video_tables(videos),
            **_annotation_tables(document.annotations, videos, categories, fault)}


def read_categories(raws, fault):
    """Undecoded records  ->  {id: name}, ascending; names are those of results, so that each has one category"""
    names = {}
    for position, category in records(raws, Category, "categories", fault):
        if category.name in names:
            fault("duplicate_name", f"category {category.id}", f"category {names[category.name]} is called "
                  f"{shown(category.name)}, too", ("categories", position))
        else:
            names[category.name] = category.id
    return dict(sorted((number, name) for name, number in names.items()))


def category_tables(categories):
    return {"category_id": np.array(list(categories), np.int64),
            "category_name": np.array(list(categories.values()), str)}


def _video_tables(videos):
    names = [file.encode("utf-8") for video in videos.values() for file in video.file_names]
    return {"video_id": np.array(list(videos), np.int64),
            "video_rows": np.array([video.height for video in videos.values()], np.int64),
            "video_cols": np.array([video.width for video in videos.values()], np.int64),
            "file_start": np.cumsum([0, *(len(video.file_names) for video in videos.values())]),
            "file_name": np.array(names, bytes)}


def _annotation_tables(raws, videos, categories, fault):
    row_of = {number: row for row, number in enumerate(videos)}
    ids, rows, classes, frames, rles, start = [], [], [], [], [], [0]
    for position, record in records(raws, Annotation, "annotations", fault):
        video, drop = videos.get(record.video_id), ("annotations", position)
        for key, known in (("video_id", videos), ("category_id", categories)):
            if getattr(record, key) not in known:
                fault(f"unknown_{key.removesuffix('_id')}", f"annotation {record.id}",
                      f"no usable {key.removesuffix('_id')} has the {key} {getattr(record, key)}", drop)
        if video is None or record.category_id not in categories:
            continue
        visible = _visible_masks(record, video, fault, drop)
        if visible is None:
            continue
        ids.append(record.id)
        rows.append(row_of[record.video_id])
        classes.append(record.category_id)
        frames.extend(frame for frame, _ in visible)
        rles.extend(rle for _, rle in visible)
        start.append(len(frames))
    return {"annotation_id": np.array(ids, np.int64), "annotation_video": np.array(rows, np.int64),
            "annotation_category": np.array(classes, np.int64),
            "mask_start": np.array(start), "mask_frame": np.array(frames, np.int32),
            "rle_start": np.cumsum([0] + [len(rle) for rle in rles]), "rle": np.frombuffer(b"".join(rles), np.uint8)}


def _visible_masks(record, video, fault, drop):
    """One annotation  ->  [(frame, compressed RLE)] of the frames where its mask is not empty; None if it is wrong"""
    name, size, visible, usable = f"annotation {record.id}, video {video.id}", (video.height, video.width), [], True
    given, length = len(record.segmentations), len(video.file_names)
    if given != length:
        fault("bad_segmentation", name, f"{given} segmentations, but the video has {length} frames", drop)
        return None
    for frame, mask in enumerate(record.segmentations):
        if mask is None:
            continue
        try:
            if mask.size != size:
                raise ValueError(f"RLE of size {mask.size}, the video has {size}")
            rle, area = compressed(mask)
        except (ValueError, OverflowError) as error:
            fault("bad_segmentation", f"{name}, frame {frame}", str(error), drop)
            usable = False
            continue
        if area:
            visible.append((frame, rle))
        else:
            fault("empty_mask", f"{name}, frame {frame}", "it has no pixel")
    return visible if usable else None


def raising(path, bad):
    """A `fault` that raises what stops a run, as an error of the file; masks without a pixel stop none."""
    def fault(kind, where, what, drop=None):
        if kind != "empty_mask":
            raise bad(path, f"{where}: {what}")
    return fault


def bad_file(path, what):
    """The ValueError for a data set whose content is wrong: what, where, and how to go on."""
    return ValueError(f"{path}: {what}.\n  Download the file again or repair it.")


def check_size(rows, cols):
    if rows * cols > MAX_PIXELS:
        raise ValueError(f"its size is {rows} x {cols}, more than {MAX_PIXELS} pixels")
