"""Loaders of the referring task: config, index and fold in, batches of samples or a stream of videos out."""
import numpy as np

from dataloaders.datasets.refytvos import RefSailVosIndex, RefYouTubeVosIndex
from dataloaders.episode import ReferringBatch
from dataloaders.fewshot.loaders import VALIDATION_RUN, share
from dataloaders.fewshot.streaming import EpisodeStream
from dataloaders.loader import Loader
from dataloaders.referring.sampling import Batches, TrainSamples, holdout_videos
from dataloaders.referring.streaming import RefVideos


def build_index(cfg, cache_dir=None):
    """What cfg.data names  ->  RefYouTubeVosIndex; nothing of it is worth keeping in a cache"""
    kind = RefSailVosIndex if cfg.data.dataset == "ref_sailvos" else RefYouTubeVosIndex
    return kind(cfg.data.root, cfg.data.members)


def train_batches(cfg, index, split, epoch, start=0, part=(0, 1), pin_memory=False):
    """The ReferringBatches of one epoch of the fold's base classes, from batch `start` on; len is the whole epoch's.

    part: (rank, processes); every process gets its own samples of each batch, train.batch_size / processes of them.
    """
    base = index.side(split, "train")
    samples = TrainSamples(index, base, cfg, exclude=held_out(cfg, index, base))
    batches = Batches(base, cfg.data, cfg.train.batch_size, cfg.seed, epoch, start, part)
    return Loader(samples, batch_sampler=batches, collate=ReferringBatch, pin_memory=pin_memory,
                  workers=cfg.data.workers, patience=cfg.data.patience)


def test_videos(cfg, index, split, part=(0, 1), done=frozenset(), listed=None, pin_memory=False):
    """EpisodeStream of the fold's test classes in all runs, those over one video together.

    done: keys (run, class id, video) of results that are left out; part: (rank, processes): which of the videos
    """
    videos = RefVideos(index, index.side(split, "test"), cfg, range(cfg.test.runs), done)
    return EpisodeStream(videos, share(range(len(videos)), part), cfg.data.workers, pin_memory, cfg.data.patience)


test_videos.__test__ = False       # no test of pytest


def validation_videos(cfg, index, split, part=(0, 1), pin_memory=False):
    """EpisodeStream of at most cfg.validate.episodes videos, evenly chosen; None where nothing is validated

    base_holdout: held-out videos of base classes, their supports from the others; novel: test classes.
    """
    if cfg.validate.classes == "none":
        return None
    if cfg.validate.classes == "novel":
        videos = RefVideos(index, index.side(split, "test"), cfg, [VALIDATION_RUN])
    else:
        base = index.side(split, "train")
        held = held_out(cfg, index, base)
        videos = RefVideos(index, base, cfg, [VALIDATION_RUN], exclude=held, only=held)
    count = min(len(videos), cfg.validate.episodes)
    if count == 0:
        return None
    order = np.linspace(0, len(videos) - 1, count).round().astype(int).tolist()
    return EpisodeStream(videos, share(order, part), cfg.data.workers, pin_memory, cfg.data.patience)


def held_out(cfg, index, base):
    """The videos that training leaves to validation; none unless validation uses base classes."""
    share_kept = cfg.validate.holdout if cfg.validate.classes == "base_holdout" else 0
    return holdout_videos(index, base, share_kept, cfg.seed)


def read_episode_list(path):
    """Lists of episodes are of the few-shot task."""
    raise ValueError("--episodes: there are no lists of episodes with sentences; leave it out")
