"""Test videos of the vos task, clip by clip: first masks of all objects, frames, and the truth where it is known.

In: a VosIndex and the config. Out: Videos for EpisodeStream, which reads ahead.
"""
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from dataloaders.episode import Clip, FirstMasks, Video
from utils.files import safe_name


class VosVideos(Dataset):
    """The videos of an index, each with one reference that has all its objects.

    Videos in which no object is marked are left out, and those all of whose results are in `skip`. Frames before the
    first object appears are part of a video; they show none.
    """

    def __init__(self, index, cfg, skip=frozenset()):
        self.index, self.data, self.skip_ends = index, cfg.data, cfg.metrics.skip_ends
        self.names = [name for name in index.names if index.objects(name)]
        if not self.names:
            raise ValueError(f"{index.masks}: no object is marked in any video of {index.path}")
        self.names = [name for i, name in enumerate(self.names) if not self._is_done(i, skip)]

    def _is_done(self, i, skip):
        keys = self.result_keys(i)
        return bool(keys) and skip.issuperset(keys) or ("done", self.names[i]) in skip

    def __len__(self):
        return len(self.names)

    def frames(self, i):
        return np.arange(len(self.index.frames_of[self.names[i]]))

    def num_runs(self, i):
        return 1

    def num_clips(self, i):
        return -(-len(self.frames(i)) // self.data.clip_length)

    def scored(self, i):
        """{object: positions of the frames in which it is measured}, per metrics.skip_ends; [] where nobody knows"""
        name, last = self.names[i], len(self.frames(i)) - 1
        frames, starts = self.index.truths(name), self.index.starts(name)
        return {number: [t for t in frames if t > start - (self.skip_ends == "none")
                         and not (t == last and self.skip_ends == "both")] for number, start in starts.items()}

    def result_keys(self, i):
        """(run, object, video) of the result lines that the video gives"""
        return [(0, number, self.names[i]) for number, frames in self.scored(i).items() if frames]

    def keys(self):
        """Of all videos, in their order"""
        return [key for i in range(len(self)) for key in self.result_keys(i)]

    def kept(self, folder):
        """Videos without truth whose masks all lie in a submission's folder already  ->  [("done", video)]"""
        return [("done", name) for i, name in enumerate(self.names) if not self.result_keys(i) and all(
            Path(folder, safe_name(name), f"{stem}.png").is_file() for stem in self._asked(name))]

    def _asked(self, name):
        asked = self.index.asked(name)
        return [stem for stem in self.index.frames_of[name] if asked is None or stem in asked]

    def video(self, i):
        """i  ->  the Video, without clips"""
        name = self.names[i]
        stems = self.index.frames_of[name]
        facts = [{"run": 0, "class_id": number, "class": self.index.category(name, number), "video": name,
                  "frames": [f"{name}/{stems[t]}" for t in frames]} for number, frames in self.scored(i).items()]
        reference = FirstMasks(self.index.objects(name), key=(0, name), facts=facts, folder=(name,))
        return Video(id=name, frames=[f"{name}/{stem}" for stem in stems], original_size=self.index.size(name),
                     references=[reference], asked=self.index.asked(name))

    def clip(self, i, number):
        """The `number`-th clip of the i-th video  ->  Clip; its images have the video's size and are not normalised"""
        name, first = self.names[i], number * self.data.clip_length
        frames = self.frames(i)[first:first + self.data.clip_length].tolist()
        images = np.stack([self.index.read_image(name, t) for t in frames])
        scored, starts = self.scored(i), self.index.starts(name)
        given = np.zeros((len(starts), len(frames), *images.shape[1:3]), bool)
        for o, (thing, start) in enumerate(starts.items()):
            if start in frames:
                given[o, frames.index(start)] = self.index.read_labels(name, start) == thing
        truth, known = np.zeros_like(given), np.zeros(given.shape[:2], bool)
        for t in range(len(frames)):
            known[:, t] = [frames[t] in its for its in scored.values()]
            if known[:, t].any():
                labels = self.index.read_labels(name, frames[t], truth=True)
                truth[:, t] = labels == np.array(list(starts), np.uint8)[:, None, None]
        images = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
        return Clip(images, torch.from_numpy(truth) if any(scored.values()) else None, given=torch.from_numpy(given),
                    scored=torch.from_numpy(known))

    def __getitem__(self, key):
        i, number = key
        return self.video(i) if number is None else self.clip(i, number)
