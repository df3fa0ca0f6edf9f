"""The referring task: a sentence says what to segment in a video; a clip with a mask and a sentence shows the category.

What train.py and test.py know of a task are the names below; every task has them.
"""
from dataloaders.episode import ReferringBatch as Batch
from dataloaders.referring.config import Config
from dataloaders.referring.loaders import (
    build_index,
    read_episode_list,
    test_videos,
    train_batches,
    validation_videos,
)
from dataloaders.referring.transforms import restore

SPLITS = (1, 2, 3, 4)        # folds

__all__ = ["SPLITS", "Batch", "Config", "build_index", "read_episode_list", "restore", "test_videos", "train_batches",
           "validation_videos"]
