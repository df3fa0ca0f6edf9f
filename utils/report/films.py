"""The films of a report: kept ones, or made of kept masks over the frames of the data set, as text for the page.

In: lines of results.jsonl and where test.py kept films (--save-overlays) and masks (--save-masks). Out: data URIs of
the best, median and worst videos. Whatever a name says, no file outside those folders is read.
"""
import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import cv2
import numpy as np

from dataloaders.images import decode, read_bytes, real_path
from dataloaders.transforms import TestTransform
from tools.explanation.pictures import fit
from utils.pictures.film import Film
from utils.pictures.overlay import denormalise, overlay

MAX_BYTES = 8 * 2 ** 20              # of a film on the page; those of YouTube-VIS have some 100 kB
MOST_FRAMES, WIDTH = 300, 480        # of a film that is made here
STARTS = {".webm": ("video/webm", 0, b"\x1a\x45\xdf\xa3"), ".mp4": ("video/mp4", 4, b"ftyp"),
          ".gif": ("image/gif", 0, b"GIF8")}


@dataclass
class Kept:
    """Where films and masks of a test may lie: folders, the ones that are looked at first in front."""
    films: list
    masks: list


def kept_by(folder, films=None, masks=None):
    """A test's folder and the folders that the user named  ->  Kept, with the usual places behind them

    `make demo` keeps both beside its folder test/.
    """
    bases = [folder, *([folder.parent] if folder.name == "test" else [])]
    places = ([given] if given else [] for given in (films, masks))
    found = [first + [base / name for base in bases] for first, name in zip(places, ("overlays", "masks"), strict=True)]
    return Kept(*([Path(place) for place in some if Path(place).is_dir()] for some in found))


def chosen(results):
    """Lines  ->  those of the first run by their mean J, best first, and {position: "best" | "median" | "worst"}"""
    first = min(line["run"] for line in results)
    lines = sorted((line for line in results if line["run"] == first), key=lambda line: -mean(line["j"]))
    last, middle = len(lines) - 1, len(lines) // 2
    names, wanted = {}, [(0, "best"), (last, "worst"), (middle, "median"),
                         (1, "best"), (last - 1, "worst"), (middle - 1, "median")]
    for position, name in wanted:
        if 0 <= position <= last:
            names.setdefault(position, name)
    return lines, dict(sorted(names.items()))


def film_of(line, kept, config):
    """A line of results.jsonl  ->  (MIME type, data URI) of its film, or None and why there is none"""
    below = Path(f"run{line['run']}", line["class"], line["video"])
    for folder in kept.films:
        for suffix in STARTS:
            found = within(folder, below.with_name(below.name + suffix))
            if found and found.is_file():
                return film_file(found)
    for folder in kept.masks:
        found = within(folder, below)
        if found and found.is_dir() and config is not None:
            return film_of_masks(line, found, config)
    return None, "no film and no masks were kept"


def within(folder, below):
    """A path below the folder, links followed, or None where it leads out of it"""
    folder = real_path(folder)
    path = real_path(folder / below)
    return path if path.is_relative_to(folder) else None


def film_file(path):
    mime, place, start = STARTS[path.suffix]
    if path.stat().st_size > MAX_BYTES:
        return None, f"{path.name} has {path.stat().st_size / 2**20:.0f} MiB, too much for this page"
    data = path.read_bytes()
    if data[place:place + len(start)] != start:
        return None, f"{path.name} is no {path.suffix[1:]} film"
    return (mime, f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"), ""


def film_of_masks(line, folder, config):
    """Masks of a video, one PNG per frame, over the frames of the data set  ->  as film_of"""
    frames = (line.get("frames") or [])[:MOST_FRAMES]
    images = Path(config.data.root, "data" if config.data.dataset == "minivspw" else "JPEGImages")
    pictures = []
    for name in frames:
        mask, image = read_picture(folder, f"{Path(name).stem}.png"), read_picture(images, name)
        if mask is None or image is None:
            return None, f"{'mask' if mask is None else 'image'} of frame {Path(name).name} is missing"
        pictures.append(masked(image[..., ::-1], mask.reshape(*mask.shape[:2], -1).any(axis=-1), config))
    if not pictures:
        return None, "the result names no frames"
    with tempfile.TemporaryDirectory() as place:
        with Film(Path(place) / "film") as film:
            film.add(np.stack(pictures))
        return film_file(film.path)


def read_picture(folder, name):
    """An image below the folder  ->  (H, W, 3) uint8 BGR; None where there is none that can be read"""
    path = within(folder, name)
    return decode(read_bytes(path), path) if path and path.is_file() else None


def masked(image, mask, config):
    """image (H, W, 3) uint8 RGB, mask (h, w) bool at the size of the input or of the image  ->  picture for a film"""
    if mask.shape != image.shape[:2] and mask.shape == tuple(config.data.size):
        shape = TestTransform(config.data.size, config.data.mask_resize)
        image = denormalise(shape([image], [np.zeros(image.shape[:2], bool)])[0])[0]
    elif mask.shape != image.shape[:2]:
        mask = cv2.resize(mask.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    width = min(image.shape[1], WIDTH)
    return overlay(fit(np.ascontiguousarray(image), width), fit(mask, width))
