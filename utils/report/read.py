"""What a run's folder says, read and checked: record, config, training log, results of tests.

In: a folder of train.py or test.py, finished or not, or one with fold1/ to fold4/ below it. Out: list of Part.
"""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from utils.config import load_config
from utils.evaluation.results import read_results, typed_lines
from utils.evaluation.tables import FOLDS, class_table

MAX_BYTES = 2 ** 30          # of a file
LARGEST = 1e30               # of a number that is drawn
Number = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]


class LogLine(msgspec.Struct):
    """What a line of log.jsonl must be; losses, scores and further numbers have the names that a method gives them."""
    step: Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]
    epoch: Number | None = None
    losses: dict[str, Number] = {}
    validation: dict[str, Number] = {}


@dataclass
class Part:
    """A training or a test: what its folder holds; what is missing is empty."""
    folder: Path
    fold: int | None
    record: dict            # run.json
    header: dict            # test.json: what the numbers of a test depend on
    config: dict | None     # EasyDict
    config_note: str        # why there is no config, else ''
    log: list               # lines of log.jsonl
    results: list           # lines of results.jsonl

    @property
    def is_test(self):
        return bool(self.header or self.results)

    @property
    def name(self):
        return ("test" if self.is_test else "training") + (f", fold {self.fold}" if self.fold else "")

    @property
    def steps(self):
        """The lines of log.jsonl that are steps."""
        return [line for line in self.log if line.get("losses")]

    @property
    def complete(self):
        """Whether a test has come to its end: its last act is to write the table of all its lines."""
        table = self.folder / "table.md"
        return bool(self.results) and table.is_file() and \
            table.read_text(encoding="utf-8", errors="replace") == class_table(self.results).markdown()

    def setting(self, key):
        """A value of the config, as 'data.dataset'; None where the run has no such key"""
        section, _, name = key.partition(".")
        return (self.config or {}).get(section, {}).get(name)


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
    files = [folder / "results.jsonl", *sorted(folder.glob("results.rank*.jsonl"))]
    results = read_results(*(file for file in files if file.is_file()))
    config, note = None, "There is no config.yaml."
    if (folder / "config.yaml").is_file():
        try:
            config, note = load_config([folder / "config.yaml"]), ""
        except (ValueError, OSError) as error:
            note = f"config.yaml is not read, it may be another version's: {error}"
    return Part(folder, fold_of(folder, record, header, results), record, header, config, note,
                read_log(folder / "log.jsonl"), results)


def fold_of(folder, record, header, results=()):
    """1 to 4, as the results, the test, the command or the folder's name say it; None where nothing does"""
    command = record.get("command") if isinstance(record.get("command"), list) else []
    said = [results[0].get("fold") if results else None, header.get("fold"), record.get("fold")]
    words = [word for text in map(str, command) for word in text.split("=", 1)]
    said += [after for flag, after in zip(words, words[1:], strict=False) if flag in ("--fold", "--group")]
    said += [place.name.removeprefix("fold") for place in (folder, folder.parent)]
    return next((fold for one in said for fold in FOLDS if str(one) == str(fold)), None)


def read_object(path):
    """A JSON file of one object  ->  dict, {} where there is no such file"""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, found a {type(content).__name__}")
        return content
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}.\n  Delete it: the report then goes without") from None


def read_log(path):
    """log.jsonl  ->  list of dict, every one of them a LogLine; [] where there is no such file"""
    lines = typed_lines(path, LogLine, "no line of a training", "nothing else depends on it") if path.is_file() else ()
    return [line for _, line in lines]


def is_number(value, low=-LARGEST):
    return type(value) in (int, float) and low <= value <= LARGEST          # of NaN neither is true
