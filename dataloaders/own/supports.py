"""A support folder: a few images and where the object is in each of them, as people make them.

In: a folder. Out: images and masks. Beside every image lies its mask, as one of

    dog.jpg + dog.png            PNG with a palette, grey (0 and 255, or object numbers), or with transparency
    dog.jpg + dog_mask.png       the same; also where the image is a PNG itself
    dog.jpg + dog.json           LabelMe
    anything.json                COCO: one file for all images, which it names
"""
import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.images import bad_image, check_size, read_bytes
from dataloaders.own.supports_json import is_coco, labelme_mask, read_coco, read_labelme
from dataloaders.picture import PICTURES, has_end, natural, read_picture

MOST_SUPPORTS = 100          # pictures that are held in memory together
MOST_COLOURS = 256           # of a mask; a photograph has more
LAYOUT = """Put images and masks of the same name into it: dog.jpg with dog.png or dog_mask.png (0 is background), or
  with dog.json of LabelMe; or one COCO file for all images."""


@dataclass
class Supports:
    """K images (H, W, 3) uint8 RGB and their masks (H, W) bool, sizes may differ; names of the images, for messages."""
    images: list
    masks: list
    names: list

    def __iter__(self):
        """So that segmenter.set_support(*read_supports(folder)) works"""
        return iter((self.images, self.masks, self.names))


