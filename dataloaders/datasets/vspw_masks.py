"""The label masks of VSPW, read and counted: which labels a mask shows, with how many pixels.

In: PNG files whose pixels are label ids. Out: (H, W) arrays, and LabelAreas of many masks. Counting reads every file
once, which takes minutes for a training split, so that the counts are kept in a cache.
"""
import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from dataloaders.datasets.cache import cached
from dataloaders.images import bad_image, read_mask

log = logging.getLogger(__name__)

CACHE_VERSION = 1            # raise it whenever a table changes its meaning


@dataclass
class LabelAreas:
    """What `masks` masks show: arrays, so that loader processes share them without copies.

    rows, cols (masks,); start (masks + 1,); label, pixels (entries,): those of mask i are start[i] to start[i + 1]
    """
    rows: np.ndarray
    cols: np.ndarray
    start: np.ndarray
    label: np.ndarray
    pixels: np.ndarray

    def showing(self, labels, more_than=0):
        """Positions of the masks in which one of the labels alone covers more than so many pixels, ascending."""
        hits = np.isin(self.label, labels) & (self.pixels > more_than)
        return np.unique(np.searchsorted(self.start, np.flatnonzero(hits), side="right") - 1)


def read_labels(path):
    """PNG of label ids, grey or with a palette  ->  (H, W) uint8"""
    labels = read_mask(path)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise bad_image(path, "is no mask: expected a PNG with one channel of 8 bits, a label id per pixel")
    return labels


def silent(items, total):
    """No progress bar; tqdm.tqdm is one."""
    return items


def count_labels(paths, cache_dir=None, progress=silent):
    """Files of masks, folder of the cache or None, progress bar  ->  LabelAreas, in the order of the files"""
    paths = list(paths)
    stats = [(s.st_size, s.st_mtime_ns) for s in map(_stat, paths)]
    names = hashlib.sha256("\n".join(str(path.absolute()) for path in paths).encode()).hexdigest()
    key = f"{CACHE_VERSION} {names} {hashlib.sha256(json.dumps(stats).encode()).hexdigest()}"
    return LabelAreas(**cached(cache_dir, f"vspw_{names[:16]}", key, [field.name for field in fields(LabelAreas)],
                               partial(_count, paths, progress)))


def _count(paths, progress):
    """The arrays of LabelAreas"""
    log.info("reading %d masks once", len(paths))

    def one(path):
        labels = read_labels(path)
        counts = np.bincount(labels.ravel(), minlength=256)
        shown = np.flatnonzero(counts)
        return labels.shape, shown.astype(np.uint8), counts[shown].astype(np.int32)

    with ThreadPoolExecutor() as threads:                  # decoding frees the interpreter lock
        counted = progress(threads.map(one, paths), total=len(paths))
        sizes, shown, counts = zip(*counted, strict=True) if paths else ((), (), ())
    rows, cols = np.array(sizes, np.int32).reshape(-1, 2).T
    return {"rows": rows, "cols": cols, "start": np.cumsum([0, *map(len, shown)]),
            "label": np.concatenate([np.zeros(0, np.uint8), *shown]),
            "pixels": np.concatenate([np.zeros(0, np.int32), *counts])}


def _stat(path):
    try:
        return path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"VSPW: no file {path}.\n  Unpack VSPW_480p completely, set data.root to its folder, "
                                f"and use lists that were made for it (data.annotations).") from None
