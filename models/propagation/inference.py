"""Inference of Table 3's competitors: the model segments until a mask is large enough, then the propagator goes on."""
from dataclasses import dataclass
from functools import cache, partial

import torch

from models import vipmt
from models.method import Prediction
from models.propagation.propagator import Propagator


@dataclass
class PreparedClip:
    """A clip as far as neither support nor mask matters. frames: one entry per frame, for the propagator;
    of_model(t): frame t for the model, ClipFeatures, computed when first asked for."""
    frames: object
    of_model: object


class Segmenter(vipmt.Segmenter):
    """Segments one query video, clip after clip, called as that of VIPMT.

    model: of models.propagation.build, in eval mode. How a video is cut into clips changes nothing.
    """

    def __init__(self, model, reference, cfg, **settings):
        super().__init__(model, reference, cfg, **settings)
        self.propagator, self.begun, self.min_pixels = Propagator(cfg, model), False, cfg.propagation.min_pixels

    @torch.inference_mode()
    def prepare(self, clip):
        """Clip  ->  PreparedClip, for this segmenter and for others of the same video"""
        images = self.batch_of_one(clip.images)
        features = cache(partial(self.model.encode, images))      # computed when first called
        seen = images[0]
        if self.at_own_size(clip):
            seen = torch.from_numpy(clip.original_images).to(seen.device).permute(0, 3, 1, 2).to(seen.dtype) / 255
        with self.arithmetic():
            return PreparedClip(self.propagator.encode(seen, features), cache(
                lambda t: self.model.prepare(features().frames(slice(t, t + 1)), with_iou=False)))

    @torch.inference_mode()
    def recall(self, clip, fixed):
        """The last frame that a person has corrected (Clip.given) is the one that the propagator begins with."""
        last = int(fixed.nonzero().max())
        with self.arithmetic():
            self.propagator.begin(self.prepare(clip).frames[last], clip.given[0, last].to(self.model.device))
        self.begun = True
        return True

    @torch.inference_mode()
    def __call__(self, prepared, clip):
        """The next clip: PreparedClip of T frames, and the Clip it is of  ->  Prediction, without IoUs

        margins: at the video's own size where the plug gets its frames so
        per_frame: waiting (T,): frames of the model's own masks, none of which was large enough to begin with
        """
        frames, size, margins = prepared.frames, clip.images.shape[-2:], []
        while not self.begun and len(margins) < len(frames):
            with self.arithmetic():
                found = self.model(prepared.of_model(len(margins)), self.support, size=size).margins[0].float()
            self.begun = pixels_of(found > 0, clip) >= self.min_pixels
            if self.at_own_size(clip):
                found = clip.restore(found, clip.original_size)
            if self.begun:
                self.propagator.begin(frames[len(margins)], found[0] > 0)
            margins.append(found)
        waiting = torch.arange(len(frames)) < len(margins) - self.begun
        if len(margins) < len(frames):
            margins.append(self.propagator.propagate(frames[len(margins):]).to(self.model.device).float())
        return Prediction(torch.cat(margins)[None], {"waiting": waiting})

    def at_own_size(self, clip):
        return self.propagator.own_size and clip.original_images is not None


def pixels_of(mask, clip):
    """A mask at input size  ->  how many pixels it has at the video's own, where the clip says that"""
    given = clip.images.shape[-2:]
    shrunk = min(n / own for n, own in zip(given, clip.original_size or given, strict=True))
    return mask.sum().item() / shrunk ** 2
