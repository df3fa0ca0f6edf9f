"""The names of images.py that callers knew before; to go with the last of them."""
from dataloaders.images import PICTURES, PNG_START, as_mask, as_picture, natural, read_image

__all__ = ["PICTURES", "as_mask", "as_picture", "has_end", "natural", "read_picture"]


def read_picture(path, which=""):
    """As read_image, upright; which: added to errors"""
    try:
        return read_image(path, upright=True)
    except ValueError as error:
        what, _, how = str(error).partition(".\n")
        raise ValueError(f"{what}{which}.\n{how}") from None


def has_end(data):
    """Whether a PNG or JPEG is whole. Phones append more data, and put a whole small JPEG into the header."""
    if data.startswith(PNG_START):
        return b"IEND\xaeB`\x82" in data
    place = 2
    while data[place:place + 1] == b"\xff" and data[place + 1:place + 2] not in (b"\xda", b""):     # not yet pixels
        place += 2 + int.from_bytes(data[place + 2:place + 4])
    return data.find(b"\xff\xd9", place) >= 0
