"""Which clips an episode of the referring task has, and training samples made of them.

In: a RefYouTubeVosIndex. Out: ReferringSamples. Every draw is a uniform pick of a sequence, by a function that is
handed in; the order of the draws is that of the release.
"""
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset, Sampler

from dataloaders.datasets.refytvos import Sentence
from dataloaders.episode import ReferringSample
from dataloaders.fewshot.composition import composed
from dataloaders.referring.composition import SentenceComposer
from dataloaders.referring.transforms import TrainTransform, as_floats
from utils.seeds import rng_for


@dataclass(frozen=True)
class DrawnClip:
    """Consecutive annotated frames of a video, by their names, and the object that a sentence of it says"""
    video: str
    sentence: Sentence
    frames: tuple


def picker(rng):
    """NumPy generator  ->  a function that picks one of a sequence"""
    return lambda things: things[rng.integers(len(things))]


def draw_clip(index, class_id, video, length, pick):
    """An object (those with more sentences more often), one of its sentences, and the frames  ->  DrawnClip"""
    sentences = index.sentences(video, class_id)
    number = pick([one.object for one in sentences])
    sentence = pick([one for one in sentences if one.object == number])
    frames = index.frames(video)
    return DrawnClip(video, sentence, window(frames, pick(range(len(frames))), length))


def window(frames, anchor, length):
    """The `length` frames that end at the anchor, or the first ones; where there are too few the last is repeated"""
    first = 0 if anchor < length else anchor - length + 1
    shown = frames[first:first + length]
    return (*shown, *[shown[-1]] * (length - len(shown)))


def draw_episode(index, class_id, videos, lengths, pick):
    """Two videos of a class, the query's and then the support's, and a clip of each  ->  two DrawnClips

    videos: those that may be drawn; lengths: frames of the query and of the support
    """
    query = pick(videos)
    support = pick([video for video in videos if video != query])
    return [draw_clip(index, class_id, *one, pick) for one in zip((query, support), lengths, strict=True)]


def read_clip(index, video, frames):
    """->  frames (T, H, W, 3) uint8, numbers of objects (T, H, W) uint8; frames that come twice are read once"""
    read = {frame: index.read(video, frame) for frame in dict.fromkeys(frames)}
    sizes = sorted({labels.shape for _, labels in read.values()})
    if len(sizes) > 1:
        raise ValueError(f"{index.images / video}: its frames have different sizes, {sizes}.\n  All frames of a video "
                         "need one size.")
    images, labels = zip(*(read[frame] for frame in frames), strict=True)
    return np.stack(images), np.stack(labels)


def check_classes(index, class_ids, videos, least=2):
    """ValueError for a class with too few videos: query and support are of different ones"""
    for class_id in class_ids:
        if len(videos[class_id]) < least:
            raise ValueError(f"{index.path}: class {index.class_name(class_id)!r} has {len(videos[class_id])} videos "
                             f"to draw from, an episode needs {least}.\n  Add videos, or leave the class out")


class TrainSamples(Dataset):
    """A key (epoch, number, class id)  ->  ReferringSample; exclude: names of videos that are not drawn"""

    def __init__(self, index, class_ids, cfg, exclude=frozenset()):
        self.index, self.seed, self.transform = index, cfg.seed, TrainTransform(cfg.data)
        self.lengths = cfg.data.frames, cfg.data.support_frames
        self.videos = {c: [v for v in index.videos(c) if v not in exclude] for c in class_ids}
        check_classes(index, class_ids, self.videos)
        data = cfg.data
        self.composer = SentenceComposer(data.compose, index, self.videos, data.compose_with) if data.compose else None

    def __getitem__(self, key):
        rng, class_id = rng_for(self.seed, "train", *key), key[2]
        clips = draw_episode(self.index, class_id, self.videos[class_id], self.lengths, picker(rng))
        query = self._transformed(clips[0], rng, self.composer and rng_for(self.seed, "compose", *key))
        support = self._transformed(clips[1], rng)
        return ReferringSample(
            query_images=as_floats(query.images), query_masks=query.masks, query_boxes=query.boxes,
            query_valid=query.valid, query_text=query.text, support_images=as_floats(support.images),
            support_masks=support.masks, support_text=support.text, key=("train", *key),
            id=f"{self.index.class_name(class_id)}: {query.text!r} in {clips[0].video} from {clips[1].video}")

    def _transformed(self, clip, rng, compose=None):
        """compose: the generator that a composition is drawn from, None: the clip as it is"""
        frames, labels = read_clip(self.index, clip.video, clip.frames)
        masks, one = labels == clip.sentence.object, clip.sentence
        if compose:
            names = self.index.frames(clip.video)
            shown = [((clip.video, one.object), names.index(frame)) for frame in clip.frames]
            composition = self.composer.draw(one.class_id, *shown[0], compose)
            frames, masks = map(np.stack, composed(frames, masks, shown, [composition] * len(shown)))
        return self.transform(frames, masks, one.text, rng)


class Batches(Sampler):
    """Batches of keys (epoch, number, class id): every class equally often, shuffled or class by class.

    `start` skips the first ones (resume), len is the whole epoch's; what does not fill a batch is left out.
    part: (rank, processes): of every batch, the same for all, this process gets its share.
    """

    def __init__(self, class_ids, data, batch_size, seed, epoch, start=0, part=(0, 1)):
        rank, processes = part
        if batch_size % processes:
            raise ValueError(f"train.batch_size is {batch_size}, the total over all processes, and {processes} of them "
                             "cannot share it evenly.\n  Start a number of processes that divides it.")
        keys = [(epoch, k, c) for k, c in enumerate(np.repeat(class_ids, data.samples_per_class).tolist())]
        if data.shuffle:
            keys = [keys[i] for i in rng_for(seed, "batches", epoch).permutation(len(keys))]
        if len(keys) < batch_size:
            raise ValueError(f"train.batch_size is {batch_size}, but an epoch has {len(keys)} samples "
                             "(data.samples_per_class)")
        self.batches = [keys[first:first + batch_size] for first in range(0, len(keys) - batch_size + 1, batch_size)]
        self.own, self.start = slice(rank * batch_size // processes, (rank + 1) * batch_size // processes), start

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches[self.start:]:
            yield batch[self.own]


def holdout_videos(index, class_ids, share, seed):
    """Names of the videos that training leaves to validation: a share of every class, one at least, two stay"""
    held = set()
    for c in class_ids if share > 0 else ():
        free = [v for v in index.videos(c) if v not in held]
        order = rng_for(seed, "holdout", c).permutation(len(free))
        held |= {free[i] for i in order[:min(max(1, round(share * len(free))), max(len(free) - 2, 0))]}
    return frozenset(held)
