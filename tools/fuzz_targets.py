"""What tools/fuzz.py feeds: correct files of every kind, their mutants, and the entry points that read them.

A sandbox is a folder with a small data set of every layout, a config, a checkpoint and an episode list, which nothing
may leave; `outside` lies beside it and is where hostile names and links point to.
"""
import io
import json
import os
import random
import shutil
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from easydict import EasyDict
from torch import nn

from dataloaders import build_index, build_listed_runs, fold_side
from dataloaders.demo import write_demo_data
from dataloaders.demo_coco import write_demo_coco
from dataloaders.demo_minivspw import write_demo_minivspw
from dataloaders.episode_file import list_text, read_episode_list
from dataloaders.episode_list import drawn_entries, list_header
from dataloaders.streaming import TestEpisodes
from tools import fuzz_mutations as mutations
from utils.checkpoint import load_trained, load_weights, save_checkpoint
from utils.config import load_config, save_config, to_dict
from utils.evaluator import warn_of_other_config

ROOT = Path(__file__).resolve().parents[1]
ANNOTATIONS = {"ytvis": "train.json", "minivspw": "minivspw_lists", "coco": "annotations/instances_train2017.json"}
CONFIG, OVERRIDE, CHECKPOINT, EPISODES = "config/fuzz.yaml", "override.txt", "last.pth", "episodes.json"
SPECIAL = ("folder", "pipe", "loop", "sparse", "missing")
LINKS = ("link ../../../../outside/secret.jpg", "link /dev/zero")
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
    for name in ("vipmt_ytvis.yaml", "demo.yaml"):
        shutil.copy(ROOT / "config" / name, sandbox / "config")
    (sandbox / "config" / "other.yaml").write_text("base: fuzz.yaml\n")
    (sandbox / "config" / "loop").symlink_to("loop")
    (sandbox / CONFIG).write_text((ROOT / "config" / "demo.yaml").read_text())
    (sandbox / OVERRIDE).write_text("seed=1")
    save_checkpoint(sandbox / CHECKPOINT, {"model": network().state_dict(), "fold": 1, "epoch": 3, "best": 0.5,
                                           "config": to_dict(load_config([ROOT / "config" / "demo.yaml"]))})
    (sandbox / EPISODES).write_text(episode_text(sandbox))
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
        use_cached(sandbox, dataset)


