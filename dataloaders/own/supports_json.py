"""Supports annotated with tools that write JSON: LabelMe, one file per image, and COCO, one for all.

In: files from anybody. Out: masks. Polygons are drawn by pycocotools, as those of COCO are everywhere here.
"""
import base64
import binascii
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from dataloaders.datasets.ytvis_json import Rle, compress, fills, rle_counts
from dataloaders.images import MAX_PIXELS, decode, real_path
from dataloaders.json_values import is_file_name, is_size, is_text, read_json, shown

LONGEST_OUTLINE = 2 ** 20    # pixels along all outlines of an image: pycocotools keeps five points for each
CORNERS_OF_CIRCLE = 90
MOST_POINTS = 100_000


@dataclass
class LabelMe:
    """size: (rows, columns) of the image; shapes: [(label, shape_type, the shape's own dict)]"""
    size: tuple
    shapes: list

    @property
    def labels(self):
        return {label for label, *_ in self.shapes}


def bad_file(path, what):
    return ValueError(f"{path}: {what}.\n  Export it again from the tool that wrote it, or use masks as PNG")


def check(condition, path, what):
    if not condition:
        raise bad_file(path, what)


def read_table(path):
    """The file as dicts and lists; every RLE is compressed and looked at as soon as it is read"""
    table = read_json(path, compress, bad_file)
    check(isinstance(table, dict), path, "neither LabelMe nor COCO: expected a JSON object")
    return table


def is_coco(path):
    """Whether the file has COCO's lists; LabelMe's have shapes."""
    table = read_table(path)
    known = {"shapes", "annotations"} & set(table)
    check(known, path, "neither LabelMe (no 'shapes') nor COCO (no 'annotations')")
    return "annotations" in known


# -- LabelMe --------------------------------------------------------------------------------------------------------

def read_labelme(path):
    """LabelMe's .json  ->  LabelMe"""
    table = read_table(path)
    size, shapes = (table.get("imageHeight"), table.get("imageWidth")), table["shapes"]
    check(is_size(size), path, f"imageHeight and imageWidth are {shown(size)}, not those of an image")
    check(isinstance(shapes, list), path, "'shapes' is no list")
    for number, shape in enumerate(shapes):
        check(isinstance(shape, dict) and is_text(shape.get("label")), path, f"shape {number} has no label")
    return LabelMe(size, [(shape["label"], shape.get("shape_type", "polygon"), shape) for shape in shapes])


def labelme_mask(content, category, path):
    """LabelMe, label  ->  (H, W) bool, all shapes of that label together"""
    mask = np.zeros(content.size, bool)
    for number, (label, kind, shape) in enumerate(content.shapes):
        if label != category:
            continue
        where = f"shape {number} ({category})"
        points = point_array(shape.get("points"), where, path)
        if kind == "mask":
            paste(mask, shape.get("mask"), points, where, path)
        else:
            mask |= draw([outline(kind, points, where, path)], content.size, where, path)
    return mask


def point_array(points, where, path):
    """[[x, y], ...]  ->  (points, 2) float64"""
    good = isinstance(points, list) and 0 < len(points) <= MOST_POINTS and all(
        isinstance(p, list) and len(p) == 2 and {type(p[0]), type(p[1])} <= {int, float} for p in points)
    check(good, path, f"{where}: its points are no list of [x, y]")
    try:
        array = np.array(points, np.float64)
    except OverflowError:
        array = np.array([[np.inf, np.inf]])
    check(np.isfinite(array).all(), path, f"{where}: a point is not a finite number")
    return array


