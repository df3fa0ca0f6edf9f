"""Supports annotated with tools that write JSON: LabelMe, one file per image, and COCO, one for all.

In: files from anybody. Out: masks. Polygons and run lengths are drawn as those of the data set COCO are.
"""
import base64
import binascii
import logging
import unicodedata
from collections import Counter
from functools import partial
from pathlib import PurePosixPath

import msgspec
import numpy as np
from pycocotools import mask as mask_utils

from dataloaders.datasets import coco_json
from dataloaders.datasets.rle import RunLengths
from dataloaders.datasets.ytvis_json import Picture
from dataloaders.images import MAX_PIXELS, numbers, real_path
from dataloaders.json_values import Side, Text, in_words, read_typed, shown
from dataloaders.mask_values import is_object

log = logging.getLogger(__name__)

CORNERS_OF_CIRCLE = 90


class Shape(msgspec.Struct):
    label: Text
    points: list[tuple[float, float]]                        # x, y
    shape_type: str = "polygon"
    mask: str | None = None


class LabelMe(Picture):
    """What a LabelMe file says of its image."""
    height: Side = msgspec.field(name="imageHeight")
    width: Side = msgspec.field(name="imageWidth")
    shapes: list[Shape]

    @property
    def labels(self):
        return {shape.label for shape in self.shapes}


AnyId = int | str | float                                    # as tools write it: 1, "1", 1.0


def same(number):
    """Ids of all three kinds are one id."""
    return str(int(number) if isinstance(number, float) and number.is_integer() else number)


class Image(coco_json.Image):
    id: AnyId


class Annotation(msgspec.Struct):
    image_id: AnyId
    category_id: AnyId
    segmentation: msgspec.Raw = msgspec.Raw(b"null")

    def __post_init__(self):
        self.image_id, self.category_id = same(self.image_id), same(self.category_id)


class Category(msgspec.Struct):
    id: AnyId
    name: Text


class Coco(msgspec.Struct):
    """What a COCO file says; annotations are decoded one by one, their regions when they are drawn."""
    images: list[Image]
    categories: list[Category]
    annotations: list[msgspec.Raw]


class Either(msgspec.Struct):
    shapes: list[msgspec.Raw] | None = None
    annotations: list[msgspec.Raw] | None = None


def bad_file(path, what):
    return ValueError(f"{path}: {what}.\n  Export it again from the tool that wrote it, or use masks as PNG")


def is_coco(path):
    """Whether the file has COCO's lists; LabelMe's have shapes."""
    found = read_typed(path, Either, bad_file)
    if found.shapes is None and found.annotations is None:
        raise bad_file(path, "neither LabelMe (no 'shapes') nor COCO (no 'annotations')")
    return found.annotations is not None


def chosen_label(labels, category, where):
    """Names of what is annotated there, the one asked for or None  ->  that one, or the only one"""
    listed = ", ".join(labels[:20])
    if not labels:
        raise ValueError(f"{where}: nothing is annotated.\n  Mark the object, and save again")
    if category is None and len(labels) != 1:
        raise ValueError(f"{where}: {len(labels)} labels: {listed}.\n  Name the one to segment: --category NAME")
    if category not in (None, *labels):
        raise ValueError(f"--category {category}: {where} has only {listed}.\n  Name one of them")
    return labels[0] if category is None else category


# -- LabelMe --------------------------------------------------------------------------------------------------------

def read_labelme(path):
    """LabelMe's .json  ->  LabelMe"""
    return read_typed(path, LabelMe, bad_file)


def labelme_mask(content, category, path):
    """LabelMe, label  ->  (H, W) bool, all shapes of that label together"""
    mask = np.zeros(content.size, bool)
    for number, shape in enumerate(content.shapes):
        if shape.label == category:
            try:
                if shape.shape_type == "mask":
                    paste(mask, shape, path)
                else:
                    mask |= unpacked(coco_json.region_of([outline(shape).ravel()], mask.shape), mask.shape)
            except ValueError as error:
                raise bad_file(path, f"shape {number} ({category}): {error}") from None
    return mask


