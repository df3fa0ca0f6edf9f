"""The lines of results.jsonl  ->  tables per class, per fold and in the paper's form; no torch, no GPU.

Numbers are per cent. Spread is the sample standard deviation over runs, shown from two runs on. A cell that was
not run stays empty; so does a mean over folds of which one is missing.
"""
import csv
import io
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import mean, stdev

from utils.evaluation.metrics import aggregate
from utils.evaluation.sentences import NAMES as SENTENCE_NAMES
from utils.yaml_file import read_yaml

PAPERS = Path(__file__).resolve().parents[2] / "config" / "paper_tables.yaml"
FOLDS = (1, 2, 3, 4)
NAMES = {"j": "J", "f": "F", "vc": "VC7"}


@dataclass(frozen=True)
class PaperTable:
    """A table as its paper prints it. rows {label: {column: number, None where the paper has none}}

    note: sentences for the caption, what has to be said beside it
    counted: {name of a flag per frame: header of its column, see `flagged`}
    """
    title: str
    columns: list
    rows: dict
    note: str = ""
    counted: dict = field(default_factory=dict)
    dataset: str | None = None      # these three of a table by folds
    name: str | None = None         # of the data set, as it is written
    folds: tuple = ()               # of each: {"classes": names of its test classes, "videos": how many at least}


@cache
def known_papers():
    """paper_tables.yaml as it is, read once: it takes longer than the page of a run"""
    return read_yaml(PAPERS)


@cache
def paper_tables(method="vipmt"):
    """{number: PaperTable} of the paper of a method"""
    tables = known_papers()[method]["tables"]
    return {number: PaperTable(**table | {"rows": {
        label: dict(zip(table["columns"], numbers, strict=True)) for label, numbers in table["rows"].items()}})
        for number, table in tables.items()}


def paper_settings(method):
    """{key of a config: value} with which the paper of a method tests"""
    return known_papers()[method].get("settings", {})


@dataclass
class Table:
    """Rows of text or (mean, spread) cells, and three ways to write them."""
    header: list
    rows: list

    def markdown(self):
        lines = [self.header, ["---"] + ["---:"] * (len(self.header) - 1), *self._texts(" ± ")]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)

    def csv(self):
        """Mean and spread in columns of their own."""
        header = [self.header[0], *(f"{name}{part}" for name in self.header[1:] for part in ("", " std"))]
        rows = [[row[0], *(part for cell in row[1:] for part in _parts(cell))] for row in self.rows]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        return text.getvalue()

    def latex(self):
        lines = [[_escape(cell) for cell in row] for row in [self.header, *self._texts(" $\\pm$ ")]]
        body = " \\\\\n".join(" & ".join(line) for line in lines[1:])
        return (f"\\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}\n\\toprule\n{' & '.join(lines[0])} \\\\\n"
                f"\\midrule\n{body} \\\\\n\\bottomrule\n\\end{{tabular}}\n")

    def write(self, folder):
        """table.md, table.csv and table.tex into an existing folder  ->  the first one's text"""
        for suffix, text in (("md", self.markdown()), ("csv", self.csv()), ("tex", self.latex())):
            (Path(folder) / f"table.{suffix}").write_text(text, encoding="utf-8")
        return self.markdown()

    def _texts(self, plus_minus):
        return [[row[0], *(plus_minus.join(part for part in _parts(cell) if part) for cell in row[1:])]
                for row in self.rows]


