"""The layout is kept: imports go one way, files and functions stay readable, the table of docs/vipmt.md is true."""
import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("models", "dataloaders", "utils", "tools")
ENTRIES = ("train.py", "test.py", "segment.py")
SOURCES = [ROOT / name for name in ENTRIES] + [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))]
TASKS = ("fewshot", "vos", "referring", "own")

# What a file must not import, by the beginning of its path. METHOD stands for any package of models/, ENTRY for the
# three commands.
NEVER = {
    "train.py": ("tools", "METHOD"), "test.py": ("tools", "METHOD"), "segment.py": ("tools", "METHOD"),
    "models/": ("dataloaders", "tools", "ENTRY"),
    "dataloaders/": ("models", "tools", "ENTRY"),
    "dataloaders/datasets/": tuple(f"dataloaders.{task}" for task in TASKS),
    "utils/": ("models", "dataloaders", "tools", "ENTRY"),
    "tools/": ("tools.workshop",),
    "tools/workshop/reference_mode.py": ("models.METHOD.model", "models.METHOD.layer", "models.METHOD.inference",
                                         "models.METHOD.memory", "models.METHOD.prototype_activation"),
}
MAY_IMPORT_METHODS = {"llb": {"lwl"}, "iou_training": {"vipmt"}, "propagation": None}      # None: any
METHODS = sorted(p.name for p in (ROOT / "models").iterdir() if (p / "__init__.py").is_file())


def imported(path):
    """Names of all modules that a file imports; of `from a import b` both a and a.b"""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def forbidden(name):
    """Of a path below the root: the beginnings of modules that it may not import"""
    for place, modules in NEVER.items():
        if name.startswith(place) and not (place == "tools/" and name.startswith("tools/workshop/")):
            for module in modules:
                if module == "ENTRY":
                    yield from (entry.removesuffix(".py") for entry in ENTRIES)
                elif "METHOD" in module:
                    yield from (f"models.{module.partition('METHOD')[2] and m + module.partition('METHOD')[2] or m}"
                                for m in METHODS)
                else:
                    yield module


def test_imports_go_where_they_may():
    for path in SOURCES:
        name, seen = str(path.relative_to(ROOT)), set(imported(path))
        never = set(forbidden(name))
        parts = name.split("/")
        if parts[0] == "models":
            own = parts[1] if len(parts) > 2 else None
            may = MAY_IMPORT_METHODS.get(own, set())
            never |= {f"models.{m}" for m in METHODS if m != own and may is not None and m not in may}
        wrong = {one for one in seen for bad in never if one == bad or one.startswith(f"{bad}.")}
        assert not wrong, f"{name} imports {', '.join(sorted(wrong))}"


def test_functions_stay_short():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                doc = node.body[0] if ast.get_docstring(node) else None
                lines = node.end_lineno - node.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)
                assert lines <= 42, f"{path}: {node.name} has {lines} lines"


def test_no_drawer_for_odds_and_ends():
    assert not [p for p in SOURCES if p.stem in ("misc", "common", "helpers", "utils")]


@pytest.mark.parametrize("page", ["docs/vipmt.md", "docs/dan.md", "docs/lwl.md", "docs/llb.md", "docs/cma.md"])
def test_every_symbol_of_the_paper_to_code_table_imports(page):
    names = re.findall(r"`((?:models|dataloaders|utils)\.[\w.]+)`", (ROOT / page).read_text())
    assert len(names) >= 10
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
