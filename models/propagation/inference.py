"""Inference of Table 3's competitors: the first frame by the model, every later one by the propagator."""
from dataclasses import dataclass
from functools import cache, partial

import torch

from models import vipmt
from models.method import Prediction
from models.propagation.propagator import Propagator
from models.vipmt.model import ClipFeatures


@dataclass
class PreparedClip:
    """A clip as far as neither support nor mask matters. frames: one entry per frame, for the propagator;
    first: the first frame of the video for the model, None in later clips."""
    frames: object
    first: ClipFeatures | None


class Segmenter(vipmt.Segmenter):
    """Segments one query video, clip after clip, called as that of VIPMT.

    model: of models.propagation.build, in eval mode. How a video is cut into clips changes nothing.
    """

    def __init__(self, model, reference, cfg, **settings):
        super().__init__(model, reference, cfg, **settings)
        self.propagator, self.begun = Propagator(cfg, model), False

    @torch.inference_mode()
    def prepare(self, clip):
        """Clip  ->  PreparedClip, for this segmenter and for others that are as far in the same video"""
        images = self.batch_of_one(clip.images)
        features = cache(partial(self.model.encode, images))      # computed when first called
        with self.arithmetic():
            frames = self.propagator.encode(images[0], features)
            if self.begun:
                return PreparedClip(frames, None)
            return PreparedClip(frames, self.model.prepare(features().frames(slice(0, 1)), with_iou=False))

    @torch.inference_mode()
    def __call__(self, prepared, clip):
        """The next clip: PreparedClip of T frames, and the Clip it is of  ->  Prediction, without IoUs"""
        frames, margins = prepared.frames, []
        if not self.begun:
            with self.arithmetic():
                size = clip.images.shape[-2:]
                first = self.model(prepared.first, self.support, size=size).margins[0].float()         # (1, H, W)
            self.propagator.begin(frames[0], first[0] > 0)
            frames, margins, self.begun = frames[1:], [first], True
        if len(frames):
            margins.append(self.propagator.propagate(frames).to(self.model.device).float())
        return Prediction(torch.cat(margins)[None])
