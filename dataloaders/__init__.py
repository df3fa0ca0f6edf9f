"""dataloaders: files on disk -> Episodes. What there is (index), which frames (sampling), what is seen (transforms).

In: the config, a fold, an epoch or a run. Out: a loader of EpisodeBatches (training), a stream of TestEpisodes (test).
"""
import logging

import numpy as np
import torch
from torch.utils.data import DataLoader

from .episode import collate
from .folds import split_classes
from .sampling import DistinctClassBatchSampler, TrainEpisodes, holdout_videos
from .streaming import EpisodeStream, RunsTogether, TestEpisodes, use_one_thread
from .ytvis import YouTubeVISIndex

log = logging.getLogger(__name__)

INDEXES = {"ytvis": YouTubeVISIndex}
VALIDATION_RUN = -1          # test runs count from 0: validation never draws the supports of a test


def build_index(cfg, cache_dir=None):
    """config, folder for the parsed annotations or None  ->  the index of cfg.data.dataset at cfg.data.root"""
    if cfg.data.dataset not in INDEXES:
        raise ValueError(f"data.dataset: unknown value {cfg.data.dataset!r}.\n  Choose one of: {', '.join(INDEXES)}")
    return INDEXES[cfg.data.dataset](cfg.data.root, cfg.data.annotations, cache_dir)


def build_train_loader(cfg, index, fold, epoch, start=0, pin_memory=False):
    """The EpisodeBatches of one epoch of the fold's base classes, from batch `start` on; len is the whole epoch's.

    Loaders have a generator of their own, though nobody needs its numbers: without one they take a number from the
    global generator whenever they start, and a resumed epoch, which starts twice, would see other dropout.
    """
    base, _ = split_classes(index.class_ids, fold)
    episodes = TrainEpisodes(index, base, cfg, exclude=held_out(cfg, index, base))
    batches = DistinctClassBatchSampler(
        base, cfg.data.samples_per_class, cfg.train.batch_size, cfg.seed, epoch, start)
    return DataLoader(episodes, batch_sampler=batches, collate_fn=collate, pin_memory=pin_memory,
                      num_workers=cfg.data.workers, worker_init_fn=use_one_thread, generator=torch.Generator())


def build_test_loader(cfg, index, fold, run, skip=frozenset(), pin_memory=False):
    """EpisodeStream of the fold's novel classes in one run, without the (class id, video name) pairs in `skip`."""
    _, novel = split_classes(index.class_ids, fold)
    episodes = TestEpisodes(index, novel, cfg, run)
    order = [i for i in range(len(episodes)) if episodes.key(i) not in skip]
    return EpisodeStream(episodes, order, cfg.data.workers, pin_memory)


def build_runs_loader(cfg, index, fold, skip=frozenset(), pin_memory=False):
    """EpisodeStream of all cfg.test.runs runs, those over one video together; skip: (run, class id, video name)."""
    _, novel = split_classes(index.class_ids, fold)
    episodes = RunsTogether([TestEpisodes(index, novel, cfg, run) for run in range(cfg.test.runs)], skip)
    return EpisodeStream(episodes, range(len(episodes)), cfg.data.workers, pin_memory)


def build_validation_loader(cfg, index, fold, pin_memory=False):
    """EpisodeStream of at most cfg.validate.episodes, evenly chosen; None where nothing is validated.

    base_holdout: held-out videos of base classes, their supports from the others; novel: test classes, as released.
    """
    classes = cfg.validate.classes
    if classes == "none":
        return None
    base, novel = split_classes(index.class_ids, fold)
    if classes == "novel":
        episodes = TestEpisodes(index, novel, cfg, VALIDATION_RUN)
    else:
        held = held_out(cfg, index, base)
        episodes = TestEpisodes(index, base, cfg, VALIDATION_RUN, exclude=held, only=held)
    count = min(len(episodes), cfg.validate.episodes)
    if count == 0:
        log.warning("no validation: no class has a video to spare (validate.holdout, validate.episodes)")
        return None
    order = np.linspace(0, len(episodes) - 1, count).round().astype(int).tolist()
    return EpisodeStream(episodes, order, cfg.data.workers, pin_memory)


def held_out(cfg, index, base):
    """The videos that training leaves to validation; none unless validation uses base classes."""
    if cfg.validate.classes != "base_holdout":
        return frozenset()
    return holdout_videos(index, base, cfg.validate.holdout, cfg.seed, cfg.data)
