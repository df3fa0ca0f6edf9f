"""From rows of tables to steps: generated data, trainings and tests, each once however many tables need it.

In: the YAML of a method (vipmt.yaml beside this file). Out: Steps by name, which is their folder below the output:
DATA/TRAINING/foldK/seedS, tests below their training. Nothing of a method is known here.
"""
import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from utils.config import load_config
from utils.yaml_file import read_yaml

FOLDER = Path(__file__).parent
METHODS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PLACE = re.compile(r"{(\w+)}")             # in key=value: the checkpoint of a training


@dataclass(frozen=True)
class Step:
    """command: arguments of the Python interpreter; needs: names of the steps before it"""
    name: str
    command: tuple
    needs: tuple = ()


def read_experiments(method, files=()):
    """The YAML of a method, and files of the reader's own with more `trainings` and rows of `tables`"""
    known = read_yaml(FOLDER / f"{method}.yaml")
    for file in files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"--rows {file}: no such file.\n  {FOLDER / 'vipmt.yaml'} shows the form.")
        more = read_yaml(file)
        if not isinstance(more, dict) or set(more) - {"trainings", "tables"}:
            raise ValueError(f"--rows {file}: expected `trainings:` and `tables:`, as in {FOLDER / 'vipmt.yaml'}")
        known["trainings"] |= more.get("trainings", {})
        for number, rows in more.get("tables", {}).items():
            known["tables"].setdefault(number, {}).update(rows)
    return known


