"""Loaders of the vos task: config and index in, batches of training samples or a stream of videos out."""
import numpy as np

from dataloaders.datasets.coco_instances import CocoInstances
from dataloaders.datasets.davis import DavisIndex
from dataloaders.datasets.ytvos import YouTubeVosIndex
from dataloaders.fewshot.streaming import EpisodeStream
from dataloaders.loader import Loader
from dataloaders.vos.sampling import Batches, PictureSource, VideoSource, VosSamples, collate
from dataloaders.vos.streaming import VosVideos


def build_index(cfg, cache_dir=None):
    """What cfg.data says is tested  ->  VosIndex"""
    data, settings = cfg.data, {"truth": None if cfg.data.truth == "none" else cfg.data.truth}
    if data.dataset == "ytvos":
        return YouTubeVosIndex(data.root, data.annotations, cache_dir, images=data.images, **settings)
    return DavisIndex(data.root, data.annotations, cache_dir, merge=data.dataset == "davis2016", **settings)


def training_sources(cfg, cache_dir=None):
    """The data sets whose weight is not 0  ->  [(weight, source)]"""
    said, found = cfg.sources, []
    for name, kind in (("ytvos", YouTubeVosIndex), ("davis", DavisIndex)):
        if said[f"{name}_weight"]:
            index = kind(said[name], said[f"{name}_list"], cache_dir, at=f"sources.{name}")
            found.append((said[f"{name}_weight"], VideoSource(name, index, cfg.data)))
    if said.coco_weight:
        instances = CocoInstances(said.coco, said.coco_list, said.coco_images)
        found.append((said.coco_weight, PictureSource("coco", instances, cfg.data)))
    if not found:
        raise ValueError("sources: all weights are 0, so there is nothing to train on.\n  Set sources.davis_weight=1")
    return found


def training_indexes(cfg, index):
    """What is trained on  ->  list of indexes; the tested data's keeps them, since counting objects takes a while"""
    if index.sources is None:
        index.sources = training_sources(cfg, index.cache_dir)
    return [source.index for _, source in index.sources]


def train_batches(cfg, index, split, epoch, start=0, part=(0, 1), pin_memory=False):
    """The VosBatches of one epoch, from batch `start` on; len is the whole epoch's.

    part: (rank, processes); every process gets its own samples of each batch, train.batch_size / processes of them.
    """
    training_indexes(cfg, index)
    batches = Batches(cfg.data.samples, cfg.train.batch_size, epoch, start, part)
    return Loader(VosSamples(index.sources, cfg), batch_sampler=batches, collate=collate, pin_memory=pin_memory,
                  workers=cfg.data.workers, patience=cfg.data.patience)


def test_videos(cfg, index, split, part=(0, 1), done=frozenset(), listed=None, pin_memory=False):
    """EpisodeStream of all videos of the list; those all of whose objects are `done` are left out.

    done: keys (0, object, video) of results; part: (rank, processes): which of the videos that are left
    """
    videos = VosVideos(index, cfg, done)
    return EpisodeStream(videos, range(len(videos))[part[0]::part[1]], cfg.data.workers, pin_memory,
                         cfg.data.patience)


test_videos.__test__ = False       # no test of pytest


def validation_videos(cfg, index, split, part=(0, 1), pin_memory=False):
    """EpisodeStream of at most cfg.validate.episodes of the tested videos, evenly chosen; None where that is 0"""
    if not cfg.validate.episodes:
        return None
    videos = VosVideos(index, cfg)
    scored = [i for i in range(len(videos)) if videos.result_keys(i)]
    count = min(len(scored), cfg.validate.episodes)
    chosen = [scored[i] for i in np.linspace(0, len(scored) - 1, count).round().astype(int)]
    return EpisodeStream(videos, chosen[part[0]::part[1]], cfg.data.workers, pin_memory, cfg.data.patience)


def read_episode_list(path):
    """Nothing is drawn in this task, so there is no list to replay."""
    raise ValueError("--episodes: this task draws no episodes; leave it out")
