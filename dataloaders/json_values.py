"""JSON from anybody: read with bounds, into records of given types, and what is wrong is said in few words.

In: a path and the types that are expected (msgspec). Out: the records, or the ValueError of the one who asks.
"""
import codecs
import re
import stat
from pathlib import PurePosixPath
from typing import Annotated

import msgspec

MAX_BYTES = 2 ** 31          # of an annotation file; COCO's, the largest, are below 2 ** 29
MAX_ID = 2 ** 63 - 1         # of the arrays that ids are kept in
LONGEST_NAME = 1024          # characters; in an array of names each takes as much as the longest

Id = Annotated[int, msgspec.Meta(ge=-MAX_ID, le=MAX_ID)]
Text = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME, pattern="^[^\0]*$")]
Side = Annotated[int, msgspec.Meta(ge=1, le=65535)]               # of an image, in pixels: the most of a JPEG
WORDS = {"int": "an integer", "str": "text", "bool": "true or false", "array": "a list", "object": "an object",
         "float": "a number", "null": "null"}
EXPECTED = re.compile(r"Expected `(?P<kind>[^`]+)`(?P<more>.*?)(?:, got `(?P<found>[^`]+)`)?(?: - at `\$(?P<at>.*)`)?",
                      re.DOTALL)


def read_typed(path, kind, bad):
    """path, a type, what makes an error of (path, words)  ->  what the file says, as this type"""
    data = _bytes(path, bad)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise bad(path, in_words(error, "the top level")) from None
    except msgspec.DecodeError as error:
        raise bad(path, f"no valid JSON {_place(error, data)}") from None
    except (RecursionError, UnicodeDecodeError) as error:
        raise bad(path, _unreadable(error)) from None


def _bytes(path, bad):
    """A regular file in UTF-8, without the mark that Windows puts at the beginning, which may also say UTF-16."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):                               # reading a pipe would never end
        raise bad(path, "no regular file")
    if about.st_size > MAX_BYTES:
        raise bad(path, f"{about.st_size} bytes, more than {MAX_BYTES}")
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16").encode()
        except UnicodeError:
            raise bad(path, "no UTF-8 or UTF-16 text") from None
    return memoryview(data)[3:] if data.startswith(codecs.BOM_UTF8) else data


def _place(error, data):
    """msgspec's error, which counts bytes  ->  line, column and reason"""
    found = re.search(r" \(byte (\d+)\)$", str(error))
    at, data = int(found[1]) if found else len(data), bytes(data)
    what = str(error).removeprefix("JSON is malformed: ").removesuffix(found[0] if found else "")
    if data[at:at + 3] == b"NaN" or data[at:at + 8].strip(b"-") == b"Infinity":
        what = "NaN and Infinity are not JSON"
    line, before = data.count(b"\n", 0, at) + 1, data.rfind(b"\n", 0, at)
    return f"at line {line}, column {at - before}: {what}"


def _unreadable(error):
    return "lists or objects lie too deep in one another" if isinstance(error, RecursionError) else "no UTF-8 text"


def in_words(error, whole="it"):
    """An error of msgspec  ->  which entry is what, and what it should be; whole: what is looked at, in words"""
    if not isinstance(error, msgspec.ValidationError):
        return _unreadable(error)
    found = EXPECTED.fullmatch(str(error))
    if not found:
        text, _, at = str(error).partition(" - at `$")
        missing = re.fullmatch("Object missing required field `(.*)`", text)
        if missing:
            return f"{at.strip('.`') or whole} has no {missing[1]!r}"
        text = text[:1].lower() + text[1:]
        return f"{at.strip('.`')}: {text}" if at else text
    at, kind = (found["at"] or "").strip("."), [WORDS.get(word, word) for word in found["kind"].split(" | ")]
    wanted = " or ".join(kind) + found["more"].replace("matching regex '^[^\\x00]*$'", "without zero bytes")
    said = f" is {WORDS.get(found['found'], found['found'])}," if found["found"] else ":"
    return f"{at or whole}{said} expected {wanted}"


def records(raws, kind, name, fault):
    """Undecoded records of a list  ->  (position, record of type `kind`) of each that is right, with an id of its own

    name: videos, images, ...; fault(kind of fault, where, what, drop): is told of the others and raises, or keeps them
    """
    decoder, seen = msgspec.json.Decoder(kind), set()
    one = {"categories": "category"}.get(name, name.removesuffix("s"))
    if not raws:
        fault("empty_list", name, "the list is empty; only the train split of a data set has annotations")
    for position, raw in enumerate(raws):
        try:
            record = decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            fault("bad_record", f"{one} number {position}{_id(raw)}", in_words(error), (name, position))
            continue
        if record.id in seen:
            fault("duplicate_id", f"{one} {record.id}", f"its id occurs twice, again at number {position}",
                  (name, position))
            continue
        seen.add(record.id)
        yield position, record


class _Identified(msgspec.Struct):
    id: int


def _id(raw):
    """Of a record that is wrong: its id in brackets, if it has one"""
    try:
        return f" (id {shown(msgspec.json.decode(raw, type=_Identified).id)})"
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ""


def file_names(names, folders):
    """File names from a file  ->  the same with / for the \\ of Windows; ValueError where one leaves its folder"""
    names = [name.replace("\\", "/") for name in names]
    for name in names:
        if not is_file_name(name, folders):
            raise ValueError(f"the file name {shown(name)} is not a name below {'a folder of ' * folders}the images")
    return names


def shown(value):
    """A value of a file in an error's text, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):                              # thousands of digits, or of levels
        return f"{type(value).__name__} too long to show"
    return text if len(text) <= 80 else f"{text[:80]}..."


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
