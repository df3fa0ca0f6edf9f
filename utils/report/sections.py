"""What a report says of tests: scores beside the paper's, videos, and whatever the method says of every frame.

In: the tests, list of Part. Out: Section, blocks that page.html lays out, or None where there is nothing to show. What
a method says (predicted IoUs, whether a frame was remembered, a scale) has the names of results.jsonl.
"""
from dataclasses import dataclass, field
from statistics import mean

import numpy as np
from markupsafe import Markup

from utils.evaluation.listening import listening_table
from utils.evaluation.object_table import object_table
from utils.evaluation.rank_correlation import spearman
from utils.evaluation.results import per_frame, read_results
from utils.evaluation.tables import Table, class_table, fold_table, paper_settings, paper_table, table_of
from utils.report import charts
from utils.report.films import chosen, film_folders, film_of, supports_of
from utils.report.read import is_number

TENTHS = 10              # of a video, for what changes along it
MOST_ROWS = 24           # videos that are shown frame by frame
MOST_OBJECTS = 200       # that a table names one by one
MOST_KEYS = 8            # of what a method says of every frame
UNTAUGHT_FILES = ("untrained.jsonl", "support_prototype.jsonl")
PER_CENT = ("Per cent. J and F are means over {}; ± is the sample standard deviation over runs, which says nothing "
            "about other trainings.")
AVERAGES = {"class": "all frames of a class, then over classes", "object": "the frames of an object, then over objects",
            "frame": "all frames of all samples"}
NO_FILMS = Markup("No films: test.py keeps them with <code>--save-overlays DIR</code>. Where DIR is not "
                  "<code>RUN/overlays</code>, <code>python -m tools.report RUN --films DIR</code> finds them.")
SUPPORTS = "Pictures in a row: the supports, all that the method was told to look for, their masks in red."
UNTAUGHT = ("The same videos (tools.workshop.baselines). The prototype has the threshold that is best on these very "
            "episodes.")
LISTENS = ("Every video also with supports of another test category (test.swap_supports). A method that listens loses "
           "J with them, most where both categories are shown, and the two masks hardly overlap.")


@dataclass
class Section:
    """name: its id; blocks: list of (kind, content), see page.html"""
    name: str
    head: str
    blocks: list = field(default_factory=list)


@dataclass
class Chart:
    head: str
    svg: Markup
    caption: str = ""
    wide: bool = False


def by_fold(tests):
    return {part.fold or part.results[0].get("fold") or 0: part.results for part in tests if part.results}


def lines_of(tests):
    return [line for part in tests for line in part.results]


def title_of(line):
    number = f" {line['class_id']}" if line.get("average") == "object" else ""
    return f"{line['class']}{number} in {line['video']}" + (f": {line['text']}" if line.get("text") else "")


def cell_text(cell):
    """A cell of a Table: text, (mean, spread or None) in per cent, or None  ->  text"""
    if cell is None or isinstance(cell, str):
        return cell or ""
    return f"{cell[0]:.1f}" + ("" if cell[1] is None else f" ± {cell[1]:.1f}")


def number_tables(tables):
    """[(head, note, utils.evaluation.tables.Table, whose last row is a summary)]  ->  block; they stand side by side"""
    return "numbers", [{"head": head, "note": note, "header": table.header,
                        "rows": [[cell_text(cell) for cell in row] for row in table.rows]}
                       for head, note, table in tables]


# -- scores -----------------------------------------------------------------------------------------------------------

