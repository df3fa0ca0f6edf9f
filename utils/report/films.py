"""The pictures of a report: the best, median and worst videos, their supports, films that test.py --save-overlays kept.

In: lines of results.jsonl. Out: data URIs. Whatever a name says, no file outside the folders of films is read.
"""
from pathlib import Path
from statistics import mean

from utils.files import safe_name
from utils.pictures.images import data_uri, within

MAX_BYTES = 8 * 2 ** 20              # of a film on the page; those of YouTube-VIS have some 100 kB
STARTS = {".mp4": ("video/mp4", 4, b"ftyp"), ".webm": ("video/webm", 0, b"\x1a\x45\xdf\xa3"),
          ".gif": ("image/gif", 0, b"GIF8")}


def film_folders(folder, given=None):
    """A test's folder, the one that the user named  ->  those that are there; `make demo` has one beside its test/"""
    bases = [folder, *([folder.parent] if folder.name == "test" else [])]
    return [place for place in map(Path, [*([given] if given else []), *(base / "overlays" for base in bases)])
            if place.is_dir()]


def chosen(results):
    """Lines  ->  those of the first run by their mean J, best first, and {position: "best" | "median" | "worst"}"""
    first = min(line["run"] for line in results)
    lines = sorted((line for line in results if line["run"] == first), key=lambda line: -mean(line["j"]))
    last, middle = len(lines) - 1, len(lines) // 2
    names = {}
    for position, name in [(0, "best"), (last, "worst"), (middle, "median"),
                           (1, "best"), (last - 1, "worst"), (middle - 1, "median")]:
        if 0 <= position <= last:
            names.setdefault(position, name)
    return lines, dict(sorted(names.items()))


def place_of(line):
    return Path(f"run{line['run']}", safe_name(line["class"]), safe_name(line["video"]))


def film_of(line, folders):
    """A line of results.jsonl  ->  data URI of its film, or None; and why there is none"""
    below = place_of(line)
    for folder in folders:
        for place in (below, Path(below.name)):         # the vos task has a film per video
            for suffix in STARTS:
                found = within(folder, place.with_name(place.name + suffix))
                if found and found.is_file():
                    return film_file(found)
    return None, "no film was kept"


def supports_of(line, folder):
    """A line of results.jsonl, the folder of the test  ->  data URI of its supports as test.py kept them, or None"""
    below = place_of(line)
    found = within(folder / "supports", below.with_name(f"{below.name}.jpg"))
    if not (found and found.is_file() and found.stat().st_size <= MAX_BYTES):
        return None
    data = found.read_bytes()
    return data_uri(data) if data.startswith(b"\xff\xd8") else None


def film_file(path):
    mime, place, start = STARTS[path.suffix]
    if path.stat().st_size > MAX_BYTES:
        return None, f"{path.name} has {path.stat().st_size / 2**20:.0f} MiB, too much for this page"
    data = path.read_bytes()
    if data[place:place + len(start)] != start:
        return None, f"{path.name} is no {path.suffix[1:]} film"
    return data_uri(data, mime), ""
