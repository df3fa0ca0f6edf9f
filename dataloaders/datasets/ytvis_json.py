"""train.json of YouTube-VIS -> small tables of NumPy arrays, checked once and kept in a cache.

In: the annotation file. Out: a dict of the arrays named in TABLES. Masks become compressed RLE strings in one blob,
since the file itself (130 MB of run lengths) takes many seconds and a lot of memory to read; arrays, unlike lists of
objects, are also shared between loader processes without being copied.
"""
import hashlib
import json
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated

import msgspec
import numpy as np

from dataloaders.datasets.cache import cached
from dataloaders.datasets.rle import RunLengths, compressed
from dataloaders.images import MAX_PIXELS
from dataloaders.json_values import Id, Side, Text, file_names, read_typed, records, shown

CACHE_VERSION = 3            # raise it whenever a table changes its meaning
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


class Picture(msgspec.Struct):
    """What says how large an image is."""
    height: Side
    width: Side

    def __post_init__(self):
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(f"its size is {self.height} x {self.width}, more than {MAX_PIXELS} pixels")

    @property
    def size(self):
        return self.height, self.width


class Video(Picture):
    id: Id
    file_names: Annotated[list[Text], msgspec.Meta(min_length=1)]

    def __post_init__(self):
        super().__post_init__()
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
    return cached_tables("ytvis", path, cache_dir, partial(read_tables, path))


def cached_tables(kind, path, cache_dir, read, *settings):
    """The TABLES of an annotation file, read once for each of its states and settings"""
    stat, place = path.stat(), str(path.resolve())
    key = json.dumps([CACHE_VERSION, place, stat.st_size, stat.st_mtime_ns, *settings])
    return cached(cache_dir, f"{kind}_{hashlib.sha256(place.encode()).hexdigest()[:16]}", key, TABLES, read)


def read_tables(path, fault=None):
    """path of train.json  ->  dict of TABLES

    fault(kind, where, what, drop): is told of every record that cannot be used, which is left out; None: the first one
    raises a ValueError. drop: (list of the file, position).
    """
    document, fault = read_typed(path, Document, bad_file), fault or raising(path, bad_file)
    categories = read_categories(document.categories, fault)
    videos = distinct(document.videos, Video, "videos", "folder", ("video", "shared_folder", "has the folder"), fault)
    found = _masks_of(document.annotations, videos, categories, fault)
    return {**category_tables(categories), **video_tables(videos), **annotation_tables(found, videos)}


def read_categories(raws, fault):
    """Undecoded records  ->  {id: name}, ascending; names are those of results, so that each has one category"""
    found = distinct(raws, Category, "categories", "name", ("category", "duplicate_name", "is called"), fault)
    return {number: found[number].name for number in sorted(found)}


def distinct(raws, kind, name, field, words, fault):
    """Undecoded records of the list `name`  ->  {id: record}; no two of them may have the same value of `field`"""
    found, owner, (one, wrong, has) = {}, {}, words
    for position, record in records(raws, kind, name, fault):
        value = getattr(record, field)
        if value in owner:
            fault(wrong, f"{one} {record.id}", f"{one} {owner[value]} {has} {shown(value)}, too", (name, position))
        else:
            owner[value], found[record.id] = record.id, record
    return found


def category_tables(categories):
    return {"category_id": np.array(list(categories), np.int64),
            "category_name": np.array(list(categories.values()), str)}


def video_tables(videos):
    """{id: what has a size and file_names}  ->  the tables of videos"""
    names = [file.encode("utf-8") for video in videos.values() for file in video.file_names]
    rows, cols = np.array([video.size for video in videos.values()], np.int64).reshape(-1, 2).T
    return {"video_id": np.array(list(videos), np.int64), "video_rows": rows, "video_cols": cols,
            "file_start": np.cumsum([0, *(len(video.file_names) for video in videos.values())]),
            "file_name": np.array(names, bytes)}


def annotation_tables(found, videos):
    """(id, id of the video, id of the category, [(frame, compressed RLE)]) of each, {id: video}  ->  their tables"""
    row_of, ids, rows, classes = {number: row for row, number in enumerate(videos)}, [], [], []
    start, frames, rles = [0], [], []
    for number, video, category, masks in found:
        ids.append(number)
        rows.append(row_of[video])
        classes.append(category)
        frames += [frame for frame, _ in masks]
        rles += [rle for _, rle in masks]
        start.append(len(frames))
    return {"annotation_id": np.array(ids, np.int64), "annotation_video": np.array(rows, np.int64),
            "annotation_category": np.array(classes, np.int64),
            "mask_start": np.array(start), "mask_frame": np.array(frames, np.int32),
            "rle_start": np.cumsum([0, *map(len, rles)]), "rle": np.frombuffer(b"".join(rles), np.uint8)}


def known_annotations(raws, kind, fault, **known):
    """Undecoded records, their type, `fault`, video=videos, ...  ->  (record, drop) of those that name what is there"""
    for position, record in records(raws, kind, "annotations", fault):
        drop = "annotations", position
        unknown = [name for name, there in known.items() if getattr(record, f"{name}_id") not in there]
        for name in unknown:
            fault(f"unknown_{name}", f"annotation {record.id}",
                  f"no usable {name} has the {name}_id {getattr(record, f'{name}_id')}", drop)
        if not unknown:
            yield record, drop


def _masks_of(raws, videos, categories, fault):
    """Undecoded annotations  ->  what annotation_tables takes, one by one"""
    for record, drop in known_annotations(raws, Annotation, fault, video=videos, category=categories):
        visible = _visible_masks(record, videos[record.video_id], fault, drop)
        if visible is not None:
            yield record.id, record.video_id, record.category_id, visible


def _visible_masks(record, video, fault, drop):
    """One annotation  ->  [(frame, compressed RLE)] of the frames where its mask is not empty; None if it is wrong"""
    name, visible, usable = f"annotation {record.id}, video {video.id}", [], True
    given, length = len(record.segmentations), len(video.file_names)
    if given != length:
        fault("bad_segmentation", name, f"{given} segmentations, but the video has {length} frames", drop)
        return None
    for frame, mask in enumerate(record.segmentations):
        if mask is None:
            continue
        try:
            if mask.size != video.size:
                raise ValueError(f"RLE of size {mask.size}, the video has {video.size}")
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
