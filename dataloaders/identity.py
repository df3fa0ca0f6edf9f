"""What data a run reads, in a few numbers that a later start, or another process, compares with its own.

In: indexes. Out: plain values. Annotations count with all their bytes, images and most masks by a sample, and no place:
the same data may move.
"""
import hashlib
import os
from pathlib import Path

import numpy as np

from dataloaders.images import real_path

SAMPLE, BLOCK = 128, 2 ** 12         # files of each folder; bytes at beginning, middle and end of a file
MISSING = "-"


def data_identity(dataset, indexes):
    """Name of the data set, what a run reads  ->  {"dataset", "annotations": their place, "files": their number,
    "sha256": of all of them, "sample": a word per sampled file, MISSING where there is none}"""
    whole, digest, words = [file for index in indexes for file in index.annotation_files()], hashlib.sha256(), []
    for file in whole:
        with open(file, "rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    for index in indexes:
        for folder, names in index.sampled_files():
            digest.update(f"{len(names)} ".encode())
            drawn = np.random.default_rng(0).choice(len(names), min(len(names), SAMPLE), replace=False)
            words += [_word(folder, names[i]) for i in np.sort(drawn)]
    return {"dataset": dataset, "annotations": str(indexes[0].path), "files": len(whole), "sha256": digest.hexdigest(),
            "sample": " ".join(words)}


def _word(folder, name):
    """Size and some bytes of a file below a real folder, as eight hexadecimal digits"""
    path = real_path(Path(folder, name))
    if not path.is_relative_to(folder) or not path.is_file():
        return MISSING
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(f"{size} ".encode())
        for start in (0, size // 2, max(size - BLOCK, 0)):
            file.seek(start)
            digest.update(file.read(BLOCK))
    return digest.hexdigest()[:8]