def outline(shape):
    """A shape with an area  ->  its corners (points, 2)"""
    points, kind = np.array(shape.points).reshape(-1, 2).clip(-MAX_PIXELS, MAX_PIXELS), shape.shape_type
    if kind == "rectangle" and len(points) >= 2:                  # two corners, or all four in any order
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        if ((points == [left, top]) | (points == [right, bottom])).all():
            return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if kind in ("polygon", "rectangle", "rotation", "quadrilateral") and len(points) >= 3:
        return points
    if kind == "circle" and len(points) == 2:
        centre, edge = points
        angles = np.linspace(0, 2 * np.pi, CORNERS_OF_CIRCLE, endpoint=False)
        return centre + np.hypot(*(edge - centre)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    raise ValueError(f"a {shown(kind)} of {len(points)} points encloses no area; polygon, rectangle, circle and mask "
                     "do")


def paste(mask, shape, path):
    """In place: a PNG in base64 whose upper left corner is at the first point"""
    try:
        part = numbers(base64.b64decode(shape.mask or "", validate=True), path)
    except (binascii.Error, ValueError):
        part = None
    if part is None or part.ndim != 2 or not shape.points:
        raise ValueError("its mask is no PNG in base64 at a point")
    part = is_object(part, path)
    left, top = np.min(shape.points, axis=0).round().clip(-MAX_PIXELS, MAX_PIXELS).astype(int).tolist()
    rows, cols = (slice(max(at, 0), max(at + n, 0)) for at, n in zip((top, left), part.shape, strict=True))
    target, part = mask[rows, cols], part[max(-top, 0):, max(-left, 0):]
    target |= part[:target.shape[0], :target.shape[1]]


def unpacked(rle, size):
    """A compressed string  ->  (H, W) bool"""
    return mask_utils.decode({"size": list(size), "counts": rle}).astype(bool)


# -- COCO -----------------------------------------------------------------------------------------------------------

def read_coco(path, category):
    """COCO file, name of a category or None  ->  [(path of the image, function that reads its mask)]

    Images without the category are left out, and objects with a box alone. Crowds count as objects: some tools write
    every brushed mask as one.
    """
    content = read_typed(path, Coco, bad_file)
    images = by_id(content.images, "image", path)
    records = [decoded(raw, Annotation, number, path) for number, raw in enumerate(content.annotations)]
    chosen, regions, boxes = category_ids(content.categories, records, category, path), {}, []
    for number, record in enumerate(records):
        if record.category_id not in chosen:
            continue
        if record.image_id not in images:
            raise bad_file(path, f"annotation {number}: no image has the id {record.image_id[:80]}")
        if bytes(record.segmentation).translate(None, b" \n\r\t") not in (b"null", b"[]", b"[[]]"):
            regions.setdefault(record.image_id, []).append((number, record.segmentation))
        else:
            boxes.append(number)
    if boxes and not regions:
        raise bad_file(path, f"annotation {boxes[0]} is a box without a mask, as are all others of its category")
    if boxes:
        log.warning("%s: %d objects are boxes without a mask (annotation %d and so on) and left out: they count as "
                    "background", path, len(boxes), boxes[0])
    lying = files_by_last_name(content.images, path)
    return sorted(((image_path(images[key], path, lying), partial(coco_mask, images[key], parts, path))
                   for key, parts in regions.items()), key=lambda found: str(found[0]))


def by_id(records, name, path):
    """Records  ->  {id: record}; ValueError where two share one, since nobody knows which of them is meant"""
    found = {}
    for record in records:
        if found.setdefault(same(record.id), record) != record:
            raise bad_file(path, f"two entries of the {name} list have the id {shown(record.id)}")
    return found


def decoded(raw, kind, number, path):
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise bad_file(path, f"annotation {number}: {in_words(error)}") from None


def category_ids(categories, records, category, path):
    """Name of the category, or None where only one is used  ->  its ids: exports that were merged give it several"""
    used, there = {record.category_id for record in records}, {}
    for number, one in by_id(categories, "category", path).items():
        if number in used:
            there.setdefault(one.name, set()).add(number)
    if not there:
        raise bad_file(path, "no annotation of a named category")
    return there[chosen_label(list(there), category, path)]


def image_path(image, path, lying):
    """The image of a COCO record: below the folder of the file, or below images/ there, or what `lying` knows"""
    root = real_path(path.parent)
    for place in (root / image.file_name, root / "images" / image.file_name, lying.get(last_name(image.file_name))):
        if place and place.is_file():
            if not real_path(place).is_relative_to(root):
                raise bad_file(path, f"{image.file_name} leads out of the folder")
            return place
    raise FileNotFoundError(f"{path.parent / image.file_name}: no such image, but {path.name} names it.\n"
                            "  Put the images beside the COCO file, or into images/ there")


def files_by_last_name(images, path):
    """COCO records of images, their file  ->  {last name: the only file that has it}, without names that two share

    Folders that stay behind when files are moved, and letters that another system writes otherwise, do not count.
    """
    found, named = {}, Counter(last_name(image.file_name) for image in images)
    for folder in (real_path(path.parent), real_path(path.parent) / "images"):
        for file in folder.iterdir() if folder.is_dir() else ():
            found.setdefault(last_name(file.name), []).append(file)
    return {name: files[0] for name, files in found.items() if len(files) == named[name] == 1}


def last_name(name):
    return unicodedata.normalize("NFC", PurePosixPath(name).name).casefold()


def coco_mask(image, parts, path):
    """Image, [(number of the annotation, undecoded segmentation)]  ->  (H, W) bool, all of them together"""
    mask = np.zeros(image.size, bool)
    for number, raw in parts:
        segmentation = decoded(raw, list[list[float]] | RunLengths, number, path)
        try:
            mask |= unpacked(coco_json.region_of(segmentation, image.size), image.size)
        except (ValueError, OverflowError) as error:
            raise bad_file(path, f"annotation {number}: {error}") from None
    return mask
