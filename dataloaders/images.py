"""The one reader of images: JPEG and PNG from anybody, in bounded time and memory; what is cut off is refused.

In: paths, bytes, a caller's own arrays. Out: (H, W, 3) uint8 RGB, or the numbers of a mask. In data sets pixels are
taken as stored, since masks do not follow a camera's orientation tag; a person's own pictures are turned upright.
"""
import io
import os
import re
import stat
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.PngImagePlugin import PngImageFile

MAX_PIXELS = 2 ** 25         # a frame of 8K video has 33.2 million; those of the data sets have 2 million at most
MAX_BYTES = 2 ** 28          # of a file
MAX_WORK = 2 ** 29           # pixels times scans of a JPEG: a progressive one is gone through once per scan
MOST_PARTS = 2 ** 16         # segments of a JPEG, chunks of a PNG
PICTURES = (".jpg", ".jpeg", ".png")

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
GREY = 0                                                          # colour type of PNG
MARKER = re.compile(rb"\xff[^\x00\xff\x01\xd0-\xd8]")  # of JPEG, with a segment behind it, or the end
NO_FRAME = (0xC4, 0xC8, 0xCC)                                     # markers C0 to CF without a size
OTHER_KINDS = ((0, b"GIF8", "GIF"), (0, b"BM", "BMP"), (8, b"WEBP", "WebP"), (0, b"II*\0", "TIFF"),
               (0, b"MM\0*", "TIFF"), (4, b"ftypavif", "AVIF"), (4, b"ftyp", "HEIC"), (4, b"jP  ", "JPEG 2000"),
               (4, b"JXL ", "JPEG XL"), (0, b"\xff\x0a", "JPEG XL"), (0, b"%PDF", "PDF"), (0, b"<svg", "SVG"))
TURNS = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
         6: lambda a: a.swapaxes(0, 1)[:, ::-1], 7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
         8: lambda a: a.swapaxes(0, 1)[::-1]}                     # what the orientations of EXIF ask for


def read_image(path, upright=False):
    """JPEG or PNG file  ->  (H, W, 3) uint8 RGB; upright: turned as its EXIF tag says, else as stored"""
    data = read_bytes(path)
    image = pixels(data, path)
    turn = TURNS.get(orientation(data)) if upright else None
    return np.ascontiguousarray(turn(image)) if turn else image


def read_bmp(path):
    """BMP file, of a data set that has them  ->  (H, W, 3) uint8 RGB"""
    data = read_bytes(path)
    if not data.startswith(b"BM"):
        raise bad_image(path, "is no BMP")
    try:
        image = BmpImageFile(io.BytesIO(data))
        _checked_size(*image.size[::-1], path)
        return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, struct.error, KeyError) as error:          # of Pillow, for what is no BMP
        raise bad_image(path, f"cannot be read ({error})") from None


def read_mask(path):
    """PNG file  ->  its numbers (H, W), uint8 or uint16, grey or with a palette; (H, W, 3 or 4) uint8 if in colour"""
    return numbers(read_bytes(path), path)


def image_size(path):
    """JPEG or PNG file  ->  (rows, columns) as stored; only its header is read"""
    check_file(path)
    with open(path, "rb") as file:
        start = file.read(24)
        if _is_png(start, path):
            size = struct.unpack(">II", start[16:])[::-1] if len(start) == 24 else None
        else:
            size = _jpeg_size(file)
    if size is None:
        raise bad_image(path, "is no JPEG or PNG that can be read")
    return _checked_size(*size, path)


def _jpeg_size(file):
    """(rows, columns), None where no segment of the first ones says them"""
    place = 2
    for _ in range(MOST_PARTS):
        file.seek(place)
        data = file.read(2 ** 12)
        match = MARKER.search(data)
        if match is None or data[match.end() - 1] in (0xD9, 0xDA):
            return None
        if _says_size(data, match.end()):
            return struct.unpack_from(">HH", data, match.end() + 3)
        place += match.end() + max(int.from_bytes(data[match.end():match.end() + 2]), 2)
    return None


def _says_size(data, place):
    """Whether the segment of a JPEG whose marker ends at `place` is a frame's"""
    marker = data[place - 1]
    return 0xC0 <= marker <= 0xCF and marker not in NO_FRAME and len(data) >= place + 7


def check_file(path):
    """The size of a regular file in bytes; ValueError for anything else, and where it is absurdly large."""
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):                           # reading a pipe would never end
        raise bad_image(path, "is no regular file")
    if about.st_size > MAX_BYTES:
        raise bad_image(path, f"has {about.st_size} bytes, more than {MAX_BYTES}")
    return about.st_size


def read_bytes(path):
    check_file(path)
    return Path(path).read_bytes()