def network():
    """As many kinds of weights as a checkpoint holds, in little space."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def data_config(sandbox, dataset):
    """What build_index reads of a config."""
    return EasyDict(data={"dataset": dataset, "root": str(sandbox / dataset), "annotations": ANNOTATIONS[dataset]})


def episode_config(sandbox):
    return load_config([ROOT / "config" / "demo.yaml"], [
        f"data.root={json.dumps(str(sandbox / 'ytvis'))}", "data.size=[48, 48]", "data.shots=1",
        "data.few_videos=repeat"])


def episode_text(sandbox):
    cfg = episode_config(sandbox)
    index, novel = fold_side(build_index(cfg), 1, "test")
    return list_text(list_header(cfg, index, 1), list(drawn_entries(TestEpisodes(index, novel, cfg, run=0))))


# -- mutants ----------------------------------------------------------------------------------------------------------

class Mutator:
    """Mutants of the files of a sandbox that nobody has damaged yet; mutant (kind, number) depends on the seed only."""

    def __init__(self, sandbox, seed):
        self.sandbox, self.seed = sandbox, seed

    def mutant(self, kind, number):
        rng = random.Random(f"{self.seed} {kind} {number}")
        file, mutate = KINDS[kind].file, KINDS[kind].mutate
        if callable(file):
            file = rng.choice(file(self.sandbox))
        odd = SPECIAL + (LINKS if kind in ("jpeg", "mask") else ())
        if kind != "override" and rng.random() < 0.06:
            special = rng.choice(odd)
            return Mutant(kind, number, special, file, special=special)
        how, content = mutate(rng, (self.sandbox / file).read_bytes())
        return Mutant(kind, number, how, file, content)


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


def jpegs(sandbox):
    files = [*sandbox.glob("ytvis/JPEGImages/*_*/*.jpg"), *sandbox.glob("coco/train2017/*.jpg"),
             *sandbox.glob("minivspw/data/*/origin/*.jpg")]
    return below(sandbox, files)


def masks(sandbox):
    return below(sandbox, sandbox.glob("minivspw/data/*/mask/*.png"))


def lists(sandbox):
    return below(sandbox, sandbox.glob("minivspw/minivspw_lists/*_[01].txt"))


def caches(sandbox):
    return below(sandbox, sandbox.glob("cache/*/*.npz"))


def below(sandbox, files):
    return sorted(str(file.relative_to(sandbox)) for file in files)


def mutate_json(rng, data):
    return mutations.any_json(rng, json.loads(data))


def mutate_rle(rng, data):
    document = json.loads(data)
    shown = [(a, t) for a in document["annotations"] for t, rle in enumerate(a["segmentations"]) if rle]
    annotation, t = rng.choice(shown)
    how, annotation["segmentations"][t] = mutations.any_rle(rng, annotation["segmentations"][t])
    return how, mutations.dumps(document)


def mutate_coco(rng, data):
    document = json.loads(data)
    if rng.random() < 0.5:
        return mutations.any_json(rng, document)
    annotation, sizes = rng.choice(document["annotations"]), {i["id"]: i for i in document["images"]}
    image = sizes[annotation["image_id"]]
    if rng.random() < 0.5:
        how, segmentation = mutations.any_polygon(rng, image["height"], image["width"])
    else:
        full = {"size": [image["height"], image["width"]], "counts": [0, image["height"] * image["width"]]}
        how, segmentation = mutations.any_rle(rng, full)
    annotation["segmentation"] = segmentation
    return how, mutations.dumps(document)


def mutate_list(rng, data):
    if rng.random() < 0.4:
        return mutations.any_bytes(rng, data)
    lines = data.decode().splitlines()
    place = rng.randrange(len(lines))
    video, _, file = lines[place].partition(" ")
    number = rng.choice(("0" * 8, "99999999", "-0000001", "9" * 5000, "٠" * 8, "00000000\0"))
    lines[place] = rng.choice((
        f"{rng.choice(mutations.NAMES)} {file}", f"{video} {rng.choice(mutations.NAMES)}",
        f"{video} {video}/mask/{number}.png",
        lines[rng.randrange(len(lines))], "", " " * 10_000, "v" * 300 + " " + "v" * 300 + "/mask/00000001.png",
        ".. ../mask/00000001.png", ". ./mask/00000001.png", "x" * 100_000, f"{video}\u2028 {file}",
        f"{video} {file} x"))
    return f"line {place + 1}", "\n".join(lines).encode("utf-8", errors="surrogatepass")


def mutate_config(rng, data):
    return mutations.any_yaml(rng, data.decode())


def mutate_override(rng, data):
    key = rng.choice(("seed", "data.size", "name", "train.lr", "data", "base", "x.y", "", "data.root.x", "train.betas"))
    value = rng.choice((*mutations.BOMBS, str(mutations.scalar(rng))))
    text = rng.choice((f"{key}={value}", f"{key}={value}", value, "=" * 10, f"{'a.' * 500}b=1"))
    return text[:60], text[:1500].encode("utf-8", errors="surrogatepass")      # the message repeats it


def mutate_checkpoint(rng, data):
    kind = rng.randrange(4)
    if kind == 0:
        return mutations.any_bytes(rng, data)
    if kind == 1:
        file = io.BytesIO()
        torch.save(torch.load(io.BytesIO(data), weights_only=True), file, _use_new_zipfile_serialization=False)
        how, content = mutations.any_bytes(rng, file.getvalue())
        return f"old format, {how}", content
    if kind == 2:
        codes = [*mutations.code_pickles(), mutations.deep_pickle(rng.choice((100, 5000, 100_000)))]
        number = rng.randrange(2 * len(codes))
        if number < len(codes):
            return f"code {number}", rng.choice((codes[number], mutations.with_pickle(data, codes[number])))
        how, content = mutations.any_bytes(rng, mutations.pickle_of(data))
        return f"its pickle: {how}", mutations.with_pickle(data, content)
    return odd_content(rng, data)


def odd_content(rng, data):
    """A whole checkpoint that says something else: wrong types, shapes and kinds of tensors."""
    state = torch.load(io.BytesIO(data), weights_only=True)
    state.pop("sha256", None)
    tensors = (lambda: torch.zeros(4, 4), lambda: torch.zeros(1).expand(100_000, 100_000), lambda: torch.zeros(4,






                                                                                                         3).to_sparse(),
               lambda: torch.zeros(4, 3, device="meta"), lambda: torch.zeros(4, 3, dtype=torch.complex64),
               lambda: torch.quantize_per_tensor(torch.zeros(4, 3), 0.1, 0, torch.qint8), lambda: torch.zeros(()),
               lambda: torch.zeros(4, 3, dtype=torch.bool), lambda: torch.full((4, 3), float("nan")),
               lambda: torch.zeros(4, 3, dtype=torch.float8_e4m3fn), lambda: torch.zeros(1).expand(4, 3))
    circle = {}
    circle["model"] = circle
    values = (None, 5, "text", [], {}, [1, 2], circle, OrderedDict(), b"bytes", 1 + 2j, {1: 2}, torch.Size([1]))
    weights, how = state["model"], rng.choice(("weight", "entry", "key", "metadata", "extra", "config", "checksum"))
    value = rng.choice(tensors)() if rng.random() < 0.6 else rng.choice(values)
    if how == "weight":
        weights[rng.choice(list(weights))] = value
    elif how == "key":
        weights[rng.choice((1, None, "0.weight ", "module.0.weight", ("a",)))] = value
    elif how == "metadata":
        weights._metadata = rng.choice((value, {"": value}, {"": {"version": value}}))
    elif how == "config":
        state["config"] = rng.choice(({"data": value}, {"memory": {"length": value}}, value))
    elif how == "checksum":
        state["sha256"] = rng.choice((value, "0" * 64))
    else:
        state[rng.choice(list(state)) if how == "entry" else rng.choice(("x", 1, ""))] = value
    file = io.BytesIO()
    torch.save(rng.choice((state, state, state, value)), file)
    return f"{how}: {type(value).__name__}", file.getvalue()


# -- entry points -----------------------------------------------------------------------------------------------------

def use_ytvis(sandbox, mutant):
    look_at(build_index(data_config(sandbox, "ytvis")))


def use_coco(sandbox, mutant):
    look_at(build_index(data_config(sandbox, "coco")))


def use_minivspw(sandbox, mutant):
    index = build_index(data_config(sandbox, "minivspw"))
    for fold, side in ((1, "test"), (2, "test"), (1, "train"), (2, "train")):
        try:
            seen, classes = fold_side(index, fold, side)
        except ValueError as error:
            if "show no" not in str(error):              # the small data set has no class of some sides
                raise
        else:
            look_at(seen, classes)


def look_at(index, class_ids=None):
    """All that the samplers ask an index, and every frame and mask of it."""
    for class_id in index.class_ids if class_ids is None else class_ids:
        index.class_name(class_id)
        for video in index.videos(class_id):
            index.video_name(video)
            for frame in getattr(index, "scored_frames", index.frames)(video, class_id)[:8].tolist():
                index.file_name(video, frame)
                assert index.read_mask(video, frame, class_id).shape == index.size(video)
                assert index.read_image(video, frame).shape == (*index.size(video), 3)


def use_image(sandbox, mutant):
    {"ytvis": use_ytvis, "coco": use_coco, "minivspw": use_minivspw}[mutant.file.split("/")[0]](sandbox, mutant)


def use_episodes(sandbox, mutant):
    cfg = episode_config(sandbox)
    index = build_index(cfg)
    listed = read_episode_list(sandbox / EPISODES)
    for episodes in build_listed_runs(cfg, index, 1, listed):
        for i in range(min(len(episodes), 3)):
            episodes.episode(i)
            episodes.clip(i, 0)


def use_config(sandbox, mutant):
    for name in ("fuzz.yaml", "other.yaml"):
        cfg = load_config([sandbox / "config" / name])
    save_config(cfg, sandbox / "config" / "saved.yaml")
    assert to_dict(load_config([sandbox / "config" / "saved.yaml"])) == to_dict(cfg)


def use_override(sandbox, mutant):
    load_config([sandbox / CONFIG], [mutant.content.decode("utf-8", errors="surrogatepass")])


def use_checkpoint(sandbox, mutant):
    path = sandbox / CHECKPOINT
    content, cfg = load_trained(path, 1), load_config([ROOT / "config" / "demo.yaml"])
    warn_of_other_config(content.get("config", cfg), cfg, path)
    load_weights(network(), content["model"], path)


def use_cache(sandbox, mutant):
    use_cached(sandbox, mutant.file.split("/")[1])


def use_cached(sandbox, dataset):
    index = build_index(data_config(sandbox, dataset), sandbox / "cache" / dataset)
    look_at(*fold_side(index, 1, "train")) if dataset == "minivspw" else look_at(index)


@dataclass(frozen=True)
class Kind:
    """file: the one that is mutated, below the sandbox, or a function that lists some; use: who reads it;
    named: words that an error may have instead of the file's name; reads_anywhere: `base:` may be any file"""
    file: object
    mutate: object
    use: object
    named: str = None
    reads_anywhere: bool = False


KINDS = {
    "train.json": Kind("ytvis/train.json", mutate_json, use_ytvis),
    "rle": Kind("ytvis/train.json", mutate_rle, use_ytvis),
    "coco": Kind("coco/" + ANNOTATIONS["coco"], mutate_coco, use_coco),
    "jpeg": Kind(jpegs, mutations.any_jpeg, use_image),
    "mask": Kind(masks, mutations.any_png, use_image),
    "list": Kind(lists, mutate_list, use_minivspw),
    "config": Kind(CONFIG, mutate_config, use_config, "config: ", reads_anywhere=True),
    "override": Kind(OVERRIDE, mutate_override, use_override, "command line"),
    "checkpoint": Kind(CHECKPOINT, mutate_checkpoint, use_checkpoint),
    "episodes": Kind(EPISODES, mutate_json, use_episodes),
    "cache": Kind(caches, mutations.any_bytes, use_cache),
}