def read_supports(folder, shots=None, object_number=None, category=None):
    """Support folder  ->  Supports, in the order of their names

    shots: that many, the first ones; None: all. object_number: which number of a mask is the object, None: every
    number but 0. category: the label of LabelMe or COCO, needed where there are several; masks as PNG have none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"support: the folder {folder} {what}.\n  {LAYOUT}")
    if object_number is not None and not 1 <= object_number <= 65535:
        raise ValueError(f"--object {object_number}: expected the number of an object in the masks, 1 or more")
    if shots is not None and shots < 1:
        raise ValueError(f"--shots {shots}: expected 1 or more")
    found = find_supports(folder, object_number, category)
    if shots is not None and shots > len(found):
        raise ValueError(f"--shots {shots}: {folder} has {len(found)} images with a mask.\n  Add some, or ask "
                         "for fewer")
    if shots is None and len(found) > MOST_SUPPORTS:
        raise ValueError(f"{folder} has {len(found)} images with a mask.\n  Say how many to use, at most "
                         f"{MOST_SUPPORTS}: --shots 5")
    chosen = found[:shots]
    images = [read_picture(path) for path, _ in chosen]
    masks = [check_mask(mask(), image, path) for (path, mask), image in zip(chosen, images, strict=True)]
    return Supports(images, masks, [str(path) for path, _ in chosen])


def find_supports(folder, object_number, category):
    """[(path of the image, function that reads its mask)], sorted by name, whatever holds the masks"""
    files = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=natural)
    tables = [p for p in files if p.suffix.lower() == ".json"]
    coco = [p for p in tables if is_coco(p)]
    if coco:
        if len(tables) > 1:
            raise ValueError(f"{folder}: beside the COCO file {coco[0].name} lies {len(tables) - 1} more .json.\n"
                             "  Leave one COCO file in the folder, or LabelMe's files alone")
        return read_coco(coco[0], category)
    pairs = pair(folder, files)
    labelme = {mask: read_labelme(mask) for _, mask in pairs if mask.suffix.lower() == ".json"}
    category = the_category(folder, labelme, category)
    found = []
    for image, mask in pairs:
        if mask not in labelme:
            found.append((image, partial(read_mask, mask, object_number)))
        elif category in labelme[mask].labels:
            found.append((image, partial(labelme_mask, labelme[mask], category, mask)))
    return found


def pair(folder, files):
    """Files of a folder  ->  [(image, its mask or .json)]; ValueError where one lacks the other"""
    pictures = [p for p in files if p.suffix.lower() in PICTURES]
    by_stem = {}
    for path in pictures:
        by_stem.setdefault(path.stem, []).append(path)
    masks = [p for p in pictures if p.suffix.lower() == ".png" and (
        any(other.suffix.lower() != ".png" for other in by_stem[p.stem])
        or p.stem.endswith("_mask") and p.stem.removesuffix("_mask") in by_stem)]
    images = [p for p in pictures if p not in masks]
    if not images:
        raise ValueError(f"{folder}: no image with a mask in this folder.\n  {LAYOUT}")
    others = masks + [p for p in files if p.suffix.lower() == ".json"]
    pairs = []
    for image in images:
        own = [m for m in others if m.stem in (image.stem, f"{image.stem}_mask")]
        if len(own) != 1:
            found = f"has {len(own)} masks ({', '.join(m.name for m in own)})" if own else "has no mask"
            raise ValueError(f"{image} {found}.\n  Expected one of {image.stem}_mask.png, {image.stem}.json"
                             + (f", {image.stem}.png" if image.suffix.lower() != ".png" else ""))
        pairs.append((image, own[0]))
    alone = set(others) - {mask for _, mask in pairs}
    if alone:
        raise ValueError(f"{min(alone)}: no image lies beside this file.\n  Add {min(alone).stem}.jpg, or remove it")
    return pairs


def the_category(folder, labelme, category):
    """The label that is meant: the given one, or the only one there is"""
    labels = sorted(set().union(*(content.labels for content in labelme.values())))
    if not labelme or category in labels:
        return category
    if category is not None:
        raise ValueError(f"--category {category}: {folder} has only {', '.join(labels)}.\n  Name one of them")
    if len(labels) != 1:
        raise ValueError(f"{folder}: {len(labels)} labels: {', '.join(labels)}.\n  Name the one to segment: "
                         "--category LABEL")
    return labels[0]


def read_mask(path, object_number=None):
    """PNG  ->  (H, W) bool

    With a palette or one channel, every number but 0 is object, or the given one; with transparency, what is opaque;
    in colour, what is not black.
    """
    data = read_bytes(path)
    if not check_size(data, path) or not has_end(data):
        raise bad_image(path, "is no PNG, or a truncated one")
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        pixels = np.asarray(image.convert("RGBA") if image.mode in ("LA", "PA") else image)
    except (OSError, ValueError, SyntaxError) as error:
        raise bad_image(path, f"cannot be read ({error})") from None
    if pixels.ndim == 3 and (pixels[..., :3] == pixels[..., :1]).all() and (
            pixels.shape[2] == 3 or (pixels[..., 3] == 255).all()):
        pixels = pixels[..., 0]                            # grey, written as colours
    if pixels.ndim == 2:
        return numbered(pixels, path, object_number)
    if object_number is not None:
        raise ValueError(f"--object {object_number}: {path} is in colour or transparent and has no object numbers.\n"
                         "  Leave --object out, or save it with a palette")
    if pixels.shape[2] == 4 and (pixels[..., 3] < 255).any():
        return pixels[..., 3] > 127
    if len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > MOST_COLOURS:
        raise ValueError(f"{path} looks like a photograph, not like a mask: it has more than {MOST_COLOURS} colours.\n"
                         f"  {LAYOUT}")
    return pixels[..., :3].any(axis=2)


def numbered(pixels, path, object_number):
    """(H, W) numbers  ->  (H, W) bool"""
    if object_number is None:
        return pixels != 0
    mask = pixels == object_number
    if not mask.any():
        there = [str(n) for n in np.unique(pixels).tolist() if n]
        raise ValueError(f"--object {object_number}: {path} has no such object; it has "
                         f"{', '.join(there[:20]) or 'none at all'}.\n  Name one of these, or leave --object out")
    return mask


def check_mask(mask, image, path):
    """The mask, if it fits its image and shows something"""
    if mask.shape != image.shape[:2]:
        turned = mask.shape == image.shape[1::-1]
        sizes = [f"{rows} x {cols}" for rows, cols in (image.shape[:2], mask.shape)]
        raise ValueError(f"{path}: the image has {sizes[0]} pixels, its mask {sizes[1]}.\n  " + (
            "One of them is turned: the image is used as its EXIF data say; save it upright"
            if turned else "Save the mask at the size of the image"))
    if not mask.any():
        raise ValueError(f"{path}: its mask is empty.\n  Mark the object in it, or remove image and mask")
    return mask
