"""What the numbers in a person's masks mean: objects, void, or the soft edge of one object in white.

In: one mask, or those of a video one after the other. Out: which numbers are which object. Numbers of objects cover
areas; those of a soft edge, or of a few stray pixels, do not: hardly one of their pixels lies among its own kind.
"""
from collections import Counter

import cv2
import numpy as np

from dataloaders.images import bad_image

VOID, MOST_OBJECTS, MOST_VALUES = 255, 64, 256
SHADES = 16                  # more numbers than this may be a soft edge, however dark its white is
GREYS = 65536                # from here on numbers are colours, which have no order
LITTLE = 0.2                 # share of an edge's pixels that may lie among their own kind
WIDE_EDGE = 3                # thickness of greys around white that are more than its edge
FEW = 0.05                   # stray pixels, as a share of the white ones
CUT = "its masks have soft edges or stray pixels: what is more than half white is taken for one object"
HINT = "Masks need one number or colour per object: save them without smoothing."


class MaskValues:
    """Statistics over masks: pixels per number, those of them whose eight neighbours have it too. name: for errors"""

    def __init__(self, name):
        self.name, self.pixels, self.inner, self.ground = name, Counter(), Counter(), False
        self.beside = Counter()          # neighbours of background: "white", the largest number of a mask, and "grey"

    def add(self, numbers, path):
        """A mask (H, W)  ->  the numbers that it shows"""
        values, counts = np.unique(numbers[numbers != 0], return_counts=True)
        if len({*self.pixels, *values.tolist()}) > MOST_VALUES:
            raise ValueError(f"{path}: more than {MOST_VALUES} different values in one video's masks.\n  {HINT}")
        self.pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        alike, shade = numbers.astype(np.float64), np.ones((3, 3), np.uint8)
        alike = cv2.erode(alike, shade) == cv2.dilate(alike, shade)
        self.inner.update(numbers[alike & (numbers != 0)].tolist())
        ground, white = numbers == 0, numbers == numbers.max()
        self.ground |= bool(ground.any())
        for name, others in (("white", white), ("grey", ~white)):
            self.beside[name] += neighbours(ground, others & ~ground)
        return values.tolist()

    def objects(self):
        """{object number: [numbers that are part of it]}, and in words what was not taken as it stands"""
        values, half = sorted(self.pixels), self.half()
        if half:
            return {1: [value for value in values if value > half]}, CUT
        edges = [value for value in values if not self.inner[value]]
        if len(values) > MOST_OBJECTS or values and values[-1] >= GREYS and len(edges) >= max(2, len(values) / 2):
            raise ValueError(f"{self.name}: {len(values)} different values in its masks, more than "
                             f"{MOST_OBJECTS}, or most of them on edges alone.\n  {HINT}")
        if values == [VOID]:
            return {1: values}, ""
        if VOID in values and values[0] < VOID:
            self.refuse_bands()
            return {value: [value] for value in values if value != VOID}, "255 beside smaller numbers is taken for void"
        note = "" if self.ground or len(values) < 2 else "no pixel of its masks is 0, which would be background"
        return {value: [value] for value in values}, note

    def half(self, stray=True):
        """Half of the largest number where all others are an edge between it and the background, or stray; else None

        stray: False leaves out the latter
        """
        *greys, most = sorted(self.pixels) or [0]
        if not greys or most >= GREYS or most <= MOST_OBJECTS and len(greys) < SHADES:
            return None
        white, grey = self.pixels[most], sum(self.pixels[value] for value in greys)
        if sum(self.inner[value] for value in greys) >= LITTLE * grey:
            return None
        stray = stray and most == VOID and grey < FEW * white
        return most / 2 if stray or self.beside["grey"] >= self.beside["white"] / 2 else None

    def refuse_bands(self):
        """White within wide bands of grey, or without background: a soft edge, or an object with void in it?"""
        *greys, most = sorted(self.pixels) or [0]
        bands = greys and greys[-1] >= MOST_OBJECTS and self.beside["white"] < FEW * self.beside["grey"]
        if most == VOID and greys and (bands or not self.ground):
            shades = ", ".join(map(str, greys[-3:]))
            raise ValueError(f"{self.name}: its masks have 255 within {shades}: a soft edge, or void?\n"
                             f"  {HINT} Number objects from 1 on, and make void 255.")


