"""Batches, videos and clips: the one contract between the data and the methods.

A task of `dataloaders/` makes them, `models/` consumes them; neither knows more of the other than this file. Here is
what all tasks have in common, and what the few-shot task gives: supports to look for.
"""
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import torch


class Pinned:
    """Its images are pinned by the loader where copies to the GPU shall be asynchronous; masks stay on the CPU."""

    def pin_memory(self):
        return replace(self, images=self.images.pin_memory())


@dataclass
class Clip(Pinned):
    """Consecutive frames of a test video, read and decoded.

    images (T, 3, H, W) float32, RGB in [0, 1]; masks (O, T, H, W) bool, the truth: of one object in the few-shot task;
    None where nobody knows it. A method looks at it only where its config says so (an oracle).
    original_masks (O, T, H0, W0) bool, only with test.resolution: original
    given (O, T, H, W) bool: masks that every method may see, None in the few-shot task. given[o, t] is not empty in the
    frames in which the mask of object o is given, most often only where it first appears
    scored (O, T) bool: which frames of which object are measured, None: all
    original_size: rows, columns of the frames before the letterbox, None where nobody says
    original_images (T, H0, W0, 3) uint8, an array: the frames before it, None where nobody keeps them; with it comes
    restore(maps (T, H, W), original_size)  ->  (T, H0, W0), which undoes the letterbox
    """
    images: torch.Tensor
    masks: torch.Tensor | None = None
    original_masks: torch.Tensor | None = None
    given: torch.Tensor | None = None
    scored: torch.Tensor | None = None
    original_size: tuple | None = None
    original_images: object = None
    restore: object = None


@dataclass
class SupportSet(Pinned):
    """The reference of the few-shot task: K images with masks of the same category.

    images (K, 3, H, W) float32, RGB in [0, 1]; masks (K, H, W) bool
    key: what names this run of this video, for its random draws: (run, class id, video); facts: what the result line of
    each of its O = 1 objects says besides the numbers; folder: the names below which its masks and films are kept
    encoded: {name: tensor}, what the same model has computed of them before, see models/method.py
    swapped: SupportSet of another category to compare with (test.swap_supports), or None
    """
    images: torch.Tensor
    masks: torch.Tensor
    key: tuple = ()
    facts: list = field(default_factory=list)
    folder: tuple = ()
    encoded: dict = field(default_factory=dict)
    swapped: "SupportSet | None" = None


@dataclass
class FirstMasks:
    """The reference of the vos task: which objects are to be followed. Their masks come with the clips, Clip.given.

    object_ids: their O numbers, as palette PNGs have them; from_boxes: what is given is a filled box
    key, facts (one per object), folder: as those of a SupportSet
    """
    object_ids: list
    from_boxes: bool = False
    key: tuple = ()
    facts: list = field(default_factory=list)
    folder: tuple = ()


@dataclass
class ReferringSupport(Pinned):
    """The reference of the referring task: a clip of another video with masks of an object of the category.

    images (S, 3, H, W) float32, RGB in [0, 1], not padded; masks (S, H0, W0) bool, at the size of the source
    text: says what the masks show; query_text: what to segment in the video; both in small letters, with single spaces
    key, facts (one, O = 1), folder: as those of a SupportSet
    row: of Clip.masks, which there has a row for every object that a sentence of the video is about
    """
    images: torch.Tensor
    masks: torch.Tensor
    text: str
    query_text: str
    key: tuple = ()
    facts: list = field(default_factory=list)
    folder: tuple = ()
    row: int = 0


@dataclass(kw_only=True)
class Video:
    """A test video: what it is compared with, run after run, and its clips.

    The clips can be iterated over once: they are read on the way, and no more than a few exist at a time. The last one
    may be short. All references go through the video together.

    id: names it in logs and errors; frames: file names of all its frames; original_size: rows, columns before the
    letterbox; asked: those frames whose masks go into a submission, None: all
    """
    id: str
    frames: list
    asked: frozenset | None = None
    original_size: tuple
    references: list
    clips: Iterable[Clip] = ()

    def pin_memory(self):
        """As `Pinned`, for the references; images that several of them share stay one tensor."""
        images = {id(one.images): one.images for one in self.references if isinstance(one, Pinned)}
        pinned = {key: tensor.pin_memory() for key, tensor in images.items()}
        return replace(self, references=[replace(one, images=pinned[id(one.images)]) if isinstance(one, Pinned) else one
                                         for one in self.references])


