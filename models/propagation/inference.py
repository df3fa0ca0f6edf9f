"""Inference of Table 3's competitors: the first frame by the model, every later one by the propagator."""
from dataclasses import dataclass
from functools import cache, partial

import torch

from models import vipmt
from models.propagation.plug import Propagator
from models.vipmt.inference import ClipSegmentation
from models.vipmt.model import ClipFeatures


@dataclass
class PreparedClip:
    """A clip as far as neither support nor mask matters. frames: one entry per frame, for the propagator;
    first: the first frame of the video for the model, None in later clips."""
    frames: object
    first: ClipFeatures | None


class VideoSegmenter(vipmt.VideoSegmenter):
    """Segments one query video, clip after clip, called as that of VIPMT.

    model: of models.propagation.build, in eval mode. How a video is cut into clips changes nothing.
    """

    def __init__(self, model, *supports, **settings):
        super().__init__(model, *supports, **settings)
        self.propagator, self.begun = Propagator(model.propagation_config, model), False

    @torch.inference_mode()
    def prepare(self, images):
        """images (T, 3, H, W)  ->  PreparedClip, for this segmenter and for others that are as far in the same video"""
        images = self.batch_of_one(images)
        features = cache(partial(self.model.encode, images))      # computed when first called
        with self.arithmetic():
            frames = self.propagator.encode(images[0], features)
            if self.begun:
                return PreparedClip(frames, None)
            return PreparedClip(frames, self.model.prepare(features().frames(slice(0, 1)), judge=False))

    @torch.inference_mode()
    def segment(self, clip, size, truth=None):
        """The next clip: PreparedClip of T frames, (H, W) of its images  ->  ClipSegmentation, without IoUs

        truth: not looked at, since there is no memory to be filled
        """
        frames, margins = clip.frames, []
        if not self.begun:
            with self.arithmetic():
                first = self.model(clip.first, self.support, size=size).margins[0].float()         # (1, H, W)
            self.propagator.begin(frames[0], first[0] > 0)
            frames, margins, self.begun = frames[1:], [first], True
        if len(frames):
            margins.append(self.propagator.propagate(frames).to(self.model.device).float())
        margins = torch.cat(margins)
        return ClipSegmentation(margins, None, torch.zeros(len(margins), dtype=torch.bool))
