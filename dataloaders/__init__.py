"""dataloaders: files on disk -> Episodes. What there is (index), which frames (sampling), what is seen (transforms).

In: the config, a fold, an epoch or a run. Out: a loader of EpisodeBatches (training), a stream of TestEpisodes (test).
"""
import hashlib
import logging
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from dataloaders.datasets.coco20i import Coco20iIndex
from dataloaders.datasets.minivspw import MiniVSPWIndex
from dataloaders.datasets.ytvis import YouTubeVISIndex
from dataloaders.episode import collate
from dataloaders.fewshot.episode_list import check_header, replay
from dataloaders.fewshot.sampling import DistinctClassBatchSampler, TrainEpisodes, holdout_videos
from dataloaders.fewshot.streaming import EpisodeStream, RunsTogether, TestEpisodes, use_one_thread

log = logging.getLogger(__name__)

INDEXES = {
    "ytvis": YouTubeVISIndex, "minivspw": MiniVSPWIndex, "coco": partial(Coco20iIndex, video_data="none"),
    "coco20i": Coco20iIndex, "coco20i_minivspw": partial(Coco20iIndex, video_data="minivspw")}
VALIDATION_RUN = -1          # test runs count from 0: validation never draws the supports of a test


def build_index(cfg, cache_dir=None):
    """config, folder for parsed annotations or None  ->  the index of cfg.data.dataset at cfg.data.root"""
    if cfg.data.dataset not in INDEXES:
        raise ValueError(f"data.dataset: unknown value {cfg.data.dataset!r}.\n  Choose one of: {', '.join(INDEXES)}")
    return INDEXES[cfg.data.dataset](cfg.data.root, cfg.data.annotations, cache_dir)


def data_fingerprint(cfg):
    """What says which annotations a run has read: their place, files and SHA-256 over all; images are not looked at."""
    place = Path(cfg.data.root, cfg.data.annotations)
    files, digest = sorted(place.glob("*.txt")) if place.is_dir() else [place], hashlib.sha256()
    for file in files:
        with open(file, "rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return {"dataset": cfg.data.dataset, "annotations": str(place), "files": len(files), "sha256": digest.hexdigest()}


def fold_side(index, fold, side):
    """One side of a fold: index, fold, train | test  ->  the index as the fold sees it, ids of the classes"""
    return index.side(fold, side)


def build_train_loader(cfg, index, fold, epoch, start=0, pin_memory=False, part=(0, 1)):
    """The EpisodeBatches of one epoch of the fold's base classes, from batch `start` on; len is the whole epoch's.

    part: (rank, processes); every process gets its own episodes of each batch, train.batch_size / processes of them.

    Loaders have a generator of their own, though nobody needs its numbers: without one they take a number from the
    global generator whenever they start, and a resumed epoch, which starts twice, would see other dropout.
    """
    index, base = fold_side(index, fold, "train")
    episodes = TrainEpisodes(index, base, cfg, exclude=held_out(cfg, index, base))
    batches = DistinctClassBatchSampler(
        base, cfg.data.samples_per_class, cfg.train.batch_size, cfg.seed, epoch, start, part)
    return DataLoader(episodes, batch_sampler=batches, collate_fn=collate, pin_memory=pin_memory,
                      num_workers=cfg.data.workers, worker_init_fn=use_one_thread, generator=torch.Generator())


def build_test_loader(cfg, index, fold, run, skip=frozenset(), pin_memory=False):
    """EpisodeStream of the fold's novel classes in one run, without the (class id, video name) pairs in `skip`."""
    index, novel = fold_side(index, fold, "test")
    episodes = TestEpisodes(index, novel, cfg, run)
    order = [i for i in range(len(episodes)) if episodes.key(i) not in skip]
    return EpisodeStream(episodes, order, cfg.data.workers, pin_memory)


def build_runs_loader(cfg, index, fold, skip=frozenset(), pin_memory=False, runs=None, part=(0, 1)):
    """EpisodeStream of all runs, those over one video together; skip: (run, class id, video name).

    runs: a list of `build_listed_runs`; None: cfg.test.runs runs, drawn.
    part: (rank, processes): which of the videos that are left; none comes twice, none is made up to fill a share.
    """
    if runs is None:
        index, novel = fold_side(index, fold, "test")
        runs = [TestEpisodes(index, novel, cfg, run) for run in range(cfg.test.runs)]
    episodes = RunsTogether(runs, skip)
    return EpisodeStream(episodes, share(range(len(episodes)), part), cfg.data.workers, pin_memory)


def build_listed_runs(cfg, index, fold, listed):
    """EpisodeList  ->  its runs as a list of ListedEpisodes; ValueError where it does not fit config, fold or data"""
    check_header(listed, cfg, fold)
    return replay(listed, cfg, *fold_side(index, fold, "test"))


def build_validation_loader(cfg, index, fold, pin_memory=False, part=(0, 1)):
    """EpisodeStream of at most cfg.validate.episodes, evenly chosen; None where nothing is validated.

    part: as in build_runs_loader

    base_holdout: held-out videos of base classes, their supports from the others; novel: test classes, as released.
    """
    classes = cfg.validate.classes
    if classes == "none":
        return None
    index, class_ids = fold_side(index, fold, "test" if classes == "novel" else "train")
    if classes == "novel":
        episodes = TestEpisodes(index, class_ids, cfg, VALIDATION_RUN)
    else:
        held = held_out(cfg, index, class_ids)
        episodes = TestEpisodes(index, class_ids, cfg, VALIDATION_RUN, exclude=held, only=held)
    count = min(len(episodes), cfg.validate.episodes)
    if count == 0:
        log.warning("no validation: no class has a video to spare (validate.holdout, validate.episodes)")
        return None
    order = np.linspace(0, len(episodes) - 1, count).round().astype(int).tolist()
    return EpisodeStream(episodes, share(order, part), cfg.data.workers, pin_memory)


def share(things, part):
    """part: (rank, processes)  ->  every processes-th thing of a sequence, from rank on"""
    rank, processes = part
    return things[rank::processes]


def held_out(cfg, index, base):
    """The videos that training leaves to validation; none unless validation uses base classes."""
    if cfg.validate.classes != "base_holdout":
        return frozenset()
    return holdout_videos(index, base, cfg.validate.holdout, cfg.seed, cfg.data)