def class_table(results, classes=None):
    """Lines of one fold  ->  Table: J, F and VC per class, then their mean; a class of `classes` without lines is 0

    windows: of VC per run, and in how many of them the truth lets any mask score; the others count 0, as released.
    """
    runs = [aggregate(lines, classes) for lines in _by_run(results).values()]
    names = list(dict.fromkeys(name for run in runs for name in run["classes"]))
    keys = [*NAMES, *(key for key in SENTENCE_NAMES if any(key in run for run in runs))]
    rows = []
    for name in names:
        present = [run["classes"][name] for run in runs if name in run["classes"]]
        videos = f"{mean(row['videos'] for row in present):g}"
        lines = [line for line in results if line["class"] == name]
        rows.append([marked(name, lines), videos, *(_cell([row[key] for row in present if key in row]) for key in keys),
                     _windows(lines)])
    rows.append([marked("mean", results), "", *(_cell([run[key] for run in runs if key in run]) for key in keys),
                 _windows(results)])
    more = [SENTENCE_NAMES[key] for key in keys[len(NAMES):]]
    return Table(["class", "videos", *_metric_names(results), *more, "windows"], rows)


def marked(label, results):
    """The label of numbers, with a mark where they are not those of few-shot segmentation: data.few_videos=repeat"""
    shared = sum(line.get("supports_share_video", False) for line in results)
    return f"{label} (supports share videos in {shared} of {len(results)} results)" if shared else label


def _windows(results):
    runs = max(len({line["run"] for line in results}), 1)
    count = sum(value is not None for line in results for value in line["vc"]) / runs
    possible = sum(line.get("vc_possible", len(line["vc"])) for line in results) / runs
    return f"{count:g}" if possible == count else f"{possible:g} of {count:g}"


def fold_table(results_by_fold, classes_by_fold=None):
    """{fold: lines}  ->  Table: one row per fold, and the mean if all four are there"""
    scores = {fold: _fold_scores(results_by_fold.get(fold, ()), (classes_by_fold or {}).get(fold)) for fold in FOLDS}
    lines = [line for lines in results_by_fold.values() for line in lines]
    rows = [[marked(f"fold {fold}", results_by_fold.get(fold, ())), *(_cell(scores[fold][key]) for key in NAMES)]
            for fold in FOLDS]
    rows.append([marked("mean", lines), *(_cell(_over_folds(scores, key)) for key in NAMES)])
    return Table(["fold", *_metric_names(lines)], rows)


def table_of(dataset):
    """data.dataset  ->  (method, number, PaperTable) of the table that gives it by folds; None where there is none"""
    return next(((method, number, table) for method in known_papers()
                 for number, table in paper_tables(method).items() if table.dataset == dataset and table.folds), None)


def note_of(dataset):
    """data.dataset  ->  what has to be said beside its table, or ''"""
    return known[2].note if (known := table_of(dataset)) else ""


def paper_table(results_by_fold, dataset="ytvis", name="ours", classes_by_fold=None):
    """{fold: lines}  ->  Table in the form of the paper's for this data: the row of its method, then ours below it"""
    known = table_of(dataset)
    method, _, table = known or table_of("ytvis")
    rows = [(f"{method.upper()} (paper, {dataset})", printed(table.rows[method.upper()]))] if known else []
    ours = measured([results_by_fold], table.columns, classes_by_fold=classes_by_fold)
    lines = [line for lines in results_by_fold.values() for line in lines]
    return comparison(table.columns, [*rows, (marked(name, lines), ours)], lines)


def comparison(columns, rows, results=(), counted=()):
    """Columns of a PaperTable, [(label, {column: cell})], the lines behind the rows, its `counted`  ->  Table"""
    names = dict(zip(("J", "F", "VC7"), _metric_names(results), strict=True)) | {"J&F": "J&F"}
    header = [f"m{names[metric]}" if part == "mean" and metric == "VC7" else f"{names[metric]} {part}"
              for metric, part in map(str.split, columns)]
    counted = dict(counted)
    return Table(["", *header, *counted.values()],
                 [[label, *map(cells.get, [*columns, *counted])] for label, cells in rows])


def flagged(trainings, key):
    """[{fold: lines} of every training], a flag per frame  ->  '3 of 120': videos with it; None where no line has it"""
    found = [any(line[key]) for training in trainings for lines in training.values() for line in lines if key in line]
    return f"{sum(found)} of {len(found)}" if found else None


