"""A plug that follows the objects of a film, for models/instances.py: frames at their own size, one at a time."""
from functools import partial

import msgspec
import torch
from easydict import EasyDict

from models.propagation.config import Propagation
from models.propagation.propagator import Propagator, find_factory


def follower(named, cfg, model):
    """PLUG or PLUG=WEIGHTS, as propagation.plug and .weights; config and model that find the objects  ->  start(image,
    mask) for Instances; ValueError where the plug cannot be had"""
    plug, _, weights = named.partition("=")
    own = msgspec.to_builtins(Propagation(plug=plug, weights=weights or "none"))
    cfg = EasyDict({**cfg, "propagation": own})
    getattr(find_factory(plug), "check", lambda own: None)(cfg.propagation)
    return partial(Follower, cfg, model, Frames(model))


class Frames:
    """What plugs see of a frame, computed once for all objects."""

    def __init__(self, model):
        self.model, self.image, self.entries = model, None, None

    def __call__(self, image, propagator):
        """image (H, W, 3) uint8  ->  what Propagator.encode gives of it"""
        if image is not self.image:
            pixels = torch.tensor(image, device=self.model.device).permute(2, 0, 1)[None].float() / 255
            self.image, self.entries = image, propagator.encode(pixels, lambda: self.model.encode(pixels[None]))
        return self.entries


class Follower:
    """image (H, W, 3) uint8, mask (H, W) bool: where the object begins"""

    @torch.inference_mode()
    def __init__(self, cfg, model, frames, image, mask):
        self.frames, self.propagator = frames, Propagator(cfg, model)
        self.propagator.begin(frames(image, self.propagator)[0], torch.from_numpy(mask).to(model.device))

    @torch.inference_mode()
    def propagate(self, image):
        """The next frame (H, W, 3) uint8  ->  margin (H, W) float32"""
        return self.propagator.propagate(self.frames(image, self.propagator))[0].float().cpu().numpy()
