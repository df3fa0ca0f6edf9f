"""instances_*.json of COCO -> the tables of annotations.py, so that an image reads like a video of one frame.

In: the annotation file. Out: a dict of the arrays named in annotations.TABLES, with one annotation per image and class:
the union of its instances, from polygons and run lengths alike.
"""
import json
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

from dataloaders.datasets.cache import read_cache, write_cache
from dataloaders.datasets.ytvis_json import TABLES, Rle, compress, fills, rle_counts
from dataloaders.images import MAX_PIXELS
from dataloaders.json_values import is_file_name, is_id, is_size, is_text, read_json, shown

LARGEST_SIDE = 65535         # pixels, the most that a JPEG can have
LONGEST_OUTLINE = 2 ** 20    # pixels along all polygons of an object: pycocotools keeps five points for each


def load_tables(path, cache_dir, min_area):
    """The arrays that annotations.TABLES names, one annotation per image and class; parsed once, kept in cache_dir."""
    if cache_dir is None:
        return read_tables(path, min_area)
    stat = path.stat()
    key = json.dumps(["coco", 1, str(path.resolve()), stat.st_size, stat.st_mtime_ns, min_area])
    cache = Path(cache_dir) / f"coco_{path.stem}.npz"
    tables = read_cache(cache, key, TABLES)
    if tables is None:
        tables = read_tables(path, min_area)
        write_cache(cache, key, tables)
    return tables


def read_tables(path, min_area):
    """path of instances_*.json  ->  dict of TABLES; ValueError with the image or annotation at fault"""
    data = read_json(path, _shrink, bad_file)
    for key in ("images", "categories", "annotations"):
        check(isinstance(data, dict) and isinstance(data.get(key), list) and data[key], path,
               f"no list {key!r}, or an empty one")
    images = _by_id(data["images"], "image", ("file_name", "height", "width"), path)
    categories = _by_id(data["categories"], "category", ("name",), path)
    for number, category in categories.items():
        check(is_text(category["name"]), path,
              f"category {number} has the name {shown(category['name'])}, not a short text")
    for number, image in images.items():
        _check_image(number, image, path)
    regions = _regions(data["annotations"], images, categories, path)
    unions = {key: mask_utils.merge(rles) for key, rles in regions.items() if rles is not None}
    return _tables(images, categories, {key: rle for key, rle in unions.items() if mask_utils.area(rle) >= min_area})


def _regions(annotations, images, categories, path):
    """(image id, category id)  ->  RLEs of all its instances, None where one is a crowd"""
    regions = {}
    needed = ("image_id", "category_id", "segmentation")
    for number, record in _by_id(annotations, "annotation", needed, path).items():
        name, key = f"annotation {number}", (record["image_id"], record["category_id"])
        for value, known, kind in zip(key, (images, categories), ("image", "category"), strict=True):
            check(type(value) is int and value in known, path, f"{name}: no {kind} has the id {shown(value)}")
        if record.get("iscrowd"):
            regions[key] = None
        elif regions.setdefault(key, []) is not None:
            regions[key].append(_rle(record["segmentation"], images[key[0]], name, path))
    return regions


def _rle(segmentation, image, name, path):
    """Polygons or a run-length mask  ->  compressed RLE"""
    size = [image["height"], image["width"]]
    if isinstance(segmentation, Rle):
        check(segmentation.problem is None, path, f"{name}: RLE {segmentation.problem}")
        counts = rle_counts(np.frombuffer(segmentation.counts, np.uint8))
        check(segmentation.size == size and fills(counts, size[0] * size[1]), path,
               f"{name}: its RLE does not fill the image's {size[0]} x {size[1]} pixels")
        return {"size": size, "counts": segmentation.counts}
    check(isinstance(segmentation, list) and segmentation, path, f"{name}: neither polygons nor an RLE")
    outlines = [_outline(polygon, size, name, path) for polygon in segmentation]
    check(sum(map(_length, outlines)) <= LONGEST_OUTLINE, path,
          f"{name}: its polygons have outlines of more than {LONGEST_OUTLINE} pixels")
    return mask_utils.merge(mask_utils.frPyObjects(outlines, *size))


