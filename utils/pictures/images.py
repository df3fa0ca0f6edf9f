"""Pictures of a page: read below their folder and nowhere else, brought to one width, written into the page itself.

Frames are (H, W, 3) uint8 RGB, masks (H, W) bool.
"""
import base64
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.pictures.overlay import overlay

WIDTH = 240                  # of a picture on a page, in pixels
QUALITY = 82                 # JPEG
MAX_PIXELS = 2 ** 25         # of a file


def within(folder, below):
    """A path below the folder, links followed; None where it leads out of it, whatever a name says"""
    folder = Path(os.path.realpath(folder))
    path = Path(os.path.realpath(folder / below))
    return path if path.is_relative_to(folder) else None


def read_picture(folder, name):
    """A JPEG or PNG below the folder  ->  its frame; None where there is none that can be read"""
    path = within(folder, name)
    if path is None or not path.is_file():
        return None
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            return np.array(image.convert("RGB")) if image.width * image.height <= MAX_PIXELS else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):        # what Pillow raises
        return None


def fit(frame, width=WIDTH):
    """A frame, or a mask, at the width of the page; masks keep their values."""
    rows = max(1, round(frame.shape[0] * width / frame.shape[1]))
    if frame.dtype == bool:
        return cv2.resize(frame.astype(np.uint8), (width, rows), interpolation=cv2.INTER_NEAREST) > 0
    shrink = frame.shape[1] > width
    return cv2.resize(frame, (width, rows), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


def letterboxed(frame, size):
    """A frame as the network sees it: (rows, columns) with the aspect kept, centred between black borders"""
    factor = min(n / m for n, m in zip(size, frame.shape[:2], strict=True))
    rows, cols = (max(int(n * factor), 1) for n in frame.shape[:2])
    top, left = (size[0] - rows) // 2, (size[1] - cols) // 2
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top:top + rows, left:left + cols] = cv2.resize(frame, (cols, rows), interpolation=cv2.INTER_AREA)
    return canvas


def segmentation(frame, mask, truth=None, width=WIDTH):
    """A mask in red over the frame, the outline of the truth in green  ->  (rows, width, 3) uint8"""
    return overlay(fit(frame, width), fit(mask, width), None if truth is None else fit(truth, width))


def encode_jpeg(picture):
    """(rows, columns, 3) uint8 RGB  ->  bytes"""
    _, code = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return code.tobytes()


def data_uri(data, mime="image/jpeg"):
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