def outline(kind, points, where, path):
    """A LabelMe shape with an area  ->  its corners (points, 2)"""
    if kind == "polygon" and len(points) >= 3:
        return points
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if kind == "circle" and len(points) == 2:
        centre, edge = points
        angles = np.linspace(0, 2 * np.pi, CORNERS_OF_CIRCLE, endpoint=False)
        return centre + np.hypot(*(edge - centre)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    raise bad_file(path, f"{where}: a {shown(kind)} of {len(points)} points encloses no area; polygon, rectangle, "
                         "circle and mask do")


def draw(outlines, size, where, path):
    """Corners (points, 2) as x, y, of each outline  ->  (H, W) bool; what lies outside the image is cut off"""
    outlines = [corners.clip(0, size[::-1]) for corners in outlines]
    lengths = [np.abs(c - np.roll(c, 1, axis=0)).max(axis=1).sum() for c in outlines]
    check(sum(lengths) <= LONGEST_OUTLINE, path, f"{where}: outlines of more than {LONGEST_OUTLINE} pixels")
    rles = mask_utils.frPyObjects([corners.reshape(-1) for corners in outlines], *size)
    return mask_utils.decode(mask_utils.merge(rles)).astype(bool)


def paste(mask, text, points, where, path):
    """In place: a PNG in base64 whose upper left corner is at the first point"""
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    part = decode(data, path, cv2.IMREAD_GRAYSCALE)
    check(part is not None, path, f"{where}: its mask is no PNG in base64")
    left, top = points.min(axis=0).round().clip(-MAX_PIXELS, MAX_PIXELS).astype(int).tolist()
    rows, cols = (slice(max(at, 0), max(at + n, 0)) for at, n in zip((top, left), part.shape, strict=True))
    shown_part = part[max(-top, 0):, max(-left, 0):]
    target = mask[rows, cols]
    target |= shown_part[:target.shape[0], :target.shape[1]] > 0


# -- COCO -----------------------------------------------------------------------------------------------------------

def read_coco(path, category):
    """COCO file, name of a category or None  ->  [(path of the image, function that reads its mask)]

    Images without the category are left out. Crowds count as objects: some tools write every brushed mask as one.
    """
    table = read_table(path)
    for key in ("images", "annotations", "categories"):
        check(isinstance(table.get(key), list) and all(isinstance(r, dict) for r in table[key]), path,
              f"no list {key!r} of JSON objects")
    images = {record.get("id"): record for record in table["images"] if type(record.get("id")) is int}
    chosen = category_id(table, category, path)
    regions = {}
    for number, record in enumerate(table["annotations"]):
        if record.get("category_id") == chosen:
            key = record.get("image_id")
            check(type(key) is int and key in images, path, f"annotation {number}: no image has the id {shown(key)}")
            regions.setdefault(key, []).append((number, record.get("segmentation")))
    return [(image_path(images[key], path), partial(coco_mask, images[key], parts, path))
            for key, parts in sorted(regions.items(), key=lambda item: str(images[item[0]].get("file_name")))]


def category_id(table, category, path):
    """Name of the category, or None where only one is used  ->  its id"""
    used = {record.get("category_id") for record in table["annotations"] if type(record.get("category_id")) is int}
    names = {record["id"]: record["name"] for record in table["categories"]
             if type(record.get("id")) is int and is_text(record.get("name"))}
    there = {names[number]: number for number in sorted(used) if number in names}
    check(there, path, "no annotation of a named category")
    if category is None and len(there) == 1:
        return next(iter(there.values()))
    if category not in there:
        listed = ", ".join(list(there)[:20])
        raise ValueError(f"{path}: {len(there)} categories are annotated, none of them named {category!r}: {listed}.\n"
                         "  Name one of them: --category NAME" if category is not None else
                         f"{path}: {len(there)} categories: {listed}.\n  Name the one to segment: --category NAME")
    return there[category]


def image_path(record, path):
    """The image of a COCO record: below the folder of the file, or below images/ there"""
    name = record.get("file_name")
    check(is_file_name(name, 0), path, f"the file name {shown(name)} is none below the folder of this file")
    root = real_path(path.parent)
    for place in (root / name, root / "images" / name):
        if place.is_file():
            check(real_path(place).is_relative_to(root), path, f"{name} leads out of the folder")
            return place
    raise FileNotFoundError(f"{path.parent / name}: no such image, but {path.name} names it.\n"
                            "  Put the images beside the COCO file, or into images/ there")


def coco_mask(record, parts, path):
    """Image record, [(number of the annotation, segmentation)]  ->  (H, W) bool, all of them together"""
    size = record.get("height"), record.get("width")
    check(is_size(size), path, f"{shown(record.get('file_name'))} has height and width {shown(size)}, not an image's")
    mask = np.zeros(size, bool)
    for number, segmentation in parts:
        where = f"annotation {number}"
        if isinstance(segmentation, Rle):
            mask |= unpack(segmentation, size, where, path)
        else:
            check(isinstance(segmentation, list) and segmentation, path, f"{where}: neither polygons nor an RLE")
            mask |= draw([corners(polygon, where, path) for polygon in segmentation], size, where, path)
    return mask


def corners(polygon, where, path):
    """[x, y, x, y, ...]  ->  (points, 2)"""
    good = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
    check(good, path, f"{where}: a polygon is no list of at least three points")
    return point_array([list(pair) for pair in zip(polygon[::2], polygon[1::2], strict=True)], where, path)


def unpack(rle, size, where, path):
    """Rle  ->  (H, W) bool; its runs must fill the image, on which pycocotools does not insist"""
    check(rle.problem is None, path, f"{where}: RLE {rle.problem}")
    counts = rle_counts(np.frombuffer(rle.counts, np.uint8))
    check(tuple(rle.size) == size and fills(counts, size[0] * size[1]), path,
          f"{where}: its RLE does not fill the image's {size[0]} x {size[1]} pixels")
    return mask_utils.decode({"size": list(size), "counts": rle.counts}).astype(bool)
