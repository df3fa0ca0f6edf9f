"""Image files before and while they are decoded: a file of a few kilobytes may ask for gigabytes of memory.

In: paths and bytes from anybody. Out: pixels as OpenCV gives them. Only JPEG and PNG are decoded, since only their
headers are read here first.
"""
import os
import struct
from pathlib import Path

import cv2
import numpy as np

MAX_PIXELS = 2 ** 25         # a frame of 8K video has 33.2 million; those of the data sets have 2 million at most
MAX_BYTES = 2 ** 28          # of a file

PNG_START = b"\x89PNG\r\n\x1a\n"
MOST_SEGMENTS = 10_000       # before the size of a JPEG
NO_FRAME = (0xC4, 0xC8, 0xCC)                       # among JPEG's markers C0 to CF these hold tables, not a size
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))


def real_path(path):
    """The path without links; one that leads to itself stays, and names no file (Path.resolve would raise)."""
    return Path(os.path.realpath(path))


def read_bytes(path):
    """The bytes of a file; ValueError where they are absurdly many."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise bad_image(path, f"has {size} bytes, more than {MAX_BYTES}")
    return path.read_bytes()


def decode(data, path, flags=cv2.IMREAD_COLOR):
    """Bytes of the file `path`  ->  pixels, BGR; None where that is no JPEG or PNG, or one that OpenCV cannot read"""
    if not check_size(data, path):
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def check_size(data, path):
    """Whether the bytes begin as a JPEG or PNG; ValueError if such an image has more pixels than a frame can have."""
    size = header_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise bad_image(path, f"has {size[0]} x {size[1]} pixels, more than {MAX_PIXELS}")
    return size is not None


def header_size(data):
    """(rows, columns) as the header of a JPEG or PNG says; None for anything else"""
    if data.startswith(PNG_START):
        return struct.unpack(">II", data[16:24])[::-1] if data[12:16] == b"IHDR" and len(data) >= 26 else None
    return _jpeg_size(data) if data.startswith(b"\xff\xd8") else None


def _jpeg_size(data):
    """The size in the first frame header: segments are skipped by their lengths, as the decoder does it."""
    place = data.find(b"\xff", 2)
    for _ in range(MOST_SEGMENTS):
        if not 0 <= place < len(data) - 8:
            return None
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in NO_FRAME:
            return struct.unpack(">HH", data[place + 5:place + 9])
        if marker == 0xDA:                          # pixels, and no size before them
            return None
        if marker in (0x00, 0xFF):                  # no marker, or one byte of padding
            place += 1 + (marker == 0x00)
        elif marker in WITHOUT_LENGTH:
            place += 2
        else:
            place += 2 + max(struct.unpack(">H", data[place + 2:place + 4])[0], 2)
        place = data.find(b"\xff", place)
    return None


def bad_image(path, what):
    """The ValueError for an image that is wrong."""
    return ValueError(f"{path} {what}.\n  Unpack or download this file again.")
