"""The files of tools/check_dataset.py: does each exist, does it end, does its header make sense, does it decode?

In: paths. Out: one FileResult per path, in order. Without `deep` only the header and the end of a file are read. Deep
decoding runs in processes: a decoder's remarks go to standard error, which each process listens to, and a file that
ends a decoder does not end the check.
"""
import functools
import multiprocessing
import os
import stat
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from dataloaders.datasets.vspw_masks import read_labels

MAX_PIXELS = 2 ** 26            # 67 million: no frame of these data sets has 2 million
MAX_BYTES = 2 ** 28             # of a file
CHUNK = 32                      # files that a worker takes at once
READERS = 16                    # threads of the check without decoding, which waits for the disk
ORIENTATION, TRANSPOSED = 0x0112, (5, 6, 7, 8)     # EXIF: the camera was held upright
END = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
HARMLESS = "extraneous bytes"   # libjpeg's remark on padding between markers


class FileTask(NamedTuple):
    """path; root: the folder that it may not leave; mask: a mask of VSPW, whose labels are counted;
    still: read as by Coco20iIndex, not turned as its EXIF tag says, and other bytes may follow the image's end"""
    path: str
    root: str
    mask: bool = False
    still: bool = False


class FileResult(NamedTuple):
    """kind: of KINDS, None = nothing wrong; what: words; size: (rows, columns); labels: {label: pixels}, if deep"""
    kind: str = None
    what: str = ""
    size: tuple = None
    labels: dict = None


def check_files(tasks, deep, workers, desc):
    """[FileTask]  ->  an iterator of FileResults, in order, with a progress bar"""
    bar = tqdm(total=len(tasks), desc=desc, unit=" files", disable=None if tasks else True)
    chunks = [tasks[i:i + CHUNK] for i in range(0, len(tasks), CHUNK)]
    with bar:
        for results in _decode(chunks, workers) if deep else _look(chunks):
            bar.update(len(results))
            yield from results


def _look(chunks):
    with ThreadPoolExecutor(READERS) as threads:
        yield from threads.map(_look_at, chunks)


def _look_at(tasks):
    return [look(task) for task in tasks]


def _decode(chunks, workers):
    """Chunks in processes. After a crash the chunk that was next goes file by file, to find the cause."""
    done = 0
    while done < len(chunks):
        try:
            with _pool(workers) as pool:
                for results in pool.map(_decode_all, chunks[done:]):
                    yield results
                    done += 1
        except BrokenProcessPool:
            yield [_decode_alone(task) for task in chunks[done]]
            done += 1


def _decode_alone(task):
    """One file in a process of its own."""
    try:
        with _pool(1) as pool:
            return pool.submit(_decode_all, [task]).result()[0]
    except BrokenProcessPool:
        return FileResult("decoder_crash", "the decoder ended its process")


def _pool(workers):
    """Forked where that is safe: a new interpreter takes seconds to import what is loaded here already."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    cv2.setNumThreads(1)         # ends OpenCV's threads here: a forked process would wait for them for ever
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_listen)


def _listen():
    """A worker's standard error goes to a file without a name: one file at a time, so that a remark has an author."""
    file = tempfile.TemporaryFile()
    os.dup2(file.fileno(), 2)
    file.close()


def _decode_all(tasks):
    return [decode(task) for task in tasks]


def look(task):
    """Everything but the pixels of one file."""
    try:
        about = os.stat(task.path)
    except FileNotFoundError:
        return _missing(task)
    except (OSError, ValueError) as error:                      # ValueError: a name that no file can have
        return FileResult("unreadable_file", type(error).__name__)
    if not stat.S_ISREG(about.st_mode):                         # reading a pipe would never end
        return _missing(task, "it is no regular file")
    if not inside(task.path, task.root):
        return FileResult("outside_root", "it is a link that leaves the data folder")
    if about.st_size == 0:
        return FileResult("empty_file")
    if about.st_size > MAX_BYTES:
        return FileResult("absurd_file", f"{about.st_size} bytes, more than {MAX_BYTES}")
    return _read_header(task, about.st_size)


@functools.cache
def _real(root):
    return os.path.realpath(root)


def inside(path, root):
    """Whether a path still lies below root once its links are followed."""
    return os.path.realpath(path).startswith(_real(root) + os.sep)


def _missing(task, what=""):
    return FileResult("missing_mask" if task.mask else "missing_image", what)


def _read_header(task, num_bytes):
    try:
        with open(task.path, "rb") as file:
            size, form = _header(file, not task.still)
            if size[0] * size[1] > MAX_PIXELS:
                return FileResult("absurd_file", f"{size[0]} x {size[1]} pixels, more than {MAX_PIXELS}")
            file.seek(max(num_bytes - 1024, 0))
            form = SUFFIXES.get(os.path.splitext(task.path)[1].lower(), form)      # the index goes by the name
            ended = _ends(file.read(1024), END[form], task.still)
    except Image.DecompressionBombError:
        return FileResult("absurd_file", f"more than {MAX_PIXELS} pixels")
    except Exception as error:      # Pillow's parsers raise whatever a broken header leads them to; all of it is told
        return FileResult("unreadable_file", f"its header is no JPEG's or PNG's ({type(error).__name__})")
    return FileResult(size=size) if ended else FileResult("truncated_file", f"no {form} end marker", size)


def _header(file, turned):
    """An open file  ->  (rows, columns) as the index reads them, JPEG | PNG"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                         # sizes are judged here
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            cols, rows = image.size
            if image.format == "PNG":                           # asked for EXIF, Pillow would decode all of it
                return (rows, cols), "PNG"
            upright = turned and image.getexif().get(ORIENTATION) in TRANSPOSED
            return ((cols, rows) if upright else (rows, cols)), "JPEG"


def _ends(tail, end, anywhere):
    """Whether the last bytes hold the end of an image; zeros may follow it, as some writers leave them."""
    return end in tail if anywhere else tail.rstrip(b"\0").endswith(end)


def decode(task):
    """One file, as `look`, and then its pixels. The index would read them in the same way."""
    found = look(task)
    if found.kind is not None:
        return found
    start = os.lseek(2, 0, os.SEEK_CUR)
    try:
        pixels = read_labels(Path(task.path)) if task.mask else _pixels(task)
    except (OSError, ValueError, MemoryError, cv2.error) as error:
        return FileResult("unreadable_file", _first_line(error), found.size)
    remark = _remark(start)
    if pixels is None:
        return FileResult("unreadable_file", remark or "OpenCV cannot decode it", found.size)
    kind = None if not remark else "decoder_note" if HARMLESS in remark else "corrupt_file"
    return FileResult(kind, remark, pixels.shape[:2], _count(pixels) if task.mask else None)


def _pixels(task):
    data = np.fromfile(task.path, np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if task.still else 0))


def _count(labels):
    counts = np.bincount(labels.ravel())
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


def _remark(start):
    """The first line that decoders wrote to the worker's standard error since `start`; '' if none"""
    end = os.lseek(2, 0, os.SEEK_CUR)
    text = os.pread(2, min(end - start, 300), start) if end > start else b""
    return text.decode("utf-8", errors="replace").strip().partition("\n")[0]


def _first_line(error):
    return str(error).strip().partition("\n")[0] or type(error).__name__
