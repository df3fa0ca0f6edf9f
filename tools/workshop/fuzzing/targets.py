"""What fuzz.py feeds to whom: kinds of input, each with its correct files, its strategy and its reader."""
import io
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import islice, product
from typing import NamedTuple

from hypothesis import strategies as st

from dataloaders import build_index, get_task
from dataloaders.fewshot.episode_list import result_entries
from dataloaders.own.supports import read_supports
from tools.workshop.fuzzing import strategies as make
from tools.workshop.fuzzing.sandbox import ANNOTATIONS, cached_index, data_config, episode_config, network, training
from utils.checkpoint import load_trained, load_weights
from utils.config import apply_overrides, load_config, save_config, to_dict
from utils.evaluation.results import read_results, warn_of_other_config

SPARSE_BYTES = 2 ** 40
SPECIAL = ("folder", "pipe", "loop", "sparse", "missing")
LINKS = ("../../../../outside/secret.jpg", "/dev/zero")


@dataclass(frozen=True)
class Mutant:
    """One input: a file below the sandbox, and its bytes, or in words what else stands there"""
    kind: str
    file: str
    content: bytes | str

    def place(self, sandbox):
        path, what = sandbox / self.file, self.content
        remove(path)
        if isinstance(what, bytes):
            path.write_bytes(what.replace(b"{outside}", os.fsencode(sandbox.parent / "outside")))
        elif what in ("folder", "pipe"):
            (os.mkdir if what == "folder" else os.mkfifo)(path)
        elif what == "sparse":
            path.touch()
            os.truncate(path, SPARSE_BYTES)
        elif what != "missing":
            path.symlink_to(path.name if what == "loop" else what)

    def restore(self, sandbox, original):
        remove(sandbox / self.file)
        shutil.copy2(original / self.file, sandbox / self.file)


