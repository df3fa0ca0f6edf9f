"""The page about a run: one HTML file, as text, of what utils/report/read.py read. Results first, set-up last.

Nothing is loaded and nothing runs: films and pictures are inlined, and the page's own policy forbids scripts and the
network. base.html is that frame, also of other pages.
"""
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.evaluation.tables import FOLDS
from utils.report import sections, setup, training

HERE = Path(__file__).parent


def render(template, values, folder=HERE):
    """A template of `folder`, which may build on those here  ->  HTML; whatever is no Markup is escaped"""
    return environment(folder).get_template(template).render(values)


@cache
def environment(folder):
    """Once per folder, so that templates are compiled once"""
    return Environment(loader=FileSystemLoader([folder, HERE]), autoescape=True, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)


def build_page(parts, films=None):
    """list of Part, a folder of films beside those that are looked for  ->  HTML"""
    tests, trainings = [p for p in parts if p.is_test], [p for p in parts if not p.is_test]
    found = [sections.result_section(tests), sections.film_section(tests, films),
             sections.reliability_section(tests), sections.frame_section(tests)] if tests else []
    found += [training.training_section(part, len(trainings) > 1) for part in trainings]
    found += [setup.config_section(parts), setup.setup_section(parts)]
    states = [(part.name, *training.training_state(part)) for part in trainings]
    states += [(part.name, *sections.test_state(part)) for part in tests]
    tiles = sections.result_tiles(tests) + (training.training_tiles(trainings[0]) if len(trainings) == 1 else [])
    return render("page.html", {"title": title_of(parts), "states": states, "tiles": tiles,
                                "sections": [section for section in found if section]})


def title_of(parts):
    """What the page is about: names of the runs, their folds, training or test."""
    names = list(dict.fromkeys(str(part.record.get("name") or part.folder.name) for part in parts))
    folds = sorted({part.fold for part in parts if part.fold})
    where = {0: "", 1: f", fold {folds[0] if folds else ''}"}.get(
        len(folds), f", {'all folds' if folds == [*FOLDS] else 'folds ' + ', '.join(map(str, folds))}")
    kinds = [name for name, of in (("training", False), ("test", True)) if any(p.is_test == of for p in parts)]
    return f"{', '.join(names)[:120]}{where}: {' and '.join(kinds)}"
