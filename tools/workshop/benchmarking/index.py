"""The job of tools/workshop/benchmark.py that loads annotations, and a train.json of the real one's size to load.

In: a folder. Out: seconds and peak memory of the index, read afresh or from its cache.
"""
import json
from pathlib import Path

import numpy as np

from dataloaders.datasets.ytvis import YouTubeVISIndex
from tools.workshop.benchmarking.data import RECORDED
from tools.workshop.benchmarking.setup import MIB

# The real train.json: videos, their frames, annotated objects, categories.
REAL_SIZE = {"videos": 2238, "frames": 61845, "objects": 3774, "categories": 40}


def index(bench):
    """One way of reading: settings root, cache (False: afresh; True: a cache made before; None: json.load alone)"""
    s, folder = bench.settings, Path(bench.settings.root)
    before = bench.peak()
    row = {"file_mib": (folder / "train.json").stat().st_size / MIB, "before_mib": before}
    if s.cache is None:
        return [row | {"seconds": bench.timed(read_plainly, folder / "train.json")[1], "peak_mib": bench.peak()}]
    loaded, seconds = bench.timed(lambda: YouTubeVISIndex(folder, cache_dir=folder / "cache" if s.cache else None))
    videos = {video for c in loaded.class_ids for video in loaded.videos(c)}
    return [row | {"seconds": seconds, "peak_mib": bench.peak(), "videos": len(videos),
                   "frames": sum(map(loaded.length, videos))}]


def read_plainly(path):
    with open(path) as file:
        return json.load(file)


def write_large_annotations(path, videos, frames, objects, categories, size=RECORDED, seed=0):
    """A train.json with uncompressed run lengths as the real one has them; a mask is missing in one frame of eight.

    path: file to write; the rest as in REAL_SIZE. Written piece by piece: some 130 MB at the real size.
    """
    rng = np.random.default_rng(seed)
    lengths = [frames // videos + (i < frames % videos) for i in range(videos)]
    with open(path, "w") as file:
        file.write('{"videos": ' + json.dumps([
            {"id": i + 1, "height": size[0], "width": size[1], "length": n,
             "file_names": [f"video_{i:05}/{t:05}.jpg" for t in range(n)]} for i, n in enumerate(lengths)]))
        names = [{"id": c + 1, "name": f"category_{c + 1}"} for c in range(categories)]
        file.write(', "categories": ' + json.dumps(names) + ', "annotations": [')
        for number in range(objects):
            video = number % videos
            masks = [None if rng.random() < 0.125 else
                     {"size": list(size), "counts": disc_counts(rng, *size)} for _ in range(lengths[video])]
            file.write((", " if number else "") + json.dumps({
                "id": number + 1, "video_id": video + 1, "category_id": number % categories + 1,
                "segmentations": masks}))
        file.write("]}")


def disc_counts(rng, rows, cols):
    """Run lengths, down the columns, of a disc somewhere in the frame."""
    radius = int(rng.integers(rows // 9, rows // 4))
    top, left = rng.integers(radius, rows - radius), rng.integers(radius, cols - radius)
    half = np.sqrt(radius ** 2 - np.arange(-radius + 1, radius) ** 2).astype(int).clip(1)
    starts = (left + np.arange(-radius + 1, radius)) * rows + top - half
    edges = np.stack([starts, starts + 2 * half], axis=1).ravel()
    return np.diff(np.concatenate([[0], edges, [rows * cols]])).tolist()
