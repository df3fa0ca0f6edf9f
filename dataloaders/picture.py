"""One picture of a user, from a file or from Python's own arrays, and the mask that belongs to it.

In: JPEG or PNG files, arrays, tensors, PIL images. Out: (H, W, 3) uint8 RGB and (H, W) bool.
"""
import re

import cv2
import numpy as np
import torch

from dataloaders.images import PNG_START, bad_image, check_size, decode, read_bytes

PICTURES = (".jpg", ".jpeg", ".png")


def read_picture(path, which=""):
    """JPEG or PNG file  ->  (H, W, 3) uint8 RGB, turned upright as its EXIF data say; which: added to errors

    Decoders fill what a truncated file lacks with grey and say nothing: its end is looked for.
    """
    data = read_bytes(path)
    if check_size(data, path) and not has_end(data):
        raise bad_image(path, f"is truncated{which}")
    image = decode(data, path)
    if image is None:
        raise bad_image(path, f"is no JPEG or PNG that OpenCV can read{which}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def has_end(data):
    """Whether a PNG or JPEG is whole. Phones append more data, and put a whole small JPEG into the header."""
    if data.startswith(PNG_START):
        return b"IEND\xaeB`\x82" in data
    place = 2
    while data[place:place + 1] == b"\xff" and data[place + 1:place + 2] not in (b"\xda", b""):     # not yet pixels
        place += 2 + int.from_bytes(data[place + 2:place + 4])
    return data.find(b"\xff\xd9", place) >= 0


def natural(path):
    """Sort key by name, in which frame_2 comes before frame_10"""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name.lower())], path


def as_picture(image, name):
    """(H, W, 3) or (H, W), uint8 or float in [0, 1]; a tensor may be (3, H, W)  ->  (H, W, 3) uint8 RGB"""
    channels_first = isinstance(image, torch.Tensor) and image.ndim == 3 and image.shape[0] in (1, 3)
    image = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    shape = image.shape
    if channels_first:
        image = image.transpose(1, 2, 0)
    if image.ndim == 2 or image.ndim == 3 and image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"{name}: expected an RGB image, (H, W, 3) or a tensor (3, H, W), got shape {shape}")
    if image.dtype.kind == "f":
        if not (image.min() >= 0 and image.max() <= 1):                      # NaN fails, too
            raise ValueError(f"{name}: values from {image.min():.3g} to {image.max():.3g}; expected floats in [0, 1], "
                             "not normalised otherwise, or uint8")
        image = (image * 255).round().astype(np.uint8)
    if image.dtype != np.uint8:
        raise ValueError(f"{name}: expected uint8 (0 to 255) or floats in [0, 1], got {image.dtype}")
    return np.ascontiguousarray(image)


def as_mask(mask, picture, name):
    """(H, W), all but 0 is object  ->  (H, W) bool, as large as its picture and not empty"""
    mask = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    if mask.shape != picture.shape[:2]:
        raise ValueError(f"{name}: the image has {picture.shape[:2]} rows and columns, its mask the shape {mask.shape}")
    if not (mask != 0).any():
        raise ValueError(f"{name}: its mask is empty.\n  Mark the object in it, or leave the pair out")
    return mask != 0
