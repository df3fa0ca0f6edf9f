"""From settings to steps: generated data, trainings, IoUNets and tests, each once however many tables need it.

A plan is an ordered dict of tools.reproduction.run.Step. Folders are DATASET/MODEL/foldK/seedS, tests below their
training; IoUNets that serve several models stand beside them.
"""
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tools.reproduction.run import Step
from utils.config import flatten, load_config, to_dict

ABLATION = "config/vipmt/ablation/{}.yaml"


@dataclass(frozen=True)
class Model:
    """What a training lays over the base config: files, then key=value."""
    files: tuple = ()
    changes: tuple = ()
    memory: bool = True            # false: no IoUNet


MODELS = {
    "vipmt": Model(),
    "ipmt_baseline": Model((ABLATION.format("ipmt_baseline"),), memory=False),
    "clip": Model((ABLATION.format("clip"),), memory=False),
    "clip_frame": Model((ABLATION.format("clip_frame"),), memory=False),
    "one_way": Model((ABLATION.format("one_way"),), memory=False),
    "clip_frame_memory": Model((ABLATION.format("clip_frame_memory"),)),
    "clip_frame_memory_without_maps": Model((ABLATION.format("clip_frame_memory"),),
                                            ("iou_net.similarity_maps=false",)),
}


@dataclass(frozen=True)
class Preset:
    """Which data and at what size. A data set without files is not part of it: its cells stay empty."""
    words: str
    data: dict                                          # data set: config files of its trainings and tests
    iou_net: dict                                       # video | image: (config files, key=value) laid over them
    tables: tuple = ()                                  # config files of main trainings and tests, not of IoUNets
    folds: tuple = (1, 2, 3, 4)
    models: dict = field(default_factory=dict)          # model: key=value that this size needs
    generated: dict = field(default_factory=dict)       # data set: arguments of tools/make_demo_data.py
    trained_encoder: bool = False                       # then an IoUNet fits the one model whose encoder it learned on
    threads: int = None                                 # of a step; None: a share of the cores
    is_paper: bool = False                              # its numbers can be compared with the paper's


PRESETS = {
    "paper": Preset(
        "the paper's sizes and data",
        {"ytvis": ("config/vipmt/ytvis.yaml",), "minivspw": ("config/vipmt/minivspw.yaml",)},
        {"video": (("config/vipmt/iounet_video.yaml",), ()), "image": (("config/vipmt/iounet_coco20i.yaml",), ())},
        is_paper=True),
    "mini": Preset(
        "39 real videos, narrow and short trainings",
        {"ytvis": ("config/vipmt/mini.yaml",)},
        {"video": (("config/vipmt/iounet_video.yaml",), ()),
         "image": (("config/vipmt/iounet_coco20i.yaml",),
                   ("data.root=../shared/data/mini_coco", "data.annotations=instances.json"))},
        models={"ipmt_baseline": ("data.clips=6",)}, threads=1),
    "demo": Preset(
        "generated data, a tiny encoder trained from scratch, short trainings",
        {"ytvis": ("config/demo/ytvis.yaml",), "minivspw": ("config/demo/minivspw.yaml",)},
        {"video": (("config/demo/iounet_video.yaml",), ()), "image": (("config/demo/iounet_coco20i.yaml",), ())},
        tables=("config/demo/tables.yaml",), folds=(1,), models={"ipmt_baseline": ("data.clips=4",)},
        generated={"ytvis": (), "minivspw": ("--layout", "minivspw"), "coco20i": ("--layout", "coco")},
        trained_encoder=True, threads=1),     # maps of 9 x 15 are too small to share
}


