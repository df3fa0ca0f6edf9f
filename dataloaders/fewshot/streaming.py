"""Streaming: test videos, one clip after the other, so that the length of a video is no matter of memory.

In: an index and the config. Out: Videos whose clips are read while the network works on earlier ones, also across
videos. What is tested with which supports follows from the seed, the run and the pair alone (`TestEpisodes`), or from a
file (episode_list.py); how it is read ahead changes nothing (`EpisodeStream`).
"""
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch.utils.data import Dataset

from dataloaders.episode import Clip, SupportSet, Video
from dataloaders.fewshot.composition import Composer, composed
from dataloaders.fewshot.sampling import (
    check_videos,
    draw_supports,
    file_names,
    load_supports,
    read_frames,
    share_video,
)
from dataloaders.loader import Loader
from dataloaders.transforms import TestTransform
from utils.seeds import rng_for


@dataclass(frozen=True)
class Plan:
    """What a test episode shows, before any image is opened."""
    class_id: int
    video: int
    frames: tuple          # positions of all frames of the video that are scored
    supports: tuple        # K pairs (video id, frame)


class Items(Dataset):
    """What a loader reads of episodes, by (i, None) the Video and by (i, number) the Clip."""

    def __getitem__(self, key):
        i, number = key
        return self.video(i) if number is None else self.clip(i, number)


