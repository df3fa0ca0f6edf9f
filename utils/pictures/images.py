"""Images of a page: brought to one width, written into the page itself.

Frames are (H, W, 3) uint8 RGB, masks (H, W) bool.
"""
import base64
import os
from pathlib import Path

import cv2
import numpy as np

from utils.pictures.overlay import overlay

WIDTH = 240                  # of an image on a page, in pixels
QUALITY = 82                 # JPEG


def within(folder, below):
    """A path below the folder, links followed; None where it leads out of it, whatever a name says"""
    folder = Path(os.path.realpath(folder))
    path = Path(os.path.realpath(folder / below))
    return path if path.is_relative_to(folder) else None


def fit(frame, width=WIDTH):
    """A frame, or a mask, at the width of the page; masks keep their values."""
    rows = max(1, round(frame.shape[0] * width / frame.shape[1]))
    if frame.dtype == bool:
        return cv2.resize(frame.astype(np.uint8), (width, rows), interpolation=cv2.INTER_NEAREST) > 0
    shrink = frame.shape[1] > width
    return cv2.resize(frame, (width, rows), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


def segmentation(frame, mask, truth=None, width=WIDTH):
    """A mask in red over the frame, the outline of the truth in green  ->  (rows, width, 3) uint8"""
    return overlay(fit(frame, width), fit(mask, width), None if truth is None else fit(truth, width))


def encode_jpeg(image):
    """(rows, columns, 3) uint8 RGB  ->  bytes"""
    _, code = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return code.tobytes()


def data_uri(data, mime="image/jpeg"):
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