def printed(row):
    """A row of a PaperTable  ->  its cells"""
    return {column: None if number is None else (number, None) for column, number in row.items()}


def measured(trainings, columns, folds=FOLDS, classes_by_fold=None):
    """[{fold: lines} of every training]  ->  {column: cell}; the mean is that over `folds`

    One training gives a value per run, several one each: the mean of its runs. No cell while a fold is missing.
    """
    keys, classes = {name: key for key, name in (NAMES | {"jf": "J&F"}).items()}, classes_by_fold or {}
    scores = [{fold: _fold_scores(training.get(fold, ()), classes.get(fold)) for fold in {*FOLDS, *folds}}
              for training in trainings]
    cells = {}
    for column in columns:
        metric, part = column.split()
        values = [_over_folds(one, keys[metric], folds if part == "mean" else (int(part),)) for one in scores]
        if len(values) > 1:
            values = [[mean(runs) for runs in values]] if all(values) else [[]]
        cells[column] = _cell(values[0]) if values else None
    return cells


def difference(ours, row):
    """{column: cell} of ours, a row of a PaperTable  ->  {column: text}"""
    return {column: f"{ours[column][0] - number:+.1f}" for column, number in row.items()
            if number is not None and ours[column] is not None}


def summary(results, classes=None):
    """Lines of one fold  ->  'J 50.6 ± 0.4, F 51.3 ± 0.3, VC7 55.0 ± 0.2 (5 runs)'"""
    scores = _fold_scores(results, classes)
    names = dict(zip(NAMES, _metric_names(results), strict=True))
    names |= {key: name for key, name in SENTENCE_NAMES.items() if scores[key]}
    cells = {key: " ± ".join(part for part in _parts(_cell(scores[key])) if part) or "none" for key in names}
    runs = len(scores["j"])
    numbers = ", ".join(f"{name} {cells[key]}" for key, name in names.items())
    return marked(f"{numbers} ({runs} run{'s' * (runs != 1)})", results)


def _fold_scores(results, classes):
    """Lines of one fold  ->  {"j": [one mean per run], ...}"""
    runs = [aggregate(lines, classes) for lines in _by_run(results).values()]
    return {key: [run[key] for run in runs if key in run] for key in NAMES | SENTENCE_NAMES}


def _by_run(results):
    runs = defaultdict(list)
    for line in results:
        runs[line["run"]].append(line)
    return dict(sorted(runs.items()))


def _over_folds(scores, key, folds=FOLDS):
    """Mean over folds, run by run; empty unless every fold has the same number of runs."""
    counts = {len(scores[fold][key]) for fold in folds}
    if len(counts) != 1:
        return []
    return [mean(values) for values in zip(*(scores[fold][key] for fold in folds), strict=True)]


def _metric_names(results):
    """VC is named with its variant unless it is the paper's, so that they never share a column unnoticed; F with its
    tolerance where lines say it."""
    variants = {line["vc_variant"] for line in results} - {"vipmt"}
    window = {line.get("vc_window", 7) for line in results} or {7}
    vc = f"VC{'/'.join(map(str, sorted(window)))}"
    tolerances = sorted({f"{line['tolerance']:.3f}" for line in results if "tolerance" in line})
    f = f"F ({', '.join(tolerances)})" if tolerances else "F"
    return ["J", f, f"{vc} ({', '.join(sorted(variants))})" if variants else vc]


def _cell(values):
    """Shares of several runs  ->  (mean, spread) in per cent; None without runs"""
    if not values:
        return None
    return 100 * mean(values), 100 * stdev(values) if len(values) > 1 else None


def _parts(cell):
    """A cell  ->  its mean and spread as text, '' for what there is not"""
    if cell is None or isinstance(cell, str):
        return [cell or "", ""]
    return [f"{cell[0]:.1f}", "" if cell[1] is None else f"{cell[1]:.1f}"]


def _escape(text):
    return text.replace("_", r"\_").replace("%", r"\%").replace("&", r"\&")
