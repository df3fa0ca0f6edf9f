"""Our propagator in the vos task: given masks follow matches between the features of an encoder, nothing is trained.

The weights are the encoder's own, backbone.weights, so that no checkpoint is needed.
"""
from functools import partial

import torch

from models.backbone import Backbone
from models.backbone_weights import load_backbone
from models.first_mask import TrainStep, compile_parts, load, margins_of, parameter_groups, with_given
from models.method import Prediction
from models.propagation.config import Matching
from models.propagation.matching import FeatureMatching, to_pixels
from models.vipmt.config import Backbone as BackboneKeys

TASK, UNTRAINED = "vos", True

__all__ = ["TASK", "UNTRAINED", "Config", "Segmenter", "TrainStep", "build", "compile_parts", "load",
           "parameter_groups"]


class Config:
    backbone: BackboneKeys
    propagation: Matching


def build(cfg, pretrained=False, split=None):
    keys = cfg.backbone
    backbone = Backbone(name=keys.name, stem=keys.stem, stride_in_1x1=keys.stride_in_1x1, high_level="c4",
                        width=keys.width, weights=keys.weights, size=cfg.data.size)
    if pretrained and keys.weights != "none":
        load_backbone(backbone, keys)
    return backbone


class Segmenter:
    """One video, all its objects; the features are matched object by object."""

    def __init__(self, model, reference, cfg, *, rng, amp=None):
        self.model = model
        self.followed = [FeatureMatching.of_config(cfg, model, None) for _ in reference.object_ids]

    @torch.inference_mode()
    def prepare(self, clip):
        images = clip.images.to(next(self.model.parameters()).device)
        return self.followed[0].encode(images, partial(self.model, images[None]))

    @torch.inference_mode()
    def __call__(self, prepared, clip):
        found = [self.step(frame, given) for frame, given in zip(
            prepared, clip.given.to(prepared.device).unbind(dim=1), strict=True)]
        return Prediction(margins_of(torch.stack(found, dim=1)))

    def step(self, frame, given):
        """features (C, h, w), given (O, H, W) bool  ->  shares (O, H, W)"""
        shares = [to_pixels(one.step(frame)[None], given.shape[1:])[0] if one.first else torch.zeros_like(
            mask, dtype=frame.dtype) for one, mask in zip(self.followed, given, strict=True)]
        for one, mask in zip(self.followed, given, strict=True):
            if mask.any():
                one.begin(frame, mask)
        return with_given(torch.stack(shares), given)
