"""instances_*.json of COCO -> the tables of ytvis_json.py, so that an image reads like a video of one frame.

In: the annotation file. Out: a dict of the arrays named in ytvis_json.TABLES, with one annotation per image and class:
the union of its instances, from polygons and run lengths alike.
"""
from functools import partial

import msgspec
import numpy as np
from pycocotools import mask as mask_utils

from dataloaders.datasets.rle import RunLengths, compressed
from dataloaders.datasets.ytvis_json import (
    Picture,
    annotation_tables,
    bad_file,
    cached_tables,
    category_tables,
    distinct,
    known_annotations,
    raising,
    read_categories,
    video_tables,
)
from dataloaders.json_values import Id, Text, file_names, read_typed

LONGEST_OUTLINE = 2 ** 20    # pixels along all polygons of an object: pycocotools keeps five points for each


class Image(Picture):
    id: Id
    file_name: Text

    def __post_init__(self):
        super().__post_init__()
        self.file_name, = file_names([self.file_name], folders=0)

    @property
    def file_names(self):
        return [self.file_name]


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
    return cached_tables("coco", path, cache_dir, partial(read_tables, path, min_area), min_area)


def read_tables(path, min_area, fault=None):
    """path of instances_*.json, pixels that a mask needs, `fault` as in ytvis_json  ->  dict of TABLES"""
    document, fault = read_typed(path, Document, bad_file), fault or raising(path, bad_file)
    categories = read_categories(document.categories, fault)
    images = distinct(document.images, Image, "images", "file_name", ("image", "duplicate_file_name", "has the file"),
                      fault)
    found = _unions(_regions(document.annotations, images, categories, fault), images, min_area)
    return {**category_tables(categories), **video_tables(images), **annotation_tables(found, images)}


def _unions(regions, images, min_area):
    """What _regions gives  ->  what annotation_tables takes, one by one: masks of frame 0"""
    number = 0
    for (image, category), parts in regions.items():
        union = mask_utils.merge([{"size": list(images[image].size), "counts": part} for part in parts])
        if mask_utils.area(union) >= min_area:
            yield number, image, category, [(0, union["counts"])]
            number += 1


def _regions(raws, images, categories, fault):
    """(image id, category id)  ->  compressed strings of all its instances; a crowd's class is left out of its image"""
    regions, crowds = {}, set()
    for record, drop in known_annotations(raws, Annotation, fault, image=images, category=categories):
        key = record.image_id, record.category_id
        try:
            region = region_of(record.segmentation, images[key[0]].size)
        except (ValueError, OverflowError) as error:
            fault("bad_segmentation", f"annotation {record.id}, image {key[0]}", str(error), drop)
            continue
        if record.iscrowd:
            crowds.add(key)
        else:
            regions.setdefault(key, []).append(region)
    return {key: parts for key, parts in regions.items() if key not in crowds}


def region_of(segmentation, size):
    """Polygons or a run-length mask, (rows, columns)  ->  compressed string; ValueError with what is wrong"""
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