@dataclass(kw_only=True)
class TrainEpisode:
    """A training sample of the few-shot task: supports, and the clips of the query video laid end to end.

    support_images (K, 3, H, W) float32, RGB in [0, 1]; support_masks (K, H, W) bool
    query_images (clips * clip_length, 3, H, W) float32, RGB in [0, 1]; query_masks (clips * clip_length, H, W) bool
    query_frames: positions of these frames in the video; key: the random draws of this sample follow from it
    id: names it in logs and errors; class_id: of the base class that it shows
    """
    support_images: torch.Tensor
    support_masks: torch.Tensor
    query_images: torch.Tensor
    query_masks: torch.Tensor
    query_frames: list
    clip_length: int
    class_id: int
    id: str
    key: tuple
    support_frames: list = field(default_factory=list)        # file names
    frames: list = field(default_factory=list)                # of the query, as query_frames
    supports_share_video: bool = False


@dataclass
class Batch:
    """B training episodes of distinct classes, stacked.

    support_images (B, K, 3, H, W), support_masks (B, K, H, W)
    query_images (B, clips * T, 3, H, W), query_masks (B, clips * T, H, W)
    query_frames: B lists of the positions that the query shows; keys: B keys for utils.seeds.rng_for
    """
    support_images: torch.Tensor
    support_masks: torch.Tensor
    query_images: torch.Tensor
    query_masks: torch.Tensor
    query_frames: list
    clip_length: int
    class_ids: list
    ids: list = field(default_factory=list)
    keys: list = field(default_factory=list)

    def to(self, device, non_blocking=True):
        """The same batch with its tensors on `device`."""
        return self._each(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self):
        """Called by the loader where batches are pinned; keeps copies to the GPU asynchronous."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change):
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(x) for name, x in tensors.items() if isinstance(x, torch.Tensor)})


@dataclass
class VosBatch:
    """B training samples of the vos task, stacked: one object each, in its first frame and in T test frames.

    images (B, 1 + T, 3, H, W) float32, RGB in [0, 1]; masks (B, 1 + T, H, W) bool
    ids: in words, for logs; keys: B keys for utils.seeds.rng_for
    """
    images: torch.Tensor
    masks: torch.Tensor
    ids: list = field(default_factory=list)
    keys: list = field(default_factory=list)

    def to(self, device, non_blocking=True):
        """The same batch with its tensors on `device`."""
        return replace(self, images=self.images.to(device, non_blocking=non_blocking),
                       masks=self.masks.to(device, non_blocking=non_blocking))

    def pin_memory(self):
        """As `Batch.pin_memory`."""
        return replace(self, images=self.images.pin_memory(), masks=self.masks.pin_memory())


@dataclass(kw_only=True)
class ReferringSample:
    """A training sample of the referring task; nothing is padded.

    query_images (T, 3, H, W), support_images (S, 3, Hs, Ws) float32, RGB in [0, 1]; query_masks (T, H, W),
    support_masks (S, Hs, Ws) bool
    query_boxes (T, 4) float32: first column, first row, last column, last row of the object in query_images
    query_valid (T,) bool: frames that show it; query_text, support_text: as those of a ReferringSupport
    """
    query_images: torch.Tensor
    query_masks: torch.Tensor
    query_boxes: torch.Tensor
    query_valid: torch.Tensor
    query_text: str
    support_images: torch.Tensor
    support_masks: torch.Tensor
    support_text: str
    id: str = ""
    key: tuple = ()

    def each(self, change):
        """The same sample, its tensors changed by a function of one."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(x) for name, x in values.items() if isinstance(x, torch.Tensor)})


@dataclass
class ReferringBatch:
    """Training samples of the referring task, each of its own size."""
    samples: list

    def __post_init__(self):
        """A batch out of a file has dicts."""
        self.samples = [ReferringSample(**one) if isinstance(one, dict) else one for one in self.samples]

    @property
    def ids(self):
        """In words, for logs."""
        return [one.id for one in self.samples]

    @property
    def keys(self):
        """For utils.seeds.rng_for."""
        return [one.key for one in self.samples]

    def to(self, device, non_blocking=True):
        """The same batch with its tensors on `device`."""
        return ReferringBatch([one.each(lambda x: x.to(device, non_blocking=non_blocking)) for one in self.samples])

    def pin_memory(self):
        """As `Batch.pin_memory`."""
        return ReferringBatch([one.each(torch.Tensor.pin_memory) for one in self.samples])


def collate(episodes):
    """list of B TrainEpisodes  ->  Batch"""
    stack = {name: torch.stack([getattr(e, name) for e in episodes])
             for name in ("support_images", "support_masks", "query_images", "query_masks")}
    return Batch(**stack, query_frames=[e.query_frames for e in episodes], clip_length=episodes[0].clip_length,
                 class_ids=[e.class_id for e in episodes], ids=[e.id for e in episodes],
                 keys=[e.key for e in episodes])
