"""The results in a report: table beside the paper's, bars per class, films, predicted IoU, memory.

Functions take the tests, list of Part of utils/report/read.py, and return (id, head, list of HTML), or None.
"""
from html import escape
from statistics import mean

import numpy as np

from dataloaders.datasets.folds import MINIVSPW_CLASSES, YTVIS_CLASSES, minivspw_classes, split_classes
from tools.workshop.iou_study import spearman
from utils.evaluation.tables import FOLDS, class_table, fold_table, paper_table
from utils.report.blocks import chart, charts, number_table, sentence, text_table
from utils.report.charts import bars, curves, frame_rows, legend, points, ranked
from utils.report.films import chosen, film_of

NAMES = {"ytvis": "YouTube-VIS 2019", "minivspw": "MiniVSPW"}
PAPER_SETTING = {"data.shots": 5, "test.protocol": "II", "test.resolution": "input", "metrics.vc": "vipmt",
                 "metrics.vc_window": 7}
PAPER_RUNS = 5
# Test videos of a fold, at least: smaller data with the same class names is not the paper's. MiniVSPW: its lists;
# YouTube-VIS has none, but a fold is ten of forty categories of 2238 videos.
FEWEST_VIDEOS = {"ytvis": dict.fromkeys(FOLDS, 100), "minivspw": {1: 61, 2: 96, 3: 261, 4: 64}}
TENTHS = 10              # of a video, for what changes along it
MOST_ROWS = 24           # videos whose memory is shown frame by frame


def all_results(tests):
    return [line for part in tests for line in part.results]


def by_fold(tests):
    return {part.fold or part.results[0]["fold"]: part.results for part in tests if part.results}


def result_tiles(tests):
    """[(name, value)]: J, F and VC, and what they are of; of several folds the counts alone"""
    lines = all_results(tests)
    if not lines:
        return []
    shown = []
    if len(by_fold(tests)) == 1:
        row, table = class_table(lines).rows[-1], class_table(lines)
        shown = [(name, f"{cell[0]:.1f}" + ("" if cell[1] is None else f" ± {cell[1]:.1f}"))
                 for name, cell in zip(table.header[2:], row[2:], strict=True)]
    frames = sum(len(line["j"]) for line in lines)
    counts = [("videos", len({(line["class"], line["video"]) for line in lines})),
              ("runs", len({line["run"] for line in lines})), ("frames, all runs", frames)]
    return shown + [(name, f"{count}") for name, count in counts]


def result_section(tests):
    """J, F and VC per class or per fold, and the paper's where they mean the same."""
    lines, folds = all_results(tests), by_fold(tests)
    if not lines:
        return "results", "Results", [sentence("No video is done yet.")]
    several = len(folds) > 1
    content = [number_table(fold_table(folds) if several else class_table(lines)), *beside_paper(tests, folds)]
    how = ("Per cent. J and F are means over all frames of a class, then over classes; ± is the sample standard "
           "deviation over runs, which says nothing about other trainings.")
    if any(line.get("supports_share_video") for line in lines):
        how += " Some supports share a video, since a class has too few: data.few_videos."
    return "results", "Results", [sentence(how), *content]


def beside_paper(tests, folds):
    """The table in the paper's form where the data is the paper's, else why not."""
    dataset = next((part.config.data.dataset for part in tests if part.config is not None), None)
    if dataset not in NAMES:
        return [sentence("The paper has no numbers for this data.")]
    for fold, lines in folds.items():
        wanted, there = paper_classes(dataset, fold), {spelled(line["class"]) for line in lines}
        if there != wanted:
            return [sentence(f"The paper's numbers are left out: the {len(there)} classes tested here are not the "
                             f"{len(wanted)} test classes of fold {fold} of {NAMES[dataset]}.")]
        videos = len({line["video"] for line in lines})
        if videos < FEWEST_VIDEOS[dataset][fold]:
            return [sentence(f"The paper's numbers are left out: fold {fold} has {videos} videos here, far fewer than "
                             f"{NAMES[dataset]}, or the test is not complete.")]
    table = paper_table(folds, dataset, "this run")
    note = (f"Beside Table {1 if dataset == 'ytvis' else 2} of the paper, cells that were not run are empty. "
            f"Comparable only if the videos are all of {NAMES[dataset]}.")
    other = departures(tests)
    return [sentence(note), number_table(table),
            *([sentence(f"Not the paper's protocol: {escape('; '.join(other))}.", "warning")] if other else [])]


