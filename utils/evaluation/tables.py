"""The lines of results.jsonl  ->  tables per class, per fold and in the paper's form; no torch, no GPU.

Numbers are per cent. Spread is the sample standard deviation over runs, shown from two runs on. A cell that was
not run stays empty; so does a mean over folds of which one is missing.
"""
import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from utils.evaluation.metrics import aggregate

FOLDS = (1, 2, 3, 4)
NAMES = {"j": "J", "f": "F", "vc": "VC7"}

# Tables 1 and 2: J by fold and mean, F by fold and mean, mVC7. VC7 by fold is not in the paper.
PAPER = {
    "ytvis": {
        "NTRENet": {"j": (39.0, 66.4, 61.7, 61.2, 57.1), "f": (41.1, 63.0, 60.1, 59.4, 55.9), "vc": 55.7},
        "SSP": {"j": (46.7, 64.3, 59.3, 54.5, 56.2), "f": (34.8, 53.0, 46.0, 46.7, 45.1), "vc": 49.6},
        "VAT": {"j": (42.6, 62.8, 57.0, 56.7, 54.8), "f": (41.6, 56.4, 50.8, 53.0, 50.5), "vc": 54.9},
        "IPMT": {"j": (43.8, 65.8, 61.0, 60.7, 57.8), "f": (42.5, 59.5, 57.8, 55.9, 53.9), "vc": 57.7},
        "DAN": {"j": (43.9, 64.5, 61.1, 62.1, 57.9), "f": (42.4, 62.0, 60.0, 60.0, 56.1), "vc": 41.5},
        "TTI": {"j": (47.2, 68.8, 61.4, 63.5, 60.2), "f": None, "vc": 60.8},   # its code pools J over a class
        "VIPMT": {"j": (50.6, 70.9, 68.8, 66.5, 64.2), "f": (51.3, 66.9, 65.2, 64.4, 62.0), "vc": 65.7},
    },
    "minivspw": {
        "TTI": {"j": (25.2, 37.1, 25.0, 29.6, 29.2), "f": None, "vc": 24.4},
        "VIPMT": {"j": (26.2, 42.2, 31.6, 29.4, 32.4), "f": (30.6, 45.7, 36.3, 34.2, 36.7), "vc": 42.1},
    },
}

# Tables 3 to 7, means over folds: J, F, mVC7. Table 4 gives IPMT's mVC7 as 57.8, Table 1 as 57.7.
PAPER_ABLATIONS = {
    "vos_ytvis": {"IPMT+STCN": (58.9, 56.5, 61.7), "IPMT+XMem": (59.2, 56.8, 62.2), "IPMT+RDE-VOS": (59.3, 58.0, 63.3)},
    "vos_minivspw": {"IPMT+STCN": (27.7, 31.1, 39.3), "IPMT+XMem": (27.7, 31.7, 41.1),
                     "IPMT+RDE-VOS": (28.8, 33.5, 40.1)},
    "components": {"Baseline": (57.8, 53.9, 57.8), "+C": (61.8, 58.8, 60.7), "+C+F": (62.5, 60.3, 62.1),
                   "+C+F+M": (63.5, 61.9, 62.8), "VIPMT": (64.2, 62.0, 65.7)},
    "communication": {"one_way": (61.4, 59.1, 60.1), "bidirectional": (62.5, 60.3, 62.1)},
    "iou_net_data": {   # threshold 0.5
        ("real", "w/o SSM"): (62.8, 61.5, 62.6), ("real", "w/ SSM"): (63.2, 61.6, 62.8),
        ("video", "w/o SSM"): (62.9, 61.6, 62.6), ("video", "w/ SSM"): (63.2, 61.6, 62.8),
        ("image", "w/o SSM"): (63.0, 61.7, 62.7), ("image", "w/ SSM"): (63.3, 61.7, 63.0)},
    "iou_threshold": {
        (0.5, "w/o SSM"): (63.0, 61.7, 62.7), (0.5, "w/ SSM"): (63.3, 61.7, 63.0),
        (0.6, "w/o SSM"): (63.1, 61.7, 62.9), (0.6, "w/ SSM"): (63.3, 61.7, 62.7),
        (0.7, "w/o SSM"): (63.1, 61.8, 62.9), (0.7, "w/ SSM"): (63.4, 61.8, 62.6),
        (0.8, "w/o SSM"): (63.1, 61.8, 62.5), (0.8, "w/ SSM"): (63.5, 61.9, 62.8),
        (0.9, "w/o SSM"): (63.0, 61.8, 62.3), (0.9, "w/ SSM"): (63.5, 61.9, 62.5)},
}


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
    """Lines of one fold  ->  Table: J, F and VC per class, then their mean; a class of `classes` without lines is 0"""
    runs = [aggregate(lines, classes) for lines in _by_run(results).values()]
    names = list(dict.fromkeys(name for run in runs for name in run["classes"]))
    rows = []
    for name in names:
        present = [run["classes"][name] for run in runs if name in run["classes"]]
        videos = f"{mean(row['videos'] for row in present):g}"
        rows.append([name, videos, *(_cell([row[key] for row in present]) for key in NAMES)])
    rows.append(["mean", "", *(_cell([run[key] for run in runs]) for key in NAMES)])
    return Table(["class", "videos", *_metric_names(results)], rows)


