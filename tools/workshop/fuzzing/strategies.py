"""Hypothesis strategies of tools/workshop/fuzz.py: the bytes of a correct file in, broken or hostile ones drawn.

Nothing here knows who reads them.
"""
import builtins
import copy
import functools
import io
import json
import os
import pickle
import struct
import zipfile
import zlib

import torch
from hypothesis import strategies as st
from PIL import Image

BIG = (2 ** 31, 2 ** 32, 2 ** 53 + 1, 2 ** 63 - 1, 2 ** 63, 2 ** 64, 10 ** 30, -1, -2 ** 31, -2 ** 63 - 1, 0)
NAMES = ("../../../outside/secret.jpg", "a/../../../../outside/secret.jpg", "{outside}/secret.jpg",
         "link_out/secret.jpg", "loop/00000.jpg", "link_file.jpg/00000.jpg", "pipe/00000.jpg", "/etc/passwd",
         "/dev/zero", "..", ".", "", "/", "a//b.jpg", "a/./b.jpg", "x/\0.jpg", "a/" + "n" * 300 + ".jpg",
         "d/" * 3000 + "x.jpg", "\ud800/x.jpg", "\u202e/x.jpg", "é/ü.jpg", "C:\\x\\y.jpg", "~/x.jpg",
         "x/" + "long" * 100_000 + ".jpg", "a\n/b.jpg", "//server/share.jpg", "video/" + "\U0001f600" * 60 + ".jpg")
# Texts that json.dumps cannot write: they take the place of these words after it.
RAW = {"@deep list@": "[" * 20_000 + "]" * 20_000, "@deep object@": '{"a":' * 20_000 + "1" + "}" * 20_000,
       "@digits@": "9" * 5000, "@NaN@": "NaN", "@Infinity@": "-Infinity", "@exponent@": "1e999999", "@nothing@": "",
       "@control@": '"\x01"', "@half@": '"\\ud800"', "@twice@": '{"id": 1, "id": 2, "counts": "a", "counts": [1]}'}
absurd = st.one_of(
    st.sampled_from((*BIG, 1, 2, 3, 255, 65_536, 60_000)), st.sampled_from(NAMES), st.sampled_from([*RAW]),
    st.sampled_from((None, True, 1.5, -0.0, 1e308, "7", "x" * 100_000, "\ud800", "\0", [], {}, [[]], [None], {"": {}},
                     {"id": 1}, [1] * 1000, {"size": 1, "counts": 2})),
    st.integers(), st.floats(), st.text(max_size=20)).map(copy.deepcopy)
NOISE = (b"", b"}", b"\0" * 50, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 500)


@st.composite
def damaged(draw, data):
    """A stretch of the bytes becomes another: cut, repeated, inverted, overwritten, or something between two bytes"""
    start = draw(st.integers(0, len(data)))
    stop = min(start + draw(st.sampled_from((0, 1, 1, 4, 64, 1000, len(data)))), len(data))
    part, mask = data[start:stop], draw(st.integers(1, 255))
    new = draw(st.one_of(st.sampled_from((part * 2, bytes(len(part)), bytes(b ^ mask for b in part), *NOISE)),
                         st.binary(max_size=100)))
    return data[:start] + new + data[stop:]


# -- JSON and lists ---------------------------------------------------------------------------------------------------

def dumps(document):
    """JSON with the texts of RAW in their places."""
    text = json.dumps(document)
    for word, raw in RAW.items():
        text = text.replace(json.dumps(word), raw)
    return text.encode()


def change(draw, document, values=absurd):
    """One change, in place, at the end of a random walk from the root; values: strategy of what is put there"""
    parent, value = None, document
    while isinstance(value, dict | list) and value and (parent is None or draw(st.integers(0, 6))):
        key = draw(st.sampled_from([*value])) if isinstance(value, dict) else draw(st.integers(0, len(value) - 1))
        parent, value = value, value[key]
    how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "repeat", "rename")))
    if how == "remove":
        del parent[key]
    elif how == "repeat" and isinstance(parent, list):
        parent.insert(draw(st.integers(0, len(parent))), value)
    elif how == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from(("counts", "id", "", "size", "segmentation", "Ä")))] = parent.pop(key)
    else:
        parent[key] = draw(values)


