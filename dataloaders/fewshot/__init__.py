"""The few-shot task: K supports say what to look for in a query video; classes of a split's test are new.

What train.py and test.py know of a task are the names below; every task has them.
"""
from dataloaders.episode import Batch
from dataloaders.fewshot.config import Config
from dataloaders.fewshot.episode_list import read_episode_list
from dataloaders.fewshot.loaders import test_videos, train_batches, validation_videos

SPLITS = (1, 2, 3, 4)        # folds

__all__ = ["SPLITS", "Batch", "Config", "read_episode_list", "test_videos", "train_batches", "validation_videos"]
