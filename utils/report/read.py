"""What a run's folder says, read and checked: record, config, training log, results of tests, where its films lie.

In: a folder of train.py or test.py, finished or not, or one with fold1/ to fold4/ below it. Out: list of Part. Nothing
is trusted: every value that the page shows has the type that it should have, and names stay below their folder.
"""
import json
from dataclasses import dataclass, field
from pathlib import Path

from dataloaders.json_values import is_file_name, is_text, shown
from utils.config import load_config
from utils.evaluation.results import key_of
from utils.evaluation.tables import FOLDS, class_table
from utils.records import read_json_lines

MAX_BYTES = 2 ** 30        # of one file of JSON lines; 5 runs of a fold of YouTube-VIS have a few 10 million
LARGEST = 1e12             # of a number that is drawn


@dataclass
class Part:
    """A training or a test: what its folder holds; what is missing is empty."""
    folder: Path
    fold: int | None
    record: dict                                       # run.json
    header: dict                                       # test.json: what the numbers of a test depend on
    config: dict | None                                # EasyDict, None without config.yaml
    config_note: str                                   # why there is no config, else ''
    log: list = field(default_factory=list)            # lines of log.jsonl
    results: list = field(default_factory=list)        # lines of results.jsonl

    @property
    def is_test(self):
        return bool(self.header or self.results)

    @property
    def complete(self):
        """Whether a test has come to its end: its last act is to write the table of all its lines."""
        table = self.folder / "table.md"
        return bool(self.results) and table.is_file() and \
            table.read_text(encoding="utf-8", errors="replace") == class_table(self.results).markdown()


def read_parts(folder):
    """A folder  ->  list of Part: itself, its test/, and the same of fold1/ to fold4/ below it, or test/fold1/ ...

    FileNotFoundError where none of them holds anything of a run.
    """
    folder = Path(folder)
    folds = [f"fold{fold}" for fold in FOLDS]
    places = [place for base in (folder, *(folder / name for name in folds)) for place in (base, base / "test")
              if holds_run(place)]
    if not any(place.name == "test" for place in places):           # test.py --fold all: test/fold1, ...
        places += [folder / "test" / name for name in folds if holds_run(folder / "test" / name)]
    if not places:
        near = sorted(str(p.parent) for p in folder.glob("*/run.json")) if folder.is_dir() else []
        hint = f"Below it there is one: {near[0]}" if near else "Name the output folder of train.py or test.py"
        raise FileNotFoundError(f"{folder}: no run here: no run.json, log.jsonl or results.jsonl.\n  {hint}")
    return [read_part(place) for place in places]


def holds_run(folder):
    return any((folder / name).is_file() for name in ("run.json", "log.jsonl", "results.jsonl", "test.json"))


def read_part(folder):
    """A folder that holds a run  ->  Part"""
    record, header = (read_object(folder / name) for name in ("run.json", "test.json"))
    if not isinstance(header.get("iou_net"), dict):
        header.pop("iou_net", None)
    config, note = read_config(folder / "config.yaml")
    lines = {key_of(line): line for file in [folder / "results.jsonl", *sorted(folder.glob("results.rank*.jsonl"))]
             for line in read_lines(file, result_problem)}
    log, results = read_lines(folder / "log.jsonl", log_problem), list(lines.values())
    if len({(line["vc_variant"], line["vc_window"]) for line in results}) > 1:
        raise ValueError(f"{folder}: its results mix definitions of VC.\n  Test again with another --output")
    return Part(folder, fold_of(folder, record, header, results), record, header, config, note, log, results)


def fold_of(folder, record, header, results):
    """1 to 4, as the results, the test, the command or the folder's name say it; None where nothing does"""
    command = record.get("command") if isinstance(record.get("command"), list) else []
    said = [results[0]["fold"] if results else None, header.get("fold")]
    said += [after for flag, after in zip(command, command[1:], strict=False) if flag in ("--fold", "--group")]
    said += [place.name.removeprefix("fold") for place in (folder, folder.parent)]
    return next((fold for one in said for fold in FOLDS if str(one) == str(fold)), None)


