"""Memory (Section 4.3): which frames of a video may be read again, and what is kept of them.

Frames enter memory only if their predicted IoU passes the threshold; the support never enters it. In training the
sampler draws the frames and their true masks stand for the predictions (TrainStep.remember).
"""
import torch
import torch.nn.functional as F

from models.vipmt.prototype_activation import join


def reliable_frames(iou, min_iou):
    """RMS: iou (T,), predicted  ->  (T,) bool, the frames good enough to remember"""
    return iou >= min_iou


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
    reliable frames nothing is left out.
    """

    def __init__(self, length, keep, rng):
        self.length, self.keep, self.rng = length, max(keep, length), rng      # T_m, frames, numpy Generator
        self.frames = []           # Guidance of one frame each, in their order
        self.seen = 0              # reliable frames so far

    def __len__(self):
        return len(self.frames)

    def remember(self, reliable, guide):
        """reliable (T,) bool, of a clip; guide(positions): Guidance of these frames, computed only for those kept"""
        old, new = list(self.frames), []
        for t in reliable.nonzero().flatten().tolist():
            self.seen += 1
            if len(old) + len(new) == self.keep:
                slot = int(self.rng.integers(self.seen))
                if slot >= self.keep:
                    continue
                if slot < len(old):
                    del old[slot]
                else:
                    del new[slot - len(old)]
            new.append(t)
        self.frames = old + (guide(new).split() if new else [])

    def draw(self):
        """T_m random frames in their order, all if there are no more  ->  Guidance, None if there are none"""
        if not self.frames or not self.length:
            return None
        chosen = range(len(self.frames))
        if len(self.frames) > self.length:
            chosen = sorted(self.rng.choice(len(self.frames), self.length, replace=False).tolist())
        return join([self.frames[i] for i in chosen], dim=1)
