"""Mutations of tools/workshop/fuzz.py: a correct file in, a hostile or broken one out.

Each function takes a random.Random and gives (what was done, in words; the new content), so that a seed decides
everything. Nothing here knows who reads the files.
"""
import json

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


# -- lists -------------------------------------------------------------------------------------------------------------

def any_list(rng, data):
    """A list of MiniVSPW  ->  another line, or other bytes"""
    if rng.random() < 0.4:
        return any_bytes(rng, data)
    lines = data.decode().splitlines()
    place = rng.randrange(len(lines))
    video, _, file = lines[place].partition(" ")
    number = rng.choice(("0" * 8, "99999999", "-0000001", "9" * 5000, "٠" * 8, "00000000\0"))
    lines[place] = rng.choice((
        f"{rng.choice(NAMES)} {file}", f"{video} {rng.choice(NAMES)}",
        f"{video} {video}/mask/{number}.png",
        lines[rng.randrange(len(lines))], "", " " * 10_000, "v" * 300 + " " + "v" * 300 + "/mask/00000001.png",
        ".. ../mask/00000001.png", ". ./mask/00000001.png", "x" * 100_000, f"{video}\u2028 {file}",
        f"{video} {file} x"))
    return f"line {place + 1}", "\n".join(lines).encode("utf-8", errors="surrogatepass")
