"""The vos task: masks of some objects where they first appear in a video say what to follow. There are no folds.

What train.py and test.py know of a task are the names below; every task has them.
"""
from dataloaders.episode import VosBatch as Batch
from dataloaders.vos.config import Config
from dataloaders.vos.loaders import (
    build_index,
    read_episode_list,
    test_videos,
    train_batches,
    training_indexes,
    validation_videos,
)

SPLITS = ()

__all__ = ["SPLITS", "Batch", "Config", "build_index", "read_episode_list", "test_videos", "train_batches",
           "training_indexes", "validation_videos"]