class Planner:
    """Collects the steps that settings need. overrides: key=value for all, or DATASET:key=value."""

    def __init__(self, preset, output, folds=(), seeds=(), overrides=(), iou_net="own", device=None):
        self.preset, self.output = preset, Path(output)
        self.overrides, self.iou_net = tuple(overrides), iou_net
        self.device = ("--device", device) if device else ()
        self.folds = tuple(folds) or preset.folds
        self.steps = {}
        base = resolved(next(iter(preset.data.values())), ())
        self.seeds = tuple(seeds) or (base["seed"],)

    def has(self, setting):
        """Whether the preset has the setting's data"""
        return setting is not None and setting.dataset in self.preset.data

    def results(self, setting):
        """Plans all tests of a setting  ->  {seed: {fold: the test's Step}}"""
        return {seed: {fold: self.test(setting, fold, seed) for fold in self.folds} for seed in self.seeds}

    def data(self, dataset, settings):
        """The step that generates the data of a resolved config  ->  its name in a tuple, () if nothing is generated"""
        if dataset not in self.preset.generated:
            return ()
        root = settings["data.root"]
        command = ("tools/make_demo_data.py", *self.preset.generated[dataset], "--output", root)
        return (self._add(f"data {dataset}", command, Path(root, settings["data.annotations"])).name,)

    def training(self, dataset, model, fold, seed):
        """train.py of one model  ->  Step"""
        files, changes = self._model(dataset, model)
        return self._train(f"train {dataset} {model} fold {fold} seed {seed}", dataset, files, changes, fold, seed,
                           self.folder(dataset, model, fold, seed))

    def judge(self, kind, setting, fold, seed):
        """train.py of an IoUNet on synthesised masks, kind video | image  ->  Step

        One for all folds if it learns on images, and one for each encoder.
        """
        files, given = self.preset.iou_net[kind]
        dataset, every = setting.dataset, kind == "image" and not self.preset.trained_encoder
        name = f"iounet_{kind}" + ("" if setting.maps else "_without_maps")
        changes = () if setting.maps else ("iou_net.similarity_maps=false",)
        if kind == "image" and dataset == "minivspw":
            changes += ("data.dataset=coco20i_minivspw",)
        folder, needs = Path(dataset, name), ()
        if self.preset.trained_encoder:
            main = self.training(dataset, setting.model, fold, seed)
            changes, needs = (*changes, f"backbone.weights={main.product}"), (main.name,)
            folder = Path(dataset, f"{setting.model}_{name}")
        place = self.output / folder / (f"seed{seed}" if every else f"fold{fold}/seed{seed}")
        label = " ".join(["train", *folder.parts, *([] if every else [f"fold {fold}"]), f"seed {seed}"])
        return self._train(label, "coco20i" if kind == "image" else dataset, (*self.preset.data[dataset], *files),
                           changes, 1 if every else fold, seed, place, needs, given)

    def test(self, setting, fold, seed):
        """test.py of a setting  ->  Step; its episodes are the same for every seed of the training"""
        main = self.training(setting.dataset, setting.model, fold, seed)
        files, model_changes = self._model(setting.dataset, setting.model)
        files += setting.over
        kind = {"default": self.iou_net}.get(setting.iou_net, setting.iou_net)
        judge = self.judge(kind, setting, fold, seed) if kind != "own" and MODELS[setting.model].memory else None
        overrides = (*self.for_dataset(setting.dataset), *model_changes)
        changes = tuple(text for text in setting.changes if changes_something(text, files, overrides))
        parts = [*(Path(file).stem for file in setting.over), *map(short, changes)]
        if judge is not None:
            parts.insert(0, kind + ("" if setting.maps else "_without_maps"))
            changes += () if setting.maps else ("iou_net.similarity_maps=false",)
        folder = self.folder(setting.dataset, setting.model, fold, seed) / "-".join(["test", *parts])
        settings = resolved(files, (*overrides, *changes))
        command = ("test.py", *config_arguments(files), "--fold", str(fold), *self.device, "--checkpoint",
                   str(main.product), *(("--iou-net", str(judge.product)) if judge else ()), "--output", str(folder),
                   *overrides, *changes)
        needs = (*self.data(setting.dataset, settings), main.name, *([judge.name] if judge else ()))
        return self._add(" ".join([main.name.replace("train ", "test ", 1), *parts]), command,
                         folder / "results.jsonl", needs, settings)

    def folder(self, dataset, model, fold, seed):
        return self.output / dataset / model / f"fold{fold}" / f"seed{seed}"

    def for_dataset(self, dataset):
        """The reader's key=value that concern a data set, in order."""
        split = [text.partition(":") if ":" in text.partition("=")[0] else ("", "", text) for text in self.overrides]
        return tuple(text for name, _, text in split if name in ("", dataset))

    def _model(self, dataset, model):
        """Config files and key=value of a training, without the reader's."""
        files = (*self.preset.data[dataset], *self.preset.tables, *MODELS[model].files)
        return files, (*self.preset.models.get(model, ()), *MODELS[model].changes)

    def _train(self, name, dataset, files, changes, fold, seed, folder, needs=(), given=()):
        overrides = (*given, *self.for_dataset(dataset), *changes)
        overrides += (f"seed={seed}",) if seed != resolved(files, overrides)["seed"] else ()
        settings = resolved(files, overrides)
        command = ("train.py", *config_arguments(files), "--fold", str(fold), *self.device, "--output", str(folder),
                   "--resume", *overrides)
        return self._add(name, command, folder / "last.pth", (*self.data(dataset, settings), *needs), settings)

    def _add(self, name, command, product, needs=(), settings=None):
        step = Step(name, command, product, needs, settings or {})
        assert self.steps.setdefault(name, step) == step, f"two steps are called {name}: {self.steps[name]}, {step}"
        return step


def check_overrides(overrides, planner):
    """ValueError for key=value that a plan cannot take; DATASET:key=value concerns one data set alone."""
    datasets = (*planner.preset.data, "coco20i")
    for text in overrides:
        dataset, colon, _ = text.partition("=")[0].rpartition(":")
        if colon and dataset not in datasets:
            raise ValueError(f"{text}: no data set '{dataset}' here; before the colon stands {' or '.join(datasets)}")
        key = text.partition("=")[0].rpartition(":")[2]
        if key == "seed":
            raise ValueError(f"{text}: seeds of trainings are given by --seeds 42 7 ...")
        if key in ("data.root", "data.annotations", "data.dataset") and not colon:
            raise ValueError(f"{text}: tables use several data sets; say whose this is: ytvis:{text}")


@cache
def resolved(files, overrides):
    """Config files and key=value  ->  {key: value}, every key"""
    return flatten(to_dict(load_config(files, overrides)))


def changes_something(text, files, overrides):
    return resolved(files, (*overrides, text)) != resolved(files, overrides)


def config_arguments(files):
    return tuple(part for file in files for part in ("--config", file))


def short(change):
    """'memory.min_iou=0.5'  ->  'min_iou0.5', for the name of a folder"""
    key, _, value = change.partition("=")
    return re.sub(r"[^\w.]+", "_", key.rpartition(".")[2] + value)
