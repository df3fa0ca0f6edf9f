"""Supports as one file: images, masks, names, small pictures to look at, and what a model has computed of them.

A zip that any program opens: support.json, then 0.png, 0_mask.png, 0_small.jpg, 1.png, ..., and features/NAME, numbers
as they lie in memory. Such a file may come from anybody: it holds no code, nothing is unpacked to the disk, and what is
read of it is bounded.
"""
import io
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, Literal

import cv2
import msgspec
import numpy as np
from msgspec import Meta, Struct
from PIL import Image

from dataloaders.images import MAX_BYTES, check_file, numbers, pixels
from dataloaders.json_values import Text, in_words
from utils.files import atomic_file, writable
from utils.pictures.overlay import overlay, palette

FORMAT, VERSION = "few-shot supports", 1
MOST = 100                   # supports in a file
MAX_LIST = 2 ** 20           # bytes of the zip's own table of contents
MAX_TEXT = 2 ** 20           # bytes of support.json
MAX_PIXELS = 2 ** 28         # of all images together
SMALL = 160                  # pixels of the longer side
END = b"PK\5\6"              # of a zip without a comment: 22 bytes before its end
Side = Annotated[int, Meta(ge=0, le=2 ** 31)]


class Numbers(Struct):
    dtype: Literal["bool", "float16", "float32", "float64"]
    shape: Annotated[list[Side], Meta(max_length=8)]

    @property
    def bytes(self):
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Listed(Struct):
    name: Text
    agreement: Annotated[float, Meta(ge=0, le=1)] | None = None


class Content(Struct):
    """support.json. made_by: what says which model's the features are; features: {name: what its entry holds}"""
    format: Literal["few-shot supports"]
    version: Literal[1]
    supports: Annotated[list[Listed], Meta(min_length=1, max_length=MOST)]
    made_by: Text | None = None
    text: Text = ""
    features: dict[Annotated[str, Meta(pattern="^[a-z_]{1,40}$")], Numbers] = {}


def write_support_file(path, supports, made_by=None):
    """dataloaders.own.supports.Supports  ->  the file; of the same supports the same bytes

    made_by: which model computed supports.encoded; without it they are left out
    """
    encoded = supports.encoded if made_by and supports.encoded else {}
    listed = [Listed(writable(Path(name).name), value) for name, value in zip(      # and not where it lay
        supports.names, supports.agreement or [None] * len(supports.names), strict=True)]
    about = {name: Numbers(str(x.dtype), list(x.shape)) for name, x in encoded.items()}
    content = msgspec.json.encode(Content(FORMAT, VERSION, listed, made_by if encoded else None, supports.text, about))
    entries = {"support.json": msgspec.json.format(content, indent=1)}
    for k, (image, mask) in enumerate(zip(supports.images, supports.masks, strict=True)):
        grey = Image.fromarray(mask.astype(np.uint8))
        grey.putpalette(palette().tobytes())
        entries |= {f"{k}.png": as_bytes(Image.fromarray(image), "PNG"), f"{k}_mask.png": as_bytes(grey, "PNG"),
                    f"{k}_small.jpg": as_bytes(Image.fromarray(small_picture(image, mask)), "JPEG")}
    entries |= {f"features/{name}": np.ascontiguousarray(x).tobytes() for name, x in encoded.items()}
    if sum(map(len, entries.values())) > MAX_BYTES - MAX_LIST:
        raise ValueError(f"{path}: these supports would need more than {MAX_BYTES} bytes.\n"
                         "  Take fewer or smaller images")
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def as_bytes(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def small_picture(image, mask):
    """An image and its mask  ->  the image with the mask drawn in, at most SMALL pixels long"""
    size = tuple(max(1, round(n * min(1, SMALL / max(mask.shape)))) for n in mask.shape)
    mask = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    return overlay(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), mask)


def read_support_file(path, shots=None):
    """The file  ->  the values of a Supports: images, masks, names, agreement, encoded, made_by, text

    shots: only the first so many, without features, which are those of all. ValueError for a file that is something
    else, or damaged
    """
    if check_file(path) < 22:
        raise bad_file(path, "is something else")
    with open(path, "rb") as file:
        file.seek(-22, 2)
        end = file.read()
        if not end.startswith(END) or struct.unpack("<I", end[12:16])[0] > MAX_LIST:
            raise bad_file(path, "is something else")
        try:
            with zipfile.ZipFile(file) as archive:
                return unpacked(archive, path, shots)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError) as error:
            raise bad_file(path, f"is damaged ({error})") from None


def unpacked(archive, path, shots):
    try:
        content = msgspec.json.decode(entry(archive, "support.json", MAX_TEXT, path), type=Content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_file(path, f"has a support.json that cannot be read: {in_words(error, 'it')}") from None
    count = len(content.supports)
    if shots is not None and shots > count:
        raise ValueError(f"--shots {shots}: {path} has {count} supports.\n  Ask for fewer")
    chosen = content.supports[:shots]
    images, masks = [], []
    for k in range(len(chosen)):
        images.append(pixels(entry(archive, f"{k}.png", MAX_BYTES, path), f"{path}: {k}.png"))
        masks.append(numbers(entry(archive, f"{k}_mask.png", MAX_BYTES, path), f"{path}: {k}_mask.png") > 0)
        if sum(mask.size for mask in masks) > MAX_PIXELS:
            raise bad_file(path, f"has images of more than {MAX_PIXELS} pixels")
    for one, image, mask in zip(chosen, images, masks, strict=True):
        if mask.shape != image.shape[:2] or not mask.any():
            raise bad_file(path, f"has a mask that does not fit its image, or is empty ({one.name[:80]})")
    features = content.features if len(chosen) == count and content.made_by else {}
    return (images, masks, [one.name for one in chosen], [one.agreement for one in chosen],
            {name: array(archive, name, about, path) for name, about in features.items()},
            content.made_by, content.text)


def entry(archive, name, most, path):
    """One entry of the zip, at most so many bytes; packed ones could grow without bounds"""
    about = archive.getinfo(name)
    if about.file_size > most or about.compress_type != zipfile.ZIP_STORED:
        raise bad_file(path, f"has an entry {name} of {about.file_size} bytes, too many or packed")
    return archive.read(about)


def array(archive, name, about, path):
    """Features of this name, as support.json describes them"""
    data = entry(archive, f"features/{name}", about.bytes, path)
    if len(data) != about.bytes:
        raise bad_file(path, f"is damaged (features/{name} has {len(data)} bytes, {about.bytes} are said)")
    found = np.frombuffer(data, np.uint8 if about.dtype == "bool" else about.dtype).reshape(about.shape)
    if about.dtype == "bool":
        return found > 0
    if not np.isfinite(found).all():
        raise bad_file(path, f"is damaged (features/{name} has values that are not finite)")
    return found.copy()


def bad_file(path, what):
    return ValueError(f"{path} {what}; a file of supports was expected, as --save-support writes it.\n"
                      "  Name one, or a folder of images with masks; or write the file again")
