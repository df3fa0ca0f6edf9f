"""What fuzz.py feeds to whom: kinds of input, each with its correct file, its mutation and its reader."""
import json
import random
from argparse import Namespace
from dataclasses import dataclass

from dataloaders import build_index, build_listed_runs, fold_side
from dataloaders.fewshot.episode_list import read_episode_list, result_entries
from dataloaders.own.supports import read_supports
from tools.check_dataset import CHECKS
from tools.dataset_check.findings import Findings
from tools.episodes import results_of
from tools.workshop.fuzzing import mutations
from tools.workshop.fuzzing import sandbox as files
from tools.workshop.fuzzing.checkpoints import any_checkpoint
from tools.workshop.fuzzing.images import any_jpeg, any_png
from tools.workshop.fuzzing.sandbox import Mutant, data_config, demo_config, episode_config, network, training
from tools.workshop.fuzzing.yaml_files import BOMBS, any_yaml
from utils.checkpoint import load_trained, load_weights
from utils.config import apply_overrides, load_config, save_config, to_dict
from utils.evaluation.evaluate import warn_of_other_config

SPECIAL = ("folder", "pipe", "loop", "sparse", "missing")
CHECKED = {"ytvis": "ytvis", "coco": "coco", "minivspw": "vspw"}        # names in tools/check_dataset.py
LINKS = ("link ../../../../outside/secret.jpg", "link /dev/zero")


# -- mutants ----------------------------------------------------------------------------------------------------------

class Mutator:
    """Mutants of the files of a sandbox that nobody has damaged yet; the seed decides mutant (kind, number).

    Of caches and of checkpoints in the old format the bytes differ from run to run: they hold times and addresses.
    """

    def __init__(self, sandbox, seed):
        self.sandbox, self.seed = sandbox, seed

    def mutant(self, kind, number):
        rng = random.Random(f"{self.seed} {kind} {number}")
        file, mutate = KINDS[kind].file, KINDS[kind].mutate
        if callable(file):
            file = rng.choice(file(self.sandbox))
        odd = SPECIAL + (LINKS if kind in ("jpeg", "mask", "support") else ())
        if kind != "override" and rng.random() < 0.06:
            special = rng.choice(odd)
            return Mutant(kind, number, special, file, special=special)
        how, content = mutate(rng, (self.sandbox / file).read_bytes())
        return Mutant(kind, number, how, file, content)


def jpegs(sandbox):
    found = [*sandbox.glob("ytvis/JPEGImages/*_*/*.jpg"), *sandbox.glob("coco/train2017/*.jpg"),
             *sandbox.glob("minivspw/data/*/origin/*.jpg")]
    return below(sandbox, found)


def masks(sandbox):
    return below(sandbox, sandbox.glob("minivspw/data/*/mask/*.png"))


def lists(sandbox):
    return below(sandbox, sandbox.glob("minivspw/minivspw_lists/*_[01].txt"))


def supports(sandbox):
    return below(sandbox, sandbox.glob("support/*/*"))


def caches(sandbox):
    return below(sandbox, sandbox.glob("cache/*/*.npz"))


def below(sandbox, found):
    return sorted(str(file.relative_to(sandbox)) for file in found)


def mutate_json(rng, data):
    return mutations.any_json(rng, json.loads(data))


def mutate_rle(rng, data):
    document = json.loads(data)
    shown = [(a, t) for a in document["annotations"] for t, rle in enumerate(a["segmentations"]) if rle]
    annotation, t = rng.choice(shown)
    how, annotation["segmentations"][t] = mutations.any_rle(rng, annotation["segmentations"][t])
    return how, mutations.dumps(document)


def mutate_any_annotations(rng, data):
    return (mutate_json if rng.random() < 0.5 else mutate_rle)(rng, data)


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


def mutate_support(rng, data):
    """An image, a mask or JSON, as its beginning says"""
    if data.startswith(b"{"):
        return mutate_json(rng, data) if b"shapes" in data or rng.random() < 0.5 else mutate_coco(rng, data)
    return (any_jpeg if data.startswith(b"\xff\xd8") else any_png)(rng, data)


