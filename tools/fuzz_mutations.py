"""Mutations of tools/fuzz.py: a correct file in, a hostile or broken one out.

Each function takes a random.Random and gives (what was done, in words; the new content), so that a seed decides
everything. Nothing here knows who reads the files.
"""
import builtins
import functools
import io
import json
import os
import pickle
import struct
import zipfile
import zlib

from PIL import Image

BIG = (2 ** 31, 2 ** 32, 2 ** 53 + 1, 2 ** 63 - 1, 2 ** 63, 2 ** 64, 10 ** 30, -1, -2 ** 31, -2 ** 63 - 1, 0)
NAMES = ("../../../outside/secret.jpg", "a/../../../../outside/secret.jpg", "{outside}/secret.jpg",
         "link_out/secret.jpg", "loop/00000.jpg", "link_file.jpg/00000.jpg", "pipe/00000.jpg", "/etc/passwd",
         "/dev/zero", "..", ".", "", "/", "a//b.jpg",
         "a/./b.jpg", "x/\0.jpg", "x/a\0/../b.jpg", "a/" + "n" * 300 + ".jpg", "d/" * 3000 + "x.jpg", "\ud800/x.jpg",
         "\u202e/\u0000x.jpg", "é/ü.jpg", "C:\\x\\y.jpg", "~/x.jpg", "%2e%2e/x.jpg", "x/" + "long" * 100_000 + ".jpg",
         "a\n/b.jpg", "//server/share.jpg", "a/*.jpg", "video/" + "\U0001f600" * 60 + ".jpg")
# Texts that json.dumps cannot write: they take the place of these words after it.
RAW = {"@deep list@": "[" * 20_000 + "]" * 20_000, "@deep object@": '{"a":' * 20_000 + "1" + "}" * 20_000,
       "@digits@": "9" * 5000, "@NaN@": "NaN", "@Infinity@": "-Infinity", "@exponent@": "1e999999", "@nothing@": "",
       "@control@": '"\x01"', "@half@": '"\\ud800"', "@twice@": '{"id": 1, "id": 2, "counts": "a", "counts": [1]}'}


