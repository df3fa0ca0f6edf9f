"""The page about a run: one HTML file, as text, of what utils/report/read.py read. Results first, set-up last.

Nothing is loaded and nothing runs: films and pictures are inlined, and the page's own policy forbids scripts and the
network. It looks as the page of tools/explain.py does: the same style sheet, and a second one for charts.
"""
from html import escape
from pathlib import Path

from tools.explanation.blocks import section
from tools.explanation.page import STYLE
from utils.evaluation.tables import FOLDS
from utils.report.results import (
    class_section,
    film_section,
    iou_section,
    memory_section,
    result_section,
    result_tiles,
)
from utils.report.setup import config_section, setup_section
from utils.report.training import training_section, training_state, training_tiles

STYLES = (STYLE, Path(__file__).with_name("page.css"))
SHORT = {"iou": "predicted IoU", "setup": "how it was made"}       # other sections have the names of their ids
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def build_page(parts, kept):
    """list of Part, {folder of a test: Kept}  ->  HTML"""
    tests, trainings = [p for p in parts if p.is_test], [p for p in parts if not p.is_test]
    title, sections = title_of(parts), []
    if tests:
        sections = [result_section(tests), class_section(tests), film_section(tests, kept), iou_section(tests),
                    memory_section(tests)]
    sections += [training_section(part, len(trainings) > 1) for part in trainings]
    sections = [one for one in [*sections, config_section(parts), setup_section(parts)] if one]
    style = "".join(file.read_text(encoding="utf-8") for file in STYLES)
    links = " ".join(f'<a href="#{name}">{escape(SHORT.get(name, name))}</a>' for name, *_ in sections)
    body = "".join(section(name, escape(text), *content) for name, text, content in sections)
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{style}</style></head><body><h1>{escape(title)}</h1>{states(tests, trainings)}"
            f"{tiles(tests, trainings)}<nav>{links}</nav><main>{body}</main></body></html>\n")


def title_of(parts):
    """What the page is about: names of the runs, their folds, training or test."""
    names = list(dict.fromkeys(str(part.record.get("name") or part.folder.name) for part in parts))
    folds = sorted({part.fold for part in parts if part.fold})
    where = {0: "", 1: f", fold {folds[0] if folds else ''}"}.get(
        len(folds), f", {'all folds' if folds == [*FOLDS] else 'folds ' + ', '.join(map(str, folds))}")
    kinds = [name for name, of in (("training", False), ("test", True)) if any(p.is_test == of for p in parts)]
    return f"{', '.join(names)[:120]}{where}: {' and '.join(kinds)}"


def states(tests, trainings):
    """One sentence per part: how far it is."""
    lines = [training_state(part) for part in trainings] + [test_state(part) for part in tests]
    return "".join(f'<p class="state">{line}</p>' for line in lines)


def test_state(part):
    """How far a test is; whatever its folder holds has been counted."""
    fold = f" of fold {part.fold}" if part.fold else ""
    if not part.results:
        return f'Test{fold}: <b class="warning">unfinished</b>, no video is done yet.'
    runs, videos = {line["run"] for line in part.results}, {(line["class"], line["video"]) for line in part.results}
    done = f"{len(part.results)} results: {len(videos)} videos, {len(runs)} run{'s' * (len(runs) != 1)}"
    if part.complete:
        return f"Test{fold}: complete, {done}."
    return (f'Test{fold}: <b class="warning">unfinished</b>, {done} so far. The same test.py command continues it; '
            "all numbers below are of these videos alone.")


def tiles(tests, trainings):
    shown = result_tiles(tests) if tests else []
    shown += training_tiles(trainings[0]) if len(trainings) == 1 else []
    boxes = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
                    for name, value in shown)
    return f'<div class="tiles">{boxes}</div>' if boxes else ""
