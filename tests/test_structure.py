"""The layout is kept: imports go one way, files and functions stay readable, the README's table is true."""
import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [p for folder in ("models", "dataloaders", "utils") for p in (ROOT / folder).rglob("*.py")]
MAY_IMPORT = {"models": {"models", "utils"}, "dataloaders": {"dataloaders"}, "utils": {"utils"}}
OURS = {"models", "dataloaders", "utils", "tools", "train", "test", "segment"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    assert set(imported(path)) & OURS <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", [*SOURCES, *ROOT.glob("*.py"), *(ROOT / "tools").glob("*.py")],
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_stay_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            doc = node.body[0] if ast.get_docstring(node) else None
            lines = node.end_lineno - node.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)
            assert lines <= 42, f"{node.name} has {lines} lines"


def test_no_drawer_for_odds_and_ends():
    assert not [p for p in SOURCES if p.stem in ("misc", "common", "helpers", "utils")]


def test_every_symbol_of_the_readme_table_imports():
    table = re.search(r"## Reading the code beside the paper\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.S)[1]
    names = re.findall(r"`((?:models|dataloaders|utils)\.[\w.]+)`", table)
    assert len(names) >= 15
    for name in names:
        resolve(name)


def resolve(name):
    """models.a.b.Class.method  ->  the object; AttributeError or ImportError where there is none"""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            fields = getattr(found, "__dataclass_fields__", {})
            found = fields[part] if part in fields else getattr(found, part)
        return found
    raise ImportError(name)


def test_no_machine_or_person_is_named():
    text = [p for p in ROOT.rglob("*") if p.suffix in (".py", ".md", ".yaml", ".txt", ".toml", ".ini") and p.is_file()
            and not {".venv", "output", "data", ".git", "parity"} & set(p.relative_to(ROOT).parts)]
    paths = re.compile(r"(?<![\w.])/(?:home|root|work|mnt|Users)/\w+")
    assert not [p for p in text if paths.search(p.read_text())]