def scalar(rng):
    """Any value that has no business where it is put."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(BIG)
    if kind == 1:
        return rng.choice((None, True, False, 1.5, -0.0, 1e308, "", "7", "x" * 100_000, "\ud800", "\0", "{}", "\u202e"))
    if kind == 2:
        return rng.choice(NAMES)
    if kind == 3:
        return rng.choice(([], {}, [[]], [None], {"": {}}, [[[[1]]]], {"id": 1}, [1] * 1000, {"size": 1, "counts": 2}))
    return rng.choice(list(RAW)) if kind == 4 else rng.choice((1, 2, 3, 255, 65536, 65535, 60_000, 100_000, 2 ** 20))


# -- bytes ------------------------------------------------------------------------------------------------------------

def any_bytes(rng, data):
    """Flips, cuts and the like."""
    data, how = bytearray(data), rng.choice(("flip", "set", "cut", "cut front", "insert", "remove", "double", "zero",
                                             "append", "empty", "number", "noise"))
    place = rng.randrange(max(len(data), 1))
    length = min(rng.choice((1, 4, 64, 1000)), len(data) - place)
    if how in ("flip", "set"):
        for _ in range(min(rng.choice((1, 1, 3, 20)), len(data))):
            place = rng.randrange(len(data))
            data[place] = data[place] ^ 1 << rng.randrange(8) if how == "flip" else rng.randrange(256)
    elif how == "insert":
        data[place:place] = rng.randbytes(rng.choice((1, 4, 100)))
    elif how == "append":
        data += rng.choice((b"\0" * 50, b"}", rng.randbytes(20)))
    elif how == "number":
        data[place:place + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
    elif how == "double":
        data[place:place] = data[place:place + length]
    else:
        data = {"cut": data[:place], "cut front": data[place:], "empty": bytearray(), "noise": rng.randbytes(length),
                "remove": data[:place] + data[place + length:],
                "zero": data[:place] + b"\0" * length + data[place + length:]}[how]
    return f"{how} at byte {place}", bytes(data)


# -- JSON -------------------------------------------------------------------------------------------------------------

def any_json(rng, document):
    """A JSON document  ->  bytes, changed in its structure, or (one in five) in its text"""
    if rng.random() < 0.2:
        return any_bytes(rng, json.dumps(document).encode())
    document, done = json.loads(json.dumps(document)), []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        done.append(change_somewhere(rng, document))
    return "; ".join(done), dumps(document)


def dumps(document):
    """JSON with the texts of RAW in their places."""
    text = json.dumps(document)
    for word, raw in RAW.items():
        text = text.replace(json.dumps(word), raw)
    return text.encode()


def change_somewhere(rng, document):
    """One change, in place, at the end of a random walk from the root  ->  words"""
    parent, key, path = None, None, ""
    value = document
    while isinstance(value, dict | list) and value and (parent is None or rng.random() < 0.85):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        parent, key = value, rng.choice(keys)
        path, value = f"{path}/{key}", value[key]
    how = rng.choice(("replace", "replace", "replace", "remove", "name", "repeat", "swap", "rename"))
    if how == "remove":
        del parent[key]
    elif how == "name" and isinstance(parent, dict | list):
        parent[key] = rng.choice(NAMES)
    elif how == "repeat" and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), value)
    elif how == "swap" and len(parent) > 1:
        other = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        parent[key], parent[other] = parent[other], parent[key]
    elif how == "rename" and isinstance(parent, dict):
        parent[rng.choice(("counts", "id", "", "size", "segmentation", "Ä"))] = parent.pop(key)
    else:
        how, parent[key] = "replace", scalar(rng)
    return f"{how} {path}"


def any_rle(rng, rle):
    """{"size", "counts"}  ->  a hostile one"""
    size, counts = list(rle["size"]), rle["counts"]
    if rng.random() < 0.35:
        size = rng.choice(([rng.choice(BIG), size[1]], [65536, 65536], [2 ** 31, 2], [2 ** 40, 2 ** 40], [1, 1],
                           size[::-1],
                           [], [1], size + [3], {}, "48", [1.5, 2], [True, 1], [10 ** 9, 10 ** 9], None))
    kind = rng.randrange(7)
    pixels = rle["size"][0] * rle["size"][1]
    if kind == 0:
        counts = rng.choice((scalar(rng), [], "", "0", [pixels], [0], [0, pixels], [pixels + 1], [pixels, -1, 1]))
    elif kind == 1:
        counts = [rng.choice((*BIG, 1, 5, pixels)) for _ in range(rng.choice((1, 3, 10)))]
    elif kind == 2:
        counts = "".join(chr(rng.randrange(48, 112)) for _ in range(rng.choice((1, 5, 40, 400))))
    elif kind == 3:
        counts = "".join(chr(rng.randrange(1, 0x250)) for _ in range(rng.choice((1, 5, 40))))
    elif kind == 4:
        counts = wrapping_runs(pixels) + "0" * rng.randrange(3)
    elif kind == 5 and isinstance(counts, str) and counts:
        place = rng.randrange(len(counts))
        counts = counts[:place] + chr(48 + rng.randrange(64)) * rng.choice((0, 1, 9, 60)) + counts[place + 1:]
    elif isinstance(counts, list):
        counts = [*counts, *rng.choice(([0] * 7, [1], [-1, 1], [0.0], [None], [2 ** 70, -2 ** 70], [[1]]))]
    return f"size {str(size)[:60]}, counts {str(counts)[:60]}", {"size": size, "counts": counts}


def wrapping_runs(pixels):
    """A compressed RLE whose runs sum up to `pixels` only because 64 bits are left behind."""
    runs = [2 ** 53 - 1] * 2048 + [2048 + pixels]                          # 2^64 + pixels
    text = ""
    for i, run in enumerate(runs):
        value = run - (runs[i - 2] if i > 2 else 0)
        while True:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text += chr(digit + 32 * more + 48)
            if not more:
                break
    return text


def any_polygon(rng, rows, cols):
    """A list of outlines for COCO."""
    points = rng.choice((
        [scalar(rng)] * 6, [1, 2, 3], [], [-1e9, -1e9, 1e9, 1e9, 1e9, -1e9], [0, 0, cols, 0, cols, rows] * 20_000,
        [float(rng.randrange(-9, 9)) for _ in range(8)], [10 ** 400, 1, 2, 3, 4, 5], ["1"] * 6, [0.0] * 6, [1e308] * 8,
        ["@NaN@"] * 6, ["@Infinity@", 1, 2, 3, 4, 5], [[1, 2, 3, 4, 5, 6]], [True] * 6))
    outlines = [points] * rng.choice((1, 1, 2, 50))
    return f"polygons {str(outlines)[:80]}", outlines


# -- images -----------------------------------------------------------------------------------------------------------

def any_png(rng, data):
    """A PNG of label ids  ->  another header, other chunks, other bytes; checksums are right in two of three"""
    how = rng.choice(("header", "header", "bytes", "bytes in chunks", "chunk", "mode", "bomb", "other format"))
    if how == "bytes":
        return any_bytes(rng, data)
    if how == "other format":
        return other_format(rng)
    if how == "mode":
        return image_mode(rng, "PNG")
    chunks = png_chunks(data)
    if how == "bomb":
        size = rng.choice(((60_000, 60_000), (8000, 8000), (2 ** 31 - 1, 1), (1, 2 ** 31 - 1)))
        rows = zeros(1 << 24)
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", *size, 8, rng.choice((0, 3)), 0, 0, 0)), (b"IDAT", rows),
                  (b"IEND", b"")]
    elif how == "header":
        fields = list(struct.unpack(">IIBBBBB", chunks[0][1]))
        for _ in range(rng.choice((1, 1, 3))):
            field = rng.randrange(7)
            fields[field] = rng.choice((0, 1, 60_000, 2 ** 31 - 1, 2 ** 32 - 1) if field < 2 else range(20))
        chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *fields))
        how = f"header {fields}"
    elif how == "chunk":
        new = rng.choice(((b"zTXt", b"k\0\0" + zeros(1 << 26)), (b"PLTE", bytes(7)), (b"PLTE",
                                                                                                     bytes(768)),
                          (b"iCCP", b"k\0\0" + zeros(1 << 26)), (b"tRNS", bytes(300)), (b"IEND", b""),
                          (b"acTL", struct.pack(">II", 2 ** 31 - 1, 0)), (b"eXIf", b"MM\0*" + b"\xff" * 20),
                          chunks[0], (b"IDAT", b"")))
        chunks.insert(rng.randrange(len(chunks) + 1), new)
        how = f"one more {new[0].decode()}"
    else:
        number = rng.randrange(len(chunks))
        done, changed = any_bytes(rng, chunks[number][1])
        how, chunks[number] = f"{done} of {chunks[number][0]}", (chunks[number][0], changed)
    return how, png_file(chunks, checksums=rng.random() < 0.67)


@functools.cache
def zeros(count):
    """So many of them, compressed to a thousandth."""
    return zlib.compress(bytes(count), 9)


def png_chunks(data):
    """[(name, content)] of a correct PNG"""
    chunks, place = [], 8
    while place < len(data):
        length, = struct.unpack(">I", data[place:place + 4])
        chunks.append((data[place + 4:place + 8], data[place + 8:place + 8 + length]))
        place += 12 + length
    return chunks


def png_file(chunks, checksums=True):
    body = b"".join(struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content) if checksums or name == b"IEND" else 12345) for name, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def any_jpeg(rng, data):
    """A JPEG  ->  another size in its header, other markers, other bytes"""
    how = rng.choice(("size", "size", "bytes", "bytes", "whole bytes", "marker", "mode", "other format"))
    if how == "bytes":
        return any_bytes(rng, data)
    if how == "other format":
        return other_format(rng)
    if how == "mode":
        return image_mode(rng, "JPEG")
    data = bytearray(data)
    if how == "whole bytes":                             # the end marker stays, so that the decoder sees the damage
        done, data = any_bytes(rng, bytes(data[2:-2]))
        return f"within: {done}", b"\xff\xd8" + data + b"\xff\xd9"
    if how == "size":
        frame = data.find(b"\xff\xc0")
        size = rng.choice(((60_000, 60_000), (65_535, 65_535), (0, 0), (1, 65_535), (8000, 8000), (0, 48), (49, 48)))
        data[frame + 5:frame + 9] = struct.pack(">HH", *size)
        if rng.random() < 0.3:
            data[frame + 1] = 0xc2                       # progressive
        return f"size {size}", bytes(data)
    new = rng.choice((b"\xff\xc0\0\x0b\x08\xea\x60\xea\x60\1\1\x11\0", b"\xff\xfe\xff\xff" + bytes(0xfffd), b"\xff\xda",
                      b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0",
                      b"\xff\xdd\0\4\0\1",
                      b"\xff\xc0\0\0", b"\xff" * 500, b"\xff\xd9"))
    place = rng.choice((2, 2, 20, len(data) - 2))
    return f"marker {new[:2].hex()} at {place}", bytes(data[:place] + new + data[place:])


def image_mode(rng, form):
    """A whole image of a mode that nobody expects, often of the expected size."""
    mode = rng.choice(("1", "L", "LA", "P", "RGB", "RGBA", "I;16") if form == "PNG" else ("L", "RGB", "CMYK"))
    size = rng.choice(((48, 48), (1, 1), (3000, 1), (64, 48), (48, 64)))
    file = io.BytesIO()
    Image.new(mode, size).save(file, form)
    return f"{form} of mode {mode}, {size}", file.getvalue()


def other_format(rng):
    """An image of a format that no data set has, with a decoder of its own, or the name of one."""
    end = b"\xff\xd9" if rng.random() < 0.7 else b"IEND\xaeB`\x82"
    heads = (b"P6 60000 60000 255\n", b"P5 30000 30000 255\n" + bytes(100), b"P4\n9 9\n", b"GIF89a" + b"\xff" * 10,
             b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 30_000, 30_000, 1, 24, 0) + bytes(200),
             b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 50, b"#?RADIANCE\n\n-Y 30000 +X 30000\n", b"Pf\n30000 30000\n-1\n",
             b"\x59\xa6\x6a\x95" + struct.pack(">7I", 30_000, 30_000, 24, 0, 1, 0, 0), b"RIFF\xff\xff\xff\x7fWEBPVP8 ",
             b"v/1\x01\2\0\0\0" + bytes(80), b"P7\nWIDTH 30000\nHEIGHT 30000\nDEPTH 3\nMAXVAL 255\nENDHDR\n",
             b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(90), b"<svg xmlns='http://www.w3.org/2000/svg' width='60000'/>")
    head = rng.choice(heads)
    return f"another format, {head[:6]}", head + end


# -- YAML -------------------------------------------------------------------------------------------------------------

ALIASES = "a: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"k{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12))
BOMBS = (
    ALIASES, ALIASES + "name: *a12\n", ALIASES + "seed: *a12\n", ALIASES + "data: {size: *a12}\n",
    "a: &a [*a]\nname: *a\n",
    "name: &a [*a]\n", "data: &d\n  size: [1, 2]\n  <<: *d\n", "seed: &s {a: *s}\n", "x: &x {<<: [*x, *x]}\n",
    "base: &b [*b, *b]\n", ALIASES.replace("a: &a0 [", "name: &a0 [").replace("\nk", "\ndata") + "\n",
    "name: " + "[" * 3000 + "]" * 3000, "name: " + "{a: " * 3000 + "1" + "}" * 3000, "- " * 5000 + "x", "? " * 3000,
    "name: !!python/object/apply:os.system ['touch ../outside/code']\n",
    "name: !!python/object/new:os.system ['touch ../outside/code']\n", "name: !!python/name:os.system\n",
    "!!python/object/apply:eval [\"open('../outside/code', 'w')\"]\n", "name: !!binary 'ä'\n", "name: !!timestamp x\n",
    "name: 2001-99-99\n", "seed: !!int x\n", "seed: !!float x\n", "name: !!bool x\n", "name: !!set {a, [b]}\n",
    "seed: " + "9" * 5000, "seed: 0x" + "f" * 5000, "seed: 1:" + "9:" * 2000 + "1", "train: {lr: 1:1.5e999}\n",
    "train: {lr: .nan}\n", "train: {lr: .inf}\n", "train: {lr: -.inf}\n", "train: {betas: [.nan, 1]}\n",
    "seed: 1.0e+400\n",
    "base: fuzz.yaml\n", "base: ../config/fuzz.yaml\n", "base: \"\\0\"\n", "base: /dev/zero\n", "base: .\n",
    "base: ''\n",
    f"base: {'x' * 300}.yaml\n", f"base: {'x/' * 3000}\n", "base: ~\n", "base: loop\n", "base: other.yaml\nname: x\n",
    "base: \"\\ud800\"\n", "name: \"\\ud800\"\n", "? [a, b]\n: c\n", "? {a: b}\n: c\n", "{a: b}: c\n", "null: 1\n",
    "1: 2\n",
    "true: 1\n", "? !!binary aGVsbG8=\n: 1\n", "2001-01-01: 1\n", "data: {size: [1, 2, 3]}\n", "data: {1: 2}\n",
    "<<: 3\n", "<<: [1]\n", "data: {<<: {root: x}}\n", "%YAML 9.9\n---\nname: x\n", "a: 1\n---\nb: 2\n",
    "---\n...\n---\n",
    "\t", "&a", "*a", "!", "!<", "|", ">9", "name: |99\n  x", "'", "\"\\x", "\0", "\ufeffname: x\n", "@", "`",
    "name: @\n",
    "__class__: 1\n", "data: {__init__: 1}\n", "keys: 1\n", "data: {update: 1}\n", "model: {dim: 1.0e+1}\n")


def any_yaml(rng, text):
    """A config  ->  one of BOMBS, alone or in the midst of it, a value replaced, or its bytes changed"""
    bomb = rng.randrange(len(BOMBS))
    kind = rng.randrange(5)
    if kind < 2:
        return f"bomb {bomb}", BOMBS[bomb].encode("utf-8", errors="surrogatepass")
    if kind == 2:
        return any_bytes(rng, text.encode())
    lines = text.splitlines()
    place = rng.randrange(len(lines))
    if kind == 3:
        lines.insert(place, BOMBS[bomb])
        how = f"bomb {bomb} in line {place + 1}"
    else:
        key, _, _ = lines[place].partition(":")
        value = rng.choice((str(scalar(rng))[:5000], "[1, x]", "{a: 1}", "~", "1e5", "-1", "&a", "*a", "!!str 1",
                            "off"))
        lines[place] = f"{key}: {value}"
        how = f"line {place + 1} becomes {lines[place][:60]!r}"
    return how, "\n".join(lines).encode("utf-8", errors="surrogatepass")


# -- pickles ----------------------------------------------------------------------------------------------------------

class Code:
    """Whoever unpickles this calls the function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def with_pickle(data, content):
    """A file of torch.save with its pickle replaced by the bytes `content`."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for entry in source.infolist():
            archive.writestr(entry.filename, content if entry.filename.endswith("data.pkl") else source.read(entry))
    return target.getvalue()


def pickle_of(data):
    """The pickle in a file of torch.save"""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def deep_pickle(levels):
    """{"model": [[[...]]]}, which pickle itself would not write"""
    return b"\x80\x02}X\x05\0\0\0model" + b"]" * levels + b"a" * (levels - 1) + b"s."


def code_pickles(mark="../outside/code"):
    """Pickles that write the file `mark` when they are loaded by one who runs code."""
    return [pickle.dumps({"model": Code(*call)}, protocol=2) for call in (
        (os.system, f"touch {mark}"), (builtins.exec, f"open({mark!r}, 'w')"), (builtins.eval, f"open({mark!r}, 'w')"),
        (open, mark, "w"), (os.mkdir, mark))] + [
        b"cos\nsystem\n(S'touch " + mark.encode() + b"'\ntR.", b"\x80\x02cbuiltins\nexec\n(X\x01\0\0\0xtR."]