def refuse_soft(labels, path):
    """A mask (H, W) of a data set, whose numbers are objects: ValueError where they are a soft edge of one in white"""
    if labels.size and labels.max() > MOST_OBJECTS:
        found = MaskValues(path)
        found.add(labels, path)
        if found.half(stray=False):
            shades = ", ".join(map(str, sorted(found.pixels)[:5]))
            raise bad_image(path, f"has {shades}, ... as the soft edge of one object, where objects have numbers",
                            "Save masks without smoothing.")


def neighbours(first, second):
    """How often a pixel of one mask (H, W) bool lies above, below or beside one of the other"""
    return sum(int((a[1:] & b[:-1]).sum() + (a[:-1] & b[1:]).sum()) for a, b in ((first, second),
                                                                                (first.T, second.T)))


def is_object(pixels, path):
    """One mask (H, W), numbers or greys  ->  (H, W) bool, all objects together, as people mean them

    All but 0, with two exceptions. Soft edges are cut at half. White (255) beside other numbers is the void border of
    PASCAL VOC where it is thin, and where the others are thin, it is the object and they are its edge.
    """
    values = np.unique(pixels[pixels > 0])
    if len(values) > MOST_VALUES:                                 # 16 bits of a matting tool
        return pixels > values[-1] / 2
    if len(values) < 2:
        return pixels > 0
    if half := half_of(pixels, values, path):
        return pixels > half
    if pixels.all():
        raise ValueError(f"{path}: no pixel is 0, which is background; it has {', '.join(map(str, values[:5]))}.\n"
                         "  Make the background 0, or name the object's number: --object N")
    if values[-1] != VOID:
        return pixels > 0
    others, white = (thickness(part) for part in ((pixels > 0) & (pixels < VOID), pixels == VOID))
    if max(others, white) < 1.5 * min(others, white) or WIDE_EDGE < others < white:
        raise ValueError(f"{path}: is 255 the object, and {', '.join(map(str, values[:-1][:5]))} its soft edge, or is "
                         "it void around objects of these numbers?\n  Save it in black and white, or name the object's "
                         "number: --object 255")
    return pixels > VOID // 2 if white > others else (pixels > 0) & (pixels < VOID)


def half_of(pixels, values, path):
    """One mask (H, W), its numbers  ->  half of the largest where all others are its soft edge, else None"""
    found, in_a_row = MaskValues(path), values[-1] == len(values)              # 1, 2, 3, ... are objects
    found.add(pixels, path)
    if len(values) > SHADES and values[-1] > np.iinfo(pixels.dtype).max // 2 and not in_a_row:
        return values[-1] / 2
    return found.half()


def thickness(mask):
    """(H, W) bool  ->  how far its innermost pixel lies from its border"""
    return float(cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5).max())


def as_mask(mask, picture, name):
    """(H, W) bool, numbers, greys, or probabilities in [0, 1], array or tensor  ->  (H, W) bool, as large as its
    picture and not empty"""
    mask = mask.detach().cpu().numpy() if hasattr(mask, "detach") else np.asarray(mask)
    if mask.shape != picture.shape[:2]:
        raise ValueError(f"{name}: the image has {picture.shape[:2]} rows and columns, its mask the shape {mask.shape}")
    if mask.dtype.kind == "f" and mask.max() > 1 and (mask == np.round(mask)).all() and np.isfinite(mask).all():
        mask = mask.astype(np.int64)                              # numbers that Python made floats
    kind, low, high = mask.dtype.kind, mask.min(), mask.max()
    if kind not in "fbiu" or not low >= 0 or kind == "f" and not high <= 1:                # NaN fails, too
        raise ValueError(f"{name}: its mask has values from {low} to {high} ({mask.dtype}); expected bool, numbers "
                         "from 0 on, or probabilities in [0, 1]")
    mask = mask > 0.5 if kind == "f" else is_object(mask, name)
    if not mask.any():
        raise ValueError(f"{name}: its mask is empty.\n  Mark the object in it, or leave the pair out")
    return mask
