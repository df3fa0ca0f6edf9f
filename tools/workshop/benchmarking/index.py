"""The job of tools/workshop/benchmark.py that loads annotations, and a train.json of the real one's size to load."""
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from tools.workshop.benchmarking.bench import MIB

# The real train.json: videos, their frames, annotated objects, categories.
REAL_SIZE = {"videos": 2238, "frames": 61845, "objects": 3774, "categories": 40}
READ = """
import json, resource, sys, time
from pathlib import Path
from dataloaders.datasets.ytvis import YouTubeVISIndex
root, how = Path(sys.argv[1]), sys.argv[2]
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, start = peak(), time.perf_counter()
found = json.loads((root / "train.json").read_text()) if how == "json.load" else YouTubeVISIndex(
    root, cache_dir=root / "cache" if how == "from the cache" else None)
print(json.dumps([before, peak(), time.perf_counter() - start]))
"""


def index(bench):
    """A generated train.json as large as the real one, in fresh processes; peak memory includes libraries. json.load:
    the file as Python objects and nothing else. ratio: time of reading it afresh to this."""
    s, unit = bench.settings, MIB if sys.platform == "darwin" else 1024
    asked = dict.fromkeys(REAL_SIZE, 8) | {"frames": 40} if s.quick else REAL_SIZE
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "train.json"
        write_large_annotations(path, **asked)
        read(root, "from the cache")                       # makes it
        found = {how: [read(root, how) for _ in range(s.repeats)] for how in ("json.load", "afresh", "from the cache")}
        size = path.stat().st_size / MIB
    seconds = {how: median(row[2] for row in rows) for how, rows in found.items()}
    return [{"what": how, "file_mib": size, "seconds": seconds[how], "before_mib": rows[0][0] / unit,
             "peak_mib": rows[0][1] / unit, "ratio": seconds["afresh"] / seconds[how]} for how, rows in found.items()]


def read(root, how):
    """In a process of its own  ->  peak before and after, seconds"""
    done = subprocess.run([sys.executable, "-c", READ, root, how], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def write_large_annotations(path, videos, frames, objects, categories, size=(720, 1280), seed=0):
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