def paper_classes(dataset, fold):
    """The names of a fold's test classes, as `spelled`."""
    names = YTVIS_CLASSES if dataset == "ytvis" else MINIVSPW_CLASSES
    ids = split_classes(YTVIS_CLASSES, fold)[1] if dataset == "ytvis" else minivspw_classes(fold, "test")
    return {spelled(names[number]) for number in ids}


def spelled(name):
    return "".join(letter for letter in name.lower() if letter.isalnum())


def departures(tests):
    """In what the tests leave the paper's protocol, in words."""
    found = [] if all(part.complete for part in tests) else ["unfinished"]
    runs = len({line["run"] for part in tests for line in part.results})
    found += [] if runs == PAPER_RUNS else [f"{runs} run{'s' * (runs != 1)}, the paper has {PAPER_RUNS}"]
    for key, value in PAPER_SETTING.items():
        section, name = key.split(".")
        given = {part.config[section][name] for part in tests if part.config is not None}
        if given - {value}:
            found.append(f"{key} {', '.join(map(str, given))}, the paper {value}")
    return found


def class_section(tests):
    """J and F of every class as bars."""
    rows = [(name, [(cell[0], cell[1]) for cell in cells[:2]]) for results in by_fold(tests).values()
            for name, _, *cells in class_table(results).rows[:-1]]
    if not rows:
        return None
    rows.sort(key=lambda row: -row[1][0][0])
    return "classes", "Class by class", [charts([chart("J and F, best class first", (bars(rows), legend(["J", "F"])),
                                                       "Per cent; black or white lines: spread over runs.",
                                                       wide=True)])]


# -- videos ---------------------------------------------------------------------------------------------------------

def film_section(tests, kept):
    """Every video by its J; the best, median and worst as films."""
    tests = [part for part in tests if part.results]
    content = []
    for part in tests:
        lines, names = chosen(part.results)
        where = f" of fold {part.fold}" if len(tests) > 1 else ""
        curve = ranked([mean(line["j"]) for line in lines], {i: f"{names[i]}: {title_of(lines[i])}" for i in names})
        content.append(charts([chart(f"Mean J of every video{where}, run {lines[0]['run']}", curve,
                                     "Dots: the videos shown below.", wide=True)]))
        found = [(i, *film_of(lines[i], kept[part.folder], part.config)) for i in names]
        if any(film for _, film, _ in found):
            figures = "".join(shown(lines[i], names[i], film, why) for i, film, why in found)
            content += [sentence("Red: the predicted mask. Green line, where there is one: the truth."),
                        f'<div class="films">{figures}</div>']
        else:
            rows = [[names[i], lines[i]["class"], lines[i]["video"], *numbers(lines[i])] for i in names]
            content += [text_table(["", "class", "video", "J", "F", "frames", "in memory"], rows), sentence(NO_FILMS)]
    return ("videos", "Best, median and worst videos", content) if content else None


NO_FILMS = (
    "No films: test.py keeps them with <code>--save-overlays DIR</code>, or masks with <code>--save-masks DIR</code>. "
    "Where DIR is neither <code>RUN/overlays</code> nor <code>RUN/masks</code>, <code>python -m tools.report RUN "
    "--films DIR</code> or <code>--masks DIR</code> finds them. <code>--segment</code> makes them now, of the "
    "test's own weights.")


def title_of(line):
    return f"{line['class']} in {line['video']}"


def numbers(line):
    """A line  ->  J and F in per cent, frames, frames that entered memory; text"""
    j, f = (f"{100 * mean(line[key]):.1f}" for key in ("j", "f"))
    return j, f, f"{len(line['j'])}", f"{sum(line.get('remembered') or [])}"


def shown(line, name, film, why):
    """One video as a figure: the film, or why there is none, above its numbers."""
    j, f, frames, taken = numbers(line)
    caption = (f"<figcaption><b>{name}</b>: {escape(title_of(line))}. J {j}, F {f}; {frames} frames, {taken} entered "
               "memory.</figcaption>")
    if film is None:
        return f'<figure><p class="quiet">{escape(why)}</p>{caption}</figure>'
    mime, uri = film
    what = f'aria-label="film of {escape(title_of(line))}, predicted mask in red"'
    drawn = (f'<img src="{uri}" {what} alt="">' if mime == "image/gif" else
             f'<video src="{uri}" {what} autoplay loop muted playsinline controls></video>')
    return f"<figure>{drawn}{caption}</figure>"


# -- IoUNet and memory ----------------------------------------------------------------------------------------------

def judged_frames(tests):
    """Lines with predicted IoUs  ->  predicted, true, remembered: arrays (N,) of all their frames"""
    lines = [line for line in all_results(tests) if line.get("pred_iou")]
    taken = [line.get("remembered") or [False] * len(line["j"]) for line in lines]
    return (np.array([x for line in lines for x in line["pred_iou"]]),
            np.array([x for line in lines for x in line["j"]]), np.array([x for some in taken for x in some], bool))


