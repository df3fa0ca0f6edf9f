"""train.json of YouTube-VIS -> small tables of NumPy arrays, checked once and kept in a cache.

In: the annotation file. Out: a dict of the arrays named in TABLES. Masks become compressed RLE strings in one blob,
since the file itself (130 MB of run lengths) takes many seconds and a lot of memory to read; arrays, unlike lists of
objects, are also shared between loader processes without being copied.
"""
import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from pycocotools import mask as mask_utils

from dataloaders.datasets.cache import read_cache, write_cache
from dataloaders.images import MAX_PIXELS
from dataloaders.json_values import is_file_name, is_id, is_size, is_text, read_json, shown

CACHE_VERSION = 1            # raise it whenever a table changes its meaning
TABLES = (
    "category_id", "category_name",                               # (categories,)
    "video_id", "video_rows", "video_cols",                       # (videos,)
    "file_start", "file_name",                                    # (videos + 1,), (all frames,) bytes
    "annotation_id", "annotation_video", "annotation_category",   # (annotations,): own id, row of video_id, category id
    "mask_start", "mask_frame",                                   # (annotations + 1,), (masks that are not empty,)
    "rle_start", "rle",                                           # (masks + 1,), (all bytes,)
)


class Rle(NamedTuple):
    """One mask as the file gives it, already compressed; `problem` says what is wrong with it."""
    size: list = None
    counts: bytes = b""
    area: int = 0
    problem: str = None


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


def read_tables(path):
    """path of train.json  ->  dict of TABLES; ValueError with the video or annotation at fault."""
    data = read_json(path, compress, bad_file)
    _check(isinstance(data, dict), path, "the top level is no JSON object")
    for key in ("videos", "categories", "annotations"):
        _check(isinstance(data.get(key), list) and data[key], path,
               f"no list {key!r}, or an empty one (only the train split of YouTube-VIS carries annotations)")
    tables = {**_categories(data["categories"], path), **_videos(data["videos"], path)}
    return {**tables, **_annotations(data["annotations"], tables, path)}


def rle_counts(rle):
    """The run lengths of a compressed COCO RLE: background, foreground, background, ...

    rle: (bytes,) uint8  ->  (runs,) int64. Each value is base 32, low digits first, with a continuation bit and a sign;
    from the fourth on it is the difference to the value before the last one.
    """
    digits = rle.astype(np.int64) - 48
    last = (digits & 32) == 0
    start = np.flatnonzero(np.concatenate([[True], last[:-1]])) if len(digits) else np.zeros(0, np.int64)
    place = np.arange(len(digits)) - np.repeat(start, np.diff(np.append(start, len(digits))))
    if len(digits) == 0 or not last[-1] or place.max() > 10:
        return np.zeros(0, np.int64)                                  # no valid string: its sum fits no image
    counts = np.add.reduceat((digits & 31) << 5 * place, start)
    ends = np.flatnonzero(last)
    counts -= ((digits[ends] & 16) != 0) * (np.int64(1) << 5 * (place[ends] + 1))
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts


def fills(counts, pixels):
    """Whether run lengths cover an image, no more and no less.

    counts: (runs,) int64. Their sum alone says nothing: absurd ones overflow, so that it may be right by design.
    """
    return len(counts) > 0 and counts.min() >= 0 and counts.max() <= pixels and counts.sum() == pixels


def bad_file(path, what):
    """The ValueError for a data set whose content is wrong: what, where, and how to go on."""
    return ValueError(f"{path}: {what}.\n  Download the file again or repair it.")


def _check(condition, path, what):
    if not condition:
        raise bad_file(path, what)


def compress(record):
    """json's object hook: {"size", "counts"}  ->  Rle; every other object passes."""
    if "counts" not in record:
        return record
    size, counts = record.get("size"), record["counts"]
    if not is_size(size):
        return Rle(problem=f"size {shown(size)} is not [rows, columns] of at most {MAX_PIXELS} pixels")
    if isinstance(counts, str):
        return _from_string(size, counts)
    if isinstance(counts, list) and set(map(type, counts)) <= {int}:
        return _from_list(size, counts)
    return Rle(size, problem="counts are neither a string nor a list of integers")


def _from_string(size, counts):
    """A compressed RLE. pycocotools reads past the end of a string that stops within a number: looked at first."""
    rle = counts.encode("utf-8", errors="surrogatepass")
    if rle and (min(rle) < 48 or max(rle) > 111 or (rle[-1] - 48) & 32):
        return Rle(size, problem="counts are no compressed RLE string")
    return Rle(size, rle, int(mask_utils.area({"size": size, "counts": rle})))