@st.composite
def changed_json(draw, data):
    """Another structure, or other bytes"""
    if draw(st.integers(0, 4)) == 0:
        return draw(damaged(data))
    document = json.loads(data)
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 4)))):
        change(draw, document)
    return dumps(document)


@st.composite
def changed_lines(draw, data, change_line=changed_json):
    """One line of a text becomes another, a strategy of the line, or the bytes of all change"""
    if draw(st.integers(0, 2)) == 0:
        return draw(damaged(data))
    lines = data.splitlines()
    place = draw(st.integers(0, len(lines) - 1))
    lines[place] = draw(change_line(lines[place]))
    return b"\n".join(lines) + b"\n"


def changed_list(data):
    """MiniVSPW's: VIDEO VIDEO/mask/FRAME.png"""
    def line(old):
        video, _, file = old.decode().partition(" ")
        numbers = ("0" * 8, "99999999", "-0000001", "9" * 5000, "٠" * 8, "00000000\0")
        return st.sampled_from([
            text.encode(errors="surrogatepass") for text in (
                *(f"{name} {file}" for name in NAMES), *(f"{video} {name}" for name in NAMES),
                *(f"{video} {video}/mask/{number}.png" for number in numbers), "", " " * 10_000, "x" * 100_000,
                ".. ../mask/00000001.png", f"{'v' * 300} {'v' * 300}/mask/00000001.png", f"{video}\u2028 {file}",
                f"{video} {file} x")])
    return changed_lines(data, line)


# -- masks in JSON ----------------------------------------------------------------------------------------------------

def wrapping_runs(pixels):
    """A compressed RLE whose runs sum up to `pixels` only because 64 bits are left behind: to 2^64 + pixels"""
    runs, text = [2 ** 53 - 1] * 2048 + [2048 + pixels], ""
    for i, run in enumerate(runs):
        value, more = run - (runs[i - 2] if i > 2 else 0), True
        while more:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text += chr(digit + 32 * more + 48)
    return text


def rle(rows, cols, counts=""):
    """Hostile masks of that size; counts: those of a correct one, which may be damaged, too"""
    pixels = rows * cols
    sizes = ([65_536, 65_536], [2 ** 40, 2 ** 40], [1, 1], [cols, rows], [], [rows, cols, 3], "48", None, [1.5, 2],
             [True, 1], *([n, cols] for n in BIG))
    fixed = ([], "0", [pixels], [0], [0, pixels], [pixels + 1], [pixels, -1, 1], [0] * 7, [0.0], [None], [[1]],
             [2 ** 70, -2 ** 70], wrapping_runs(pixels), wrapping_runs(pixels) + "00")
    return st.fixed_dictionaries({
        "size": st.just([rows, cols]) | st.just([rows, cols]) | st.sampled_from(sizes),
        "counts": st.one_of(
            absurd, st.sampled_from(fixed), st.text(max_size=40),
            st.text(st.characters(min_codepoint=48, max_codepoint=111)),
            damaged(counts.encode()).map(lambda x: x.decode("latin-1")),
            st.lists(st.sampled_from((*BIG, 1, 5, pixels)), max_size=10))})


def polygons(rows, cols):
    """Outlines of COCO"""
    fixed = (
        [-1e9, -1e9, 1e9, 1e9, 1e9, -1e9], [0, 0, cols, 0, cols, rows] * 20_000, [10 ** 400, 1, 2, 3, 4, 5],
        ["@NaN@"] * 6, ["@Infinity@", 1, 2, 3, 4, 5], [[1, 2, 3, 4, 5, 6]], [True] * 6, [0.0] * 6, [1e308] * 8)
    points = st.one_of(st.lists(st.floats() | st.integers(), max_size=9), st.lists(absurd, max_size=6),
                       st.sampled_from(fixed))
    return st.builds(lambda outline, count: [outline] * count, points, st.sampled_from((1, 1, 2, 50)))


