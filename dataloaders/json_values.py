"""JSON of annotations from anybody: read with bounds, and its values looked at before they are used.

In: a path. Out: what the file says, or the ValueError of the one who asks.
"""
import json
from pathlib import PurePosixPath

from dataloaders.images import MAX_PIXELS

MAX_BYTES = 2 ** 31          # of an annotation file; COCO's, the largest, are below 2 ** 29
MAX_ID = 2 ** 63 - 1         # of the arrays that ids are kept in
LONGEST_NAME = 1024          # characters; in an array of names each takes as much as the longest


def read_json(path, hook, bad):
    """path, json's object hook, what makes an error of (path, words)  ->  what the file says

    The hook takes every record as soon as it is read, so that run lengths never pile up.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise bad(path, f"{size} bytes, more than {MAX_BYTES}")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file, object_hook=hook)
    except json.JSONDecodeError as error:
        raise bad(path, f"no valid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise bad(path, f"no UTF-8 text at byte {error.start}") from error
    except RecursionError:
        raise bad(path, "lists or objects lie too deep in one another") from None
    except ValueError as error:                                       # Python reads no number of over 4300 digits
        raise bad(path, f"no valid JSON: {error}") from error


def shown(value):
    """A value of a file in an error's text, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):                              # thousands of digits, or of levels
        return f"{type(value).__name__} too long to show"
    return text if len(text) <= 80 else f"{text[:80]}..."


def is_id(value):
    return type(value) is int and abs(value) <= MAX_ID


def is_size(size):
    """Whether a value is [rows, columns] of an image that would be read."""
    return (isinstance(size, list | tuple) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)
            and size[0] * size[1] <= MAX_PIXELS)


def is_text(value):
    """Whether a value is a name that can be kept and written: JSON can express half a character."""
    if not isinstance(value, str) or len(value) > LONGEST_NAME or "\0" in value:
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_file_name(value, folders):
    """Whether a value names a file below its folder, in so many folders of its own at least."""
    path = PurePosixPath(value) if is_text(value) else PurePosixPath("/")
    return len(path.parts) > folders and not path.is_absolute() and ".." not in path.parts
