"""Sampling: which frames make an episode, and in which order training samples come; tests: streaming.py.

In: an index (what is on disk) and the config. Out: TrainEpisodes. A draw follows from its key alone, (seed, what for,
which one), so that an episode is the same on any worker, after any resume and beside any other episodes.
"""
from functools import partial

import numpy as np
from torch.utils.data import Dataset, Sampler

from dataloaders.episode import TrainEpisode
from dataloaders.fewshot.composition import Composer, composed
from dataloaders.transforms import TrainTransform
from utils.seeds import rng_for

# -- which frames ---------------------------------------------------------------------------------------------------

def training_windows(n, clip_length, clips, mode, windows="blocks"):
    """The windows a training clip may show, as positions in the n frames that show the class.

    n, T, clips, data.short_video  ->  list of at least `clips` lists of T positions, or [] if the video cannot serve

    repeat    as released: consecutive windows from position 1 on (position 0 is not used; we do not know why), the last
              one repeated where there are fewer than `clips`; n <= T: all frames, padded with the last.
    distinct  the same where that gives `clips` windows; otherwise windows overlap, and every start is a candidate.

    windows: any, as DAN's release, makes every start a candidate where there are `clips` of them.
    """
    starts = range(n - clip_length + 1)
    if len(starts) >= clips and windows == "any" or mode == "distinct" and n < 1 + clips * clip_length:
        return [list(range(s, s + clip_length)) for s in starts] if len(starts) >= clips else []
    if n <= clip_length:
        windows = [[min(t, n - 1) for t in range(clip_length)]]
    else:
        windows = [list(range(s, s + clip_length)) for s in range(1, n - clip_length + 1, clip_length)]
    return windows + [windows[-1]] * (clips - len(windows))


def draw_windows(n, clip_length, clips, mode, rng, windows="blocks"):
    """`clips` different ones of training_windows, in temporal order: list of lists of T positions."""
    found = training_windows(n, clip_length, clips, mode, windows)
    return [found[i] for i in np.sort(rng.choice(len(found), clips, replace=False))]


def draw_supports(index, class_id, videos, shots, rng):
    """K pairs (video id, frame): one random class frame from each of K random videos of the list.

    Where there are fewer videos, further frames of the same ones, and a frame twice only once all are used.
    """
    order = [videos[i] for i in rng.permutation(len(videos))[:shots]]
    frames = {video: rng.permutation(index.frames(video, class_id)) for video in order}
    rounds = max(len(f) for f in frames.values()) if len(order) < shots else 1
    pool = [(video, int(frames[video][r])) for r in range(rounds) for video in order if r < len(frames[video])]
    return [pool[i % len(pool)] for i in range(shots)]


def share_video(supports, query_video):
    """Whether two supports come from one video, or one from the query video."""
    videos = {video for video, _ in supports}
    return len(videos) < len(supports) or query_video in videos


def check_videos(index, class_id, available, needed, rule):
    """data.few_videos: a class with too few videos stops the run, unless the config lets supports share videos."""
    if available >= needed or (rule == "repeat" and available > 0):
        return
    raise ValueError(
        f"{index.path}: class {index.class_name(class_id)} (id {class_id}) has {available} usable videos, "
        f"but its episodes need {needed}: supports and query come from different ones.\n"
        f"  Lower data.shots, add videos, or let supports share a video: data.few_videos=repeat")


# -- reading --------------------------------------------------------------------------------------------------------

def read_frames(index, class_id, frames):
    """[(video id, frame)]  ->  lists of images (H, W, 3) uint8 and masks (H, W) bool; nothing is decoded twice."""
    once = {key: (index.read_image(*key), index.read_mask(*key, class_id)) for key in dict.fromkeys(frames)}
    return [once[key][0] for key in frames], [once[key][1] for key in frames]


def load_supports(index, class_id, supports, transform, clean, seed, compositions=None):
    """The K supports as tensors, each of them with something to see.

    supports: [(video id, frame)]; transform and clean: with and without augmentation; compositions: one or None each
    ->  images (K, 3, H, W), masks (K, H, W), [(video id, frame)]

    A support whose object left the image is taken without augmentation; one too small for the input size is replaced
    by another frame of its video, always the same.
    """
    read = read_frames(index, class_id, supports)
    images, masks = transform(*(composed(*read, supports, compositions) if compositions else read))
    supports = list(supports)
    for k in (~masks.flatten(1).any(dim=1)).nonzero().flatten().tolist():
        images[k], masks[k], supports[k] = _visible_frame(index, class_id, supports[k], clean, seed)
    return images, masks, supports


