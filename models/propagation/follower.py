"""A plug that follows one object of a film, for models/instances.py: frames at their own size, one at a time."""
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
    return partial(Follower, cfg, model)


class Follower:
    """image (H, W, 3) uint8, mask (H, W) bool: where the object begins"""

    @torch.inference_mode()
    def __init__(self, cfg, model, image, mask):
        self.model, self.propagator = model, Propagator(cfg, model)
        self.propagator.begin(self.seen(image)[0], torch.from_numpy(mask).to(model.device))

    @torch.inference_mode()
    def propagate(self, image):
        """The next frame (H, W, 3) uint8  ->  margin (H, W) float32"""
        return self.propagator.propagate(self.seen(image))[0].float().cpu().numpy()

    def seen(self, image):
        """->  entries of Propagator.encode of this frame, one"""
        images = torch.from_numpy(image).to(self.model.device).permute(2, 0, 1)[None].float() / 255
        return self.propagator.encode(images, lambda: self.model.encode(images[None]))
