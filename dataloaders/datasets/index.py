"""What a data set offers, whatever its files are like: classes, videos, frames, and single images and masks when asked.

Building an index opens no image. Which frames are used is decided by the samplers, what a network sees by
transforms.py. Ids are integers of the index's own; names are those of files and of results.
"""
from pathlib import Path
from typing import Protocol

import numpy as np

from dataloaders.images import bad_image, read_image, real_path


class Index(Protocol):
    """Everything that samplers, tests and tools ask of a data set; every index has all of it."""
    path: Path             # of the annotations, for messages
    class_ids: list        # sorted ids of the classes that at least one video shows

    def side(self, fold: int, side: str) -> tuple["Index", list]:
        """fold, train | test  ->  the index as the fold sees it, the ids of the side's classes; only these are read"""

    def class_name(self, class_id: int) -> str:
        """person, giant_panda, ..."""

    def videos(self, class_id: int) -> list:
        """Ids of the videos that belong to the class, in file order."""

    def support_videos(self, class_id: int) -> list:
        """Those of `videos` that show enough of the class to be a support."""

    def frames(self, video_id: int, class_id: int) -> np.ndarray:
        """Positions of the frames that show enough of the class for training and supports, int64, ascending."""

    def scored_frames(self, video_id: int, class_id: int) -> np.ndarray:
        """Positions of the frames that a test segments and scores, int64, ascending."""

    def length(self, video_id: int) -> int:
        """Number of frames."""

    def file_name(self, video_id: int, frame: int) -> str:
        """Image of the frame, below the folder of images; IndexError where there is none."""

    def video_name(self, video_id: int) -> str:
        """Name of the video in results, and in the key of its random draws."""

    def size(self, video_id: int) -> tuple[int, int]:
        """(rows, columns) of the video's frames."""

    def annotation_files(self) -> list[Path]:
        """What says what the data set holds: its identity is in all their bytes."""

    def sampled_files(self) -> list[tuple[Path, list[str]]]:
        """Real folders, each with the names of files below it of which a sample says whether they are the same."""

    def read_image(self, video_id: int, frame: int) -> np.ndarray:
        """One frame: (H, W, 3) uint8, RGB, as stored."""

    def read_mask(self, video_id: int, frame: int, class_id: int) -> np.ndarray:
        """All of the class in one frame: (H, W) bool."""


def read_below(folder, name, size, where, read=read_image):
    """real folder, name of a file below it, (rows, columns) or None, frame in words, reader  ->  what it reads

    One rule for training and for tools/check_dataset.py, whose reader may look at headers only and return a size.
    """
    path = file_below(folder, name, where)
    found = read(path)
    rows, cols = found.shape[:2] if isinstance(found, np.ndarray) else found
    if size is not None and (rows, cols) != size:
        raise bad_image(path, f"has {rows} x {cols} pixels, but {where} has {size[0]} x {size[1]}")
    return found


def file_below(folder, name, where):
    """The path of a file below a real folder; FileNotFoundError where nothing lies there"""
    path = real_below(folder, name, where)
    if not path.is_file():
        raise FileNotFoundError(f"{where}: no file {path}.\n  Unpack the data set completely to {folder}.")
    return path


def real_below(folder, name, where):
    """The path without links of a name below a real folder; ValueError where links lead out of it"""
    path = real_path(folder / name)
    if not path.is_relative_to(folder):
        raise ValueError(f"{where}: {folder / name} is a link that leads out of {folder}, to {path}.\n"
                         f"  Set data.root to the folder where the files lie, or put them here in place of links.")
    return path
