"""What a person wants segmented, as a method of each task takes it: supports, masks to follow, supports with sentences.

In: supports, masks, boxes and sentences as people have them, frames of a video. Out: references and clips.
"""
import numpy as np
import torch

from dataloaders.datasets.refytvos import normalised
from dataloaders.episode import Clip, FirstMasks, ReferringSupport, SupportSet
from dataloaders.own.first_masks import HOW, given_boxes, given_masks, read_first_masks
from dataloaders.own.supports import Supports, as_seen, read_categories
from dataloaders.own.video import clips_of
from dataloaders.referring.transforms import ClipTransform
from dataloaders.transforms import TestTransform, undo_letterbox
from utils.logger import get_logger


class Wanted:
    """cfg: of the method, whose task is fewshot, vos or referring.

    made_by: what names this very model in files of supports, None: its features are not known from there
    """
    made_by = None

    def __init__(self, cfg, task):
        self.cfg, self.follows, self.reads = cfg, task == "vos", task == "referring"
        self.given, self.supports, self.texts = None, {}, None
        self.transform = (None if self.follows else ClipTransform(cfg.data.test_size) if self.reads else
                          TestTransform(cfg.data.size, cfg.data.mask_resize))

    def set_masks(self, masks):
        """Which objects to follow, from now on: {number of a frame: (H, W) with the objects' numbers, 0 is background}

        Frames are counted from 0; most often there is one, 0. A bool mask is object 1.
        """
        self.follow(given_masks(masks))

    def set_boxes(self, boxes):
        """The same from boxes (x, y, w, h) in the first frame, in pixels: the objects 1, 2, ..."""
        self.follow(given_boxes(boxes))

    def follow(self, given):
        """given: dataloaders.own.first_masks.Given"""
        if not self.follows:
            self.refuse("looks for what supports show, and follows no masks.\n  Give it supports (--support, "
                        "set_support), or take another checkpoint")
        given.check()
        self.given = given

    def set_support(self, images, masks, names=None):
        """What to look for, from now on: K images and their masks, whose sizes may differ from pair to pair.

        images: (H, W, 3) uint8 RGB, (3, H, W) as well where they are tensors, or float in [0, 1]; PIL's will do
        masks: (H, W), bool or numbers, of which all but 0 are object; names: of the images, for messages
        """
        self.set_supports({"object": Supports(images, masks, names or [f"support {k}" for k in range(len(images))])})

    def set_supports(self, categories):
        """Several categories at once, {name: dataloaders.own.supports.Supports}: masks have their numbers 1, 2, ...

        What a file of supports brings of this very model's features is not computed again.
        """
        if self.follows:
            self.refuse(f"follows masks, not supports.\n  {HOW}")
        if self.reads and len(categories) > 1:
            self.refuse("looks for one object; name one --support")
        self.supports = {name: self.as_seen(supports) for name, supports in categories.items()}

    def as_seen(self, supports):
        """Supports as people have them  ->  SupportSet, as the network sees them"""
        images, masks = as_seen(supports, self.transform)
        usual = self.cfg.data.support_frames if self.reads else self.cfg.data.shots
        if len(images) != usual:
            get_logger().info("%d supports; the model was trained with %d", len(images), usual)
        own = supports.encoded if supports.made_by and supports.made_by == self.made_by else None
        return SupportSet(images, masks, encoded={k: torch.from_numpy(x) for k, x in (own or {}).items()})

    def set_texts(self, text, support_text):
        """What to segment in the video, and what the supports show: a sentence each, from now on"""
        if not self.reads:
            self.refuse("reads no sentences.\n  Leave --text and --support-text out, or take another checkpoint")
        texts = normalised(text or ""), normalised(support_text or "")
        if not all(texts):
            self.refuse("reads two sentences.\n  Say what to segment in the video (--text) and what the supports show "
                        "(--support-text, or sentence.txt beside them)")
        self.texts = texts

    def refuse(self, what):
        raise ValueError(f"model.method {self.cfg.model.method} {what}")

    @property
    def categories(self):
        """Names of several categories, in the order of their numbers 1, 2, ...; [] of one"""
        return [*self.supports] if len(self.supports) > 1 else []

    @property
    def numbers(self):
        """Of objects or categories in the masks; [] of a single category"""
        return self.given.object_ids if self.follows else list(range(1, len(self.categories) + 1))

    def references(self):
        """->  those of dataloaders.episode: one per category; ValueError where nothing was set"""
        if not self.supports and self.given is None:
            raise ValueError("Segmenter: what shall be segmented?\n  Call "
                             f"{'set_masks(masks)' if self.follows else 'set_support(images, masks)'} first")
        if self.follows:
            return [FirstMasks(self.given.object_ids, from_boxes=bool(self.given.boxes))]
        if not self.reads:
            return [*self.supports.values()]
        if self.texts is None:
            self.set_texts(None, None)                   # says what is missing
        return [ReferringSupport(one.images, one.masks, *self.texts[::-1]) for one in self.supports.values()]

    def clips(self, frames):
        """Frames, one after the other  ->  pairs (Frames, Clip), read when they are due"""
        clips = clips_of(frames, self.cfg.test.window if self.reads else self.cfg.data.clip_length)     # 0: one clip
        if not self.follows:
            return ((clip, self._as_clip(clip)) for clip in clips)
        self.given.check(len(frames.files) if hasattr(frames, "files") else None)      # of films nobody is sure
        return self.given.clips(clips)

    def _as_clip(self, frames):
        images, _ = self.transform([f.image for f in frames], [np.zeros(f.image.shape[:2], bool) for f in frames])
        sizes = {f.image.shape for f in frames}
        own = np.stack([f.image for f in frames]) if len(sizes) == 1 else None
        return Clip(images, original_size=frames[0].image.shape[:2], original_images=own, restore=undo_letterbox)

    def restore(self, margins, size):
        """Margins (O, H, W) of one frame  ->  at its own size, which some have already"""
        if not self.reads and tuple(margins.shape[-2:]) == tuple(size):
            return margins
        return (self.transform.restore if self.reads else undo_letterbox)(margins, size)


def set_reference(segmenter, args):
    """A segmenter is told what the command line gives to look for or to follow  ->  its names, for the summary"""
    if args.support:
        categories = read_categories(args.support, args.shots, args.object, args.category)
        first = next(iter(categories.values()))
        segmenter.set_supports(categories)
        if segmenter.reads or args.text or args.support_text:
            segmenter.set_texts(args.text, args.support_text or first.text)
        if args.save_support:
            if len(categories) > 1:
                raise ValueError("--save-support: one file holds one category; save each with a command of its own")
            segmenter.save_support(args.save_support, first)
        return [name for supports in categories.values() for name in supports.names]
    given = read_first_masks(args.init_mask) if args.init_mask else given_boxes(args.init_box)
    segmenter.follow(given)
    return args.init_box or [str(name) for name in given.names.values()]
