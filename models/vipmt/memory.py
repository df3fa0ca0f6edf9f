"""Memory (Section 4.3): which frames of a video may be read again, and what is kept of them.

Frames enter memory only if their predicted IoU passes the threshold; the support never enters it. What else could
choose them (memory.select), to compare with, is `select_frames`. In training `draw_memory` draws the frames, and their
true masks stand for the predictions (TrainStep.remember).
"""
import numpy as np
import torch
import torch.nn.functional as F

from models.vipmt.config import NEEDS_TRUTH
from models.vipmt.losses import mask_iou
from models.vipmt.reference_frames import join


def reliable_frames(iou, min_iou):
    """RMS: iou (T,), predicted  ->  (T,) bool, the frames good enough to remember"""
    return iou >= min_iou


def select_frames(select, masks, iou, min_iou, truth=None):
    """memory.select: which frames of a clip enter memory, and the masks they are remembered with.

    masks (T, H, W) bool and iou (T,), on the CPU: predicted; truth (T, H, W) bool, where `select` is in NEEDS_TRUTH
    ->  (T,) bool, on the CPU; (T, H, W) bool

    predicted     RMS: predicted IoU of min_iou or more
    random        every frame: a draw is T_m random earlier frames, no matter how well they were segmented
    none          no frame: every clip is segmented as the first one
    oracle        true IoU of min_iou or more, which is what a perfect IoUNet would choose; two empty masks have
                  IoU 0, as in its training
    ground_truth  every frame, with its true mask: no choice of frames and no IoUNet can know more
    """
    if select in NEEDS_TRUTH:
        given = None if truth is None else tuple(truth.shape)
        assert given == masks.shape, f"memory.select {select}: masks {tuple(masks.shape)}, truth {given}"
    if select == "predicted":
        return reliable_frames(iou, min_iou), masks
    if select == "oracle":
        return reliable_frames(mask_iou(masks[None], truth[None])[0].cpu(), min_iou), masks
    all_or_none = torch.full((len(masks),), select != "none")
    return all_or_none, truth if select == "ground_truth" else masks


def draw_memory(windows, length, mode, rng):
    """What each clip after the first remembers: positions in the query frames of all clips, laid end to end.

    windows: per clip the T frame numbers it shows; length M  ->  one tuple of M positions per later clip, () if M = 0

    Candidates are the frames of earlier clips, without replacement and sorted. With `distinct` a frame counts once,
    and not if the clip itself shows it: its ground truth would be in memory. `repeat` has no such rule, as released.
    Where fewer than M candidates exist they are repeated in turn, which keeps a batch rectangular.
    """
    if length == 0:
        return ()
    shown = [frame for window in windows for frame in window]
    memory, seen = [], len(windows[0])
    for window in windows[1:]:
        candidates = np.arange(seen)
        if mode == "distinct":
            candidates = np.array([i for i in candidates if shown[i] not in window and shown[i] not in shown[:i]])
        drawn = np.sort(rng.choice(candidates, min(length, len(candidates)), replace=False))
        memory.append(tuple(np.resize(drawn, length).tolist()))
        seen += len(window)
    return tuple(memory)


def noisy_masks(masks, reach=8):
    """Option of ours (`train.memory_masks: noisy`): every frame grown or shrunk and moved by up to `reach` pixels.

    masks (B, T, H, W) bool  ->  the same shape; draws from torch's global generator
    """
    noisy = torch.empty_like(masks)
    for b, t in torch.cartesian_prod(*map(torch.arange, masks.shape[:2])).tolist():
        grow, *shift = torch.randint(-reach, reach + 1, (3,)).tolist()
        frame = masks[b, t][None].float() * (1 if grow >= 0 else -1)
        frame = F.max_pool2d(frame, 2 * abs(grow) + 1, stride=1, padding=abs(grow))
        room = F.pad(frame.abs()[0] > 0, [reach] * 4)      # what is moved out does not re-enter on the other side
        top, left = (reach - n for n in shift)
        noisy[b, t] = room[top:top + masks.shape[2], left:left + masks.shape[3]]
    return noisy


class MemoryBank:
    """The reliable frames of one video so far, each with what the iterations read of it.

    A bank of at most `keep` frames: those of a longer video are a uniform sample of all reliable ones (reservoir
    sampling), so that every draw is T_m random reliable frames, as Section 4.3 has it, in constant memory. Up to `keep`
    reliable frames nothing is left out. Frames whose masks a person has corrected (`fixed`) stay, and every draw has
    them, the last T_m of them.
    """

    def __init__(self, length, keep, rng):
        self.length, self.keep, self.rng = length, max(keep, length), rng      # T_m, frames, numpy Generator
        self.frames = []           # ReferenceFrames of one frame each, in their order
        self.fixed = []            # the same, of corrected frames
        self.seen = 0              # reliable frames so far
        self.count = 0             # frames of the video so far
        self.numbers, self.drawn = [], []      # of the frames in the bank, and of those drawn last, in the video

    def __len__(self):
        return len(self.frames)

    def remember(self, reliable, encode):
        """reliable (T,) bool, of a clip; encode(positions): ReferenceFrames, computed only for those kept"""
        old, new, numbers = list(self.frames), [], list(self.numbers)
        for t in reliable.nonzero().flatten().tolist():
            self.seen += 1
            if len(old) + len(new) == self.keep:
                slot = int(self.rng.integers(self.seen))
                if slot >= self.keep:
                    continue
                if slot < len(old):
                    del old[slot], numbers[slot]
                else:
                    del new[slot - len(old)]
            new.append(t)
        self.frames = old + (encode(new).split() if new else [])
        self.numbers = numbers + [self.count + t for t in new]
        self.count += len(reliable)

    def draw(self):
        """T_m random frames in their order, all if there are no more  ->  ReferenceFrames, None if there are none"""
        self.drawn, fixed = [], self.fixed[-self.length:]
        if not (self.frames or fixed) or not self.length:
            return None
        chosen, room = range(len(self.frames)), self.length - len(fixed)
        if len(self.frames) > room:
            chosen = sorted(self.rng.choice(len(self.frames), room, replace=False).tolist())
        self.drawn = [self.numbers[i] for i in chosen]
        return join(fixed + [self.frames[i] for i in chosen], dim=1)