def _from_list(size, counts):
    """Uncompressed run lengths, as in the official file."""
    total, pixels = sum(counts), size[0] * size[1]
    if total != pixels or min(counts) < 0:
        return Rle(size, problem=f"counts sum up to {shown(total)}, not to {pixels} = {size[0]} x {size[1]}, or are "
                                 "negative")
    rle = mask_utils.frPyObjects({"size": size, "counts": counts}, *size)["counts"]
    return Rle(size, rle, sum(counts[1::2]))


def _records(records, kind, keys, path):
    """Checks that each record has its keys and an integer id of its own; yields (record, its name in errors)."""
    seen = set()
    for number, record in enumerate(records):
        name = f"{kind} number {number}"
        _check(isinstance(record, dict), path, f"{name} is no JSON object")
        for key in ("id", *keys):
            _check(key in record, path, f"{name} (id {shown(record.get('id'))}) has no {key!r}")
        _check(is_id(record["id"]), path, f"{name} has id {shown(record['id'])}, not an integer of 64 bits")
        _check(record["id"] not in seen, path, f"{kind} id {record['id']} occurs twice")
        seen.add(record["id"])
        yield record, f"{kind} {record['id']}"


def _categories(records, path):
    rows = []
    for record, name in _records(records, "category", ["name"], path):
        _check(is_text(record["name"]), path, f"{name} has the name {shown(record['name'])}, not a short text")
        rows.append((record["id"], record["name"]))
    rows.sort()
    return {"category_id": np.array([r[0] for r in rows]), "category_name": np.array([r[1] for r in rows])}


def _videos(records, path):
    ids, sizes, names, start, folders = [], [], [], [0], set()
    for record, name in _records(records, "video", ["height", "width", "file_names"], path):
        size = (record["height"], record["width"])
        _check(is_size(size), path, f"{name} has height and width {shown(size)}, not those of an image of at most "
                                    f"{MAX_PIXELS} pixels")
        files = record["file_names"]
        _check(isinstance(files, list) and files, path, f"{name} has no file names")
        for file in files:
            _check(is_file_name(file, 1), path, f"{name} has the file name {shown(file)}; expected "
                                                "<video folder>/<frame>.jpg, below JPEGImages/")
        folder = str(PurePosixPath(files[0]).parent)
        _check(folder not in folders, path, f"{name}: another video has the folder {shown(folder)}, too")
        folders.add(folder)
        ids.append(record["id"])
        sizes.append(size)
        names.extend(file.encode("utf-8") for file in files)
        start.append(len(names))
    rows, cols = np.array(sizes).T
    return {"video_id": np.array(ids), "video_rows": rows, "video_cols": cols,
            "file_start": np.array(start), "file_name": np.array(names)}


def _annotations(records, tables, path):
    row_of = {int(video): row for row, video in enumerate(tables["video_id"])}
    categories = set(tables["category_id"].tolist())
    ids, videos, classes, frames, rles, start = [], [], [], [], [], [0]
    for record, name in _records(records, "annotation", ["video_id", "category_id", "segmentations"], path):
        for key, known in (("video_id", row_of), ("category_id", categories)):
            _check(type(record[key]) is int and record[key] in known, path,
                   f"{name} has the {key} {shown(record[key])}, which is not listed")
        row = row_of[record["video_id"]]
        visible = _visible_masks(record, name, row, tables, path)
        ids.append(record["id"])
        videos.append(row)
        classes.append(record["category_id"])
        frames.extend(frame for frame, _ in visible)
        rles.extend(rle for _, rle in visible)
        start.append(len(frames))
    return {"annotation_id": np.array(ids), "annotation_video": np.array(videos),
            "annotation_category": np.array(classes),
            "mask_start": np.array(start), "mask_frame": np.array(frames, np.int32),
            "rle_start": np.cumsum([0] + [len(rle) for rle in rles]), "rle": np.frombuffer(b"".join(rles), np.uint8)}


def _visible_masks(record, name, row, tables, path):
    """One annotation  ->  [(frame, compressed RLE)] of the frames in which its mask is not empty."""
    masks = record["segmentations"]
    length = int(tables["file_start"][row + 1] - tables["file_start"][row])
    size = [int(tables["video_rows"][row]), int(tables["video_cols"][row])]
    video, given = f"video {record['video_id']}", len(masks) if isinstance(masks, list) else "no list of"
    _check(given == length, path, f"{name} has {given} segmentations, but {video} has {length} frames")
    visible = []
    for frame, mask in enumerate(masks):
        if mask is None:
            continue
        where = f"{name}, {video}, frame {frame}"
        _check(isinstance(mask, Rle), path, f"{where}: the segmentation is neither null nor an RLE")
        _check(mask.problem is None, path, f"{where}: RLE {mask.problem}")
        _check(mask.size == size, path, f"{where}: RLE of size {mask.size}, the video has {size}")
        if mask.area > 0:
            visible.append((frame, mask.counts))
    return visible