def pixels(data, path):
    """Bytes of a JPEG or PNG, their path for errors  ->  (H, W, 3) uint8 RGB, as stored"""
    if _is_png(data, path):
        image = _loaded_png(data, path)
        if image.mode.startswith("I"):                            # 16 bits: Pillow would cut them at 255
            return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.array(image.convert("RGB"))
    check_jpeg(data, path)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image = None
    if image is None:
        raise bad_image(path, "is no JPEG that can be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)      # IMREAD_COLOR_RGB came with OpenCV 4.11


def numbers(data, path):
    """Bytes of a PNG  ->  as `read_mask`"""
    if not _is_png(data, path):
        raise bad_image(path, "is a JPEG, which blurs the numbers of a mask", "Save masks as PNG.")
    image = _loaded_png(data, path)
    if image.mode in ("LA", "PA"):
        image = image.convert("RGBA")
    found, depth, kind = np.array(image), data[24], data[25]
    if found.ndim == 3 and depth == 16:
        raise bad_image(path, "has colours of 16 bits", "Save masks in grey or with a palette.")
    if found.dtype not in (np.uint8, np.uint16):                  # one bit, or 16 in an older Pillow
        return found.astype(np.uint8 if image.mode == "1" else np.uint16)
    return found // (255 // (2 ** depth - 1)) if kind == GREY and depth < 8 else found      # Pillow stretches them


def check_jpeg(data, path):
    """ValueError unless a JPEG is whole and takes bounded time and memory; phones append to it whatever they like.

    Markers are looked for as the decoder does it, by the lengths of segments, between which anything may lie.
    """
    parts, scans, size, marker = 0, 0, None, None
    for parts, (marker, place) in enumerate(_segments(data), 1):
        if parts > MOST_PARTS:
            raise bad_image(path, f"has more than {MOST_PARTS} segments")
        if size is None and _says_size(data, place):
            size = _checked_size(*struct.unpack_from(">HH", data, place + 3), path)
        scans += marker == 0xDA
    if marker != 0xD9:
        raise bad_image(path, "is truncated (no JPEG end marker)")
    if size is None or not scans:
        raise bad_image(path, "is no JPEG that can be decoded")
    if size[0] * size[1] * scans > MAX_WORK:
        raise bad_image(path, f"has {scans} scans of {size[0]} x {size[1]} pixels, which would take too long")


def _segments(data):
    """Bytes of a JPEG  ->  yields (marker, where its segment begins), the end marker last, or the one too many"""
    place, marker = 2, None
    for _ in range(MOST_PARTS + 1):
        match = None if marker == 0xD9 else MARKER.search(data, place)
        if match is None:
            return
        place, marker = match.end(), data[match.end() - 1]
        yield marker, place
        place += max(int.from_bytes(data[place:place + 2]), 2)


def _loaded_png(data, path):
    """Bytes of a PNG, which is whole  ->  a decoded image of Pillow, which stops at the last row"""
    place, name, parts = len(PNG_START), None, 0
    try:
        while name != b"IEND":
            length, name = struct.unpack_from(">I4s", data, place)
            content = memoryview(data)[place + 4:place + 8 + length]
            if struct.unpack_from(">I", data, place + 8 + length)[0] != zlib.crc32(content):
                raise bad_image(path, f"is damaged (checksum of {name.decode('latin-1')!r})")
            place, parts = place + 12 + length, parts + 1
            if parts > MOST_PARTS:
                raise bad_image(path, f"has more than {MOST_PARTS} chunks")
    except struct.error:
        raise bad_image(path, "is truncated (no PNG end marker)") from None
    try:
        image = PngImageFile(io.BytesIO(data))
        _checked_size(*image.size[::-1], path)
        image.load()
    except Exception as error:       # noqa: BLE001  (Pillow raises whatever a broken file leads it to; all of it is told)
        raise error if str(path) in str(error) else bad_image(path, f"cannot be read ({error})") from None
    return image


def _is_png(start, path):
    """The first bytes of a file  ->  whether it is a PNG, else a JPEG; ValueError where it is neither"""
    if not start.startswith((PNG_START, JPEG_START)):
        kind = next((name for at, text, name in OTHER_KINDS if start[at:at + len(text)] == text), None)
        if kind is None:
            raise bad_image(path, "is no JPEG or PNG" if start else "has 0 bytes")
        raise bad_image(path, f"is {kind}, whatever its name says; JPEG and PNG are read", "Save it as one of them.")
    if start.startswith(PNG_START) and len(start) >= 24 and start[12:16] != b"IHDR":            # which has the size
        raise bad_image(path, "is damaged (its first chunk is no IHDR)")
    return start.startswith(PNG_START)


def _checked_size(rows, cols, path):
    if not 0 < rows * cols <= MAX_PIXELS:
        raise bad_image(path, f"has {rows} x {cols} pixels, more than {MAX_PIXELS} or none")
    return rows, cols


def orientation(data):
    """What EXIF says of how the camera was held, 1 to 8; 1 where it says nothing that can be read"""
    try:
        if data.startswith(PNG_START):
            image = PngImageFile(io.BytesIO(data))
            image.load()                                          # EXIF may follow the pixels
            found = image.info.get("exif")
        else:                  # not by Pillow, which goes through the bytes between segments one by one
            found = next(data[place + 2:place + int.from_bytes(data[place:place + 2])] for marker, place in
                         _segments(data) if marker == 0xE1 and data.startswith(b"Exif\0\0", place + 2))
        exif = Image.Exif()
        exif.load(found)
        return exif.get(0x0112, 1)
    except Exception:                # noqa: BLE001  (a broken tag is none; the pixels are read already)
        return 1


def bad_image(path, what, how="Unpack or download this file again."):
    """The ValueError for an image that is wrong."""
    return ValueError(f"{path} {what}.\n  {how}")


def real_path(path):
    """The path without links; one that leads to itself stays, and names no file (Path.resolve would raise)."""
    return Path(os.path.realpath(path))


def natural(path):
    """Sort key by name, in which frame_2 comes before frame_10"""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in parts], path


def as_picture(image, name):
    """(H, W, 3) or (H, W), uint8 or float in [0, 1]; a tensor may be (3, H, W)  ->  (H, W, 3) uint8 RGB"""
    channels_first = hasattr(image, "detach") and image.ndim == 3 and image.shape[0] in (1, 3)       # of a tensor
    image = image.detach().cpu().numpy() if hasattr(image, "detach") else np.asarray(image)
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
