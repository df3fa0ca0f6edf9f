"""Inference (Section 4.3): a video clip by clip; segment, predict the IoU, remember, go on."""
from dataclasses import fields

import torch

from models.method import Prediction
from models.vipmt.config import NEEDS_TRUTH
from models.vipmt.memory import MemoryBank, select_frames
from models.vipmt.reference_frames import ReferenceFrames, at_feature_size


class Segmenter:
    """Segments one query video, clip after clip.

    The query's own masks are looked at where memory.select asks for the truth, oracle or ground_truth, and only to fill
    the memory.

    model: VIPMT in eval mode; reference: SupportSet; cfg: its section memory is read (length, select, min_iou, keep);
    rng: numpy Generator of the memory draws; amp: dtype of autocast, None computes as it is
    """

    def __init__(self, model, reference, cfg, *, rng, amp=None):
        memory = cfg.memory
        self.model, self.select, self.min_iou, self.amp = model, memory.select, memory.min_iou, amp
        self.bank = MemoryBank(memory.length, memory.keep, rng)
        known = {name: x.to(model.device) for name, x in getattr(reference, "encoded", {}).items()}
        self.support = (from_encoded(known, reference.masks) if known else
                        self.encode_reference(reference.images, reference.masks))

    def arithmetic(self):
        return torch.autocast(self.model.device.type, dtype=self.amp, enabled=self.amp is not None)

    @torch.inference_mode()
    def encode_reference(self, images, masks):
        """The supports, encoded once per video."""
        with self.arithmetic():
            return self.model.encode_reference(self.model.encode(self.batch_of_one(images)), self.batch_of_one(masks))

    def encoded(self):
        """What SupportSet.encoded may bring to another Segmenter of this model: {name: tensor}"""
        return {name: x.cpu() for name, x in vars(self.support).items() if x is not None}

    def batch_of_one(self, x):
        return x[None].to(self.model.device, non_blocking=True)

    @torch.inference_mode()
    def prepare(self, clip):
        """Clip  ->  ClipFeatures, which any Segmenter of this model may segment (other runs)"""
        with self.arithmetic():
            return self.model.prepare(self.model.encode(self.batch_of_one(clip.images)))

    @torch.inference_mode()
    def __call__(self, features, clip):
        """The next clip: ClipFeatures of T frames, and the Clip they are of  ->  Prediction

        per_frame: pred_iou (T,), of IoUNet, where there is one; remembered (T,): frames that later clips may read
        """
        truth = clip.masks[0] if self.select in NEEDS_TRUTH and clip.masks is not None else None
        with self.arithmetic():
            memory = self.bank.draw()
            out = self.model(features, self.support, memory, size=clip.images.shape[-2:])
            values = {"remembered": torch.zeros(out.margins.shape[1], dtype=torch.bool)}
            if self.model.iou_net is not None:
                iou = self.model.predict_iou(out, features, self.support, memory)[0].float().cpu()
                values = {"pred_iou": iou, "remembered": self.remember(features, out.masks[0], iou, truth)}
        return Prediction(out.margins.float(), values)

    def remember(self, features, masks, iou, truth):
        """The frames that memory.select chooses enter memory  ->  which they are, (T,) bool"""
        truth = None if truth is None else truth.to(masks.device, non_blocking=True)
        chosen, known = select_frames(self.select, masks, iou, self.min_iou, truth)
        self.bank.remember(chosen, self.encode_memory(features, known))
        return chosen

    def encode_memory(self, features, masks):
        """ClipFeatures of T frames, masks (T, H, W)  ->  function of positions in it: their ReferenceFrames"""
        kept = self.model.memory_features(features.levels)
        return lambda t: self.model.encode_memory(kept.frames(t), masks[None, t], features.pooled[:, t])

    @torch.inference_mode()
    def recall(self, clip, fixed):
        """Frames seen before the next clip enter memory with the masks that they have (Clip.given)

        fixed (T,) bool: those that stay, since a person has corrected them  ->  whether there is a memory at all
        """
        if not self.bank.length or self.model.iou_net is None or self.select == "none":
            return False
        with self.arithmetic():
            encode = self.encode_memory(self.prepare(clip), clip.given[0].to(self.model.device))
            self.bank.remember(~fixed, encode)
            self.bank.fixed += encode(fixed.nonzero().flatten().tolist()).split() if fixed.any() else []
        return True


def from_encoded(known, masks):
    """What `encoded` gave for supports with these masks (K, H, W)  ->  ReferenceFrames

    ValueError: not of these supports
    """
    found = ReferenceFrames(**{f.name: known.get(f.name) for f in fields(ReferenceFrames)})
    features, own = known.get("features", masks), at_feature_size(masks)[None]
    if {"masks", "attention_masks", "prototypes"} - known.keys() or not torch.equal(found.masks.cpu(), own.cpu()) or (
            features.shape[:2] + features.shape[3:] != own.shape):
        raise ValueError("supports: the features that came with them are not theirs; save the file again")
    return found