def mutate_lines(rng, data):
    """JSON lines  ->  one of them changed, or the bytes of all"""
    if rng.random() < 0.3:
        return mutations.any_bytes(rng, data)
    lines = data.splitlines()
    place = rng.randrange(len(lines))
    how, lines[place] = mutations.any_json(rng, json.loads(lines[place]))
    return f"line {place + 1}: {how}", b"\n".join(lines) + b"\n"


def mutate_config(rng, data):
    return any_yaml(rng, data.decode())


def mutate_override(rng, data):
    key = rng.choice(("seed", "data.size", "name", "train.lr", "data", "base", "x.y", "", "data.root.x", "train.betas"))
    value = rng.choice((*BOMBS, str(mutations.scalar(rng))))
    text = rng.choice((f"{key}={value}", f"{key}={value}", value, "=" * 10, f"{'a.' * 500}b=1"))
    return text[:60], text[:1500].encode("utf-8", errors="surrogatepass")      # the message repeats it


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
    listed = read_episode_list(sandbox / files.EPISODES)
    for episodes in build_listed_runs(cfg, index, 1, listed):
        for i in range(min(len(episodes), 3)):
            episodes.episode(i)
            episodes.clip(i, 0)


def use_results(sandbox, mutant):
    path, cfg = sandbox / files.RESULTS, episode_config(sandbox)
    index, novel = fold_side(build_index(cfg), 1, "test")
    lines, _ = results_of(path, 1, cfg)
    json.dumps(result_entries(lines, index, novel, path))


def use_check(sandbox, mutant):
    """Damaged data is what it is for: problems are findings, and only what is no such JSON at all is refused."""
    dataset, findings = mutant.file.split("/")[0], Findings()
    args = Namespace(root=sandbox / dataset, annotations=files.ANNOTATIONS[dataset], deep=False, workers=1, shots=1,
                     few_videos="error")
    tables = CHECKS[CHECKED[dataset]](args, findings)
    json.dumps([tables, findings.problems()]).encode()
    findings.text().encode()


def use_support(sandbox, mutant):
    read_supports((sandbox / mutant.file).parent)


def use_config(sandbox, mutant):
    for name in ("fuzz.yaml", "other.yaml"):
        cfg = load_config([sandbox / "config" / name])
    save_config(cfg, sandbox / "config" / "saved.yaml")
    assert to_dict(load_config([sandbox / "config" / "saved.yaml"])) == to_dict(cfg)


def use_override(sandbox, mutant):
    load_config([sandbox / files.CONFIG], [mutant.content.decode("utf-8", errors="surrogatepass")])


def use_checkpoint(sandbox, mutant):
    path, cfg = sandbox / files.CHECKPOINT, demo_config()
    content = load_trained(path, 1)
    warn_of_other_config(content.get("config", cfg), cfg, path)
    apply_overrides(content.get("config", {}), source=path)
    load_weights(network(), content["model"], path)


def use_resume(sandbox, mutant):
    training(sandbox).resume()


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
    "coco": Kind("coco/" + files.ANNOTATIONS["coco"], mutate_coco, use_coco),
    "jpeg": Kind(jpegs, any_jpeg, use_image),
    "mask": Kind(masks, any_png, use_image),
    "list": Kind(lists, mutations.any_list, use_minivspw),
    "config": Kind(files.CONFIG, mutate_config, use_config, "config: ", reads_anywhere=True),
    "override": Kind(files.OVERRIDE, mutate_override, use_override, "command line"),
    "checkpoint": Kind(files.CHECKPOINT, any_checkpoint, use_checkpoint),
    "resume": Kind(files.CHECKPOINT, any_checkpoint, use_resume),
    "episodes": Kind(files.EPISODES, mutate_json, use_episodes),
    "results": Kind(files.RESULTS, mutate_lines, use_results),
    "check ytvis": Kind("ytvis/train.json", mutate_any_annotations, use_check),
    "check coco": Kind("coco/" + files.ANNOTATIONS["coco"], mutate_coco, use_check),
    "check vspw": Kind(lists, mutations.any_list, use_check),
    "support": Kind(supports, mutate_support, use_support),
    "cache": Kind(caches, mutations.any_bytes, use_cache),
}
