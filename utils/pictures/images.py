"""Images of a page: brought to one width, written into the page itself.

Frames are (H, W, 3) uint8 RGB, masks (H, W) bool.
"""
import base64
import os
from pathlib import Path

import cv2
import numpy as np

from utils.files import safe_name
from utils.pictures.overlay import as_pixels, overlay

WIDTH = 240                  # of an image on a page, in pixels
SUPPORT_WIDTH = 120          # of one of several supports in a row
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


def keep_supports(folder, video, reference):
    """The supports of a video's first run in a row, masks in red: FOLDER/run0/CLASS/VIDEO.jpg, for the report.

    Of a reference that has no pictures, and of later runs, nothing is kept.
    """
    first = video.references[0].facts[0].get("run") == reference.facts[0].get("run")
    if not first or not len(getattr(reference, "images", ())):
        return
    frames, row = as_pixels(reference.images), []
    for frame, mask in zip(frames, np.asarray(reference.masks, np.uint8), strict=True):
        mask = cv2.resize(mask, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        row.append(segmentation(frame, mask, width=SUPPORT_WIDTH))
    below = Path(folder, *map(safe_name, reference.folder))
    below.parent.mkdir(parents=True, exist_ok=True)
    below.with_name(f"{below.name}.jpg").write_bytes(encode_jpeg(np.concatenate(row, axis=1)))


def encode_jpeg(image):
    """(rows, columns, 3) uint8 RGB  ->  bytes"""
    _, code = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return code.tobytes()


def data_uri(data, mime="image/jpeg"):
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
