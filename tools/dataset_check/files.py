"""The files of tools/check_dataset.py, read by the rule of the indexes: what they would refuse is told.

In: names. Out: one FileResult per name, in order. Without `deep` only the header and the end of a file are read. Deep
decoding runs in processes: a decoder's remarks go to standard error, which each process listens to, and a file that
ends a decoder does not end the check.
"""
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from dataloaders.datasets.index import read_below
from dataloaders.datasets.vspw_masks import read_labels
from dataloaders.images import image_size, read_bmp, read_image

CHUNK = 32                      # files that a worker takes at once
READERS = 16                    # threads of the check without decoding, which waits for the disk
TAIL = 1024                     # bytes in which the end of an image usually lies
ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")
HARMLESS = "extraneous bytes"   # libjpeg's remark on padding between markers


class FileTask(NamedTuple):
    """folder: a real one; size: (rows, columns), None = any; where: in words; mask: of VSPW, its labels are counted"""
    folder: Path
    name: str
    size: tuple = None
    where: str = "the annotations"
    mask: bool = False


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
        yield from threads.map(lambda tasks: [look(task, header) for task in tasks], chunks)


def _decode(chunks, workers):
    """Chunks in processes. Where one ends its process, the chunk that was next goes file by file, to find the cause."""
    while chunks:
        done = 0
        try:
            with _pool(workers) as pool:
                for results in pool.map(_decode_all, chunks):
                    yield results
                    done += 1
        except BrokenProcessPool:
            if workers == len(chunks[done]) == 1:
                yield [FileResult("decoder_crash", "the decoder ended its process")]
            else:
                yield [one for found in _decode([[task] for task in chunks[done]], 1) for one in found]
            done += 1
        chunks = chunks[done:]


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


def look(task, read):
    """One file by the rule of the indexes, with a reader of theirs or one that looks at less."""
    read = read_bmp if task.name.endswith(".bmp") else read
    try:
        found = read_below(task.folder, task.name, task.size, task.where, read)
    except FileNotFoundError:
        return FileResult("missing_file")
    except (OSError, ValueError, MemoryError) as error:
        what = str(error).partition("\n")[0].removesuffix(".") or type(error).__name__
        return FileResult("bad_file", what.removeprefix(f"{task.where}: ").removeprefix(f"{task.folder / task.name} "))
    if not task.mask or isinstance(found, tuple):
        return FileResult(size=found if isinstance(found, tuple) else found.shape[:2])
    counts = np.bincount(found.ravel())
    return FileResult(size=found.shape, labels={int(label): int(counts[label]) for label in np.flatnonzero(counts)})


def header(path):
    """File  ->  (rows, columns); it is decoded only if its last bytes hold no end of an image"""
    size = image_size(path)
    with open(path, "rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - TAIL, 0))
        tail = file.read(TAIL)
    return size if any(end in tail for end in ENDS) else read_image(path).shape[:2]


def decode(task):
    """One file with its pixels, and what the decoder said of it."""
    start = os.lseek(2, 0, os.SEEK_CUR)
    found = look(task, read_labels if task.mask else read_image)
    end = os.lseek(2, 0, os.SEEK_CUR)
    remark = os.pread(2, min(end - start, 300), start).decode("utf-8", errors="replace").strip().partition("\n")[0]
    if not remark:
        return found
    if found.kind is not None:
        return found._replace(what=f"{found.what} ({remark})")
    return found._replace(kind="decoder_note" if HARMLESS in remark else "corrupt_file", what=remark)
