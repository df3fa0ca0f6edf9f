"""instances_*.json of COCO -> the tables of ytvis_json.py, so that an image reads like a video of one frame.

In: the annotation file. Out: a dict of the arrays named in ytvis_json.TABLES, with one annotation per image and class:
the union of its instances, from polygons and run lengths alike.
"""
import json
from pathlib import Path

import msgspec
import numpy as np
from pycocotools import mask as mask_utils

from dataloaders.datasets.cache import read_cache, write_cache
from dataloaders.datasets.rle import RunLengths, compressed
from dataloaders.datasets.ytvis_json import TABLES, category_tables, check_size, raising, read_categories
from dataloaders.json_values import Id, Side, Text, file_names, read_typed, records

LONGEST_OUTLINE = 2 ** 20    # pixels along all polygons of an object: pycocotools keeps five points for each


class Image(msgspec.Struct):
    id: Id
    height: Side
    width: Side
    file_name: Text

    def __post_init__(self):
        check_size(self.height, self.width)
        self.file_name, = file_names([self.file_name], folders=0)


class Annotation(msgspec.Struct):
    id: Id
    image_id: Id
    category_id: Id
    segmentation: list[list[float]] | RunLengths
    iscrowd: bool | int | None = None


class Document(msgspec.Struct):
    """Records are decoded one by one, so that polygons never pile up and a bad one hides no other."""
    images: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw]


def load_tables(path, cache_dir, min_area):
    """The arrays that ytvis_json.TABLES names, one annotation per image and class; parsed once, kept in cache_dir."""
    if cache_dir is None:
        return read_tables(path, min_area)
    stat = path.stat()
    key = json.dumps(["coco", 2, str(path.resolve()), stat.st_size, stat.st_mtime_ns, min_area])
    cache = Path(cache_dir) / f"coco_{path.stem}.npz"
    tables = read_cache(cache, key, TABLES)
    if tables is None:
        tables = read_tables(path, min_area)
        write_cache(cache, key, tables)
    return tables


def read_tables(path, min_area, fault=None):
    """path of instances_*.json, pixels that a mask needs, `fault` as in ytvis_json  ->  dict of TABLES"""
    document, fault = read_typed(path, Document, bad_file), fault or raising(path, bad_file)
    categories = read_categories(document.categories, fault)
    images, names = {}, {}
    for position, image in records(document.images, Image, "images", fault):
        if names.setdefault(image.file_name, image.id) != image.id:
            fault("duplicate_file_name", f"image {image.id}",
                  f"image {names[image.file_name]} has the file {image.file_name!r}, too", ("images", position))
        else:
            images[image.id] = image
    unions = {}
    for key, parts in _regions(document.annotations, images, categories, fault).items():
        size = [images[key[0]].height, images[key[0]].width]
        union = mask_utils.merge([{"size": size, "counts": part} for part in parts])
        if mask_utils.area(union) >= min_area:
            unions[key] = union["counts"]
    return {**category_tables(categories), **_tables(images, unions)}


def _regions(raws, images, categories, fault):
    """(image id, category id)  ->  compressed strings of all its instances; a crowd's class is left out of its image"""
    regions, crowds = {}, set()
    for position, record in records(raws, Annotation, "annotations", fault):
        key, drop = (record.image_id, record.category_id), ("annotations", position)
        unknown = [(kind, value) for value, there, kind in zip(key, (images, categories), ("image", "category"),
                                                               strict=True) if value not in there]
        for kind, value in unknown:
            fault(f"unknown_{kind}", f"annotation {record.id}", f"no usable {kind} has the id {value}", drop)
        if unknown:
            continue
        try:
            region = region_of(record.segmentation, images[key[0]])
        except (ValueError, OverflowError) as error:
            fault("bad_segmentation", f"annotation {record.id}, image {key[0]}", str(error), drop)
            continue
        if record.iscrowd:
            crowds.add(key)
        else:
            regions.setdefault(key, []).append(region)
    return {key: parts for key, parts in regions.items() if key not in crowds}


def region_of(segmentation, image):
    """Polygons or a run-length mask  ->  compressed string; ValueError with what is wrong"""
    size = (image.height, image.width)
    if isinstance(segmentation, RunLengths):
        if segmentation.size != size:
            raise ValueError(f"RLE of size {segmentation.size}, the image has {size}")
        return compressed(segmentation)[0]
    if not segmentation:
        raise ValueError("a box without a mask: 'segmentation' is empty")
    outlines = [_outline(polygon, size) for polygon in segmentation]
    if sum(map(_length, outlines)) > LONGEST_OUTLINE:
        raise ValueError(f"its polygons have outlines of more than {LONGEST_OUTLINE} pixels")
    return mask_utils.merge(mask_utils.frPyObjects(outlines, *size))["counts"]


def _outline(polygon, size):
    """[x, y, x, y, ...]  ->  the same within the image: pycocotools walks along every edge, however far it leads"""
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError("a polygon is no list of at least three points")
    return np.array(polygon).reshape(-1, 2).clip(0, size[::-1]).reshape(-1)


def _length(outline):
    """[x, y, x, y, ...]  ->  the pixels along its edges, the one back to its beginning included"""
    points = outline.reshape(-1, 2)
    return np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()


def _tables(images, unions):
    """dict of TABLES: images are videos of one frame; every mask is that of frame 0"""
    row_of, rles = {number: row for row, number in enumerate(images)}, list(unions.values())
    return {
        "video_id": np.array(list(images), np.int64),
        "video_rows": np.array([image.height for image in images.values()], np.int64),
        "video_cols": np.array([image.width for image in images.values()], np.int64),
        "file_start": np.arange(len(images) + 1),
        "file_name": np.array([image.file_name.encode("utf-8") for image in images.values()], bytes),
        "annotation_id": np.arange(len(unions)),
        "annotation_video": np.array([row_of[image] for image, _ in unions], np.int64),
        "annotation_category": np.array([category for _, category in unions], np.int64),
        "mask_start": np.arange(len(unions) + 1), "mask_frame": np.zeros(len(unions), np.int32),
        "rle_start": np.cumsum([0] + [len(rle) for rle in rles]), "rle": np.frombuffer(b"".join(rles), np.uint8)}


def bad_file(path, what):
    return ValueError(f"{path}: {what}.\n  Download the file again or repair it; the originals are at cocodataset.org")
