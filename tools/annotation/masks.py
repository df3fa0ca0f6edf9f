"""Masks from clicks and brush strokes, and the support folder they are kept in. Part of tools/annotate.py.

Points are (x, y) in pixels of the image, x to the right and y down; masks are (H, W) bool at the image's own size.
"""
import os
from pathlib import Path

import cv2
import numpy as np

from dataloaders.images import decode, read_bytes
from utils.files import atomic_file
from utils.pictures.overlay import MASK_COLOUR, overlay, save_palette_mask

VIEW_SIDE = 1280             # pixels of the longer side in the page; larger images are shown smaller
MOST_UNDO = 30               # steps back
MOST_POINTS = 10_000         # of one polygon
STROKE_OPACITY = 0.5         # of the brush; what covers less than half as much is the soft rim of a stroke
JPEG_QUALITY = 97
POINT_COLOUR = (255, 255, 255)

# -- masks ----------------------------------------------------------------------------------------------------------

def polygon_mask(points, size):
    """Corners (x, y), at least three; size (H, W)  ->  (H, W) bool: what the polygon encloses, its rim included

    Where the polygon crosses itself the even-odd rule holds.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    if not 3 <= len(points) <= MOST_POINTS:
        raise ValueError(f"a polygon of {len(points)} points: click 3 to {MOST_POINTS} corners")
    if not np.isfinite(points).all():
        raise ValueError("a polygon with a corner that is no number: clear it and click again")
    corners = points.round().clip((0, 0), (size[1] - 1, size[0] - 1)).astype(np.int32)
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [corners], 1)
    return canvas.astype(bool)


def strokes_mask(layers, size):
    """Layers of an image editor, each (h, w, 4) uint8 RGBA; size (H, W)  ->  (H, W) bool: what any of them covers"""
    mask = np.zeros(size, bool)
    for layer in layers:
        if layer is None:
            continue
        if layer.ndim != 3 or layer.shape[-1] != 4:
            raise ValueError(f"a brush layer of shape {layer.shape}: expected (H, W, 4), with an alpha channel")
        mask |= resize_mask(layer[..., 3] >= 255 * STROKE_OPACITY / 2, size)
    return mask


def resize_mask(mask, size):
    """(h, w) bool  ->  (H, W) bool, nearest neighbour"""
    if mask.shape == tuple(size):
        return mask
    return cv2.resize(mask.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)


def view_size(size):
    """(H, W) of an image  ->  (h, w) in which the page shows it"""
    scale = min(1.0, VIEW_SIDE / max(size))
    return tuple(max(1, round(n * scale)) for n in size)


class Sketch:
    """The mask of one frame while it is being made: what is filled, the corners of the open polygon, the way back."""

    def __init__(self, mask):
        """mask (H, W) bool: where to start from, copied"""
        self.mask, self.points, self.past = mask.copy(), [], []

    @property
    def size(self):
        return self.mask.shape

    @property
    def touched(self):
        """Whether anything was done that would be lost with it."""
        return bool(self.points or self.past)

    def click(self, x, y):
        """A corner of the polygon, at a place of the picture as the page shows it."""
        shown = view_size(self.size)
        if len(self.points) < MOST_POINTS:
            self.points.append(((x + 0.5) * self.size[1] / shown[1] - 0.5, (y + 0.5) * self.size[0] / shown[0] - 0.5))

    def fill(self, add=True):
        """Close the polygon: add it to the mask, or cut it out of it."""
        inside = polygon_mask(self.points, self.size)
        self._become(self.mask | inside if add else self.mask & ~inside)
        self.points = []

    def brush(self, layers):
        """Take over what was painted or erased in the page: only what changed in its picture changes the mask."""
        before, after = resize_mask(self.mask, view_size(self.size)), strokes_mask(layers, view_size(self.size))
        if not np.array_equal(before, after):
            changed = resize_mask(before != after, self.size)
            self._become(np.where(changed, resize_mask(after, self.size), self.mask))

    def clear(self):
        self.points = []
        if self.mask.any():
            self._become(np.zeros(self.size, bool))

    def undo(self):
        """One step back: the last corner, else the last change of the mask."""
        if self.points:
            self.points.pop()
        elif self.past:
            bits = np.unpackbits(self.past.pop(), count=self.mask.size)
            self.mask = bits.reshape(self.size).astype(bool)

    def _become(self, mask):
        self.past = [*self.past, np.packbits(self.mask)][-MOST_UNDO:]
        self.mask = mask


# -- pictures -------------------------------------------------------------------------------------------------------

def picture(image, sketch):
    """image (H, W, 3) uint8 RGB, its Sketch  ->  (h, w, 3) uint8: the mask in red, the open polygon in white"""
    rows, cols = view_size(sketch.size)
    scale = np.array([cols / sketch.size[1], rows / sketch.size[0]])
    view = overlay(shrink(image), resize_mask(sketch.mask, (rows, cols)))
    points = ((np.array(sketch.points).reshape(-1, 2) + 0.5) * scale - 0.5).round().astype(np.int32)
    thick = max(1, round(max(rows, cols) / 500))
    for width, colour in ((thick + 2, (0, 0, 0)), (thick, POINT_COLOUR)):            # a dark rim shows on any ground
        cv2.polylines(view, [points.reshape(-1, 1, 2)], False, colour, width, cv2.LINE_AA)
        for x, y in points.tolist():
            cv2.circle(view, (x, y), 2 * thick + width - thick, colour, -1, cv2.LINE_AA)
    return view


def shrink(image):
    """(H, W, 3) uint8  ->  (h, w, 3), at most VIEW_SIDE long"""
    rows, cols = view_size(image.shape[:2])
    if (rows, cols) == image.shape[:2]:
        return image
    return cv2.resize(image, (cols, rows), interpolation=cv2.INTER_AREA)


def editor_value(image, sketch):
    """What an image editor shows: the frame below, the mask as strokes above it."""
    rows, cols = view_size(sketch.size)
    layer = np.zeros((rows, cols, 4), np.uint8)
    layer[resize_mask(sketch.mask, (rows, cols))] = (*MASK_COLOUR, round(255 * STROKE_OPACITY))
    return {"background": shrink(image), "layers": [layer], "composite": None}


# -- the support folder ---------------------------------------------------------------------------------------------

def save_support(folder, name, image, mask, jpeg=None):
    """Write name.jpg and name.png, image and mask at the same size  ->  their paths

    image (H, W, 3) uint8 RGB, mask (H, W) bool, jpeg: the image's own file, copied as it is. ValueError if the mask is
    empty: a support that shows nothing would be refused later.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(f"{name}: a mask of {mask.shape} pixels for an image of {image.shape[:2]}")
    if not mask.any():
        raise ValueError(f"{name}: nothing is marked yet; add a polygon or brush over the object, then save")
    folder = Path(folder)
    image_path, mask_path = folder / f"{name}.jpg", folder / f"{name}.png"
    with atomic_file(image_path) as file:
        file.write(jpeg if jpeg is not None else _encode_jpeg(image))
    unfinished = folder / f".{name}.{os.getpid()}.png"
    try:
        save_palette_mask(unfinished, mask)
        os.replace(unfinished, mask_path)
    finally:
        unfinished.unlink(missing_ok=True)
    return image_path, mask_path


