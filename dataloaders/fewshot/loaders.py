"""Loaders of the few-shot task: config, index and fold in, batches of episodes or a stream of videos out."""
import logging

import numpy as np

from dataloaders.episode import collate
from dataloaders.fewshot.episode_list import check_header, replay
from dataloaders.fewshot.sampling import DistinctClassBatchSampler, TrainEpisodes, holdout_videos
from dataloaders.fewshot.streaming import EpisodeStream, RunsTogether, TestEpisodes
from dataloaders.loader import Loader

log = logging.getLogger(__name__)

VALIDATION_RUN = -1          # test runs count from 0: validation never draws the supports of a test


def train_batches(cfg, index, split, epoch, start=0, part=(0, 1), pin_memory=False):
    """The Batches of one epoch of the fold's base classes, from batch `start` on; len is the whole epoch's.

    part: (rank, processes); every process gets its own episodes of each batch, train.batch_size / processes of them.
    """
    index, base = index.side(split, "train")
    episodes = TrainEpisodes(index, base, cfg, exclude=held_out(cfg, index, base))
    batches = DistinctClassBatchSampler(
        base, cfg.data.samples_per_class, cfg.train.batch_size, cfg.seed, epoch, start, part)
    return Loader(episodes, batch_sampler=batches, collate=collate, pin_memory=pin_memory, workers=cfg.data.workers,
                  patience=cfg.data.patience)


def test_videos(cfg, index, split, part=(0, 1), done=frozenset(), listed=None, pin_memory=False):
    """EpisodeStream of the fold's novel classes in all runs, those over one video together.

    done: keys (run, class id, video name) that are left out; listed: an EpisodeList that says what is tested, None:
    cfg.test.runs runs, drawn. part: (rank, processes): which of the videos that are left; none comes twice, none is
    made up to fill a share.
    """
    if listed is not None:
        check_header(listed, cfg, split)
    index, novel = index.side(split, "test")
    runs = ([TestEpisodes(index, novel, cfg, run) for run in range(cfg.test.runs)] if listed is None else
            replay(listed, cfg, index, novel))
    episodes = RunsTogether(runs, done)
    return EpisodeStream(episodes, share(range(len(episodes)), part), cfg.data.workers, pin_memory, cfg.data.patience)


test_videos.__test__ = False       # no test of pytest


def validation_videos(cfg, index, split, part=(0, 1), pin_memory=False):
    """EpisodeStream of at most cfg.validate.episodes, evenly chosen; None where nothing is validated.

    part: as in test_videos

    base_holdout: held-out videos of base classes, their supports from the others; novel: test classes, as released.
    """
    classes = cfg.validate.classes
    if classes == "none":
        return None
    index, class_ids = index.side(split, "test" if classes == "novel" else "train")
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
    return EpisodeStream(episodes, share(order, part), cfg.data.workers, pin_memory, cfg.data.patience)


def share(things, part):
    """part: (rank, processes)  ->  every processes-th thing of a sequence, from rank on"""
    rank, processes = part
    return things[rank::processes]


def held_out(cfg, index, base):
    """The videos that training leaves to validation; none unless validation uses base classes."""
    if cfg.validate.classes != "base_holdout":
        return frozenset()
    return holdout_videos(index, base, cfg.validate.holdout, cfg.seed, cfg.data)
