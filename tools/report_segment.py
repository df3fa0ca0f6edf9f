"""Films for a report of a test that kept none: its best, median and worst videos once more through the same weights.

In: a test of tools/report_data.py whose checkpoint and data are still there. Out: films in RUN/overlays, where the
report finds them. Supports and memory draws follow from seed, run and video, so the masks are those of the test.
"""
from functools import partial
from pathlib import Path
from statistics import mean

import torch

from dataloaders import build_index, fold_side
from dataloaders.sampling import rng_for
from dataloaders.streaming import EpisodeStream, TestEpisodes
from dataloaders.transforms import undo_letterbox
from models import get_method
from models.vipmt.build import with_iou_net
from tools.report_films import chosen
from utils.checkpoint import fingerprint, load_trained, load_weights
from utils.evaluator import evaluate, key_of
from utils.logger import get_logger
from utils.runtime import prepare_runtime
from utils.visualise import recording

SAME = 0.005             # mean J of a video, at most this far apart: another machine rounds otherwise


def segment_chosen(part, device):
    """Part of a test, cpu | cuda  ->  the folder of its films, once those of the chosen videos are there"""
    lines, names = chosen(part.results)
    wanted, cfg, films = {key_of(lines[i]): lines[i] for i in names}, part.config, part.folder / "overlays"
    check(part)
    run, device = lines[0]["run"], torch.device(device)
    index, novel = fold_side(build_index(cfg, part.folder / "cache"), part.fold, "test")
    episodes = TestEpisodes(index, novel, cfg, run)
    places = [i for i in range(len(episodes)) if (run, *episodes.key(i)) in wanted]
    method, model = trained(part, device)
    amp = prepare_runtime(cfg.speed, device)

    def start(episode):
        rng = rng_for(cfg.seed, "memory", episode.run, episode.class_id, episode.video)
        return method.VideoSegmenter(model, episode.support_images, episode.support_masks, memory=cfg.memory, rng=rng,
                                     amp=amp).shared

    record = partial(recording, films_folder=films, restore=undo_letterbox)
    again = evaluate(start, EpisodeStream(episodes, places), cfg, part.fold, lambda line: None, undo_letterbox, record)
    compare(wanted, {key_of(line): line for line in again}, part.folder)
    return films


def check(part):
    """ValueError, FileNotFoundError where the test cannot be repeated as it was."""
    if part.config is None or part.fold is None or not part.header:
        raise ValueError(f"{part.folder}: --segment needs its config.yaml and test.json. {part.config_note}")
    if part.header.get("episodes"):
        raise ValueError(f"{part.folder}: it replayed a list of episodes, which is not kept with it.\n"
                         "  Repeat the test with --episodes, --save-overlays and a new --output")
    named = [part.header, part.header.get("iou_net") or {}]
    for file, checksum in ((one.get(key), one.get("sha256")) for one, key in zip(named, ("checkpoint", "file"),
                                                                               strict=True) if one):
        if not Path(str(file)).is_file():
            raise FileNotFoundError(f"{part.folder}/test.json: no file {file}.\n"
                                    "  Start this where test.py was started, or leave --segment out")
        if fingerprint(file) != checksum:
            raise ValueError(f"{file}: not the weights of this test, since its SHA-256 is another one.\n"
                             "  Leave --segment out, or test these weights with another --output")


def trained(part, device):
    """The method and the model of the test, in eval mode."""
    file, judge = part.header["checkpoint"], (part.header.get("iou_net") or {}).get("file")
    method, weights = get_method(part.config.model.method), load_trained(Path(file), part.fold)["model"]
    model = method.build(part.config).to(device).eval()
    load_weights(model, with_iou_net(model, weights, judge, part.config, part.fold) if judge else weights, file)
    return method, model


def compare(before, again, folder):
    """One warning if the films do not show what was measured."""
    apart = [f"{line['class']} in {line['video']}" for key, line in before.items()
             if key not in again or abs(mean(again[key]["j"]) - mean(line["j"])) > SAME]
    if apart:
        get_logger().warning("%s: the films are not those of the results: %s; has the data or the code changed?",
                             folder, ", ".join(apart))