@st.composite
def changed_masks(draw, data):
    """Annotations of YouTube-VIS or COCO with one other mask"""
    document = json.loads(data)
    annotation = draw(st.sampled_from(document["annotations"]))
    if "segmentations" in annotation:
        masks = annotation["segmentations"]
        place = draw(st.sampled_from([t for t, mask in enumerate(masks) if mask]))
        masks[place] = draw(rle(*masks[place]["size"], str(masks[place]["counts"])))
    else:
        image = next(image for image in document["images"] if image["id"] == annotation["image_id"])
        rows, cols = image["height"], image["width"]
        annotation["segmentation"] = draw(polygons(rows, cols) | rle(rows, cols))
    return dumps(document)


def changed_annotations(data):
    return changed_json(data) | changed_masks(data)


# -- images -----------------------------------------------------------------------------------------------------------

@functools.cache
def zeros(count):
    """So many of them, compressed to a thousandth."""
    return zlib.compress(bytes(count), 9)


def png_file(chunks, checksums=True):
    """[(name, content)]  ->  bytes"""
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content) if checksums or name == b"IEND" else 12345) for name, content in chunks)


@st.composite
def changed_png(draw, data):
    """Another header, one more chunk, a damaged one, or a decompression bomb; checksums are right in most"""
    chunks, rest, end = [], io.BytesIO(data[8:]), (b"IEND", b"")
    while head := rest.read(8):
        chunks.append((head[4:], rest.read(int.from_bytes(head[:4])))), rest.read(4)
    how = draw(st.sampled_from(("header", "header", "bomb", "chunk", "content")))
    if how == "header":
        side, kind = st.sampled_from((0, 1, 48, 60_000, 2 ** 31 - 1, 2 ** 32 - 1)), st.sampled_from((0, 1, 2, 3, 8, 16))
        chunks[0] = b"IHDR", struct.pack(">IIBBBBB", draw(side), draw(side), *(draw(kind) for _ in range(5)))
    elif how == "bomb":
        size = draw(st.sampled_from(((60_000, 60_000), (8000, 8000), (2 ** 31 - 1, 1), (1, 2 ** 31 - 1))))
        header = struct.pack(">IIBBBBB", *size, 8, draw(st.sampled_from((0, 3))), 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zeros(1 << 24)), end]
    elif how == "chunk":
        chunks.insert(draw(st.integers(0, len(chunks))), draw(st.sampled_from((
            (b"zTXt", b"k\0\0" + zeros(1 << 26)), (b"iCCP", b"k\0\0" + zeros(1 << 26)), (b"PLTE", bytes(768)), end,
            (b"acTL", struct.pack(">II", 2 ** 31 - 1, 0)), (b"eXIf", b"MM\0*" + b"\xff" * 20), chunks[0],
            (b"IDAT", b"")))))
    else:
        place = draw(st.integers(0, len(chunks) - 1))
        chunks[place] = chunks[place][0], draw(damaged(chunks[place][1]))
    return png_file(chunks, checksums=draw(st.integers(0, 2)) > 0)