def result_section(tests):
    """J, F and VC per class or per fold, and the paper's where they mean the same."""
    lines, folds = lines_of(tests), by_fold(tests)
    if not lines:
        return Section("results", "Results", [("text", "No video is done yet.")])
    shared = sum(line.get("supports_share_video", False) for line in lines)
    note = (f"In {shared} of {len(lines)} results a support is of the query's own video, or two are of one "
            "(data.few_videos).")
    tables = [fold_table(folds), *map(class_table, folds.values())] if len(folds) > 1 else [class_table(lines)]
    average = lines[0].get("average", "class")
    if average == "object" and len(lines) <= MOST_OBJECTS:
        table = object_table(lines)
        table.rows = [*table.rows[1:], table.rows[0]]        # the summary last
        tables.append(table)
    table = listening_table(lines)
    beside = [("Right and wrong supports", LISTENS, table)] if table else []
    return Section("results", "Results", [
        ("text", PER_CENT.format(AVERAGES[average])),
        number_tables([*(("", "", table) for table in tables), *untaught(tests), *beside]),
        *([("warning", note)] if shared else []), *beside_paper(tests, folds)])


def untaught(tests):
    """[(head, note, Table)]: what needs no training beside the scores, where tools.workshop.baselines wrote its results
    with or near a test"""
    found = []
    for part in (part for part in tests if part.results):
        table, mine = class_table(part.results), {(line["class"], line["video"]) for line in part.results}
        near = [place / name for place in (part.folder, part.folder / "references", part.folder.parent / "references")
                for name in UNTAUGHT_FILES if (place / name).is_file()]
        others = {file.stem.replace("_", " "): read_results(file) for file in near}
        rows = [[name, *class_table(its).rows[-1][2:5]] for name, its in others.items()
                if {(line["class"], line["video"]) for line in its} == mine]
        if rows:
            rows.append([f"this {part.name}", *table.rows[-1][2:5]])
            found.append(("Beside what needs no training", UNTAUGHT, Table(["", *table.header[2:5]], rows)))
    return found


def beside_paper(tests, folds):
    """The table in the paper's form where classes and number of videos are the paper's, else why not."""
    dataset = next((part.setting("data.dataset") for part in tests if part.config is not None), None)
    known = table_of(dataset)
    if known is None:
        return [("text", "The paper has no numbers for this data.")]
    method, number, paper = known
    for fold, lines in folds.items():
        known = paper.folds[fold - 1] if fold else {"classes": ()}
        videos = len({line["video"] for line in lines})
        if {line["class"].lower().replace(" ", "_") for line in lines} != {*known["classes"]}:
            why = f"the classes tested here are not the test classes of fold {fold} of {paper.name}"
        elif videos < known["videos"]:
            why = f"fold {fold} has {videos} videos here, far fewer than {paper.name}, or the test is not complete"
        else:
            continue
        return [("text", f"The paper's numbers are left out: {why}.")]
    note = (f"Beside Table {number} of the paper, cells that were not run are empty. Comparable only if the videos are "
            f"all of {paper.name}.")
    other, note = "; ".join(departures(tests, paper_settings(method))), f"{note} {paper.note}".strip()
    return [("text", note), number_tables([("", "", paper_table(folds, dataset, "this run"))]),
            *([("warning", f"Not the paper's protocol: {other}.")] if other else [])]


def departures(tests, setting):
    """In what the tests leave the paper's protocol, {key: value}, in words."""
    found = [] if all(part.complete for part in tests) else ["unfinished"]
    given = {key: {part.setting(key) for part in tests if part.config is not None} for key in setting}
    given["test.runs"] = {len({line["run"] for line in lines_of(tests)})}
    return found + [f"{key} {', '.join(map(str, given[key]))}, the paper {value}"
                    for key, value in setting.items() if given[key] - {value}]


def test_state(part):
    """How far a test is; whatever its folder holds has been counted."""
    if not part.results:
        return "unfinished", "no video is done yet."
    runs, videos = ({line["run"] for line in part.results}, {(line["class"], line["video"]) for line in part.results})
    done = f"{len(part.results)} results: {len(videos)} videos, {len(runs)} run{'s' * (len(runs) != 1)}"
    return ("", f"complete, {done}.") if part.complete else (
        "unfinished", f"{done} so far. The same test.py command continues it; all numbers are of these videos alone.")


