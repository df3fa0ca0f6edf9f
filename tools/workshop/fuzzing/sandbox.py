"""The files that fuzz.py damages: a folder with everything the project reads, small and correct.

Nothing may leave it; `outside` lies beside it and is where hostile names and links point to.
"""
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from easydict import EasyDict
from PIL import Image
from torch import nn

from dataloaders import build_index
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
DEMO = ROOT / "config" / "demo" / "ytvis.yaml"


def make_sandbox(folder):
    """Write `folder`/sandbox and `folder`/outside  ->  the sandbox"""
    sandbox, outside = folder / "sandbox", folder / "outside"
    outside.mkdir(parents=True)
    Image.new("RGB", (48, 48)).save(outside / "secret.jpg")
    write_demo_data(sandbox / "ytvis", videos_per_category=1, size=(48, 48), frames=(2, 2))
    write_demo_minivspw(sandbox / "minivspw", videos_per_category=2, size=(48, 48), frames=(2, 2))
    write_demo_coco(sandbox / "coco", images_per_category=2, size=(96, 96))
    images, config = sandbox / "ytvis" / "JPEGImages", sandbox / "config"
    config.mkdir()
    for path, target in ((images / "link_out", "../../../outside"), (images / "loop", "loop"),
                         (images / "link_file.jpg", "../../../outside/secret.jpg"), (config / "loop", "loop")):
        path.symlink_to(target)
    (images / "pipe").mkdir()
    os.mkfifo(images / "pipe" / "00000.jpg")          # a frame that never ends, if it is read
    shutil.copy(ROOT / "config" / "vipmt" / "ytvis.yaml", config)
    (config / "other.yaml").write_text("base: fuzz.yaml\n")
    (config / "fuzz.yaml").write_text(DEMO.read_text().replace("../vipmt/ytvis.yaml", "ytvis.yaml"))
    (sandbox / "override.txt").write_text("seed=1")
    training(sandbox).save()
    write_episodes(sandbox)
    write_supports(sandbox / "support")
    for dataset in ANNOTATIONS:
        cached_index(sandbox, dataset)
    return sandbox


def copy_sandbox(source, target):
    """With the times of the files, which caches look at."""
    def copy(file, to):
        return os.mkfifo(to) if Path(file).is_fifo() else shutil.copy2(file, to)
    shutil.rmtree(target / "sandbox", ignore_errors=True)
    shutil.copytree(source / "sandbox", target / "sandbox", symlinks=True, copy_function=copy)


def data_config(sandbox, dataset):
    """What build_index reads of a config."""
    return EasyDict(data={"dataset": dataset, "root": str(sandbox / dataset), "annotations": ANNOTATIONS[dataset]})


def cached_index(sandbox, dataset):
    """Through its cache, which this makes where there is none"""
    index = build_index(data_config(sandbox, dataset), sandbox / "cache" / dataset)
    return index.side(1, "train") if dataset == "minivspw" else (index, index.class_ids)


def episode_config(sandbox):
    return load_config([DEMO], [f"data.root={json.dumps(str(sandbox / 'ytvis'))}", "data.size=[48, 48]", "data.shots=1",
                                "data.few_videos=repeat", "data.workers=0"])


def network():
    """All kinds of weights that a checkpoint holds."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def training(sandbox):
    """A run that has done one step; its folder is the sandbox."""
    seed_generators(0)                              # their states are in the checkpoint, too
    model = network()
    groups = [{"params": list(model.parameters())}]
    state = TrainingState(model, groups, load_config([DEMO]), 1, sandbox, torch.device("cpu"))
    state.model(torch.ones(2, 3)).sum().backward()
    state.optimizer.step()
    return state


def write_episodes(sandbox):
    """A list of the episodes of a test, and such results as the test would write."""
    cfg = episode_config(sandbox)
    index, novel = build_index(cfg).side(1, "test")
    entries = list(drawn_entries(TestEpisodes(index, novel, cfg, run=0)))
    (sandbox / "episodes.json").write_text(list_text(list_header(cfg, index, 1), entries))
    lines = [{**entry, "fold": 1, "support_frames": [support["frame"] for support in entry.pop("supports")],
              "vc_variant": "gt_once", "vc_window": 7, "vc": [], **{key: [0.5] * len(entry["frames"]) for key in "jf"}}
             for entry in entries]
    (sandbox / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_supports(folder):
    """The same image with its mask in each form that a support folder may have."""
    mask, corners = np.zeros((48, 48), np.uint8), [[5, 10], [40, 10], [40, 30], [5, 30]]
    mask[10:30, 5:40] = 255
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8))
    labelme = {"imageHeight": 48, "imageWidth": 48, "imagePath": "dog.jpg",
               "shapes": [{"label": "dog", "shape_type": "polygon", "points": corners},
                          {"label": "dog", "shape_type": "circle", "points": [[9, 9], [12, 9]]}]}
    coco = {"images": [{"id": 1, "file_name": "dog.jpg", "height": 48, "width": 48}],
            "categories": [{"id": 1, "name": "dog"}], "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [sum(corners, [])]}]}
    for form in ("png", "labelme", "coco"):
        (folder / form).mkdir(parents=True)
        image.save(folder / form / "dog.jpg")
    Image.fromarray(mask).save(folder / "png" / "dog.png")
    (folder / "labelme" / "dog.json").write_text(json.dumps(labelme))
    (folder / "coco" / "all.json").write_text(json.dumps(coco))