def memory_keys(tests):
    """memory.select and memory.min_iou where all tests agree, else None for each"""
    values = {(part.config.memory.select, part.config.memory.min_iou) for part in tests if part.config is not None}
    return values.pop() if len(values) == 1 else (None, None)


def iou_section(tests):
    """How well IoUNet knows the quality of a mask."""
    predicted, true, taken = judged_frames(tests)
    if not all_results(tests):
        return None
    if not len(true):
        return "iou", "Predicted IoU", [sentence("This model predicts no IoU: it has no IoUNet.")]
    rank = spearman(predicted, true)
    text = (f"{len(true)} frames. Mean distance of predicted from true IoU {np.abs(predicted - true).mean():.3f}; the "
            f"best constant would have {np.abs(true - np.median(true)).mean():.3f}. Rank correlation "
            + ("not defined." if np.isnan(rank) else f"{rank:.2f}."))
    threshold = memory_keys(tests)[1]
    key = '<span class="key s0">entered memory</span> <span class="key s1">did not</span>'
    drawing = points(predicted, true, taken, threshold), key
    caption = "Up: predicted IoU. " + ("" if threshold is None else f"Dashed: memory.min_iou = {threshold:g}. ")
    caption += "Evenly chosen frames." if len(true) > 2500 else ""
    return "iou", "Predicted IoU against the true one", [
        sentence(text), charts([chart("Every frame", drawing, caption), chart(
            "How often an IoU is predicted, and how often it is true", distribution(predicted, true),
            "Share of the frames, in twentieths of the IoU.")])]


def distribution(predicted, true, parts=20):
    """Predicted and true IoUs (N,)  ->  chart of both distributions"""
    middles = (np.arange(parts) + 0.5) / parts
    return curves({name: list(zip(middles.tolist(), (np.histogram(values.clip(0, 1), parts, (0, 1))[0]
                                                     / len(values)).tolist(), strict=True))
                   for name, values in (("predicted", predicted), ("true", true))},
                  size=(380, 260), low=0, x_label="IoU")


def memory_section(tests):
    """Which frames entered memory, where in a video, and whether they deserved it."""
    lines = [line for line in all_results(tests) if line.get("remembered")]
    if not lines:
        return None
    _, true, taken = frames_of(lines)
    if not taken.any():
        return "memory", "Memory", [sentence("No frame entered memory.")]
    select, threshold = memory_keys(tests)
    means = [f"{true[kind].mean():.3f}" if kind.any() else "(none)" for kind in (taken, ~taken)]
    text = (f"{taken.sum()} of {len(taken)} frames entered memory, {100 * taken.mean():.1f} %. Mean true IoU of those "
            f"that did: {means[0]}, of the others: {means[1]}.")
    if select is not None:
        text += f" memory.select: {escape(select)}, memory.min_iou: {threshold:g}."
    rows, names = chosen(lines)
    some = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(MOST_ROWS, len(rows))).round().astype(int))]
    cells = [(title_of(line), [float(x) for x in line["remembered"]],
              f"{title_of(line)}: J {mean(line['j']):.3f}, {sum(line['remembered'])} of {len(line['j'])} frames taken")
             for line in some]
    return "memory", "Memory along the videos", [sentence(text), charts([
        chart("Along a video", along(lines), "Means over all videos and runs, in tenths of a video."),
        chart(f"Frame by frame, run {some[0]['run']}", frame_rows(cells),
              f"{len(some)} of {len(rows)} videos, evenly chosen from the best J (top) to the worst. Filled: the frame "
              "entered memory.", wide=True)])]


def frames_of(lines):
    """Lines  ->  position in its video (0 to 1), true IoU, whether it entered memory; of every frame, arrays (N,)"""
    where = [(i + 0.5) / len(line["j"]) for line in lines for i in range(len(line["j"]))]
    return (np.array(where), np.array([x for line in lines for x in line["j"]]),
            np.array([x for line in lines for x in line["remembered"]], bool))


def along(lines):
    """Share of frames in memory and true IoU over the position in the video  ->  chart and its legend"""
    where, true, taken = frames_of(lines)
    tenth = np.minimum((where * TENTHS).astype(int), TENTHS - 1)
    series = {"taken into memory": taken, "true IoU": true}
    return curves({name: [((i + 0.5) / TENTHS, float(values[tenth == i].mean())) for i in range(TENTHS)
                          if (tenth == i).any()] for name, values in series.items()},
                  size=(380, 260), low=0, high=1, x_label="position in the video")
