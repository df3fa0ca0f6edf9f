"""The files that fuzz.py damages: a sandbox with everything the project reads, correct, and how one is replaced.

A sandbox is a folder with a small data set of every layout, a config, a checkpoint, an episode list and results, which
nothing may leave; `outside` lies beside it and is where hostile names and links point to.
"""
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from easydict import EasyDict
from torch import nn

from dataloaders import build_index, fold_side
from dataloaders.fewshot.episode_list import drawn_entries, list_header, list_text
from dataloaders.fewshot.streaming import TestEpisodes
from tools.demo_data.coco import write_demo_coco
from tools.demo_data.minivspw import write_demo_minivspw
from tools.demo_data.ytvis import write_demo_data
from utils.config import load_config
from utils.seeds import seed_generators
from utils.training.state import TrainingState

ROOT = Path(__file__).resolve().parents[3]
ANNOTATIONS = {"ytvis": "train.json", "minivspw": "minivspw_lists", "coco": "annotations/instances_train2017.json"}
CONFIG, OVERRIDE, CHECKPOINT = "config/fuzz.yaml", "override.txt", "last.pth"
EPISODES, RESULTS = "episodes.json", "results.jsonl"
SPARSE_BYTES = 2 ** 40


@dataclass(frozen=True)
class Mutant:
    """One input. file: below the sandbox; content: what it holds, None where `special` says what stands there."""
    kind: str
    number: int
    how: str
    file: str
    content: bytes = None
    special: str = None


def make_sandbox(folder):
    """Write `folder`/sandbox and `folder`/outside, everything in them correct  ->  the sandbox"""
    sandbox, outside = folder / "sandbox", folder / "outside"
    outside.mkdir(parents=True)
    cv2.imwrite(str(outside / "secret.jpg"), np.full((48, 48, 3), 200, np.uint8))
    write_demo_data(sandbox / "ytvis", videos_per_category=1, size=(48, 48), frames=(2, 2))
    write_demo_minivspw(sandbox / "minivspw", videos_per_category=2, size=(48, 48), frames=(2, 2))
    write_demo_coco(sandbox / "coco", images_per_category=2, size=(96, 96))
    images = sandbox / "ytvis" / "JPEGImages"
    (images / "link_out").symlink_to("../../../outside")
    (images / "link_file.jpg").symlink_to("../../../outside/secret.jpg")
    (images / "loop").symlink_to("loop")
    make_pipe(sandbox)
    (sandbox / "config").mkdir()
    shutil.copy(ROOT / "config" / "vipmt" / "ytvis.yaml", sandbox / "config")
    (sandbox / "config" / "other.yaml").write_text("base: fuzz.yaml\n")
    (sandbox / "config" / "loop").symlink_to("loop")
    demo = (ROOT / "config" / "demo" / "ytvis.yaml").read_text()
    (sandbox / CONFIG).write_text(demo.replace("../vipmt/ytvis.yaml", "ytvis.yaml"))
    (sandbox / OVERRIDE).write_text("seed=1")
    training(sandbox).save()
    write_episodes(sandbox)
    write_supports(sandbox / "support")
    return sandbox


def make_pipe(sandbox):
    """A frame that never ends, if it is read."""
    folder = sandbox / "ytvis" / "JPEGImages" / "pipe"
    if not folder.exists():
        folder.mkdir()
        os.mkfifo(folder / "00000.jpg")


def make_caches(sandbox):
    """The caches of the indexes at this place: they do not serve another one."""
    for dataset in ANNOTATIONS:
        index = build_index(data_config(sandbox, dataset), sandbox / "cache" / dataset)
        if dataset == "minivspw":
            fold_side(index, 1, "train")


def network():
    """As many kinds of weights as a checkpoint holds, in little space."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def data_config(sandbox, dataset):
    """What build_index reads of a config."""
    return EasyDict(data={"dataset": dataset, "root": str(sandbox / dataset), "annotations": ANNOTATIONS[dataset]})


def episode_config(sandbox):
    return load_config([ROOT / "config" / "demo" / "ytvis.yaml"], [
        f"data.root={json.dumps(str(sandbox / 'ytvis'))}", "data.size=[48, 48]", "data.shots=1",
        "data.few_videos=repeat"])


def training(sandbox):
    """A run that has done one step; its folder is the sandbox."""
    seed_generators(0)                              # their states are in the checkpoint, too
    state = TrainingState(network(), demo_config(), 1, sandbox, torch.device("cpu"))
    state.model(torch.ones(2, 3)).sum().backward()
    state.optimizer.step()
    return state


def demo_config():
    return load_config([ROOT / "config" / "demo" / "ytvis.yaml"])


def write_episodes(sandbox):
    """A list of the episodes of a test, and such results as the test would write."""
    cfg = episode_config(sandbox)
    index, novel = fold_side(build_index(cfg), 1, "test")
    entries = list(drawn_entries(TestEpisodes(index, novel, cfg, run=0)))
    (sandbox / EPISODES).write_text(list_text(list_header(cfg, index, 1), entries))
    lines = [{**entry, "fold": 1, "support_frames": [support["frame"] for support in entry.pop("supports")],
              "j": [0.5] * len(entry["frames"])} for entry in entries]
    (sandbox / RESULTS).write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_supports(folder):
    """The same image with its mask in each form that a support folder may have."""
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8)
    mask = np.zeros((48, 48), np.uint8)
    mask[10:30, 5:40] = 255
    corners = [[5, 10], [40, 10], [40, 30], [5, 30]]
    for form in ("png", "labelme", "coco"):
        (folder / form).mkdir(parents=True)
        cv2.imwrite(str(folder / form / "dog.jpg"), image)
    cv2.imwrite(str(folder / "png" / "dog.png"), mask)
    (folder / "labelme" / "dog.json").write_text(json.dumps({
        "imageHeight": 48, "imageWidth": 48, "imagePath": "dog.jpg",
        "shapes": [{"label": "dog", "shape_type": "polygon", "points": corners},
                   {"label": "dog", "shape_type": "circle", "points": [[9, 9], [12, 9]]}]}))
    (folder / "coco" / "all.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "dog.jpg", "height": 48, "width": 48}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [sum(corners, [])]}]}))


def place(mutant, sandbox):
    """Put the mutant where its file belongs."""
    path = sandbox / mutant.file
    remove(path)
    if mutant.special is None:
        path.write_bytes(mutant.content.replace(b"{outside}", os.fsencode(sandbox.parent / "outside")))
    elif mutant.special == "folder":
        path.mkdir()
    elif mutant.special == "pipe":
        os.mkfifo(path)
    elif mutant.special == "sparse":
        with open(path, "wb") as file:
            file.truncate(SPARSE_BYTES)
    elif mutant.special != "missing":
        path.symlink_to(path.name if mutant.special == "loop" else mutant.special.removeprefix("link "))


def remove(path):
    """Whatever stands there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def restore(mutant, sandbox, original):
    """The correct file again."""
    remove(sandbox / mutant.file)
    shutil.copy2(original / mutant.file, sandbox / mutant.file)


def copy_sandbox(source, target):
    """With the times of the files, which caches look at; without what cannot be copied."""
    shutil.rmtree(target / "sandbox", ignore_errors=True)
    shutil.copytree(source / "sandbox", target / "sandbox", symlinks=True, ignore=shutil.ignore_patterns("pipe"))
    for folder in (source, target):
        make_pipe(folder / "sandbox")
