"""Inference (Section 4.3): a video clip by clip; segment, judge, remember, go on."""
from dataclasses import dataclass

import torch

from models.vipmt.memory import NEEDS_TRUTH, MemoryBank, select_frames


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
    """Segments one query video, clip after clip.

    The query's own masks are looked at where memory.select asks for the truth, oracle or ground_truth, and only to fill
    the memory; otherwise they do not even get here (`shared`).

    model: VIPMT in eval mode; support_images (K, 3, H, W), support_masks (K, H, W) bool; memory: the config's section
    (length, select, min_iou, keep); rng: numpy Generator of the memory draws; amp: dtype of autocast, None computes as
    it is
    """

    def __init__(self, model, support_images, support_masks, *, memory, rng, amp=None):
        self.model, self.select, self.min_iou, self.amp = model, memory.select, memory.min_iou, amp
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

    def __call__(self, images, truth=None):
        """The next clip: images (T, 3, H, W)  ->  ClipSegmentation; see segment"""
        return self.segment(self.prepare(images), images.shape[-2:], truth)

    def shared(self, clip):
        """The next clip of a test: a Clip, whose features the first of several runs leaves to the others."""
        if clip.features is None:
            clip.features = self.prepare(clip.images)
        truth = clip.masks if self.select in NEEDS_TRUTH else None
        return self.segment(clip.features, clip.images.shape[-2:], truth)

    @torch.inference_mode()
    def segment(self, clip, size, truth=None):
        """The next clip: ClipFeatures of T frames, (H, W) of its images  ->  ClipSegmentation

        truth (T, H, W) bool, at the size of the images: for memory.select oracle and ground_truth, and for no other
        """
        assert (truth is not None) == (self.select in NEEDS_TRUTH), \
            f"memory.select {self.select}, truth {None if truth is None else tuple(truth.shape)}"
        with self.arithmetic():
            memory = self.bank.draw()
            out = self.model(clip, self.support, memory, size=size)
            iou, remembered = None, torch.zeros(out.margins.shape[1], dtype=torch.bool)
            if self.model.iou_net is not None:
                iou = self.model.predict_iou(out, clip, self.support, memory)[0].float().cpu()
                remembered = self.remember(clip, out.masks[0], iou, truth)
        return ClipSegmentation(out.margins[0].float(), iou, remembered)

    def remember(self, clip, masks, iou, truth):
        """The frames that memory.select chooses enter memory  ->  which they are, (T,) bool"""
        truth = None if truth is None else truth.to(masks.device, non_blocking=True)
        chosen, known = select_frames(self.select, masks, iou, self.min_iou, truth)
        features = self.model.memory_features(clip.levels)
        self.bank.remember(chosen, lambda t: self.model.guide_memory(features.frames(t), known[None, t]))
        return chosen