def result_tiles(tests):
    """[(name, value)]: J, F and VC, and what they are of; of several folds the counts alone"""
    lines, shown = lines_of(tests), []
    if len(by_fold(tests)) == 1:
        table = class_table(lines)
        shown = [(name, cell_text(cell)) for name, cell in zip(table.header[2:], table.rows[-1][2:], strict=True)]
    counts = {"videos": len({(line["class"], line["video"]) for line in lines}),
              "runs": len({line["run"] for line in lines}), "frames, all runs": sum(len(line["j"]) for line in lines)}
    return shown + list(counts.items()) if lines else []


# -- videos -----------------------------------------------------------------------------------------------------------

def film_section(tests, given=None):
    """Every video by its J; the best, median and worst as films."""
    blocks = []
    for part in (part for part in tests if part.results):
        (lines, names), folders = chosen(part.results), film_folders(part.folder, given)
        head = f"Mean J of every video, {part.name}, run {lines[0]['run']}"
        drawn = charts.histogram({"J": [mean(line["j"]) for line in lines]}, head)
        films = [{"name": name, "title": title_of(lines[i]), "numbers": numbers(lines[i]),
                  "supports": supports_of(lines[i], part.folder),
                  **dict(zip(("uri", "why"), film_of(lines[i], folders), strict=True))}
                 for i, name in names.items()]
        there = any(film["uri"] for film in films)
        text = "Red: the predicted mask. Green line, where there is one: the truth." if there else NO_FILMS
        shown = any(film["supports"] for film in films)
        j, where = np.array([(x, (i + 0.5) / len(line["j"])) for line in part.results
                             for i, x in enumerate(line["j"])]).T
        blocks += [("charts", [Chart(head, drawn, "Share of the videos."), along_video({"J": j}, where)]),
                   ("films", films), ("text", text), *([("text", SUPPORTS)] if shown else [])]
    return Section("videos", "Best, median and worst videos", blocks) if blocks else None


def numbers(line):
    """A line  ->  what stands below its film"""
    found = [f"J {100 * mean(line['j']):.1f}", f"F {100 * mean(line['f']):.1f}", f"{len(line['j'])} frames"]
    for key, values in list(per_frame(line).items())[:MOST_KEYS]:
        known = [x for x in values if is_value(x)]
        found += [f"{key} in {sum(known)}" if is_flag(values) else f"{key} {mean(known):.3g}"] if known else []
    return ", ".join(found)


def is_flag(values):
    return any(isinstance(x, bool) for x in values)


# -- what the method says of every frame --------------------------------------------------------------------------

def frames_of(lines, key):
    """Lines  ->  value of `key`, J and position in the video (0 to 1) of every frame that has one: arrays (N,)"""
    rows = [(x, j, (i + 0.5) / len(line["j"])) for line in lines
            for i, (x, j) in enumerate(zip(per_frame(line).get(key, ()), line["j"], strict=False)) if is_value(x)]
    return np.array(rows, float).reshape(-1, 3).T


def is_value(x):
    return isinstance(x, bool) or is_number(x)


def frame_section(tests):
    """Each of the method's numbers per frame: how it is distributed, along the videos, and beside J."""
    lines = lines_of(tests)
    keys = list(dict.fromkeys(key for line in lines for key in per_frame(line)))
    blocks = [block for key in keys[:MOST_KEYS] for block in value_blocks(lines, key)]
    if len(keys) > MOST_KEYS:
        blocks.append(("text", f"Not shown: {', '.join(keys[MOST_KEYS:])}."))
    return Section("frames", "What the method says of every frame", blocks) if blocks else None


