"""What the numbers in the masks of a video mean: objects, void, or the soft edge of one object in white.

In: the masks of a video, one after the other. Out: which numbers are which object. Numbers of objects cover areas;
those of a soft edge, or of a few stray pixels, do not: hardly one of their pixels lies among its own kind.
"""
from collections import Counter

import cv2
import numpy as np

VOID, MOST_OBJECTS, MOST_VALUES = 255, 64, 256
GREYS = 65536                # from here on numbers are colours, which have no order
LITTLE = 0.2                 # share of an edge's pixels that may lie among their own kind
FEW = 0.05                   # stray pixels, as a share of the white ones
HINT = "Masks need one number or colour per object: save them without smoothing."


class MaskValues:
    """Statistics over the masks of one video: pixels per number, those of them whose eight neighbours have it too."""

    def __init__(self, video):
        self.video, self.pixels, self.inner = video, Counter(), Counter()
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
        for name, others in (("white", white), ("grey", ~white)):
            self.beside[name] += neighbours(ground, others & ~ground)
        return values.tolist()

    def objects(self):
        """{object number: [numbers that are part of it]}, and in words what was not taken as it stands"""
        values = sorted(self.pixels)
        if values and GREYS > values[-1] > MOST_OBJECTS and len(values) > 1 and self._is_soft(values):
            return {1: [value for value in values if value > values[-1] / 2]}, (
                "its masks have soft edges or stray pixels: what is more than half white is taken for one object")
        edges = [value for value in values if not self.inner[value]]
        if len(values) > MOST_OBJECTS or values and values[-1] >= GREYS and len(edges) >= max(2, len(values) / 2):
            raise ValueError(f"video {self.video}: {len(values)} different values in its masks, more than "
                             f"{MOST_OBJECTS}, or most of them on edges alone.\n  {HINT}")
        if values == [VOID]:
            return {1: values}, ""
        if VOID in values and values[0] < VOID:
            self._refuse_bands(values)
            return {value: [value] for value in values if value != VOID}, "255 beside smaller numbers is taken for void"
        return {value: [value] for value in values}, ""

    def _is_soft(self, values):
        """Whether all numbers but the largest are an edge between it and the background, or stray pixels"""
        white, grey = self.pixels[values[-1]], sum(self.pixels[value] for value in values[:-1])
        if sum(self.inner[value] for value in values[:-1]) >= LITTLE * grey:
            return False
        return self.beside["grey"] >= self.beside["white"] / 2 or values[-1] == VOID and grey < FEW * white

    def _refuse_bands(self, values):
        """White within wide bands of grey: a soft edge of few steps, or an object with void in it."""
        if values[-1] == VOID and values[-2] >= MOST_OBJECTS and self.beside["white"] < FEW * self.beside["grey"]:
            raise ValueError(f"video {self.video}: its masks have 255 within {', '.join(map(str, values[:-1][-3:]))}: "
                             f"a soft edge, or void?\n  {HINT} Number objects from 1 on, and make void 255.")


def neighbours(first, second):
    """How often a pixel of one mask (H, W) bool lies above, below or beside one of the other"""
    return sum(int((a[1:] & b[:-1]).sum() + (a[:-1] & b[1:]).sum()) for a, b in ((first, second),
                                                                                (first.T, second.T)))
