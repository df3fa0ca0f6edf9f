"""Inference: supports read once per video, then clip after clip; nothing is remembered from one to the next."""
import torch

from models.dan.online import stage_for, with_stage
from models.method import Prediction


class Segmenter:
    """Segments one query video with one set of supports; with cfg.online.learning by an encoder adapted to these.

    model: DAN in eval mode; reference: SupportSet; cfg: its section online, and test.runs, are read; rng: not needed
    """

    def __init__(self, model, reference, cfg, *, rng, amp=None):
        self.model, self.amp, self.stage = model, amp, None
        masks = self.batch_of_one(reference.masks)
        with torch.no_grad():
            with self.arithmetic(amp is not None and not cfg.online.learning):       # it learns in full precision
                support = model.encode(self.batch_of_one(reference.images))
            if cfg.online.learning:
                with torch.enable_grad():
                    self.stage = stage_for(model, support, masks, cfg.online, cfg.test.runs)
                support = with_stage(support, self.stage)
            with self.arithmetic(amp is not None):
                self.supports = model.read_supports(support, masks)

    def arithmetic(self, mixed):
        return torch.autocast(self.model.device.type, dtype=self.amp, enabled=mixed)

    def batch_of_one(self, x):
        return x[None].to(self.model.device, non_blocking=True)

    @torch.no_grad()
    def prepare(self, clip):
        """Clip  ->  Features, for any Segmenter of this model"""
        with self.arithmetic(self.amp is not None):
            return self.model.encode(self.batch_of_one(clip.images))

    @torch.no_grad()
    def __call__(self, features, clip):
        """The next clip  ->  Prediction"""
        with self.arithmetic(self.amp is not None):
            if self.stage is not None:
                features = with_stage(features, self.stage)
            return Prediction(self.model(features, self.supports, clip.images.shape[-2:]).float())