def read_object(path):
    """A JSON file of one object  ->  dict, {} where there is no such file"""
    if not path.is_file():
        return {}
    check_size(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}).\n  Delete it: the report then goes without") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, found {shown(content)}.\n  Delete it: the report then goes "
                         "without")
    return content


def read_config(path):
    """config.yaml of a run  ->  its config or None, and why there is none; one of another version is no error"""
    if not path.is_file():
        return None, "There is no config.yaml."
    try:
        return load_config([path]), ""
    except (ValueError, OSError) as error:
        return None, f"config.yaml is not read, it may be another version's: {error}"


def read_lines(path, problem):
    """JSON lines, every one of them without a `problem`  ->  list of dict, [] where there is no such file"""
    if not path.is_file():
        return []
    check_size(path)
    try:
        lines = read_json_lines(path)
    except RecursionError:
        raise ValueError(f"{path}: lists or objects lie too deep in one another.\n  It is no file of a run") from None
    for number, line in enumerate(lines, 1):
        wrong = problem(line) if isinstance(line, dict) else "no object"
        if wrong:
            raise ValueError(f"{path}, line {number}: {wrong}.\n  Delete the line, or the folder and run again")
    return lines


def check_size(path):
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, more than {MAX_BYTES}.\n  It is no file of a run")


# -- what a line may hold -------------------------------------------------------------------------------------------

def is_number(value, low=-LARGEST, high=LARGEST):
    return type(value) in (int, float) and low <= value <= high          # of NaN neither is true


def is_share(value):
    return is_number(value, -1e-6, 1 + 1e-6)


def log_problem(line):
    """A line of log.jsonl  ->  what is wrong with it, or None"""
    if not is_number(line.get("step"), 0):
        return f"step: expected a number, found {shown(line.get('step'))}"
    for key in ("losses", "validation"):
        values = line.get(key, {})
        if not isinstance(values, dict) or not all(is_text(name) and is_number(x) for name, x in values.items()):
            return f"{key}: expected names with numbers, found {shown(values)}"
    return None


def result_problem(line):
    """A line of results.jsonl  ->  what is wrong with it, or None"""
    for key in ("class", "video"):
        if not is_file_name(line.get(key), 0):
            return f"{key}: expected a name, found {shown(line.get(key))}"
    for key in ("run", "fold", "class_id", "vc_window"):
        if type(line.get(key)) is not int:
            return f"{key}: expected an integer, found {shown(line.get(key))}"
    if line["fold"] not in FOLDS or line["vc_window"] < 1:
        return f"fold, vc_window: found {line['fold']}, {line['vc_window']}"
    if line.get("vc_variant") not in ("vipmt", "tti", "vspw"):
        return f"vc_variant: found {shown(line.get('vc_variant'))}"
    frames = len(line["j"]) if isinstance(line.get("j"), list) else 0
    if not frames:
        return "j: expected a list of numbers, one per frame"
    checks = {"j": is_share, "f": is_share, "vc": lambda x: x is None or is_share(x)}
    for key, right in checks.items():
        values = line.get(key)
        if not isinstance(values, list) or not all(map(right, values)) or key == "f" and len(values) != frames:
            return f"{key}: expected a list of numbers in 0 to 1, found {shown(values)}"
    return extra_problem(line, frames)


def extra_problem(line, frames):
    """The same of what a line may lack: predicted IoUs, memory, names of frames, times."""
    checks = {"pred_iou": is_share, "remembered": lambda x: type(x) is bool, "frames": lambda x: is_file_name(x, 0)}
    for key, right in checks.items():
        values = line.get(key)
        if values is not None and not (isinstance(values, list) and len(values) == frames and all(map(right, values))):
            return f"{key}: expected one value per frame, found {shown(values)}"
    for key in ("seconds", "data_seconds"):
        if not is_number(line.get(key, 0), 0):
            return f"{key}: expected a number, found {shown(line[key])}"
    return None