def remove(path):
    """Whatever stands there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def mutants(kind, sandbox):
    """Strategy of the Mutants of one kind; sandbox: where the files are correct"""
    rule = KINDS[kind]
    files = sorted(str(path.relative_to(sandbox)) for pattern in rule.files.split() for path in sandbox.glob(pattern))
    special = SPECIAL + (LINKS if kind in ("jpeg", "mask", "support") else ())

    @st.composite
    def draw_one(draw):
        file = draw(st.sampled_from(files))
        if kind != "override" and draw(st.integers(0, 15)) == 7:
            return Mutant(kind, file, draw(st.sampled_from(special)))
        return Mutant(kind, file, draw(rule.change((sandbox / file).read_bytes())))
    return draw_one()


# -- who reads it -----------------------------------------------------------------------------------------------------

def use_index(sandbox, mutant):
    dataset = mutant.file.split("/")[0]
    index = build_index(data_config(sandbox, dataset))
    whole = KINDS[mutant.kind].files not in (JPEGS, MASKS)
    if dataset != "minivspw":
        look_at(index, index.class_ids, "" if whole else mutant.file)
    for fold, side in product((1, 2), ("test", "train")) if dataset == "minivspw" else ():
        try:
            look_at(*index.side(fold, side), "" if whole else mutant.file)
        except ValueError as error:
            if "show no" not in str(error):              # the small data set has no class of some sides
                raise


def look_at(index, class_ids, file=""):
    """All that the samplers ask an index, and every frame and mask of it, or of the video that a file belongs to."""
    for class_id in class_ids:
        index.class_name(class_id)
        for video in index.videos(class_id):
            if file and index.video_name(video) not in file:
                continue
            for frame in index.scored_frames(video, class_id)[:8].tolist():
                index.file_name(video, frame)
                assert index.read_mask(video, frame, class_id).shape == index.size(video)
                assert index.read_image(video, frame).shape == (*index.size(video), 3)


def use_check(sandbox, mutant):
    """Damaged data is what it is for: problems are findings, and only what is no such file at all is refused."""
    from tools import check_dataset
    dataset, said = mutant.file.split("/")[0], io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            check_dataset.main([{"minivspw": "vspw"}.get(dataset, dataset), str(sandbox / dataset), "--shots", "1",
                                "--annotations", ANNOTATIONS[dataset], "--workers", "1"])
    except SystemExit:
        raise ValueError(said.getvalue()) from None
    said.getvalue().encode()


def use_episodes(sandbox, mutant):
    cfg, task = episode_config(sandbox), get_task("fewshot")
    listed = task.read_episode_list(sandbox / mutant.file)
    for video in islice(task.test_videos(cfg, build_index(cfg), 1, listed=listed), 3):
        next(iter(video.clips))


def use_results(sandbox, mutant):
    path, cfg = sandbox / mutant.file, episode_config(sandbox)
    index, novel = build_index(cfg).side(1, "test")
    json.dumps(result_entries(read_results(path), index, novel, path))


def use_config(sandbox, mutant):
    for name in ("fuzz.yaml", "other.yaml"):
        cfg = load_config([sandbox / "config" / name])
    save_config(cfg, sandbox / "config" / "saved.yaml")
    assert to_dict(load_config([sandbox / "config" / "saved.yaml"])) == to_dict(cfg)


def use_override(sandbox, mutant):
    load_config([sandbox / "config" / "fuzz.yaml"], [mutant.content.decode(errors="surrogatepass")])


def use_checkpoint(sandbox, mutant):
    path, cfg = sandbox / mutant.file, episode_config(sandbox)
    content = load_trained(path, 1)
    warn_of_other_config(content.get("config", cfg), cfg, path)
    apply_overrides(content.get("config", {}), source=path)
    load_weights(network(), content["model"], path)


class Kind(NamedTuple):
    """files: patterns of those that are mutated, below the sandbox; change: strategy of a file's bytes; use: its reader

    named: words that an error may have instead of the file's name; reads_anywhere: `base:` may be any file
    """
    files: str
    change: object
    use: object
    named: str = None
    reads_anywhere: bool = False


LISTS, COCO = "minivspw/minivspw_lists/*_[01].txt", f"coco/{ANNOTATIONS['coco']}"
MASKS = "minivspw/data/*/mask/*.png"
JPEGS = "ytvis/JPEGImages/*_*/*.jpg coco/train2017/*.jpg minivspw/data/*/origin/*.jpg"
KINDS = {
    "train.json": Kind("ytvis/train.json", make.changed_json, use_index),
    "rle": Kind("ytvis/train.json", make.changed_masks, use_index),
    "coco": Kind(COCO, make.changed_annotations, use_index),
    "jpeg": Kind(JPEGS, make.changed_image, use_index),
    "mask": Kind(MASKS, make.changed_image, use_index),
    "list": Kind(LISTS, make.changed_list, use_index),
    "config": Kind("config/fuzz.yaml", make.changed_yaml, use_config, "config: ", reads_anywhere=True),
    "override": Kind("override.txt", make.override, use_override, "command line"),
    "checkpoint": Kind("last.pth", make.changed_checkpoint, use_checkpoint),
    "resume": Kind("last.pth", make.changed_checkpoint, lambda sandbox, mutant: training(sandbox).resume()),
    "episodes": Kind("episodes.json", make.changed_json, use_episodes),
    "results": Kind("results.jsonl", make.changed_lines, use_results),
    "check ytvis": Kind("ytvis/train.json", make.changed_annotations, use_check),
    "check coco": Kind(COCO, make.changed_annotations, use_check),
    "check vspw": Kind(LISTS, make.changed_list, use_check),
    "support": Kind("support/*/*", make.changed_support,
                    lambda sandbox, mutant: read_supports((sandbox / mutant.file).parent)),
    "cache": Kind("cache/*/*.npz", make.damaged,
                  lambda sandbox, mutant: look_at(*cached_index(sandbox, mutant.file.split("/")[1]))),
}
