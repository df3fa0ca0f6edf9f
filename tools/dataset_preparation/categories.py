"""Which object of your own videos is of which category, and the ids that decide the folds: for tools/prepare_data.py.

In: a table of yours (CSV or JSON), folder names, or one name for all. Out: {(video, object): category} and
{category: id}. Fold g tests the categories n with (n - 1) mod 4 = g - 1 (dataloaders/datasets/folds.py).
"""
import csv
import io
import re
from itertools import count
from pathlib import Path

from dataloaders.datasets.folds import FOLDS, YTVIS_CLASSES
from dataloaders.json_values import is_text, read_typed, shown

COLUMNS = ("video", "object", "category")
ALL = "*"                       # in the column `object`: whatever object of the video
NOTHING = "-"                   # in the column `category`: this object is left out, that is: background
LARGEST_TABLE = 2 ** 26         # bytes
NUMBER = re.compile("[0-9]{1,9}")
PUBLISHED = {name: number for number, name in YTVIS_CLASSES.items()}


class Table:
    """categories: {(video, object number or ALL): name}; ids: {name: id} as far as the table gives them"""

    def __init__(self, path):
        self.path, self.categories, self.ids = Path(path), {}, {}
        if not self.path.is_file():
            raise FileNotFoundError(f"--categories {path}: no such file.\n  --write-table FILE makes one to be filled.")
        if self.path.stat().st_size > LARGEST_TABLE:
            raise self.error(f"more than {LARGEST_TABLE} bytes")
        for row in self._json() if self.path.suffix.lower() == ".json" else self._csv():
            self._add(*row)

    def error(self, what):
        return ValueError(f"{self.path}: {what}.\n  Expected a CSV with the columns video,object,category (id may "
                          f"follow), or JSON: {{video: category}} or {{video: {{object: category}}}}.")

    def _csv(self):
        try:
            reader = csv.DictReader(io.StringIO(self.path.read_text(encoding="utf-8-sig")))
        except UnicodeDecodeError:
            raise self.error("no UTF-8 text") from None
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise self.error(f"its first line has no {', '.join(missing)}")
        for row in reader:
            video, number, name, given = (str(row.get(column) or "").strip() for column in (*COLUMNS, "id"))
            yield f"line {reader.line_num}", video, number or ALL, name, given

    def _json(self):
        content = read_typed(self.path, dict[str, str | dict[str, str]], lambda path, what: self.error(what))
        for video, value in content.items():
            for number, name in (value if isinstance(value, dict) else {ALL: value}).items():
                yield f"video {shown(video)}", video, number, name, ""

    def _add(self, where, video, number, name, given):
        if not is_text(name) or not name:
            raise self.error(f"{where}: the category is {shown(name)}; write a name, or {NOTHING} to leave it out")
        if number != ALL and not NUMBER.fullmatch(number):
            raise self.error(f"{where}: the object is {shown(number)}; write its number in the masks, or {ALL} for all")
        if given and not (NUMBER.fullmatch(given) and int(given)):
            raise self.error(f"{where}: the id is {shown(given)}, not a number from 1 on")
        if self.categories.setdefault((video, number if number == ALL else int(number)), name) != name:
            raise self.error(f"{where}: object {number} of video {shown(video)} has two categories")
        if given and self.ids.setdefault(name, int(given)) != int(given):
            raise self.error(f"{where}: the category {shown(name)} has two ids")


def category_of(table, video, number):
    """Table or {} , OwnVideo, object number  ->  its category's name, None if it is to be left out"""
    for key in ((video.name, number), (video.name, ALL)):
        if key in table:
            return None if table[key] == NOTHING else table[key]
    if video.category is not None:
        return video.category
    raise ValueError(f"video {video.name}, object {number}: no category.\n  Give a table (--categories FILE; "
                     f"--write-table FILE makes one to be filled), one name for all (--category NAME), or folders "
                     f"ROOT/<category>/<video>.")


def assign_ids(names, given=None, novel=()):
    """Names of categories, {name: id} given by a table, names to be tested in fold 1  ->  {name: id}

    Without `novel` a name of YouTube-VIS 2019 keeps its published id, so that a model of fold g meets only categories
    it has not learned; others get 41, 42, ... With `novel` those get ids of fold 1, all others ids of folds 2 to 4.
    """
    unknown = sorted(set(novel) - set(names))
    if unknown:
        raise ValueError(f"--novel {unknown[0]}: no object has this category.\n  There are: {', '.join(sorted(names))}")
    known = ({} if novel else PUBLISHED) | (given or {})
    ids = {name: known[name] for name in sorted(names) if name in known}
    if len(set(ids.values())) < len(ids):
        raise ValueError(f"two categories have the same id: {ids}.\n  Give each its own in the column id.")
    for name in sorted(set(names) - set(ids)):
        ids[name] = next(n for n in count(len(PUBLISHED) + 1) if n not in ids.values()
                         and (not novel or (tested_in(n) == 1) == (name in novel)))
    return ids


def tested_in(number):
    """The fold that tests a category id."""
    return (number - 1) % FOLDS + 1


def write_table(videos, path):
    """A CSV with a line per object of scanned videos, its category still to be written."""
    if path.exists():
        raise ValueError(f"--write-table {path}: this file exists.\n  Nothing was changed. Name a new one.")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "id"])
        writer.writerows([video.name, number, video.category or "", ""] for video in videos for number in video.tracks)
