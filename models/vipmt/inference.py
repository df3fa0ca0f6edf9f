"""Inference (Section 4.3): a video clip by clip; segment, judge, remember, go on."""
from dataclasses import dataclass

import torch

from models.vipmt.memory import MemoryBank, reliable_frames


@dataclass
class ClipSegmentation:
    """margins (T, H, W): object minus background logit, on the model's device; ious (T,): predicted, on the CPU, None
    without IoUNet; remembered (T,) bool, on the CPU: frames that may be read by later clips."""
    margins: torch.Tensor
    ious: torch.Tensor | None
    remembered: torch.Tensor

    @property
    def masks(self):
        """(T, H, W) bool; a tie is background"""
        return self.margins > 0


class VideoSegmenter:
    """Segments one query video, clip after clip; the query's own masks are never looked at.

    model: VIPMT in eval mode; support_images (K, 3, H, W), support_masks (K, H, W) bool; memory: the config's section
    (length, min_iou, keep); rng: numpy Generator of the memory draws; amp: dtype of autocast, None computes as it is
    """

    def __init__(self, model, support_images, support_masks, *, memory, rng, amp=None):
        self.model, self.min_iou, self.amp = model, memory.min_iou, amp
        self.bank = MemoryBank(memory.length, memory.keep, rng)
        self.support = self.guide(support_images, support_masks)

    def arithmetic(self):
        return torch.autocast(self.model.device.type, dtype=self.amp, enabled=self.amp is not None)

    @torch.inference_mode()
    def guide(self, images, masks):
        """The supports, encoded once per episode."""
        with self.arithmetic():
            return self.model.guide(self.model.encode(self.batch_of_one(images)), self.batch_of_one(masks))

    def batch_of_one(self, x):
        return x[None].to(self.model.device, non_blocking=True)

    @torch.inference_mode()
    def prepare(self, images):
        """images (T, 3, H, W)  ->  ClipFeatures, which any VideoSegmenter of this model may segment (other runs)"""
        with self.arithmetic():
            return self.model.prepare(self.model.encode(self.batch_of_one(images)))

    def __call__(self, images, memory_masks=None):
        """The next clip: images (T, 3, H, W)  ->  ClipSegmentation; see segment"""
        return self.segment(self.prepare(images), images.shape[-2:], memory_masks)

    def shared(self, clip):
        """The next clip of a test: a Clip, whose features the first of several runs leaves to the others."""
        if clip.features is None:
            clip.features = self.prepare(clip.images)
        return self.segment(clip.features, clip.images.shape[-2:])

    @torch.inference_mode()
    def segment(self, clip, size, memory_masks=None):
        """The next clip: ClipFeatures of T frames, (H, W) of its images  ->  ClipSegmentation

        memory_masks (T, H, W) bool: memory keeps every frame of the clip with these masks instead of the predicted
        ones (the release's validation, and an upper bound)
        """
        with self.arithmetic():
            memory = self.bank.draw()
            out = self.model(clip, self.support, memory, size=size)
            iou, reliable = None, torch.zeros(out.margins.shape[1], dtype=torch.bool)
            if self.model.iou_net is not None:
                iou = self.model.predict_iou(out, clip, self.support, memory)[0].float().cpu()
                reliable = self.remember(clip, out.masks, iou, memory_masks)
        return ClipSegmentation(out.margins[0].float(), iou, reliable)

    def remember(self, clip, masks, iou, memory_masks):
        """RMS: reliable frames enter memory  ->  which they are, (T,) bool"""
        reliable = reliable_frames(iou, self.min_iou)
        if memory_masks is not None:
            masks, reliable = self.batch_of_one(memory_masks), torch.ones_like(reliable)
        features = self.model.memory_features(clip.levels)
        self.bank.remember(reliable, lambda t: self.model.guide_memory(features.frames(t), masks[:, t]))
        return reliable
