"""Training crops: a window around a jittered box, at the size of the network's input.

As the released LWL makes them, since what a network learns hangs on how large and where the object is: the window has
`area` times the object's size and lies inside the image where it fits. Boxes are (x, y, w, h), sizes (rows, columns).
"""
import math

import cv2
import numpy as np


def box_of(mask):
    """(H, W) bool, not empty  ->  (x, y, w, h); a single pixel has w = h = 1"""
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    return np.array([columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1], float)


def jittered(box, scales, places, sigma, reach):
    """A box of another size, and then elsewhere.

    scales: two normal numbers, for w and h; places: two uniform ones, for x and y
    sigma: of the logarithm of the sides; reach: how far the centre may go, twice, in sides of the new box (its mean)
    """
    size = box[2:] * np.exp(sigma * np.asarray(scales))
    centre = box[:2] + box[2:] / 2 + math.sqrt(size.prod()) * np.asarray(reach) * (np.asarray(places) - 0.5)
    return np.concatenate([centre - size / 2, size])


def window_of(box, original_size, size, area):
    """The window around a box  ->  x, y, w, h, integers; it may stick out where the image is too small for it

    original_size: of the image; size: of the network's input, whose shape the window has
    """
    whole, wanted = np.array(original_size[::-1]), np.array(size[::-1])
    sides = np.ceil(wanted * math.sqrt(box[2] * box[3] / wanted.prod()) * area)
    sides = np.floor(sides / max(1.0, (sides / whole).min())).astype(int)
    sides = np.maximum(sides, 1)
    first = np.rint(box[:2] + box[2:] / 2 - sides / 2).astype(int)              # half to even, as released
    first += np.maximum(0, -first) + np.minimum(0, whole - first - sides)
    out = (np.maximum(0, -first) + np.maximum(0, first + sides - whole)) // 2
    return *np.where(out > 0, -out, first).tolist(), *sides.tolist()


def cut(image, mask, window, size, border="released"):
    """The window at the network's size: image (H0, W0, 3), mask (H0, W0) uint8  ->  (H, W, 3), (H, W)

    Beyond the image it repeats the border, and there is no object. border: "released" drops the last row and column of
    the image where the window reaches the border behind them (and repeats those before); "exact" does not.
    """
    x, y, w, h = window
    rows, columns = image.shape[:2]
    right, bottom = (max(0, end + (border == "released")) for end in (x + w - columns, y + h - rows))
    left, top = max(0, -x), max(0, -y)
    inside = slice(y + top, y + h - bottom), slice(x + left, x + w - right)
    image = cv2.copyMakeBorder(image[inside], top, bottom, left, right, cv2.BORDER_REPLICATE)
    mask = cv2.copyMakeBorder(mask[inside], top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, mask.shape, strict=True))     # nearest, exactly
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR), mask[rows[:, None], columns]


def turned(image, mask, angle, scale):
    """Rotated by `angle` degrees and scaled about (W / 2, H / 2), black around: the same shapes, and a 2 x 3 matrix"""
    size = image.shape[1::-1]
    matrix = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), angle, scale)
    return (cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR),
            cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST), matrix)


def grey(image):
    """(H, W, 3) uint8 RGB  ->  the same shape without colours"""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