class PlannedEpisodes(Items):
    """Test episodes of one run, as they are read. What they show is for a subclass to say: it fills `pairs`, the (class
    id, video id) of each, and has

    frames(i)    positions of the frames of the i-th query video that are segmented and scored, (frames,) int64
    plan(i)      the Plan of the i-th episode
    load(plan)   its supports: images (K, 3, H, W), masks (K, H, W), [(video id, frame)]

    Each is read in items small enough for a loader to keep some ahead: its supports, and each of its clips.

    videos: {class id: ids of videos} of the test classes, from which other objects (test.compose) and other supports
    (test.swap_supports) come; what they are follows from the seed and the pair, for other supports from the run too
    """

    def __init__(self, index, cfg, run, videos):
        self.index, self.data, self.run, self.pairs, self.seed = index, cfg.data, run, [], cfg.seed
        self.videos = videos if cfg.test.swap_supports or cfg.test.compose else {}
        self.swapped = cfg.test.swap_supports
        self.composer = Composer(cfg.test.compose, index, videos) if cfg.test.compose else None
        self.keep_original = cfg.test.resolution == "original"
        self.transform = TestTransform(cfg.data.size, cfg.data.mask_resize)

    def __len__(self):
        return len(self.pairs)

    def key(self, i):
        """(class id, name of the video): what identifies the pair in results."""
        class_id, video = self.pairs[i]
        return class_id, self.index.video_name(video)

    def num_runs(self, i):
        return 1

    def num_clips(self, i):
        """Clips of the i-th episode, the last one perhaps short."""
        return -(-len(self.frames(i)) // self.data.clip_length)

    def reference(self, i):
        """i  ->  its SupportSet"""
        plan, index = self.plan(i), self.index
        images, masks, supports = self.load(plan)
        name, video = index.class_name(plan.class_id), index.video_name(plan.video)
        facts = {"run": self.run, "class_id": plan.class_id, "class": name, "video": video,
                 "frames": file_names(index, [(plan.video, frame) for frame in plan.frames]),
                 "support_frames": file_names(index, supports),
                 "supports_share_video": share_video(supports, plan.video)}
        composition = self.composition(i)
        facts |= {"composed_with": composition.class_name} if composition else {}
        swapped, facts = (self.swap(i, plan, composition, facts) if self.swapped else (None, facts))
        return SupportSet(images, masks, key=(self.run, plan.class_id, video), facts=[facts],
                          folder=(f"run{self.run}", name, video), swapped=swapped)

    def swap(self, i, plan, composition, facts):
        """Supports of another test class, that of the object laid into the video, else one that the video shows, or any
        ->  SupportSet, the facts of the episode with its class and the frames that show both"""
        index, rng = self.index, rng_for(self.seed, "swap", self.run, plan.class_id, facts["video"])
        others = [c for c in self.videos if c != plan.class_id and self.videos[c]]
        if not others:
            raise ValueError(f"test.swap_supports: {facts['class']} is the only test class of the split, and no other "
                             "one can give supports.\n  Leave it out, or take another fold.")
        shown = [c for c in others if plan.video in index.videos(c)]
        choices = [composition.class_id] if composition else shown or others
        other = choices[rng.integers(len(choices))]
        videos = [v for v in self.videos[other] if v not in (plan.video, composition and composition.video)]
        supports = draw_supports(index, other, videos or self.videos[other], self.data.shots, rng)
        images, masks, supports = load_supports(index, other, supports, self.transform, self.transform, self.seed)
        there = index.frames(plan.video, other) if other in shown else []
        both = np.isin(plan.frames, there) | bool(composition)
        facts = facts | {"swapped_class": index.class_name(other), "swapped_frames": file_names(index, supports),
                         "shows_both": both.tolist()}
        return SupportSet(images, masks, key=("swapped", self.run, plan.class_id, facts["video"])), facts

    def composition(self, i):
        """The Composition of the i-th query video, None where nothing is laid into it"""
        class_id, video = self.pairs[i]
        rng = rng_for(self.seed, "compose test", class_id, self.index.video_name(video))
        return self.composer.draw(class_id, video, int(self.frames(i)[0]), rng) if self.composer else None

    def video(self, i, references=None):
        """i, SupportSets or None for its own  ->  the Video, without clips"""
        plan, index = self.plan(i), self.index
        references = references or [self.reference(i)]
        return Video(id=f"{index.class_name(plan.class_id)}/{index.video_name(plan.video)}", references=references,
                     frames=references[0].facts[0]["frames"], original_size=index.size(plan.video))

    def clip(self, i, number):
        """The `number`-th clip of the i-th episode  ->  Clip"""
        class_id, video = self.pairs[i]
        first = number * self.data.clip_length
        shown = self.frames(i)[first:first + self.data.clip_length].tolist()
        shown = [(video, frame) for frame in shown]
        frames, masks = composed(*read_frames(self.index, class_id, shown), shown, [self.composition(i)] * len(shown))
        images, shaped = self.transform(frames, masks)
        original = torch.from_numpy(np.stack(masks))[None] if self.keep_original else None
        return Clip(images, shaped[None], original, original_size=self.index.size(video))


class TestEpisodes(PlannedEpisodes):
    """Every (class, video) pair once, in fixed order; all frames of the video that show the class.

    Protocol II: supports drawn for every query video, from K other videos of the class. Protocol I: once per class and
    run; the query videos are the others. Either way a pair's supports depend on the seed, the run and the pair only.

    Of MiniVSPW all listed frames of a video are tested, also those without the class (`scored_frames`), and some videos
    show too little of the class for a support (`support_videos`).

    exclude: ids of videos that give no supports; only: ids the query videos are restricted to (None: all not excluded).
    """
    __test__ = False       # not a pytest class

    def __init__(self, index, class_ids, cfg, run, exclude=frozenset(), only=None):
        videos = {c: [v for v in index.support_videos(c) if v not in exclude] for c in class_ids}
        super().__init__(index, cfg, run, videos)
        self.protocol = cfg.test.protocol
        self.support_videos, self.class_supports = {}, {}
        for class_id in class_ids:
            queries = [v for v in index.videos(class_id) if (v not in exclude if only is None else v in only)]
            if queries:
                self._add_class(class_id, queries, videos[class_id])

    def _add_class(self, class_id, queries, candidates):
        overlap = bool(set(queries) & set(candidates))
        check_videos(self.index, class_id, len(candidates), self.data.shots + overlap, self.data.few_videos)
        self.support_videos[class_id] = candidates
        if self.protocol == "I":
            self.class_supports[class_id] = supports = self._draw_for_class(class_id, candidates, overlap)
            used = {video for video, _ in supports}
            queries = [v for v in queries if v not in used] or (queries if len(candidates) == 1 else [])
        self.pairs += [(class_id, video) for video in queries]

    def _draw_for_class(self, class_id, candidates, overlap):
        """Protocol I. In a class with too few videos one of them at least stays free to be the query."""
        rng = rng_for(self.seed, "test", self.run, class_id)
        free = len(candidates) - 1 if overlap and 1 < len(candidates) <= self.data.shots else len(candidates)
        chosen = [candidates[i] for i in rng.permutation(len(candidates))[:free]]
        return draw_supports(self.index, class_id, chosen, self.data.shots, rng)

    def frames(self, i):
        class_id, video = self.pairs[i]
        return self.index.scored_frames(video, class_id)

    def plan(self, i):
        """The i-th episode without its images. Loading replaces a support that is too small to be seen (rare)."""
        class_id, video = self.pairs[i]
        supports = self.class_supports.get(class_id)
        if supports is None:
            rng = rng_for(self.seed, "test", self.run, class_id, self.index.video_name(video))
            others = [v for v in self.support_videos[class_id] if v != video] or [video]
            supports = draw_supports(self.index, class_id, others, self.data.shots, rng)
        return Plan(class_id, video, tuple(self.frames(i).tolist()), tuple(supports))

    def load(self, plan):
        return load_supports(
            self.index, plan.class_id, plan.supports, self.transform, self.transform, self.seed)


class RunsTogether(Items):
    """The TestEpisodes of several runs as one: a video comes once, with the supports of all runs that test it.

    What depends on the video alone (reading, the backbone) is then done once for all runs. runs: list of TestEpisodes
    or ListedEpisodes; skip: (run, class id, video name) that are left out.
    """

    def __init__(self, runs, skip=frozenset()):
        groups = {}
        for episodes in runs:
            for i in range(len(episodes)):
                if (episodes.run, *episodes.key(i)) not in skip:
                    shown = episodes.pairs[i], tuple(episodes.frames(i).tolist())    # a list may differ in the frames
                    groups.setdefault(shown, []).append((episodes, i))
        self.groups = [groups[shown] for shown in sorted(groups)]

    def __len__(self):
        return len(self.groups)

    def frames(self, i):
        episodes, number = self.groups[i][0]
        return episodes.frames(number)

    def keys(self):
        """(run, class id, video name) of every result, in the order of the episodes."""
        return [(episodes.run, *episodes.key(i)) for group in self.groups for episodes, i in group]

    def num_runs(self, i):
        return len(self.groups[i])

    def num_clips(self, i):
        episodes, number = self.groups[i][0]
        return episodes.num_clips(number)

    def video(self, i):
        """i  ->  the Video with one reference per run, without clips"""
        episodes, number = self.groups[i][0]
        return episodes.video(number, [episodes.reference(number) for episodes, number in self.groups[i]])

    def clip(self, i, clip_number):
        episodes, number = self.groups[i][0]
        return episodes.clip(number, clip_number)


class EpisodeStream:
    """The videos numbered in `order`, each with its clips, all of them read by one loader without a pause.

    episodes: TestEpisodes, ListedEpisodes or RunsTogether.
    workers, patience: of the Loader; pin_memory: for asynchronous copies to a GPU.

    A video's clips may be left where they are: what is not taken is passed over when the next video is asked for.
    A file that cannot be read raises when its own clip is due.
    """

    def __init__(self, episodes, order, workers=0, pin_memory=False, patience=600):
        self.episodes, self.order = episodes, list(order)
        self.settings = {"workers": workers, "pin_memory": pin_memory, "patience": patience}

    def __len__(self):
        return len(self.order)

    @property
    def frames(self):
        """Frames of all videos together, counted in every run."""
        return sum(len(self.episodes.frames(i)) * self.episodes.num_runs(i) for i in self.order)

    def __iter__(self):
        items = iter(self._loader())
        for i in self.order:
            video = _or_raise(next(items))
            rest = islice(items, self.episodes.num_clips(i))
            yield replace(video, clips=map(_or_raise, rest))
            deque(rest, maxlen=0)

    def _loader(self):
        """Supports, clip, clip, ..., supports, clip, ..."""
        keys = [(i, number) for i in self.order for number in (None, *range(self.episodes.num_clips(i)))]
        return Loader(self.episodes, sampler=keys, keep_errors=True, **self.settings)


def _or_raise(item):
    """An item of the loader, unless it is the error that reading it gave."""
    try:
        if isinstance(item, Exception):
            raise item
        return item
    finally:
        del item     # an error that its own traceback holds is freed late, and so is the loader with its workers
