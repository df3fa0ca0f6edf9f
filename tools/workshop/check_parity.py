"""Proof that a method of ours computes what the released one does: every number of a folder of golden files.

    python -m tools.workshop.check_parity tests/parity --dtype float32
    python -m tools.workshop.check_parity DIR [--dtype float64] [--cases a b]

DIR/method.txt names the method, DIR/fill.py makes its weights and inputs by formula, and a file of
tools/workshop/parity computes the numbers. One line for each array: its largest deviation relative to the golden
array's rms, and the share of the tolerance that this is. An array or file that nobody knows is a failure. Exit code 1
if there is one.
"""
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np

from tools.workshop.parity import Case
from utils.command_line import Parser
from utils.config import user_errors

METHODS = sorted(path.stem for path in (Path(__file__).parent / "parity").glob("*.py") if path.stem != "__init__")
BESIDE = ("README.md", "method.txt", "fill.py")     # what every folder may hold and nobody compares


# -- golden files -----------------------------------------------------------------------------------------------------

def load_fill(folder):
    """fill.py of the folder, as a module."""
    spec = importlib.util.spec_from_file_location("fill", folder / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_method(folder):
    """The checker that belongs to the folder  ->  a module of tools/workshop/parity"""
    note = folder / "method.txt"
    if not note.is_file():
        raise FileNotFoundError(f"{folder}: no method.txt, which names the method.\n  Give a folder of golden files, "
                                f"or write one of {', '.join(METHODS)} into {note}")
    name = note.read_text().strip()
    if name not in METHODS:
        raise ValueError(f"{note}: no checker for the method {name[:40]!r}; there is {', '.join(METHODS)}.\n"
                         "  A further one is a file in tools/workshop/parity")
    return importlib.import_module(f"tools.workshop.parity.{name}")


def read_case(name, folder, fill, dtype):
    """All arrays of the files with that name"""
    arrays, table, document = {}, folder / f"{name}.npz", folder / f"{name}.json"
    if table.is_file():
        with np.load(table) as file:
            arrays.update(file)
    if document.is_file():
        arrays |= numbers_of(json.loads(document.read_text()))
    return Case(name, folder, fill, dtype, arrays)


def numbers_of(value, path=""):
    """A JSON document  ->  {path: array} of its numbers and lists of them; null is NaN, text is left out"""
    if isinstance(value, dict):
        parts = [numbers_of(inner, f"{path}/{key}" if path else key) for key, inner in value.items()]
        return {key: array for part in parts for key, array in part.items()}
    array = np.asarray(value, dtype=float if value is None else None)
    return {} if array.dtype.kind in "UO" else {path: array}


def names_of(folder):
    """Files of golden numbers, without their suffixes"""
    return sorted({path.stem for path in folder.iterdir() if path.suffix in (".npz", ".json")})


# -- comparing --------------------------------------------------------------------------------------------------------

class Report:
    """Prints a line for each array and remembers what is beyond its tolerance and what comes nearest to it."""

    def __init__(self):
        self.compared, self.failed, self.largest = 0, [], (0.0, "nothing")

    def line(self, case, key, deviation, unit, share):
        good = share <= 1                                # NaN is not
        verdict = "ok" if good else "FAIL"
        print(f"{case}  {key:34s} {deviation:9.2e} {unit:7s} {100 * share:8.3g} %  {verdict}", flush=True)
        self.compared += 1
        if not good:
            self.failed.append(f"{case} {key}")
        self.largest = max(self.largest, (share, f"{case} {key}"))

    def unknown(self, case, what):
        print(f"{case}  {what}: not known to the checker, not compared  FAIL", flush=True)
        self.failed.append(f"{case} {what}")

    def compare(self, case, key, found, form):
        """One golden array against ours; form: as in `find`"""
        golden, ours = case.arrays[key], as_stored(case.fill, form, found, case.arrays[key])
        if golden.dtype == np.uint8 and ours.dtype == bool:
            golden = np.unpackbits(golden)[:ours.size].reshape(ours.shape) > 0
        if ours.shape != golden.shape:
            print(f"{case.name}  {key}: shape {ours.shape}, golden {golden.shape}")
            self.line(case.name, key, np.inf, "shape", np.inf)
        elif golden.dtype.kind in "bU" or found.limit.flips and not found.limit.rms:
            self.flips(case, key, ours, golden, found.limit)
        else:
            if found.threshold is not None:
                self.flips(case, f"{key} >= {found.threshold:g}", ours >= found.threshold, golden >= found.threshold,
                           found.limit)
            keep = np.broadcast_to(found.keep, golden.shape) if found.keep is not None and found.keep.size in (
                1, golden.size) else np.ones(golden.shape, bool)
            self.line(case.name, key, *deviation(ours[keep], golden[keep], found))

    def flips(self, case, key, ours, golden, limit):
        count = int((ours != golden).sum())
        self.line(case.name, key, count, "differ", count / limit.flips if limit.flips else np.inf if count else 0.0)


def deviation(ours, golden, found):
    """(largest deviation, its unit, the largest share of the tolerance)"""
    there = golden[~np.isnan(golden)]
    rms = found.scale or float(np.sqrt(np.mean(np.square(there, dtype=np.float64)))) if there.size else 1.0
    error = np.where(np.isnan(ours) & np.isnan(golden), 0.0, np.abs(ours.astype(np.float64) - golden))
    allowed = found.limit.rms * rms + found.limit.value * np.abs(golden, dtype=np.float64)
    share = np.divide(error, allowed, out=np.where(error == 0, 0.0, np.inf), where=(error != 0) & (allowed > 0))
    return float((error / (rms or 1.0)).max(initial=0.0)), "rms", float(share.max(initial=0.0))


def as_stored(fill, form, found, golden):
    """Our whole array  ->  the summary or sample that the golden file holds, row by row where it has rows"""
    ours = found.value.detach().cpu().numpy() if hasattr(found.value, "detach") else np.asarray(found.value)
    if form:
        reduce = fill.summary if form == "summary" else lambda array: fill.sample(array, golden.shape[-1])
        return np.stack([reduce(row) for row in ours]) if golden.ndim == 2 else reduce(ours)
    return ours.reshape(golden.shape) if ours.dtype != bool and ours.size == golden.size else ours


def find(found, key):
    """Ours of a golden key, under its own name or that of the array which it sums up  ->  Found or None, the form"""
    whole, _, form = key.rpartition("_")
    if key in found or form not in ("summary", "sample"):
        return found.get(key), "sample" if key in found and found[key].sampled else None
    return found.get(whole), form


def check(report, method, case):
    """Every array of a case."""
    compute = next((function for pattern, function in method.CASES.items() if re.fullmatch(pattern, case.name)), None)
    if compute is None:
        return report.unknown(case.name, "the file")
    found = compute(case)
    for key in case.arrays:
        if not any(re.fullmatch(pattern, key) for pattern in method.INPUTS):
            ours, form = find(found, key)
            report.compare(case, key, ours, form) if ours else report.unknown(case.name, key)
    return None


def check_folder(folder, dtype, chosen=None):
    """All cases of a folder, or the chosen ones  ->  Report"""
    method, report = load_method(folder), Report()
    names = [name for name in names_of(folder) if f"{name}.json" not in method.SOURCES]
    if chosen:
        names = [name for name in names if {name, name.partition("_")[2]} & set(chosen)]
    if not names:
        raise FileNotFoundError(f"{folder}: no golden file{' of ' + ', '.join(chosen) if chosen else ''}.\n"
                                f"  There is: {', '.join(names_of(folder)) or 'none'}")
    fill = load_fill(folder)
    for name in names:
        check(report, method, read_case(name, folder, fill, dtype))
    known = (*BESIDE, *method.SOURCES)
    for path in [] if chosen else sorted(folder.iterdir()):
        if path.is_file() and path.suffix not in (".npz", ".json") and path.name not in known:
            report.unknown(path.name, "the file")
    return report


def main(arguments=None):
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--cases", nargs="*", metavar="NAME", help="letters or names of files; default: all of DIR")
    args = parser.parse_args(arguments)
    with user_errors():
        report = check_folder(args.folder, args.dtype, args.cases)
    share, nearest = report.largest
    print(f"{report.compared} arrays compared in {args.dtype}, nearest to its tolerance {nearest}: {100 * share:.3g} %")
    print(f"{len(report.failed)} beyond tolerance or unknown" + "".join(f"\n  {name}" for name in report.failed))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
