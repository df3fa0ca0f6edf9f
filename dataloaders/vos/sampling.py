"""Training samples of the vos task: one object in a first frame and in T later ones, each in a crop of its own.

In: sources (videos with numbered masks, pictures that are moved) and the config. Out: VosBatches. A draw follows from
its key alone, (seed, epoch, number), so that a sample is the same on any worker and after any resume.
"""
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from dataloaders.episode import VosBatch
from dataloaders.vos import crops
from utils.seeds import rng_for

TRIES = 50                   # pictures drawn before a source is given up: nearly all have an object


@dataclass
class VosSample:
    """images (1 + T, 3, H, W) float32, RGB in [0, 1]; masks (1 + T, H, W) bool; id in words; key of its draws"""
    images: torch.Tensor
    masks: torch.Tensor
    id: str
    key: tuple


def collate(samples):
    """list of B VosSamples  ->  VosBatch"""
    return VosBatch(torch.stack([s.images for s in samples]), torch.stack([s.masks for s in samples]),
                    [s.id for s in samples], [s.key for s in samples])


class VideoSource:
    """Pairs of a video and an object that enough frames show, all equally likely; index: VosIndex."""

    def __init__(self, name, index, data):
        self.name, self.index, self.data, self.pairs = name, index, data, []
        for video in index.names:
            position = {frame: k for k, frame in enumerate(index.annotated(video))}
            for number, areas in index.areas[video].items():
                shown = [(position[frame], frame) for frame, area in areas.items() if area >= data.min_pixels]
                if len(shown) >= data.min_frames and can_start(shown, len(position), data.test_frames):
                    self.pairs.append((video, number, len(position), shown))
        if not self.pairs:
            raise ValueError(f"sources.{name}: no object of {index.path} is annotated in {data.min_frames} frames with "
                             f"{data.min_pixels} pixels or more each.\n  Lower data.min_frames, or leave it out: "
                             f"sources.{name}_weight=0")

    def draw(self, rng):
        """->  [(picture (H, W, 3) uint8, mask (H, W) uint8)] of the first and the T test frames, and what they are"""
        video, number, length, shown = self.pairs[rng.integers(len(self.pairs))]
        frames = draw_frames(shown, length, self.data.test_frames, self.data.gap, rng)
        read = {frame: (self.index.read_image(video, frame),
                        (self.index.read_labels(video, frame) == number).astype(np.uint8)) for frame in set(frames)}
        names = " ".join(self.index.frames_of[video][frame] for frame in frames)
        return [read[frame] for frame in frames], f"{self.name}/{video} object {number} frames {names}"


class PictureSource:
    """Pictures as videos: the same one 1 + T times, and only what is done to each makes it move."""

    def __init__(self, name, index, data):
        self.name, self.index, self.data = name, index, data
        if not len(index):
            raise ValueError(f"sources.{name}: {index.path} has no object.\n  Set sources.{name}_weight=0")

    def draw(self, rng):
        for _ in range(TRIES):
            i = int(rng.integers(len(self.index)))
            image, mask = self.index.read(i)
            if mask.any():
                return [(image, mask)] * (1 + self.data.test_frames), f"{self.name}/{self.index.name(i)}"
        raise ValueError(f"sources.{self.name}: {TRIES} objects of {self.index.path} in a row have no pixel")


def can_start(shown, length, count):
    """Whether a first frame can be drawn: one before the last T that show the object, and one behind it"""
    first = shown[0][0] if shown else length
    return first < length - count and (count == 0 or shown[-1][0] > first)


def draw_frames(shown, length, count, gap, rng):
    """The first frame, uniform among those that show the object, and T later ones within `gap`, with replacement.

    shown: [(place among the annotated frames, frame)]; length: number of annotated frames; the first one is not among
    the last T. Where no later frame is near enough, the gap grows by five and both are drawn again.
    ->  1 + T frames, ascending
    """
    starts = [pair for pair in shown if pair[0] < length - count]
    while True:
        place, first = starts[rng.integers(len(starts))]
        later = [frame for p, frame in shown if place < p < place + gap]
        if later or not count:
            return [first, *sorted(later[k] for k in rng.integers(len(later), size=count))] if count else [first]
        gap += 5


class VosSamples(Dataset):
    """sources: [(weight, source)]; a key (epoch, number)  ->  VosSample"""

    def __init__(self, sources, cfg):
        weights = np.array([weight for weight, _ in sources], float)
        self.sources, self.shares = [source for _, source in sources], weights / weights.sum()
        self.data, self.seed = cfg.data, cfg.seed

    def __getitem__(self, key):
        rng = rng_for(self.seed, "train", *key)
        source = self.sources[rng.choice(len(self.sources), p=self.shares)]
        frames, name = source.draw(rng)
        looks = [(rng.random() < self.data.grey, rng.random() < self.data.mirror) for _ in range(2)]
        pairs = [self.crop(*frame, *looks[min(t, 1)], min(t, 1), rng) for t, frame in enumerate(frames)]
        images, masks = (np.stack(parts) for parts in zip(*pairs, strict=True))
        return VosSample(torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255), torch.from_numpy(masks) > 0,
                         name, ("train", *key))

    def crop(self, image, mask, grey, mirror, later, rng):
        """One frame, and what is done to it: uint8 in and out; later: 0 for the first frame, 1 for test frames"""
        data = self.data
        image = crops.grey(image) if grey else image
        if mirror:
            image, mask = (np.ascontiguousarray(x[:, ::-1]) for x in (image, mask))
        box = crops.jittered(crops.box_of(mask > 0), rng.standard_normal(2), rng.random(2), data.size_jitter[later],
                             data.test_place_jitter if later else data.place_jitter)
        window = crops.window_of(box, mask.shape, tuple(data.size), data.area)
        image, mask = crops.cut(image, mask, window, tuple(data.size), data.crop_border)
        angle, scale = rng.uniform(-1, 1) * data.rotation, math.exp(rng.uniform(-1, 1) * data.scale)
        image, mask, _ = crops.turned(image, mask, angle, scale)
        factor = 1 + rng.uniform(-1, 1) * data.brightness
        return np.clip(image * factor, 0, 255).round().astype(np.uint8), mask


class Batches(Sampler):
    """Batches of keys (epoch, number); `start` skips the first ones (resume), len is the whole epoch's.

    part: (rank, processes): of every batch, the same for all, this process gets its share.
    """

    def __init__(self, samples, batch_size, epoch, start=0, part=(0, 1)):
        rank, processes = part
        if batch_size % processes:
            raise ValueError(f"train.batch_size is {batch_size}, the total over all processes, and {processes} of them "
                             "cannot share it evenly.\n  Start a number of processes that divides it.")
        if samples < batch_size:
            raise ValueError(f"data.samples is {samples}, less than one batch of {batch_size} (train.batch_size)")
        self.own = range(rank * batch_size // processes, (rank + 1) * batch_size // processes)
        self.batch_size, self.batches, self.epoch, self.start = batch_size, samples // batch_size, epoch, start

    def __len__(self):
        return self.batches

    def __iter__(self):
        for batch in range(self.start, self.batches):
            yield [(self.epoch, batch * self.batch_size + k) for k in self.own]