class Plan:
    """Collects the steps that rows need. overrides: key=value for all, or DATA:key=value for one data set."""

    def __init__(self, experiments, preset, output, folds=(), seeds=(), overrides=(), variant=None, device=None):
        self.experiments, self.output, self.steps, self.left_out = experiments, Path(output), {}, {}
        self.preset = chosen(experiments["presets"], preset, "--preset")
        self.variant = chosen(experiments["variants"], variant or next(iter(experiments["variants"])), "--variant")
        self.folds = tuple(folds or self.preset.get("folds", (1, 2, 3, 4)))
        self.overrides, self.device = tuple(overrides), ("--device", device) if device else ()
        self._check_overrides()
        self.configs = {data: load_config(files, of_data(self.overrides, data))
                        for data, files in self.preset["data"].items()}
        self.seed = next(iter(self.configs.values())).seed
        self.seeds = tuple(seeds or (self.seed,))

    def rows(self, number):
        """{label: {seed: {fold: Step of the test}}} of the rows whose data the preset has

        left_out[number]: {label of a row: package that it needs and that is not installed}
        """
        rows, found = self.experiments["tables"].get(number, {}), {}
        needed = {label: row["needs"] for label, row in rows.items() if "needs" in row}
        self.left_out[number] = {label: package for label, package in needed.items()
                                 if importlib.util.find_spec(package) is None}
        for label, row in rows.items():
            data = row.get("data", next(iter(self.preset["data"])))
            if label not in self.left_out[number] and data in self._files(row["train"]) and self._has_once(row):
                extra = self.variant.get("keys", ()) if (number in self.variant["tables"]
                                                         and row["train"] in self.variant.get("of", ())) else ()
                found[label] = {seed: {fold: self.test(row, extra, data, fold, seed) for fold in self.folds}
                                for seed in self.seeds}
        return found

    def test(self, row, extra, data, fold, seed):
        """test.py of a row  ->  Step; its episodes are the same for every seed of the training"""
        main = self.train(row["train"], data, fold, seed)
        files, keys, _ = self._settings(row["train"], data)
        own = (*row.get("keys", ()), *extra)
        texts, needs = self._filled(own, lambda name: self.train(name, data, fold, seed, row["train"]))
        files = (*files, *row.get("files", ()))
        name = "-".join(["test", *(Path(file).stem for file in row.get("files", ())), *map(short, own)])
        return self._add(f"{main.name}/{name}", ("test.py", *configs(files), "--fold", str(fold), *self.device,
                                                 "--checkpoint", self.checkpoint(main), "--output",
                                                 str(self.output / main.name / name), *keys, *texts),
                         (main.name, *self._data(data), *needs))

    def train(self, name, data, fold, seed, main=None):
        """train.py  ->  Step; main: the training in whose test this one's checkpoint is used"""
        once = self.experiments["trainings"].get(name, {}).get("once")
        data, seed = (once, self.seed) if once else (data, seed)
        files, keys, about = self._settings(name, data)
        shared = any("{main}" in key for key in keys)
        fold = 1 if about.get("all_folds") and not shared else fold
        keys, needs = self._filled(keys, lambda other: self.train(main if other == "main" else other, data, fold, seed))
        keys += (f"seed={seed}",) if seed != self.seed else ()
        folder = f"{data}/{f'{main}_{name}' if shared else name}/{'' if once else f'fold{fold}/'}seed{seed}"
        return self._add(folder, ("train.py", *configs(files), *(() if once else ("--fold", str(fold))), *self.device,
                                  "--output", str(self.output / folder), "--resume", *keys),
                         (*self._data(about.get("data", data)), *needs))

    def checkpoint(self, step):
        return str(self.output / step.name / "last.pth")

    def _settings(self, name, data):
        """A training  ->  (config files, key=value, what the YAML says of it); the later key wins"""
        about = chosen(self.experiments["trainings"], name, "train")
        base = about.get("like", name)
        about = self.experiments["trainings"][base] | {"more": about.get("keys", ()) if base != name else ()}
        files = (*self._files(base)[data], *self.preset.get("files", {}).get(base, about.get("files", ())))
        given = [text for text in self.overrides if not about.get("once") or text.startswith(f"{data}:")]
        given = of_data(given, about.get("data", data))
        keys = (*about.get("keys", ()), *self.preset.get("keys", {}).get(base, ()), *given, *about["more"])
        return files, of_data(keys, data), about

    def _files(self, training):
        """Config files of each data set: the preset's, or those of a training with another method's config"""
        return self.preset.get("own", {}).get(training, self.preset["data"])

    def _has_once(self, row):
        """Whether the preset says how to train what a row puts in from another task."""
        once = {name: self.experiments["trainings"].get(name, {}).get("once")
                for key in row.get("keys", ()) for name in PLACE.findall(key)}
        return all(not data or data in self._files(name) for name, data in once.items())

    def _filled(self, keys, train):
        """key=value with {NAME}, what makes a training's Step  ->  the same with files, names of those steps"""
        steps = {name: train(name) for key in keys for name in PLACE.findall(key)}
        return (tuple(PLACE.sub(lambda match: self.checkpoint(steps[match[1]]), key) for key in keys),
                tuple(step.name for step in steps.values()))

    def _data(self, data):
        """The step that generates a data set  ->  its name in a tuple, () if nothing is generated"""
        command = self.preset.get("make", {}).get(data)
        return (self._add(f"data/{data}", tuple(shlex.split(command))).name,) if command else ()

    def _add(self, name, command, needs=()):
        step = Step(name, command, tuple(dict.fromkeys(needs)))
        assert self.steps.setdefault(name, step) == step, f"two steps are called {name}: {self.steps[name]}, {step}"
        return step

    def _check_overrides(self):
        sets = {*self.preset["data"], *(about[key] for about in self.experiments["trainings"].values()
                                        for key in ("data", "once") if key in about)}
        for text in self.overrides:
            data, colon, key = text.partition("=")[0].rpartition(":")
            if colon and data not in sets:
                raise ValueError(f"{text}: no data set '{data}' here; before the colon: {', '.join(sorted(sets))}")
            if key == "seed":
                raise ValueError(f"{text}: seeds of trainings are given by --seeds 42 7 ...")
            if key in ("data.root", "data.annotations", "data.dataset") and not colon:
                raise ValueError(f"{text}: tables use several data sets; say whose this is: {min(sets)}:{text}")


def chosen(known, name, what):
    """An entry of the YAML; ValueError that lists what there is"""
    if name not in known:
        raise ValueError(f"{what} {name}: there are {', '.join(known)}")
    return known[name]


def of_data(keys, data):
    """[key=value or DATA:key=value]  ->  those that concern a data set, in order"""
    split = [key.partition(":") if ":" in key.partition("=")[0] else (data, "", key) for key in keys]
    return tuple(text for name, _, text in split if name == data)


def configs(files):
    return tuple(part for file in files for part in ("--config", file))


def short(key):
    """'memory.min_iou=0.5'  ->  'min_iou0.5', for the name of a folder; of a checkpoint the training's name"""
    place = PLACE.search(key)
    name, _, value = key.partition("=")
    return place[1] if place else re.sub(r"[^\w.]+", "_", name.rpartition(".")[2] + value)
