"""Test videos of the referring task, window by window, each with one reference per run and sentence.

In: a RefYouTubeVosIndex and the config. Out: Videos for EpisodeStream, which reads ahead. What depends on the video
alone, as the backbone, is then computed once for all of its sentences and runs.
"""
from collections import defaultdict

import torch

from dataloaders.episode import Clip, ReferringSupport, Video
from dataloaders.fewshot.streaming import Items
from dataloaders.referring.sampling import check_classes, draw_clip, picker, read_clip
from dataloaders.referring.transforms import as_floats, resize_images, size_of, soft_masks
from utils.seeds import rng_for


class RefVideos(Items):
    """Every (video, sentence) of the classes, by class, name of the video and run, with the support of its class.

    One support video per class and run, its object, sentence and frames drawn as in training, from the videos sorted by
    name; it is no query of that run.
    skip: (run, class id, video) of results that are left out; exclude: names of videos that give no supports; only:
    names the query videos are restricted to (None: all)
    """

    def __init__(self, index, class_ids, cfg, runs, skip=frozenset(), exclude=frozenset(), only=None):
        self.index, self.data, self.test, groups = index, cfg.data, cfg.test, defaultdict(list)
        candidates = {c: [v for v in index.videos(c) if v not in exclude] for c in class_ids}
        check_classes(index, class_ids, candidates, 2 if only is None else 1)
        for run in runs:
            for c in class_ids:
                pick = picker(rng_for(cfg.seed, "test", run, c))
                support = draw_clip(index, c, pick(candidates[c]), cfg.data.support_frames, pick)
                for video in index.videos(c):
                    if video != support.video and (only is None or video in only):
                        groups[c, video] += [(run, one, support) for one in index.sentences(video, c)
                                             if (run, c, name_of(video, one)) not in skip]
        self.groups = [(c, video, groups[c, video]) for c, video in sorted(groups) if groups[c, video]]

    def __len__(self):
        return len(self.groups)

    def frames(self, i):
        return self.index.frames(self.groups[i][1])

    def num_runs(self, i):
        return len(self.groups[i][2])

    def num_clips(self, i):
        return -(-len(self.frames(i)) // self.window(i))

    def window(self, i):
        return self.test.window or len(self.frames(i))

    def keys(self):
        """(run, class id, video) of every result"""
        return [(run, c, name_of(video, one)) for c, video, samples in self.groups for run, one, _ in samples]

    def objects(self, i):
        """Numbers of the objects that the video's sentences are about, whatever their class"""
        return list(dict.fromkeys(one.object for one in self.index.sentences_of[self.groups[i][1]]))

    def video(self, i):
        """i  ->  the Video, without clips"""
        class_id, video, samples = self.groups[i]
        supports = {}            # sentences of a run share these tensors, which are handed over once
        for support in {support for _, _, support in samples}:
            frames, labels = read_clip(self.index, support.video, support.frames)
            supports[support] = self.images(frames), torch.from_numpy(labels == support.sentence.object)
        references = [ReferringSupport(*supports[support], support.sentence.text, one.text,
                                       **self._facts(i, run, one, support)) for run, one, support in samples]
        size = self.index.read_labels(video, self.frames(i)[0]).shape
        return Video(id=f"{self.index.class_name(class_id)}/{video}", frames=references[0].facts[0]["frames"],
                     original_size=size, references=references)

    def _facts(self, i, run, one, support):
        class_id, video, _ = self.groups[i]
        name, objects = self.index.class_name(class_id), self.objects(i)
        facts = {"run": run, "class_id": class_id, "class": name, "video": name_of(video, one), "object": one.object,
                 "other_objects": [number for number in objects if number != one.object], "text": one.text,
                 "frames": [f"{video}/{frame}" for frame in self.frames(i)],
                 "support_frames": [f"{support.video}/{frame}" for frame in support.frames],
                 "support_text": support.sentence.text}
        return {"key": (run, class_id, name_of(video, one)), "facts": [facts], "row": objects.index(one.object),
                "folder": (f"run{run}", name, name_of(video, one))}

    def images(self, frames):
        """(T, H, W, 3) uint8 array  ->  (T, 3, h, w) float32 at the size of the network"""
        return as_floats(resize_images(torch.from_numpy(frames).permute(0, 3, 1, 2),
                                       size_of(frames.shape[1:3], self.data.test_size)))

    def clip(self, i, number):
        """The `number`-th window of the i-th video  ->  Clip, with the masks of all its `objects`"""
        video = self.groups[i][1]
        first = number * self.window(i)
        frames, labels = read_clip(self.index, video, self.frames(i)[first:first + self.window(i)])
        images, numbers = self.images(frames), torch.tensor(self.objects(i), dtype=torch.uint8)
        masks = torch.from_numpy(labels) == numbers[:, None, None, None]
        return Clip(images, soft_masks(masks, images.shape[-2:]),
                    masks if self.test.resolution == "original" else None)


def name_of(video, sentence):
    """Of a sample in results: a sentence of a video"""
    return f"{video}_{sentence.number}"