@st.composite
def changed_jpeg(draw, data):
    """Another size in its header, one more marker, or damage within, where the decoder sees it"""
    how, frame = draw(st.sampled_from(("size", "within", "marker"))), data.find(b"\xff\xc0")
    if how == "within":
        return b"\xff\xd8" + draw(damaged(data[2:-2])) + b"\xff\xd9"
    if how == "size":
        size = draw(st.sampled_from(((60_000, 60_000), (65_535, 65_535), (0, 0), (1, 65_535), (8000, 8000), (49, 48))))
        kind = draw(st.sampled_from((b"\xc0", b"\xc2")))                       # baseline, progressive
        return data[:frame + 1] + kind + data[frame + 2:frame + 5] + struct.pack(">HH", *size) + data[frame + 9:]
    new = draw(st.sampled_from((
        b"\xff\xc0\0\x0b\x08\xea\x60\xea\x60\1\1\x11\0", b"\xff\xfe\xff\xff" + bytes(0xfffd), b"\xff\xda", b"\xff\xd9",
        b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0", b"\xff\xdd\0\4\0\1")))
    place = draw(st.sampled_from((2, 20, len(data) - 2)))
    return data[:place] + new + data[place:]


MODES = [*(("PNG", mode) for mode in ("1", "LA", "P", "RGB", "RGBA", "I;16")),
         *(("JPEG", mode) for mode in ("L", "RGB", "CMYK"))]
HEADS = (b"P6 60000 60000 255\n", b"P5 30000 30000 255\n" + bytes(100), b"GIF89a" + b"\xff" * 10,
         b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 30_000, 30_000, 1, 24, 0) + bytes(200),
         b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 50, b"#?RADIANCE\n\n-Y 30000 +X 30000\n", b"v/1\x01\2\0\0\0",
         b"RIFF\xff\xff\xff\x7fWEBPVP8 ", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(90), b"<svg width='60000'/>")


def whole_image(kind, size):
    file = io.BytesIO()
    Image.new(kind[1], size).save(file, kind[0])
    return file.getvalue()


# A whole image of a mode or size that nobody expects, or the beginning of another format.
other_images = st.builds(
    whole_image, st.sampled_from(MODES), st.sampled_from(((48, 48), (1, 1), (3000, 1), (64, 48)))) | st.builds(
    bytes.__add__, st.sampled_from(HEADS), st.sampled_from((b"\xff\xd9", b"IEND\xaeB`\x82")))


def changed_image(data):
    return (changed_jpeg(data) if data[:2] == b"\xff\xd8" else changed_png(data)) | damaged(data) | other_images


def changed_support(data):
    return changed_image(data) if data[:1] != b"{" else (
        changed_json(data) if b"shapes" in data else changed_annotations(data))


# -- YAML -------------------------------------------------------------------------------------------------------------

ALIASES = "a: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"k{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12))
BOMBS = (
    ALIASES, ALIASES + "name: *a12", "name: &a [*a]", "x: &x {<<: [*x, *x]}", "data: &d\n  size: [1, 2]\n  <<: *d",
    "base: &b [*b, *b]", "name: " + "[" * 3000 + "]" * 3000, "name: " + "{a: " * 3000 + "1" + "}" * 3000, "? " * 3000,
    "name: !!python/object/apply:os.system ['touch ../outside/code']", "name: !!python/name:os.system",
    "name: !!binary 'ä'", "name: 2001-99-99", "seed: !!int x", "name: !!bool x", "name: !!set {a, [b]}",
    "seed: " + "9" * 5000, "seed: 0x" + "f" * 5000, "seed: 1:" + "9:" * 2000 + "1", "train: {lr: 1:1.5e999}",
    "train: {lr: .nan}", "train: {betas: [.inf, 1]}", "seed: 1.0e+400", "base: fuzz.yaml", "base: \"\\0\"",
    "base: /dev/zero", "base: .", f"base: {'x/' * 3000}", "base: ~", "base: loop", "base: other.yaml\nname: x",
    "name: \"\\ud800\"", "? [a, b]\n: c", "null: 1", "? !!binary aGVsbG8=\n: 1", "2001-01-01: 1", "data: {1: 2}",
    "<<: 3", "data: {<<: {root: x}}", "%YAML 9.9\n---\na: 1", "a: 1\n---\nb: 2", "\t", "&a", "*a", "!<",
    "name: |99\n  x", "\"\\x", "\0", "\ufeffname: x", "__class__: 1", "data: {__init__: 1}", "keys: 1")
yaml_values = st.sampled_from(("[1, x]", "{a: 1}", "~", "1e5", "-1", "&a", "*a", "!!str 1", "off")) | absurd.map(
    lambda value: str(value)[:5000])


@st.composite
def changed_yaml(draw, data):
    """A bomb alone, one in the midst of the file, another value of a key, or other bytes"""
    lines, bomb = data.decode().splitlines(), draw(st.sampled_from(BOMBS))
    place, how = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, 3))
    if how == 0:
        return draw(damaged(data))
    if how == 1:
        lines.insert(place, bomb)
    elif how == 2:
        lines[place] = f"{lines[place].partition(':')[0]}: {draw(yaml_values)}"
    return ("\n".join(lines) if how < 3 else bomb + "\n").encode(errors="surrogatepass")