def fold_table(results_by_fold, classes_by_fold=None):
    """{fold: lines}  ->  Table: one row per fold, and the mean if all four are there"""
    scores = {fold: _fold_scores(results_by_fold.get(fold, ()), (classes_by_fold or {}).get(fold)) for fold in FOLDS}
    rows = [[f"fold {fold}", *(_cell(scores[fold][key]) for key in NAMES)] for fold in FOLDS]
    rows.append(["mean", *(_cell(_over_folds(scores, key)) for key in NAMES)])
    return Table(["fold", *_metric_names([line for lines in results_by_fold.values() for line in lines])], rows)


def paper_table(results_by_fold, dataset="ytvis", name="ours", classes_by_fold=None, method="VIPMT"):
    """{fold: lines}  ->  Table in the form of Tables 1 and 2: the paper's row of `method`, then ours below it"""
    columns = [f"{metric} {part}" for metric in ("J", "F") for part in (*FOLDS, "mean")]
    header = ["", *columns, "m" + _metric_names([line for lines in results_by_fold.values() for line in lines])[2]]
    rows = []
    if method in PAPER.get(dataset, {}):
        numbers = PAPER[dataset][method]
        given = [*numbers["j"], *(numbers["f"] or [None] * 5), numbers["vc"]]
        rows.append([f"{method} (paper, {dataset})", *((None if x is None else (x, None)) for x in given)])
    scores = {fold: _fold_scores(results_by_fold.get(fold, ()), (classes_by_fold or {}).get(fold)) for fold in FOLDS}
    ours = [_cell(values) for key in ("j", "f")
            for values in (*(scores[fold][key] for fold in FOLDS), _over_folds(scores, key))]
    return Table(header, [*rows, [name, *ours, _cell(_over_folds(scores, "vc"))]])


def shares(trainings, folds=FOLDS):
    """[{fold: lines} of every training]  ->  {"j": values, "f": values, "vc": values}, means over `folds`

    One training gives a value per run, several one each: the mean of its runs. No values while a fold is missing.
    """
    scores = [{fold: _fold_scores(training.get(fold, ()), None) for fold in folds} for training in trainings]
    values = {key: [_over_folds(training, key, folds) for training in scores] for key in NAMES}
    if len(trainings) == 1:
        return {key: runs for key, (runs,) in values.items()}
    return {key: [mean(runs) for runs in each] if all(each) else [] for key, each in values.items()}


def comparison_table(rows, with_difference=False, vc="VC7"):
    """[(label, the paper's (J, F, mVC7) or None, ours as of `shares` or None)]  ->  Table, paper beside ours"""
    parts = ("paper", "ours", "difference")[:2 + with_difference]
    header = ["", *(f"{metric} {part}" for metric in ("J", "F", f"m{vc}") for part in parts)]
    lines = []
    for label, paper, ours in rows:
        triples = [_compared(number, (ours or {}).get(key)) for number, key in zip(paper or (None,) * 3, NAMES,
                                                                                strict=True)]
        lines.append([label, *(cell for triple in triples for cell in triple[:len(parts)])])
    return Table(header, lines)


def comparison_by_fold(rows, with_difference=False, vc="VC7"):
    """[(label, entry of PAPER, {fold or "mean": ours as of `shares`} or None)]  ->  Table, ours below the paper's

    None: a method that is not ours has no such line.
    """
    columns = [(key, part) for key in ("j", "f") for part in (*FOLDS, "mean")] + [("vc", "mean")]
    header = ["", *(f"{NAMES[key]} {part}" for key, part in columns[:-1]), f"m{vc}"]
    lines = []
    for label, entry, ours in rows:
        numbers = [*entry["j"], *(entry["f"] or [None] * 5), entry["vc"]]
        triples = [_compared(number, (ours or {}).get(part, {}).get(key))
                   for number, (key, part) in zip(numbers, columns, strict=True)]
        kinds = ("paper", "ours", "difference")[:1 if ours is None else 2 + with_difference]
        lines += [[f"{label} ({kind})", *cells] for kind, cells in zip(kinds, zip(*triples, strict=True), strict=False)]
    return Table(header, lines)


def summary(results, classes=None):
    """Lines of one fold  ->  'J 50.6 ± 0.4, F 51.3 ± 0.3, VC7 55.0 ± 0.2 (5 runs)'"""
    scores = _fold_scores(results, classes)
    cells = [" ± ".join(part for part in _parts(_cell(scores[key])) if part) or "none" for key in NAMES]
    runs = len(scores["j"])
    numbers = ", ".join(f"{name} {cell}" for name, cell in zip(_metric_names(results), cells, strict=True))
    return f"{numbers} ({runs} run{'s' * (runs != 1)})"


def _fold_scores(results, classes):
    """Lines of one fold  ->  {"j": [one mean per run], ...}"""
    runs = [aggregate(lines, classes) for lines in _by_run(results).values()]
    return {key: [run[key] for run in runs] for key in NAMES}


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


def _compared(number, values):
    """The paper's number or None, our shares  ->  their cells, and the cell of the difference"""
    ours = _cell(values)
    difference = "" if number is None or ours is None else f"{ours[0] - number:+.1f}"
    return None if number is None else (number, None), ours, difference


def _metric_names(results):
    """VC is named with its variant unless it is the paper's, so that they never share a column unnoticed."""
    variants = {line["vc_variant"] for line in results} - {"vipmt"}
    window = {line.get("vc_window", 7) for line in results} or {7}
    vc = f"VC{'/'.join(map(str, sorted(window)))}"
    return ["J", "F", f"{vc} ({', '.join(sorted(variants))})" if variants else vc]


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
