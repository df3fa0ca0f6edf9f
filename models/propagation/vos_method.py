"""A method of the vos task as a plug: it follows the first mask, as it would one that a user gives (LWL, LLB, ...)."""
from functools import lru_cache
from types import SimpleNamespace

import torch

from models import get_method
from models.trained import trained_model
from utils.checkpoint import check_origin, load_checkpoint
from utils.config import apply_overrides, load_config
from utils.seeds import rng_for


class VosMethod:
    """The factory of `propagation.plug: NAME`; one object per video."""
    own_size = True

    def __init__(self, cfg, model, device):
        own = cfg.propagation
        self.method, self.model, self.cfg = trained(own.plug, own.weights, tuple(own.keys), device)
        self.from_boxes = own.start == "box"

    @staticmethod
    def check(own):
        trained(own.plug, own.weights, tuple(own.keys), torch.device("cpu"))

    def begin(self, image, mask):
        """image (3, H, W) in [0, 1], mask (H, W) bool"""
        reference = SimpleNamespace(object_ids=[1], from_boxes=self.from_boxes)
        self.segmenter = self.method.Segmenter(self.model, reference, self.cfg,
                                               rng=rng_for(self.cfg.seed, "memory", "plug"))
        self.follow(image[None], (filled_box(mask) if self.from_boxes else mask)[None, None])

    def propagate(self, images):
        """images (T, 3, H, W)  ->  margins (T, H, W)"""
        return self.follow(images, images.new_zeros((1, len(images), *images.shape[2:]), dtype=torch.bool))

    def follow(self, images, given):
        """given (1, T, H, W) bool: the first mask where it is given  ->  margins (T, H, W)"""
        clip = SimpleNamespace(images=images, given=given, masks=None)
        return self.segmenter(self.segmenter.prepare(clip), clip).margins[0]


@lru_cache(maxsize=2)
def trained(name, weights, keys, device):
    """Name of the method, its checkpoint or none, key=value over its config  ->  module, model on the device, config

    Read once for all videos. ValueError, FileNotFoundError: weights that are missing or another method's
    """
    method, own = get_method(name), f"model.method={name}"
    if weights == "none":
        if not getattr(method, "UNTRAINED", False):
            raise ValueError(f"propagation.weights: {name} needs a checkpoint of its own training.\n"
                             "  Name it: propagation.weights=FILE")
        cfg = load_config((), [own, *keys])
    else:
        content = load_checkpoint(weights)
        check_origin(content, weights)
        saved = content.get("config", {})
        of = saved.get("model", {}).get("method")
        if of != name:
            raise ValueError(f"{weights}: a checkpoint of model.method {of}, not of {name} (propagation.plug).\n"
                             "  Name one of that method: propagation.weights=FILE")
        cfg = apply_overrides(saved, keys, str(weights))
    model, _ = trained_model(cfg, weights if weights != "none" else None)      # which classes it has seen, nobody says
    return method, model.to(device), cfg


def filled_box(mask):
    """mask (H, W) bool, not empty  ->  the same, the box around it"""
    box = torch.zeros_like(mask)
    rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
    box[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] = True
    return box