@st.composite
def override(draw, data):
    """key.sub=value, or what resembles it; a message repeats it, so that it is cut"""
    keys = ("seed", "data.size", "name", "train.lr", "data", "base", "x.y", "", "data.root.x", "a." * 500)
    key, value = draw(st.sampled_from(keys)), draw(st.sampled_from(BOMBS) | yaml_values)
    return draw(st.sampled_from((f"{key}={value}", value, "=" * 10)))[:1500].encode(errors="surrogatepass")


# -- checkpoints ------------------------------------------------------------------------------------------------------

class Code(tuple):
    """Whoever unpickles this calls its first element with the others."""

    def __reduce__(self):
        return self[0], tuple(self[1:])


MARK = "../outside/code"
CODE = [pickle.dumps({"model": Code(call)}, protocol=2) for call in (
    (os.system, f"touch {MARK}"), (builtins.exec, f"open({MARK!r}, 'w')"), (open, MARK, "w"), (os.mkdir, MARK))] + [
    b"cos\nsystem\n(S'touch " + MARK.encode() + b"'\ntR.", b"\x80\x02cbuiltins\nexec\n(X\x01\0\0\0xtR."] + [
    b"\x80\x02}X\x05\0\0\0model" + b"]" * n + b"a" * (n - 1) + b"s." for n in (100, 5000, 100_000)]     # deep lists
TENSORS = (
    lambda: torch.zeros(4, 4), lambda: torch.zeros(1).expand(100_000, 100_000), lambda: torch.zeros(4, 3).to_sparse(),
    lambda: torch.zeros(4, 3, device="meta"), lambda: torch.zeros(4, 3, dtype=torch.complex64),
    lambda: torch.quantize_per_tensor(torch.zeros(4, 3), 0.1, 0, torch.qint8), lambda: torch.zeros(()),
    lambda: torch.zeros(4, 3, dtype=torch.bool), lambda: torch.full((4, 3), float("nan")),
    lambda: torch.zeros(4, 3, dtype=torch.float8_e4m3fn), lambda: torch.zeros(1).expand(4, 3))


def circle():
    found = {}
    found["model"] = found
    return found


odd_values = st.one_of(st.sampled_from(TENSORS).map(lambda make: make()), st.builds(circle), st.builds(dict),
                       st.sampled_from((None, 5, "text", b"bytes", 1 + 2j, torch.Size([1]), (1, 2))),
                       st.builds(lambda: {1: 2}))


def with_pickle(data, pickled):
    """A file of torch.save with another pickle in it"""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in source.namelist():
            archive.writestr(name, pickled if name.endswith("data.pkl") else source.read(name))
    return target.getvalue()


def saved(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


@st.composite
def odd_checkpoint(draw, data):
    """A whole checkpoint that says something else: wrong types, shapes and kinds of tensors, names that are no text"""
    state = torch.load(io.BytesIO(data), weights_only=True)
    del state["sha256"]
    how = draw(st.sampled_from(("anywhere", "anywhere", "weight", "key", "metadata", "config", "alone")))
    value = draw(odd_values)
    if how == "anywhere":
        change(draw, state, odd_values | absurd)
    elif how in ("weight", "key"):
        names = [*state["model"]] if how == "weight" else [1, None, "0.weight ", ("a",)]
        state["model"][draw(st.sampled_from(names))] = value
    elif how == "metadata":
        state["model"]._metadata = draw(st.sampled_from((value, {"": value}, {"": {"version": value}})))
    elif how == "config":
        state["config"] = {"data": value}
    return saved(value if how == "alone" else state)


def changed_checkpoint(data):
    """Other bytes, the old format, a pickle that runs code or was damaged, or a whole checkpoint of other content"""
    old = saved(torch.load(io.BytesIO(data), weights_only=True), _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content, = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    code = st.sampled_from(CODE)
    return st.one_of(damaged(data), damaged(old), code | code.map(lambda pickled: with_pickle(data, pickled)),
                     damaged(content).map(lambda pickled: with_pickle(data, pickled)), odd_checkpoint(data))
