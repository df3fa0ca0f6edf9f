"""The job of tools/workshop/benchmark.py that loads annotations, and a train.json of the real one's size to load."""
import json
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from dataloaders.datasets.ytvis import YouTubeVISIndex
from tools.workshop.benchmarking.bench import MIB, RSS_UNIT, timed

# The real train.json: videos, their frames, annotated objects, categories.
REAL_SIZE = {"videos": 2238, "frames": 61845, "objects": 3774, "categories": 40}


def index(bench):
    """A generated train.json as large as the real one, in fresh processes; peak memory includes libraries. json.load:
    the file as Python objects and nothing else. ratio: time of reading it afresh to this."""
    s, rows = bench.settings, {}
    asked = dict.fromkeys(REAL_SIZE, 8) | {"frames": 40} if s.quick else REAL_SIZE
    with TemporaryDirectory() as root:
        file = Path(root) / "train.json"
        write_large_annotations(file, **asked)
        YouTubeVISIndex(Path(root), cache_dir=Path(root, "cache"))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
            for how in ("json.load", "afresh", "from the cache"):
                before, peaks, seconds = zip(*processes.map(read, [file] * s.repeats, [how] * s.repeats), strict=True)
                rows[how] = {"what": how, "file_mib": file.stat().st_size / MIB, "seconds": median(seconds),
                             "before_mib": before[0] / MIB, "peak_mib": peaks[0] / MIB}
    return [row | {"ratio": rows["afresh"]["seconds"] / row["seconds"]} for row in rows.values()]


def read(file, how):
    """->  the process's peak before and after in bytes, seconds"""
    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    before, cache = peak(), file.parent / "cache" if how == "from the cache" else None
    _, seconds = timed(lambda: json.loads(file.read_text()) if how == "json.load" else YouTubeVISIndex(
        file.parent, cache_dir=cache))
    return before, peak(), seconds


def write_large_annotations(path, videos, frames, objects, categories, size=(720, 1280), seed=0):
    """A train.json with uncompressed run lengths as the real one has them; a mask is missing in one frame of eight.

    path: file to write; the rest as in REAL_SIZE. Written object by object: some 130 MB at the real size.
    """
    rng = np.random.default_rng(seed)
    lengths = [frames // videos + (i < frames % videos) for i in range(videos)]
    head = {"videos": [{"id": i + 1, "height": size[0], "width": size[1],
                        "file_names": [f"video_{i:05}/{t:05}.jpg" for t in range(n)]} for i, n in enumerate(lengths)],
            "categories": [{"id": c + 1, "name": f"category_{c + 1}"} for c in range(categories)]}
    with open(path, "w") as file:
        file.write(json.dumps(head)[:-1] + ', "annotations": [')
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
    return np.diff(edges, prepend=0, append=rows * cols).tolist()