def value_blocks(lines, key):
    """What is said of one key, a list of blocks."""
    values, j, where = frames_of(lines, key)
    if not len(values):
        return []
    lines = [line for line in lines if key in per_frame(line)]
    flag = any(is_flag(line[key]) for line in lines)
    share = 0 <= values.min() <= values.max() <= 1
    series = {key: values} | ({"J": j} if share else {})
    rows, _ = chosen(lines)
    rows = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(MOST_ROWS, len(rows))).round().astype(int))]
    strips = [(title_of(line), [x if is_value(x) else np.nan for x in line[key]]) for line in rows]
    kinds = {"J where true": j[values > 0], "J where false": j[values == 0]} if flag else {key: values}
    kinds = {name: some for name, some in kinds.items() if len(some)}
    drawn = [Chart("J of both" if len(kinds) > 1 else "How often",
                   charts.histogram(kinds, f"distribution of {' and '.join(kinds)}"), "Share of the frames.")]
    drawn += [along_video(series, where, share),
              Chart(f"Frame by frame, run {rows[0]['run']}",
                    charts.strips(strips, f"{key} of every frame", *((0, 1) if flag else ())),
                    f"{len(rows)} videos, evenly chosen from the best J (top) to the worst. "
                    + ("Yellow: true." if flag else "Violet: the smallest value, yellow: the largest."), wide=True)]
    return [("head", key), ("text", flag_text(values, j) if flag else number_text(values, j)), ("charts", drawn)]


def along_video(series, where, share=True):
    """{name: values of frames (N,)}, their positions in the video (N,)  ->  Chart; share: values lie in 0 to 1"""
    tenth = np.minimum((where * TENTHS).astype(int), TENTHS - 1)
    along = {name: [((i + 0.5) / TENTHS, float(some[tenth == i].mean())) for i in np.unique(tenth)]
             for name, some in series.items()}
    drawn = charts.curves(along, f"{' and '.join(series)} along a video", *((0, 1.02) if share else ()),
                          x_label="position in the video")
    return Chart(f"{next(iter(series))} along a video", drawn, "Means over all videos and runs, in tenths of a video.")


def flag_text(values, j):
    means = [f"{j[kind].mean():.3f}" if kind.any() else "(none)" for kind in (values > 0, values == 0)]
    return (f"True in {values.sum():.0f} of {len(values)} frames, {100 * values.mean():.1f} %. Mean J of those: "
            f"{means[0]}, of the others: {means[1]}.")


def number_text(values, j):
    return (f"{len(values)} frames, mean {values.mean():.3g}, from {values.min():.3g} to {values.max():.3g}. Rank "
            f"correlation with J: {correlation(values, j)}.")


def correlation(first, second):
    rank = spearman(first, second)
    return "not defined" if np.isnan(rank) else f"{rank:.2f}"


def reliability_section(tests):
    """Where the method predicts the IoU of its masks: how well."""
    predicted, true, _ = frames_of(lines_of(tests), "pred_iou")
    if not len(true):
        return None
    text = (f"{len(true)} frames. Mean distance of predicted from true IoU {np.abs(predicted - true).mean():.3f}; the "
            f"best constant would have {np.abs(true - np.median(true)).mean():.3f}. Rank correlation "
            f"{correlation(predicted, true)}.")
    both = {"predicted": predicted, "true": true}
    tenths = np.array_split(np.argsort(predicted, kind="stable"), min(10, len(true)))
    curve = [(predicted[some].mean(), true[some].mean()) for some in tenths]
    return Section("iou", "Predicted IoU against the true one", [("text", text), ("charts", [
        Chart("Every frame", charts.cloud(true, predicted, ("true IoU", "predicted IoU"), "predicted and true IoU"),
              "Evenly chosen frames." if len(true) > charts.MOST_SPOTS else ""),
        Chart("Reliability", charts.curves({"frames, by tenths": curve, "as it should be": [(0, 0), (1, 1)]},
                                           "mean true IoU of what is predicted alike", 0, 1, "predicted IoU"),
              "Mean true IoU of every tenth of the frames, ordered by their predicted IoU."),
        Chart("How often", charts.histogram(both, "distributions of predicted and true IoU"),
              "Share of the frames.")])])
