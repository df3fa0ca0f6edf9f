"""Test videos of the referring task, window by window, each with one reference per run and sentence.

In: a RefYouTubeVosIndex and the config. Out: Videos for EpisodeStream, which reads ahead. What depends on the video
alone, as the backbone, is then computed once for all of its sentences and runs.
"""
from functools import partial

import torch

from dataloaders.episode import Clip, ReferringSupport, Video
from dataloaders.fewshot.streaming import Items
from dataloaders.referring.composition import SentenceComposer, Shown, composed_videos
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
        self.index, self.data, self.test, self.groups = index, cfg.data, cfg.test, []
        candidates = {c: [v for v in index.videos(c) if v not in exclude] for c in class_ids}
        check_classes(index, class_ids, candidates, 2 if only is None else 1)
        picks = {(run, c): picker(rng_for(cfg.seed, "test", run, c)) for run in runs for c in class_ids}
        supports = {(run, c): draw_clip(index, c, pick(candidates[c]), cfg.data.support_frames, pick)
                    for (run, c), pick in picks.items()}
        for c, shown in self._shown(class_ids, cfg.seed, only):
            samples = [(run, one, supports[run, c]) for run in runs for one in shown.asked
                       if supports[run, c].video not in shown.videos and (run, c, name_of(shown, one)) not in skip]
            self.groups += [(c, shown, samples)] if samples else []

    def _shown(self, class_ids, seed, only):
        """->  (class id, Shown) of what is tested, by class and name"""
        videos = {c: [v for v in self.index.videos(c) if only is None or v in only] for c in sorted(class_ids)}
        composer = self.test.compose and SentenceComposer(self.test.compose, self.index, videos, self.data.compose_with)
        for c, video in [(one, video) for one in videos for video in videos[one]]:
            composed = composer and list(composed_videos(composer, c, video, partial(
                rng_for, seed, "compose test", c, video)))
            yield from ((c, one) for one in composed or [Shown(
                video, video, self.index.sentences_of[video], self.index.sentences(video, c))])

    def __len__(self):
        return len(self.groups)

    def frames(self, i):
        return self.index.frames(self.groups[i][1].video)

    def num_runs(self, i):
        return len(self.groups[i][2])

    def num_clips(self, i):
        return -(-len(self.frames(i)) // self.window(i))

    def window(self, i):
        return self.test.window or len(self.frames(i))

    def keys(self):
        """(run, class id, video) of every result"""
        return [(run, c, name_of(shown, one)) for c, shown, samples in self.groups for run, one, _ in samples]

    def objects(self, i):
        """Of the objects that the video's sentences are about, whatever their class: {number: class id}"""
        return {one.object: one.class_id for one in self.groups[i][1].sentences}

    def video(self, i):
        """i  ->  the Video, without clips"""
        class_id, shown, samples = self.groups[i]
        supports = {}            # sentences of a run share these tensors, which are handed over once
        for support in {support for _, _, support in samples}:
            frames, labels = read_clip(self.index, support.video, support.frames)
            supports[support] = self.images(frames), torch.from_numpy(labels == support.sentence.object)
        references = [ReferringSupport(*supports[support], support.sentence.text, one.text,
                                       **self._facts(i, run, one, support)) for run, one, support in samples]
        size = self.index.read_labels(shown.video, self.frames(i)[0]).shape
        return Video(id=f"{self.index.class_name(class_id)}/{shown.name}", frames=references[0].facts[0]["frames"],
                     original_size=size, references=references)

    def _facts(self, i, run, one, support):
        class_id, shown, _ = self.groups[i]
        name, objects = self.index.class_name(class_id), self.objects(i)
        others = [number for number in objects if number != one.object]
        facts = {"run": run, "class_id": class_id, "class": name, "video": name_of(shown, one), "object": one.object,
                 "other_objects": others, "of_class": [objects[number] == class_id for number in (one.object, *others)],
                 "text": one.text, "frames": [f"{shown.name}/{frame}" for frame in self.frames(i)],
                 "support_frames": [f"{support.video}/{frame}" for frame in support.frames],
                 "support_text": support.sentence.text}
        return {"key": (run, class_id, facts["video"]), "facts": [facts], "row": list(objects).index(one.object),
                "folder": (f"run{run}", name, facts["video"])}

    def images(self, frames):
        """(T, H, W, 3) uint8 array  ->  (T, 3, h, w) float32 at the size of the network"""
        return as_floats(resize_images(torch.from_numpy(frames).permute(0, 3, 1, 2),
                                       size_of(frames.shape[1:3], self.data.test_size)))

    def clip(self, i, number):
        """The `number`-th window of the i-th video  ->  Clip, with the masks of all its `objects`"""
        shown, first = self.groups[i][1], number * self.window(i)
        names = self.frames(i)[first:first + self.window(i)]
        frames, labels = shown.read(*read_clip(self.index, shown.video, names), range(first, first + len(names)))
        images, numbers = self.images(frames), torch.tensor(list(self.objects(i)), dtype=torch.uint8)
        masks = torch.from_numpy(labels) == numbers[:, None, None, None]
        return Clip(images, soft_masks(masks, images.shape[-2:]),
                    masks if self.test.resolution == "original" else None)


def name_of(shown, sentence):
    """Of a sample in results: a sentence of what is shown"""
    return f"{shown.name}_{sentence.number}"