def _encode_jpeg(image):
    done, data = cv2.imencode(".jpg", image[..., ::-1], [
        cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444])
    if not done:
        raise ValueError(f"an image of shape {image.shape} cannot be written as JPEG")
    return data.tobytes()


def load_mask(folder, name, size):
    """The mask (H, W) bool that was saved for this frame, else an empty one; ValueError for one of another size"""
    path = Path(folder) / f"{name}.png"
    if not path.is_file():
        return np.zeros(size, bool)
    mask = decode(read_bytes(path), path, cv2.IMREAD_GRAYSCALE)
    if mask is None or mask.shape != tuple(size):
        found = "no PNG" if mask is None else f"{mask.shape[0]} x {mask.shape[1]} pixels"
        raise ValueError(f"{path}: {found}, but its image has {size[0]} x {size[1]}.\n"
                         "  This folder holds supports of something else: give another --output")
    return mask > 0


def saved_names(folder):
    """Names of the supports in a folder, sorted: those with both files"""
    folder = Path(folder)
    return sorted(f.stem for f in folder.glob("*.png") if folder.joinpath(f"{f.stem}.jpg").is_file()
                  and not f.name.startswith("."))


def remove_support(folder, name):
    """Take the two files of one support away; name must be one of `saved_names`."""
    if name not in saved_names(folder):
        raise ValueError(f"{name}: no such support in {folder}")
    for suffix in (".png", ".jpg"):
        (Path(folder) / f"{name}{suffix}").unlink()
