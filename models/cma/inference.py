"""Inference: support and sentences are read once per video, then window after window; nothing is remembered."""
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from models.cma.model import Frames
from models.method import Prediction

KEPT = 8                 # sentences whose reading of a window stays for further supports, 50 MB each at full size


@dataclass
class Prepared:
    """A window's Frames, and {sentence: what it reads of them}, the latest"""
    frames: Frames
    asked: dict = field(default_factory=dict)


class Segmenter:
    """Segments one video with one support clip and two sentences. Nothing is padded.

    model: CMA in eval mode; reference: ReferringSupport; cfg and rng are not needed
    """

    def __init__(self, model, reference, cfg, *, rng=None, amp=None):
        self.model, self.amp, self.text, self.known = model, amp, reference.query_text, {}
        used = model.affinity.chosen(len(reference.images))
        with torch.inference_mode(), self.arithmetic():
            support = model.encode(reference.images[used].to(model.device, non_blocking=True))
            self.levels = model.fuse(support.levels, model.words(reference.text), support=True)
            self.masks = reference.masks[used].to(self.levels[0])
            self.words = model.words(self.text)

    def arithmetic(self):
        return torch.autocast(self.model.device.type, dtype=self.amp, enabled=self.amp is not None)

    def support_at(self, sizes):
        """The support as videos with levels of these sizes read it: computed for their first window"""
        if sizes not in self.known:
            self.known = {sizes: self.model.read_support(self.levels, self.masks, sizes)}
        return self.known[sizes]

    @torch.inference_mode()
    def prepare(self, clip):
        """Clip  ->  Prepared, for all references and sentences"""
        with self.arithmetic():
            frames = self.model.encode(clip.images.to(self.model.device, non_blocking=True))
            frames.fine = self.model.read_fine(frames)
        return Prepared(frames)

    @torch.inference_mode()
    def __call__(self, prepared, clip):
        """The next window  ->  Prediction; one query speaks for all of its frames"""
        frames = prepared.frames
        with self.arithmetic():
            if self.text not in prepared.asked:
                while len(prepared.asked) >= KEPT:
                    prepared.asked.pop(next(iter(prepared.asked)))
                prepared.asked[self.text] = self.model.ask(frames, self.words)
            support = self.support_at(tuple(tuple(level.shape[-2:]) for level in frames.levels))
            chosen, masks, scores = self.model.best(frames, support, self.words, prepared.asked[self.text])
        masks = masks if masks.dtype == torch.float64 else masks.float()
        margins = F.interpolate(masks[None], clip.images.shape[-2:], mode="bilinear")
        said = {"query_index": chosen.expand(len(scores)), "score": scores[:, chosen[None]][:, 0].float()}
        return Prediction(margins, said)
