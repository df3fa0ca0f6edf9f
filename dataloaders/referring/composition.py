"""Composition for sentences: two objects in a clip, each with its own sentences, either of which may be meant.

The pictures are those of dataloaders.fewshot.composition. A partner of another category than the target can be told
apart by the support as well, one of the same category (data.compose_with=same) by the sentence alone.
"""
from dataclasses import dataclass, replace

import numpy as np

from dataloaders.fewshot.composition import Composer, Composition


class Objects:
    """A RefYouTubeVosIndex as a Composer reads one: its videos are (video, number of an object), their frames
    positions among the annotated ones."""

    def __init__(self, index):
        self.index, self.class_ids, self.class_name, self.seen = index, index.class_ids, index.class_name, {}

    def frames(self, shown, class_id):
        """Those in which the object is seen, looked up once"""
        if shown not in self.seen:
            self.seen[shown] = np.array([t for t in range(len(self.index.frames(shown[0])))
                                         if self.read_mask(shown, t, class_id).any()], dtype=np.int64)
        return self.seen[shown]

    def read_image(self, shown, frame):
        return self.index.read_image(shown[0], self.index.frames(shown[0])[frame])

    def read_mask(self, shown, frame, class_id):
        return self.index.read_labels(shown[0], self.index.frames(shown[0])[frame]) == shown[1]


class SentenceComposer(Composer):
    """Composer of two objects that sentences are about.

    share: of the clips that are composed; videos: {class id: names of the videos that partners come from}; partners:
    data.compose_with, other | same | any category; any: as often of the same as of others
    """

    def __init__(self, share, index, videos, partners):
        self.partners, self.sentences = partners, index.sentences_of
        names = dict.fromkeys(name for own in videos.values() for name in own)
        shown = [(c, (name, one.object)) for name in names for one in self.sentences[name]
                 for c in [one.class_id] if c in videos]
        super().__init__(share, Objects(index), {c: list(dict.fromkeys(x for k, x in shown if k == c)) for c in videos})

    def _choices(self, class_id, shown):
        """As the Composer's. Never an object of the same video, none with a sentence that the target's video has too;
        of another category only from videos that show none of the target's."""
        video, found = shown[0], {}
        own = {one.text for one in self.sentences[video]}
        for c, objects in self.videos.items():
            found[c] = [(name, number) for name, number in objects if name != video
                        and not own & {one.text for one in self.sentences[name] if one.object == number}
                        and (c == class_id or all(one.class_id != class_id for one in self.sentences[name]))]
        same = [(self.index, class_id, found.pop(class_id))] if found.get(class_id) else []
        there = {one.class_id for one in self.sentences[video]}
        others = [(self.index, c, objects) for c, objects in found.items() if objects and c != class_id]
        others = [one for one in others if one[1] not in there] or others
        return {"same": same, "other": others, "any": same * max(len(others), 1) + others}[self.partners]


@dataclass(frozen=True)
class Shown:
    """What a test video shows: a video of the index, perhaps with a partner laid into it.

    sentences: all that are about it; asked: those that are tested; target: of a composed one, the number of its object.
    There the target becomes object 1, its partner 2.
    """
    name: str
    video: str
    sentences: list
    asked: list
    target: int | None = None
    composition: Composition | None = None

    @property
    def videos(self):
        return {self.video} | ({self.composition.video[0]} if self.composition else set())

    def read(self, frames, labels, positions):
        """Frames (T, H, W, 3) at these positions and numbers of their objects (T, H, W)  ->  both as they are shown"""
        if self.composition is None:
            return frames, labels
        images, targets, partners = zip(*(self.composition.both(frame, one == self.target, t) for frame, one, t in
                                          zip(frames, labels, positions, strict=True)), strict=True)
        return np.stack(images), np.stack(targets) + 2 * np.stack(partners).astype(np.uint8)


def composed_videos(composer, class_id, video, seed_of):
    """A test video  ->  a Shown for each of its objects of the class that finds a partner

    seed_of: number of the object  ->  NumPy generator
    """
    sentences = composer.sentences
    for number in dict.fromkeys(one.object for one in sentences[video] if one.class_id == class_id):
        seen = composer.index.frames((video, number), class_id)
        found = composer.draw(class_id, (video, number), int(seen[0]), seed_of(number)) if len(seen) else None
        if found:
            partner, other = found.video
            both = [*(replace(one, object=1) for one in sentences[video] if one.object == number),
                    *(replace(one, object=2) for one in sentences[partner] if one.object == other)]
            both = [replace(one, number=k) for k, one in enumerate(both)]
            yield Shown(f"{video}_{number}+{partner}_{other}", video, both, both, number, found)
