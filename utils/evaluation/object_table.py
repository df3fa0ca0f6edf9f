"""Per object, as the DAVIS toolkit scores: mean, recall and decay of J and F, its two CSV files, and a table.

In: lines of results.jsonl, one per object. Means over objects are means of their means, whatever their length.
"""
import csv
from pathlib import Path

import numpy as np

from utils.evaluation.tables import Table, known_papers, paper_tables

THRESHOLD, BINS = 0.5, 4     # of the recall, of the decay
OBJECTS = {"davis": 61}      # of the validation sets that papers score by objects
COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")


def statistics(values):
    """Scores of an object's frames in order  ->  (mean, recall, decay)

    recall: the share of frames above 0.5; decay: the mean of the first quarter less that of the last. Quarters share
    the frames between them, and a video of few frames still has four, as in the toolkit.
    """
    values = np.asarray(values, float)
    ends = np.rint(np.linspace(1, len(values), BINS + 1) + 1e-10).astype(int) - 1
    first, last = (values[ends[k]:ends[k + 1] + 1].mean() for k in (0, BINS - 1))
    return values.mean(), (values > THRESHOLD).mean(), first - last


def scores(line):
    """A line  ->  {column: share}"""
    j, f = statistics(line["j"]), statistics(line["f"])
    return dict(zip(COLUMNS, ((j[0] + f[0]) / 2, *j, *f), strict=True))


def overall(results):
    """Lines  ->  {column: mean over the objects}"""
    each = [scores(line) for line in results]
    return {column: float(np.mean([one[column] for one in each])) for column in COLUMNS}


def write_csv(results, folder, part):
    """global_results-PART.csv and per-sequence_results-PART.csv, as the toolkit writes them: shares, three digits"""
    rows = {"global_results": [COLUMNS, [f"{value:.3f}" for value in overall(results).values()]]}
    each = [(f"{line['video']}_{line['class_id']}", scores(line)) for line in results]
    rows["per-sequence_results"] = [("Sequence", "J&F-Mean", "J-Mean", "F-Mean"), *(
        [name, *(f"{one[column]:.3f}" for column in ("J&F-Mean", "J-Mean", "F-Mean"))] for name, one in each)]
    for name, its in rows.items():
        with open(Path(folder, f"{name}-{part}.csv"), "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(its)


def object_table(results, name="ours", papers=()):
    """Lines  ->  Table: rows of papers, ours, every object; in per cent"""
    rows = [[f"{label} (paper)", *(cell(row.get(column)) for column in COLUMNS)]
            for paper in papers for label, row in paper.rows.items()]
    ours = [f"{name}, {len(results)} objects", *(cell(100 * value) for value in overall(results).values())]
    each = [[f"{line['video']} {line['class_id']}", *(cell(100 * value) for value in scores(line).values())]
            for line in results]
    return Table(["", *COLUMNS], [*rows, ours, *each])


def cell(number):
    return None if number is None else (number, None)


def papers_of(dataset, objects):
    """Data set, objects of a test  ->  tables of all papers that follow objects and test all of it, [] for a part"""
    whole = objects == OBJECTS.get(dataset)
    return [table for method in known_papers() for table in paper_tables(method).values()
            if whole and table.dataset == dataset]
