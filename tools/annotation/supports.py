"""The support folder of the page, and what a brush did to a mask. Part of tools/annotate.py.

Masks are (H, W) bool at the image's own size; layers are those of an image editor, (h, w, 4) uint8 RGBA.
"""
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataloaders.images import read_mask
from dataloaders.own.supports import SENTENCE
from utils.files import atomic_file
from utils.pictures.overlay import MASK_COLOUR, palette

VIEW_SIDE = 1280             # pixels of the longer side in the page at most; larger images are shown smaller
LEAST_SIDE = 640             # and at least, so that one brush suits all
OPACITY = 128                # of the brush; what covers less than half as much is the soft rim of a stroke


def shrink(image, side=VIEW_SIDE):
    """(H, W, 3) uint8 or (H, W) bool  ->  the same, at most `side` long"""
    size = tuple(max(1, round(n * min(1, side / max(image.shape[:2])))) for n in image.shape[:2])
    return resized(image, size) if image.dtype == bool else cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def as_shown(image):
    """(H, W, 3) uint8 or (H, W) bool  ->  the same, as large as in the editor"""
    longer = max(image.shape[:2])
    if longer >= LEAST_SIDE:
        return shrink(image)
    size = tuple(round(n * LEAST_SIDE / longer) or 1 for n in image.shape[:2])
    return resized(image, size) if image.dtype == bool else cv2.resize(image, size[::-1])


def resized(mask, size):
    """(h, w) bool  ->  (H, W) bool, nearest neighbour"""
    return cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)


def editor_value(image, mask):
    """What an image editor shows: the picture below, the mask as a stroke above it."""
    small = as_shown(mask)
    layer = np.zeros((*small.shape, 4), np.uint8)
    layer[small] = (*MASK_COLOUR, OPACITY)
    return {"background": as_shown(image), "layers": [layer], "composite": None}


def painted(mask, layers):
    """A mask and the layers that the editor has now  ->  the mask, changed only where its picture was changed"""
    before, after = as_shown(mask), np.zeros(as_shown(mask).shape, bool)
    for layer in layers:
        if layer is not None and layer.ndim == 3 and layer.shape[-1] == 4:
            after |= resized(layer[..., 3] >= OPACITY / 2, after.shape)
    return np.where(resized(before != after, mask.shape), resized(after, mask.shape), mask)


def polygon(corners, size):
    """Corners (x, y) in the picture as the page shows it, (H, W) of the picture  ->  what is within, (H, W) bool"""
    if len(corners) < 3:
        raise ValueError("a polygon has three corners or more; click into the picture")
    shown = as_shown(np.zeros(size, bool)).shape
    points = (np.array(corners) + 0.5) * (np.array(size) / shown)[::-1] - 0.5
    inside = np.zeros(size, np.uint8)
    cv2.fillPoly(inside, [points.round().astype(np.int32)], 1)
    return inside > 0


def outlined(picture, corners):
    """A picture with lines between the corners (x, y) of a polygon; the first one is larger"""
    thick = max(1, max(picture.shape) // 400)
    for colour, width in (((0, 0, 0), 3 * thick), ((255, 255, 255), thick)):
        cv2.polylines(picture, [np.array(corners, np.int32).reshape(-1, 1, 2)], False, colour, width, cv2.LINE_AA)
        for k, (x, y) in enumerate(corners):
            cv2.circle(picture, (int(x), int(y)), (4 - 2 * (k > 0)) * thick, colour, width, cv2.LINE_AA)
    return picture


def save_support(folder, name, image, mask):
    """Write name.jpg and name.png, image and mask; ValueError if the mask is empty, which would be refused later"""
    if not mask.any():
        raise ValueError(f"{name}: nothing is marked yet; brush over the object, then save")
    grey = Image.fromarray(mask.astype(np.uint8))
    grey.putpalette(palette().tobytes())
    with atomic_file(folder / f"{name}.jpg") as file:
        Image.fromarray(image).save(file, "JPEG", quality=97, subsampling=0)
    with atomic_file(folder / f"{name}.png") as file:
        grey.save(file, "PNG")


def save_sentence(folder, text):
    """Write sentence.txt, which segment.py reads; ValueError for an empty one"""
    text = " ".join(text.split())
    if not text:
        raise ValueError("write what the supports show: one sentence")
    with atomic_file(Path(folder) / SENTENCE) as file:
        file.write(f"{text}\n".encode())


def load_mask(folder, name, size):
    """The mask (H, W) bool that was saved for this frame, else an empty one; ValueError for one of another size"""
    path = folder / f"{name}.png"
    mask = read_mask(path) > 0 if path.is_file() else np.zeros(size, bool)
    if mask.shape != tuple(size):
        raise ValueError(f"{path}: its mask does not fit an image of {size[0]} x {size[1]} pixels.\n"
                         "  This folder holds supports of something else: give another --output")
    return mask


def saved_names(folder):
    """Names of the supports in a folder, sorted: those with both files"""
    return sorted(f.stem for f in folder.glob("*.png") if folder.joinpath(f"{f.stem}.jpg").is_file()
                  and not f.name.startswith("."))


def remove_support(folder, name):
    """Take the two files of one support away; name must be one of `saved_names`."""
    if name not in saved_names(folder):
        raise ValueError(f"{name}: no such support in {folder}")
    for suffix in (".png", ".jpg"):
        (folder / f"{name}{suffix}").unlink()
