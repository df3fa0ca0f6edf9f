"""What a run writes down: numbers as JSON lines, and what it was (run.json, config.yaml)."""
import hashlib
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from utils.config import save_config
from utils.distributed import gather_objects, world_size
from utils.files import atomic_file
from utils.logger import get_logger

MAX_BYTES = 2 ** 31          # of a file of JSON lines, which is read as a whole
CODE = ("models", "dataloaders", "utils")
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pycocotools", "easydict", "msgspec",
            "Pillow", "av")


class JsonLines:
    """Appends one JSON object per line; each line is on the disk before append() returns.

    On opening, a last line without its line break (an interrupted write) is cut off. Without a path nothing is written.
    """

    def __init__(self, path):
        self._file = None
        if path is None:
            return
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(self.path)
        self._file = open(self.path, "a", encoding="utf-8")

    def append(self, entry):
        if self._file is None:
            return
        self._file.write(json.dumps(entry, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self):
        if self._file is not None:
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def read_json_lines(path):
    """All whole lines of a file  ->  list of dict; a torn last line is left out, a broken one inside is an error."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; it appears with the first result of a run")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path}: {size} bytes, more than {MAX_BYTES}, are no log of a run; name another file")
    *lines, _torn = path.read_bytes().split(b"\n")
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(json.loads(line))
        except (ValueError, RecursionError) as error:       # RecursionError: lists too deep in one another
            raise ValueError(f"{path}, line {number}: not JSON ({error}); delete the line") from None
    return entries


def describe_run(cfg, output, data=None, split=None):
    """Write output/config.yaml (resolved) and output/run.json (what ran where, on what)  ->  its content

    data: what identifies the data set, plain values. A continued run keeps the records of its earlier starts.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    record = {
        "name": cfg.name, "seed": cfg.seed, "fold": split,
        "command": [sys.executable, *sys.argv], "folder": os.getcwd(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"), "git": _git_state(), "data": data, **_program(),
        "hardware": _hardware(), "processes": world_size(), "earlier": _earlier_starts(output / "run.json"),
    }
    save_config(cfg, output / "config.yaml")
    with atomic_file(output / "run.json", "w") as file:
        json.dump(record, file, indent=2)
    return record


def changed_data(before, now):
    """Two identities of data (dataloaders/identity.py), None: unknown  ->  what differs, in words; nobody knows what a
    file was that is missing in one of them"""
    if not before or not now:
        return []
    if before["sha256"] != now["sha256"]:
        return [f"the annotations {now['annotations']} have another content than {before['annotations']} had"]
    words = [(a, b) for a, b in zip(before["sample"].split(), now["sample"].split(), strict=True) if "-" not in (a, b)]
    count = sum(a != b for a, b in words)
    return [f"{count} of {len(words)} sampled images and masks have another content than then"] if count else []


def require_agreement(**known):
    """Every process calls it at its start with what its numbers depend on, plain values. ValueError where they differ

    Else another code, data set or command on one of the machines would be trained or tested with unseen.
    """
    others = gather_objects(known | _program())
    for number, other in enumerate(others):
        for key, value in others[0].items():
            if other[key] != value:
                pair = value, other[key]
                if all(isinstance(one, dict) for one in pair):
                    pair = [{k: v for k, v in a.items() if b.get(k) != v} for a, b in (pair, pair[::-1])]
                a, b = (str(one)[:200] for one in pair)
                raise ValueError(f"process {number} was started with another {key} than process 0: {b} | {a}.\n"
                                 "  Give all machines the same code, packages, data and command")


def _program():
    """The code that computes, as a digest, and the versions of what it is built on"""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for file in sorted([*root.glob("*.py"), *(file for folder in CODE for file in (root / folder).rglob("*.py"))]):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return {"code": digest.hexdigest(),
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}}


def _earlier_starts(path):
    """The records of a run.json that is there already, the oldest first."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        return [*before.pop("earlier", []), before]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):        # something else stands there
        return []


def _cut_torn_line(path):
    if not path.exists():
        return
    with open(path, "r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            get_logger().warning("%s: the last line was cut off by an interruption; it is removed", path)
            file.truncate(whole)


def _git_state():
    """Commit and whether tracked or new files differ from it; None outside a git checkout."""
    def git(*arguments):
        root = Path(__file__).resolve().parents[1]
        # Without its lock, which a run that is killed meanwhile would leave behind.
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20)
    try:
        commit, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.TimeoutExpired):
        return None
    if status.returncode:
        return None
    return {"commit": commit.stdout.strip() if commit.returncode == 0 else None, "dirty": bool(status.stdout.strip())}


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _hardware():
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.platform(), "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "cuda": torch.version.cuda,
        "gpus": [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus],
    }
