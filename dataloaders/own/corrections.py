"""Correct and go on: a person mends the mask of a frame, and the video is segmented again from there.

In: segment.Segmenter, a video, what was found in it before, and {number of a frame: mask}. Out: what is found now.
Frames before the first new mask stay as they were, a corrected frame has exactly the mask that it was given, later ones
are segmented again. A method with a memory keeps corrected frames in it for good; one that follows masks starts anew
from them; for any other they become supports.
"""
import csv
from collections import deque
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from dataloaders.episode import Clip
from dataloaders.images import read_mask
from dataloaders.own.first_masks import FIRST, Given, given_masks, read_first_masks
from dataloaders.own.frame_prediction import FramePrediction
from dataloaders.own.video import as_frames
from utils.pictures.result_folder import COLUMNS, CORRECTED

CERTAIN = 30.0               # margin of what a person has drawn, and of what is read from a result's masks


def continued(segmenter, video, earlier, corrected):
    """A video once more  ->  FramePredictions of all its frames, one after the other

    video: the same as before, with the same frames left out; earlier: FramePredictions of it, in their order, or
    `read_result`; corrected: {number of a frame: (H, W), bool or numbers of objects or categories}, those of earlier
    corrections included. A frame whose mask is emptied teaches the method nothing: it only stays empty.
    ValueError: a mask of another size than its frame, or for a frame that is not among these
    """
    if segmenter.instances:
        raise ValueError("corrections are of categories, not of their objects: leave instances out")
    frames, wanted, start = iter(as_frames(video)), given_masks(corrected).masks, None
    known = Known(deque(maxlen=max(1, segmenter.cfg.get("memory", {}).get("length", 1))))
    for before, frame in zip(earlier, frames, strict=False):
        if before.index != frame.index:
            raise ValueError(f"the earlier result has frame {before.index} where the video has {frame.index}.\n  Name "
                             "the same video, and the same --every and --start")
        mask = wanted.get(frame.index)
        if mask is not None and not np.array_equal(mask, before.mask):
            start = frame
            break
        wanted.pop(frame.index, None)
        before = replace(before, frame=frame, mask=as_drawn(segmenter, frame, before.mask))
        known.add(frame, before.mask, before.remembered, mask is not None)
        yield before
    while start is not None:
        mask, stop = as_drawn(segmenter, start, wanted.pop(start.index)), []
        known.add(start, mask, False, True)
        yield FramePrediction(start.index, mask, np.where(mask > 0, CERTAIN, -CERTAIN).astype(np.float32),
                              {"remembered": True}, start, {CORRECTED: 1})
        for prediction in gone_on(segmenter, known, start, mask, upto(frames, wanted, stop), min(wanted, default=None)):
            known.add(prediction.frame, prediction.mask, prediction.remembered, False)
            yield prediction
        start = next(iter(stop), None)
    for number in wanted:
        raise ValueError(f"frame {number} has a corrected mask, but was not among the frames that were segmented.\n"
                         "  Frames are counted from 0; --every, --start and --end leave some out")


@dataclass(eq=False)
class Known:
    """What is known of a video before its next frame: pairs of an image (H, W, 3) uint8 and its mask (H, W).

    trusted: as segmented, the last T_m of those that memory took; corrected: by a person
    """
    trusted: deque
    corrected: list = field(default_factory=list)

    def add(self, frame, mask, remembered, by_hand):
        if remembered or by_hand:
            (self.corrected if by_hand else self.trusted).append((frame.image, mask))

    def told(self, start, reference, transform, number):
        """start(reference): a Segmenter of models/method.py  ->  one that knows this of category `number`, 0: of all"""
        pairs = [(image, mask == number if number else mask > 0) for image, mask in (*self.trusted, *self.corrected)]
        images, masks = transform(*map(list, zip(*pairs, strict=True)))
        fixed = torch.arange(len(pairs)) >= len(self.trusted)
        kept = masks.flatten(1).any(dim=1)                 # frames without the object, or with next to nothing of it
        segmenter, clip = start(reference), Clip(images[kept], given=masks[None, kept])
        if not fixed[kept].any() or hasattr(segmenter, "recall") and segmenter.recall(clip, fixed[kept]):
            return segmenter
        return start(with_supports(reference, images[kept & fixed], masks[kept & fixed]))


def with_supports(reference, images, masks):
    """SupportSet or ReferringSupport, images (M, 3, H, W), masks (M, H, W)  ->  with these, at the size of its own"""
    images = F.interpolate(images, reference.images.shape[-2:], mode="bilinear", antialias=True)
    masks = F.interpolate(masks[None].float(), reference.masks.shape[-2:])[0] > 0
    more = {"encoded": {}} if hasattr(reference, "encoded") else {}
    return replace(reference, images=torch.cat([reference.images, images]),
                   masks=torch.cat([reference.masks, masks]), **more)


def as_drawn(segmenter, frame, mask):
    """A mask (H, W) of this frame, of a file or a person  ->  bool where a single category is looked for"""
    if mask.shape != frame.image.shape[:2]:
        raise ValueError(f"the mask of frame {frame.index} has {mask.shape[0]} x {mask.shape[1]} pixels, the "
                         f"frame {frame.image.shape[0]} x {frame.image.shape[1]}.\n  Draw it at the size of the frame")
    return mask if segmenter.numbers else mask > 0


def gone_on(segmenter, known, start, mask, frames, end):
    """FramePredictions of the frames behind `start`, which has this mask; end: number of the next corrected one"""
    if not segmenter.follows:
        yield from segmenter.predictions(frames, known=known)
        return
    later = {k: m for k, m in segmenter.given.masks.items() if k is not FIRST and start.index < k < (end or k + 1)}
    follower = copy(segmenter)
    follower.follow(Given({FIRST: mask} | later, names={k: f"corrected frame {start.index}" for k in (FIRST, *later)}))
    predictions = follower.predictions(chain([start], frames))
    next(predictions)
    yield from predictions


def upto(frames, numbers, stop):
    """Frames before the next one of these numbers, which goes into the list `stop`"""
    for frame in frames:
        if frame.index in numbers:
            stop.append(frame)
            return
        yield frame


def read_result(folder):
    """What segment.py left in a folder  ->  its FramePredictions, one after the other, without images and margins"""
    table = Path(folder, "frames.csv")
    if not table.is_file():
        raise FileNotFoundError(f"--continue: {folder} has no frames.csv.\n  Name the --output of an earlier run")
    with open(table, newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ())[:len(COLUMNS)] != COLUMNS:
            raise ValueError(f"{table} was not written by segment.py.\n  Name the --output of an earlier segment.py")
        for row in rows:
            index, mask = int(row["frame"]), read_mask(table.parent / "masks" / f"{int(row['frame']):05d}.png")
            iou = {"pred_iou": float(row["predicted_iou"])} if row["predicted_iou"] else {}
            more = {name: float(value) for name, value in row.items() if name not in COLUMNS and value}
            yield FramePrediction(index, mask, np.where(mask > 0, CERTAIN, -CERTAIN).astype(np.float32),
                                  iou | {"remembered": row["remembered"] == "1"}, None, more)


def read_corrected(folder):
    """A result's masks by hand, corrected/00057.png  ->  {number of a frame: labels (H, W) uint8}"""
    own = Path(folder, CORRECTED)
    if not own.is_dir():
        raise FileNotFoundError(f"--continue: nothing was corrected in {folder}.\n  Put masks into {own}, named as the "
                                "frames are in masks/: 00057.png")
    return read_first_masks(own).masks
