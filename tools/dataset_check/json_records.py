"""What train.json of YouTube-VIS and instances_*.json of COCO have in common for tools/check_dataset.py.

In: an annotation file that may hold anything. Out: its records that can be used; every other one becomes a finding.
"""
import json
import os
from pathlib import Path, PurePosixPath

import numpy as np

from dataloaders.datasets.ytvis_json import Rle, fills, rle_counts
from dataloaders.json_values import MAX_BYTES
from tools.dataset_check.files import MAX_PIXELS
from tools.dataset_check.findings import shown

MAX_ID = 2 ** 63 - 1             # of the arrays that the index makes


def read_document(path, lists, shrink):
    """path, names of its lists, a hook of `safely`  ->  the top-level object; ValueError where there is none"""
    if path.exists() and not path.is_file():                        # reading a pipe would never end
        raise ValueError(f"{path}: this is no file.\n  Download the annotations again.")
    try:
        with open(path, encoding="utf-8") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"{size} bytes, more than {MAX_BYTES}")
            document = json.load(file, object_hook=shrink)
    except (ValueError, RecursionError, MemoryError) as error:      # a JSONDecodeError is a ValueError
        raise ValueError(f"{path}: cannot be read as JSON ({str(error)[:200] or type(error).__name__}).\n"
                         f"  Download the file again.") from None
    for name in lists:
        if not isinstance(document, dict) or not isinstance(document.get(name), list):
            raise ValueError(f"{path}: no list {name!r} at the top level.\n"
                             f"  Take the annotations of the train split: only they are complete.")
    return document


def safely(shrink, keep_counts=True):
    """An object hook of the index, which may stop at absurd numbers  ->  one that never does, and checks the runs.

    keep_counts: False drops the run lengths once they are checked, which saves most of the memory.
    """
    def hook(record):
        if "counts" in record and not is_size(record.get("size")):
            return Rle(problem=f"size {shown(record.get('size'))} is not [rows, columns], or absurdly large")
        counts = record.get("counts")
        try:
            rle = shrink(record)
            if not isinstance(rle, Rle):
                return rle
            if rle.problem is None and isinstance(counts, str) and not _fills(rle):
                rle = rle._replace(problem=f"its runs do not fill {rle.size[0]} x {rle.size[1]} pixels")
        except (ValueError, OverflowError, TypeError) as error:
            return Rle(record.get("size"), problem=f"cannot be read ({type(error).__name__})")
        return rle if keep_counts else rle._replace(counts=b"")
    return hook


def is_size(size):
    """Whether a value is [rows, columns] of an image that anybody would load."""
    return (isinstance(size, list | tuple) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)
            and size[0] * size[1] <= MAX_PIXELS)


def _fills(rle):
    return fills(rle_counts(np.frombuffer(rle.counts, np.uint8)), rle.size[0] * rle.size[1])


def records(document, name, keys, findings):
    """The usable records of a list  ->  yields (position, record, its name in words); ids are integers, each once.

    name: videos, images, categories, annotations
    """
    kind, seen = {"categories": "category"}.get(name, name.removesuffix("s")), set()
    if not document[name]:
        findings.add("empty_list", name)
    for position, record in enumerate(document[name]):
        where = f"{kind} number {position}"
        faults = _faults(record, keys)
        if faults:
            findings.add("bad_record", where, faults, ("leave-out", where), (name, position))
            continue
        label = f"{kind} {record['id']}"
        if record["id"] in seen:
            findings.add("duplicate_id", label, f"number {position} has an id that occurred before",
                         ("leave-out", f"{label} (number {position})"), (name, position))
            continue
        seen.add(record["id"])
        yield position, record, label


def _faults(record, keys):
    if not isinstance(record, dict):
        return "no JSON object"
    missing = [key for key in ("id", *keys) if key not in record]
    if missing:
        return f"no {', '.join(missing)}"
    if type(record["id"]) is not int or abs(record["id"]) > MAX_ID:
        return f"the id {shown(record['id'])} is no integer of 64 bits"
    return ""


def read_categories(document, findings):
    """{category id: name}"""
    return {record["id"]: str(record["name"])[:80]
            for _, record, _ in records(document, "categories", ("name",), findings)}


def is_file_name(name, folders):
    """Whether a name stays below its folder, and has at least so many folders of its own."""
    if not isinstance(name, str) or "\0" in name:
        return False
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:          # half a surrogate pair, which JSON can express
        return False
    parts = PurePosixPath(name).parts
    return len(parts) > folders and parts[0] != "/" and ".." not in parts


def write_clean(source, target, drops, references):
    """The annotation file without what is to be left out, and without annotations of that  ->  records left out

    drops: {list: positions}; references: {list: the annotations' key that names its ids}
    """
    with open(source, encoding="utf-8") as file:
        document = json.load(file)       # as it is: the check keeps no run lengths
    before = sum(len(document[name]) for name in ("annotations", *references))
    for name in ("annotations", *references):
        document[name] = [record for i, record in enumerate(document[name]) if i not in drops.get(name, ())]
    for name, key in references.items():
        ids = {record["id"] for record in document[name]}
        document["annotations"] = [record for record in document["annotations"] if record[key] in ids]
    part = Path(f"{target}.part")
    part.write_text(json.dumps(document), encoding="utf-8")
    os.replace(part, target)
    return before - sum(len(document[name]) for name in ("annotations", *references))
