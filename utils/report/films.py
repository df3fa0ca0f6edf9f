"""The films of a report: those that test.py kept (--save-overlays), or made of kept masks (--save-masks) over frames.

In: lines of results.jsonl. Out: data URIs. Whatever a name says, no file outside the folders of films, masks and data
is read.
"""
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from utils.files import safe_name
from utils.pictures.film import Film
from utils.pictures.images import data_uri, letterboxed, read_picture, segmentation, within

MAX_BYTES = 8 * 2 ** 20              # of a film on the page; those of YouTube-VIS have some 100 kB
MOST_FRAMES, WIDTH = 300, 480        # of a film that is made here
FRAMES = ("JPEGImages", "data", "")  # where data sets keep them, below data.root
STARTS = {".mp4": ("video/mp4", 4, b"ftyp"), ".webm": ("video/webm", 0, b"\x1a\x45\xdf\xa3"),
          ".gif": ("image/gif", 0, b"GIF8")}


@dataclass
class Kept:
    """Where films, masks and frames of a test may lie: folders, those that are looked at first in front."""
    films: list
    masks: list
    root: Path | None = None


def kept_by(folder, films=None, masks=None, root=None):
    """A test's folder, the folders that the user named, data.root  ->  Kept, with the usual places behind them

    `make demo` keeps both beside its folder test/.
    """
    bases = [folder, *([folder.parent] if folder.name == "test" else [])]
    places = [[*([given] if given else []), *(base / name for base in bases)]
              for given, name in ((films, "overlays"), (masks, "masks"))]
    return Kept(*([Path(place) for place in some if Path(place).is_dir()] for some in places), root)


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


def film_of(line, kept):
    """A line of results.jsonl  ->  data URI of its film, or None; and why there is none"""
    below = Path(f"run{line['run']}", safe_name(line["class"]), safe_name(line["video"]))
    for folder in kept.films:
        for suffix in STARTS:
            found = within(folder, below.with_name(below.name + suffix))
            if found and found.is_file():
                return film_file(found)
    for folder in kept.masks:
        found = within(folder, below)
        if found and found.is_dir() and kept.root:
            return film_of_masks(line, found, kept.root)
    return None, "no film and no masks were kept"


def film_file(path):
    mime, place, start = STARTS[path.suffix]
    if path.stat().st_size > MAX_BYTES:
        return None, f"{path.name} has {path.stat().st_size / 2**20:.0f} MiB, too much for this page"
    data = path.read_bytes()
    if data[place:place + len(start)] != start:
        return None, f"{path.name} is no {path.suffix[1:]} film"
    return data_uri(data, mime), ""


def film_of_masks(line, folder, root):
    """Masks of a video, one PNG per frame, over the frames of the data set  ->  as film_of"""
    pictures = []
    for name in (line.get("frames") or [])[:MOST_FRAMES]:
        mask = read_picture(folder, f"{Path(name).stem}.png")
        found = (read_picture(Path(root, sub), name) for sub in FRAMES)
        frame = next((frame for frame in found if frame is not None), None)
        if mask is None or frame is None:
            return None, f"{'mask' if mask is None else 'image'} of frame {Path(name).name} is missing"
        if mask.shape != frame.shape:              # it is of the network's input
            frame = letterboxed(frame, mask.shape[:2])
        pictures.append(segmentation(frame, mask.any(axis=-1), width=min(frame.shape[1], WIDTH)))
    if not pictures:
        return None, "the result names no frames"
    with tempfile.TemporaryDirectory() as place:
        with Film(Path(place) / "film") as film:
            film.add(np.stack(pictures))
        return film_file(film.path)