def _visible_frame(index, class_id, support, clean, seed):
    """The support itself or the next frame of its video that still shows the class at input size."""
    video, frame = support
    rng = rng_for(seed, "visible", class_id, index.video_name(video), frame)
    others = rng.permutation([f for f in index.frames(video, class_id) if f != frame]).astype(int)
    for candidate in (frame, *others.tolist()):
        images, masks = clean(*read_frames(index, class_id, [(video, candidate)]))
        if masks.any():
            return images[0], masks[0], (video, candidate)
    raise ValueError(
        f"{index.path}: class {index.class_name(class_id)} in video {index.video_name(video)} is too small to be a "
        f"support: its mask is empty at input size in every frame.\n"
        f"  Raise data.size, use data.mask_resize=nearest, or remove the annotation.")


def file_names(index, frames):
    """[(video id, frame)]  ->  their file names, below JPEGImages/"""
    return [index.file_name(video, frame) for video, frame in frames]


# -- training -------------------------------------------------------------------------------------------------------

class TrainEpisodes(Dataset):
    """Training samples by key (epoch, number, class id): K supports and `clips` clips of one query video.

    class_ids: the base classes; exclude: ids of videos that training never sees (held out for validation).
    Unlike the release, supports do not come from the query video; see data.support_from_query_video.
    """

    def __init__(self, index, class_ids, cfg, exclude=frozenset()):
        self.index, self.data, self.seed = index, cfg.data, cfg.seed
        self.transform = TrainTransform(cfg.data.size, cfg.data.mask_resize, cfg.data.augmentation,
                                        cfg.data.first_frame_augmented, cfg.data.portrait)
        self.videos = {c: [v for v in index.videos(c) if v not in exclude] for c in class_ids}
        self.queries = {c: [v for v in self.videos[c] if can_be_query(index, c, v, cfg.data)] for c in class_ids}
        self.mixed = {c: [v for v in own if any(v in self.videos[other] for other in class_ids if other != c)]
                      for c, own in self.queries.items()} if cfg.data.prefer_mixed else {}
        self.composer = Composer(cfg.data.compose, index, self.videos, cfg.data.stills) if cfg.data.compose else None
        for class_id in class_ids:
            self._check_class(class_id)

    def _check_class(self, class_id):
        data = self.data
        needed = data.shots + (0 if data.support_from_query_video else 1)
        check_videos(self.index, class_id, len(self.videos[class_id]), needed, data.few_videos)
        if not self.queries[class_id]:
            raise ValueError(
                f"{self.index.path}: no video of class {self.index.class_name(class_id)} (id {class_id}) shows it in "
                f"{data.clip_length + data.clips - 1} frames, which {data.clips} different clips need.\n"
                f"  Lower data.clips or data.clip_length, or repeat clips as the release does: data.short_video=repeat")

    def __getitem__(self, key):
        """(epoch, number, class id)  ->  TrainEpisode with clips * T query frames"""
        epoch, number, class_id = key
        stream = partial(rng_for, self.seed, "train", epoch, number)
        index, data = self.index, self.data
        video, windows, supports, streams = self._draw(class_id, stream)
        shown = [(video, frame) for window in windows for frame in window]
        read, compositions = read_frames(index, class_id, shown), None
        if self.composer:
            query, *compositions = [self.composer.draw(class_id, *first, source("compose"))
                                    for first, source in zip([shown[0], *supports], streams, strict=True)]
            read = composed(*read, shown, [query] * len(shown))
        images, masks = self.transform(*read, stream("augment query"))
        augment = partial(self.transform, rng=stream("augment support"))
        support_images, support_masks, supports = load_supports(
            index, class_id, supports, augment, self.transform.clean, self.seed, compositions)
        return TrainEpisode(
            support_images=support_images, support_masks=support_masks, query_images=images, query_masks=masks,
            query_frames=[frame for _, frame in shown], clip_length=data.clip_length, class_id=class_id,
            id=f"{index.class_name(class_id)}/{index.video_name(video)}", key=("train", epoch, number),
            support_frames=file_names(index, supports), frames=file_names(index, shown),
            supports_share_video=share_video(supports, video))

    def _draw(self, class_id, stream):
        """Source of generators  ->  query video id, its windows in frame numbers, [(video id, frame)] of the supports,
        and where the compositions of the query and of each support are drawn from"""
        data, videos, rng = self.data, self.videos[class_id], stream("frames")
        streams = [partial(stream, name) for name in ("query", *map(str, range(data.shots)))]
        support_rng, pool = rng, data.compose_pool if self.composer else 0
        if pool:
            streams[0] = partial(rng_for, self.seed, "pool query", class_id, rng.integers(pool))
            rng = streams[0]("frames")
        mixed = self.mixed.get(class_id) and rng.random() < data.prefer_mixed
        queries = self.mixed[class_id] if mixed else self.queries[class_id]
        video = queries[rng.integers(len(queries))]
        frames = self.index.frames(video, class_id)
        windows = draw_windows(len(frames), data.clip_length, data.clips, data.short_video, rng, data.windows)
        if not data.support_from_query_video:
            videos = [v for v in videos if v != video] or [video]
        supports = draw_supports(self.index, class_id, videos, data.shots, support_rng)
        if pool:
            each = max(1, pool // len(self.videos[class_id]))
            streams[1:] = [partial(rng_for, self.seed, "pool support", class_id, v, support_rng.integers(each))
                           for v, _ in supports]
            supports = [draw_supports(self.index, class_id, [v], 1, source("frames"))[0]
                        for (v, _), source in zip(supports, streams[1:], strict=True)]
        return video, [frames[window].tolist() for window in windows], supports, streams


def can_be_query(index, class_id, video, data):
    """Whether the video shows the class in enough frames for a training sample."""
    n = len(index.frames(video, class_id))
    return bool(training_windows(n, data.clip_length, data.clips, data.short_video, data.windows))


class DistinctClassBatchSampler(Sampler):
    """Batches of keys (epoch, number, class id) whose classes all differ: CCDS compares classes within a batch.

    Shuffled lists of all classes follow one another, so that each class comes equally often; the keys left over at
    the end of the epoch are dropped. `start` skips the first batches of the epoch (resume), len is the whole epoch's.
    part: (rank, processes): of every batch, the same for all, this process gets its share.
    """

    def __init__(self, class_ids, samples_per_class, batch_size, seed, epoch, start=0, part=(0, 1)):
        if batch_size > len(class_ids):
            raise ValueError(f"train.batch_size is {batch_size}, but the fold trains on {len(class_ids)} classes, and "
                             f"a batch holds different ones.\n  Set train.batch_size={len(class_ids)} or less.")
        rank, processes = part
        if batch_size % processes:
            raise ValueError(f"train.batch_size is {batch_size}, the total over all processes, and {processes} of them "
                             "cannot share it evenly.\n  Start a number of processes that divides it.")
        self.own = slice(rank * batch_size // processes, (rank + 1) * batch_size // processes)
        self.class_ids, self.batch_size = list(class_ids), batch_size
        self.batches = len(class_ids) * samples_per_class // batch_size
        self.seed, self.epoch, self.start = seed, epoch, start

    def __len__(self):
        return self.batches

    def __iter__(self):
        order = self._order()
        for first in range(self.start * self.batch_size, self.batches * self.batch_size, self.batch_size):
            batch = [(self.epoch, number, order[number]) for number in range(first, first + self.batch_size)]
            yield batch[self.own]

    def _order(self):
        """Class of every sample. Classes that an unfinished batch already has go to the end of the next list."""
        rng, order = rng_for(self.seed, "batches", self.epoch), []
        while len(order) < self.batches * self.batch_size:
            unfinished = order[len(order) - len(order) % self.batch_size:]
            shuffled = [self.class_ids[i] for i in rng.permutation(len(self.class_ids))]
            order += [c for c in shuffled if c not in unfinished] + [c for c in shuffled if c in unfinished]
        return order


def holdout_videos(index, class_ids, share, seed, data):
    """Ids of the videos kept out of training, for validation on base classes: a frozenset.

    share of each class's videos, at least one of them; but every class keeps K + 1 videos and a query among them, and
    a class with fewer gives none. A video that shows two base classes is held out of both.
    """
    videos = {c: set(index.videos(c)) for c in class_ids}
    queries = {c: {v for v in videos[c] if can_be_query(index, c, v, data)} for c in class_ids}
    held = set()

    def can_spare(video):
        rest = held | {video}
        return all(len(videos[c] - rest) > data.shots and queries[c] - rest for c in class_ids if video in videos[c])

    for c in class_ids if share > 0 else ():
        wanted = max(1, round(share * len(videos[c])))
        ordered = index.videos(c)
        for video in (ordered[i] for i in rng_for(seed, "holdout", c).permutation(len(ordered))):
            if len(held & videos[c]) < wanted and video not in held and can_spare(video):
                held.add(video)
    return frozenset(held)