def _outline(polygon, size, name, path):
    """[x, y, x, y, ...]  ->  the same within the image: pycocotools walks along every edge, however far it leads"""
    good = isinstance(polygon, np.ndarray) and len(polygon) >= 6 and len(polygon) % 2 == 0
    check(good and np.isfinite(polygon).all(), path, f"{name}: a polygon is no list of at least three points")
    return polygon.reshape(-1, 2).clip(0, size[::-1]).reshape(-1)


def _length(outline):
    """[x, y, x, y, ...]  ->  the pixels along its edges, the one back to its beginning included"""
    points = outline.reshape(-1, 2)
    return np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()


def _tables(images, categories, unions):
    """dict of TABLES: images are videos of one frame; every mask is that of frame 0"""
    rows = {number: row for row, number in enumerate(images)}
    names, rles = [image["file_name"].encode() for image in images.values()], [rle["counts"] for rle in unions.values()]
    size = np.array([(image["height"], image["width"]) for image in images.values()])
    return {
        "category_id": np.array(list(categories)),
        "category_name": np.array([str(category["name"]) for category in categories.values()]),
        "video_id": np.array(list(images)), "video_rows": size[:, 0], "video_cols": size[:, 1],
        "file_start": np.arange(len(images) + 1), "file_name": np.array(names),
        "annotation_id": np.arange(len(unions)),
        "annotation_video": np.array([rows[image] for image, _ in unions], np.int64),
        "annotation_category": np.array([category for _, category in unions], np.int64),
        "mask_start": np.arange(len(unions) + 1), "mask_frame": np.zeros(len(unions), np.int32),
        "rle_start": np.cumsum([0] + [len(rle) for rle in rles]), "rle": np.frombuffer(b"".join(rles), np.uint8)}


def _shrink(record):
    """json's object hook: every RLE compressed, every polygon an array, which takes a tenth of a list's memory."""
    polygons = record.get("segmentation")
    if isinstance(polygons, list):
        record["segmentation"] = [_array(polygon) for polygon in polygons]
    return compress(record)


def _array(polygon):
    """A list of numbers  ->  array; anything else stays and is found later, with its annotation's name"""
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        return polygon
    try:
        return np.array(polygon, np.float64)
    except OverflowError:
        return polygon


def _by_id(records, kind, keys, path):
    """Records by their integer ids, in file order; each has its keys."""
    found = {}
    for position, record in enumerate(records):
        name = f"{kind} number {position}"
        check(isinstance(record, dict), path, f"{name} is no JSON object")
        for key in ("id", *keys):
            check(key in record, path, f"{name} (id {shown(record.get('id'))}) has no {key!r}")
        check(is_id(record["id"]), path, f"{name} has the id {shown(record['id'])}, which is no integer of 64 bits")
        check(record["id"] not in found, path, f"{kind} id {record['id']} occurs twice")
        found[record["id"]] = record
    return found


def _check_image(number, image, path):
    """Its size and a file name below the image folder."""
    size, file = (image["height"], image["width"]), image["file_name"]
    check(is_size(size) and max(size) <= LARGEST_SIDE, path, f"image {number} has height and width {shown(size)}, "
          f"not those of an image of at most {MAX_PIXELS} pixels and sides of at most {LARGEST_SIDE}")
    check(is_file_name(file, 0), path,
          f"image {number} has the file name {shown(file)}; expected a name below the image folder")


def check(condition, path, what):
    if not condition:
        raise bad_file(path, what)


def bad_file(path, what):
    return ValueError(f"{path}: {what}.\n  Download the file again or repair it; the originals are at cocodataset.org")
