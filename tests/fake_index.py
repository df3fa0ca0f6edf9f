"""A data set that lies on no disk: what the sampler draws, and which images it opens; and a config for small images."""
import copy
from pathlib import Path

import numpy as np
import yaml
from easydict import EasyDict

from dataloaders.datasets.folds import split_classes

ROOT = Path(__file__).resolve().parents[1]


class FakeIndex:
    """Class c has `counts[c]` videos of its own; (c, n) is its n-th. Frame t is grey with value t, a box is its object.

    length: frames that show the class; two more come before them. Frames in `tiny` show an object that vanishes at
    input size.
    """
    path = "fake.json"

    def __init__(self, counts, length=20, size=(48, 64), tiny=()):
        self.counts, self.shown, self._size, self.tiny, self.read = counts, length, size, set(tiny), []
        self.class_ids = sorted(counts)

    def class_name(self, class_id):
        return f"class{class_id}"

    def videos(self, class_id):
        return [100 * class_id + n for n in range(self.counts[class_id])]

    def support_videos(self, class_id):
        return self.videos(class_id)

    def side(self, fold, side):
        base, novel = split_classes(self.class_ids, fold)
        return self, base if side == "train" else novel

    def scored_frames(self, video, class_id):
        return self.frames(video, class_id)

    def frames(self, video, class_id):
        return np.arange(2, 2 + self.shown)                       # the class is absent from frames 0 and 1

    def length(self, video):
        return 2 + self.shown

    def file_name(self, video, frame):
        return f"v{video}/{frame:05d}.jpg"

    def video_name(self, video):
        return f"v{video}"

    def size(self, video):
        return self._size

    def read_image(self, video, frame):
        self.read.append((video, frame))
        return np.full((*self._size, 3), frame % 256, np.uint8)

    def read_mask(self, video, frame, class_id):
        mask = np.zeros(self._size, bool)
        if (video, frame) in self.tiny:
            mask[1, 1] = True                                     # between the points that nearest resizing reads
        elif frame >= 2:
            mask[12:36, 16:48] = True
        return mask


def small_config(**data):
    """The main config with 24 x 32 images and no workers; data: changes of its section."""
    cfg = EasyDict(yaml.safe_load((ROOT / "config" / "vipmt" / "ytvis.yaml").read_text()))
    cfg.data.update(size=[24, 32], workers=0, **data)
    return cfg


def with_few_videos(cfg, rule="repeat", **data):
    """A copy that lets supports share a video; data: further changes of its section."""
    cfg = copy.deepcopy(cfg)
    cfg.data.update(few_videos=rule, **data)
    return cfg


def video_of(file_name):
    """The folder of a frame."""
    return file_name.split("/")[0]
