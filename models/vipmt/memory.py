"""Memory (Section 4.3): encoded frames with their masks, and which of them may be read.

Frames enter memory only if their IoU passes the threshold; the support never enters it, and nothing leaves.
Training and testing fill the same bank: training with true masks, a test with predictions.
"""
import torch
import torch.nn.functional as F

from models.backbone import Features


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
    """The reliable frames of one video so far: c3, c4 (and the high level where it is read again) and masks."""

    def __init__(self, length):
        self.length = length       # T_m
        self.frames = []           # one (Features of (1, 1, ...), mask (1, 1, H, W)) per remembered frame

    def __len__(self):
        return len(self.frames)

    def remember(self, features, masks, reliable):
        """features: Features of a clip (1, T, ...); masks (1, T, H, W) bool; reliable (T,) bool"""
        for t in reliable.nonzero().flatten().tolist():
            frame = features.frames(slice(t, t + 1)).map(torch.Tensor.clone)
            self.frames.append((frame, masks[:, t:t + 1].clone()))

    def draw(self, rng):
        """T_m random frames in their order, all if there are no more: (Features, masks (1, M, H, W)), None if empty

        rng: numpy Generator
        """
        if not self.frames or not self.length:
            return None
        chosen = range(len(self.frames))
        if len(self.frames) > self.length:
            chosen = sorted(rng.choice(len(self.frames), self.length, replace=False).tolist())
        features, masks = zip(*(self.frames[i] for i in chosen), strict=True)
        levels = zip(*(f.levels() for f in features), strict=True)
        return Features(*(None if x[0] is None else torch.cat(x, dim=1) for x in levels)), torch.cat(masks, dim=1)
