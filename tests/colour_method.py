"""A whole method, as small as one can be: a pixel is object where its colour resembles that of the supports' object.

It proves the contract (models/method.py): the real commands train, test, resume, segment and report it, named on the
command line as model.method=tests.colour_method. docs/method.md walks through it.
"""
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from models.method import Prediction
from utils.checkpoint import load_trained, load_weights
from utils.config import WEIGHTS, Count, Section

TASK = "fewshot"


class Colour(Section):
    blur: Annotated[Count, WEIGHTS] = 3      # odd; width of the mean over neighbours


class Config:
    colour: Colour


class ColourModel(nn.Module):
    """images (B, T, 3, H, W), object colour (B, 3)  ->  margins (B, T, H, W)"""

    def __init__(self, blur):
        super().__init__()
        self.blur = blur
        self.scale, self.bias = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.0))

    def forward(self, images, colour):
        smooth = F.avg_pool2d(images.flatten(0, 1), self.blur, 1, self.blur // 2).view_as(images)
        return self.bias - self.scale * (smooth - colour[:, None, :, None, None]).square().sum(dim=2)


def mean_colour(images, masks):
    """images (B, K, 3, H, W), masks (B, K, H, W)  ->  (B, 3), of the masked pixels"""
    weight = masks.to(images.dtype)
    return torch.einsum("bkchw,bkhw->bc", images, weight) / weight.sum((1, 2, 3))[:, None].clamp(min=1)


def build(cfg, pretrained=False, split=None):
    return ColourModel(cfg.colour.blur)


def parameter_groups(model, cfg):
    return [{"params": [model.scale]}, {"params": [model.bias], "share": 10.0}]


def load(model, path, cfg, split):
    content = load_trained(path, split)
    load_weights(model, content["model"], path)
    return content


def compile_parts(model, backend="inductor"):
    pass


class TrainStep(nn.Module):
    one_graph, about = False, "two numbers to learn"

    def __init__(self, model, cfg):
        super().__init__()
        self.model = model

    def units(self, batch):
        return [(batch,)]

    def forward(self, batch):
        margins = self.model(batch.query_images, mean_colour(batch.support_images, batch.support_masks))
        loss = F.binary_cross_entropy_with_logits(margins, batch.query_masks.to(margins.dtype))
        return {"cross_entropy": loss}, {"object": (margins > 0).float().mean()}


class Segmenter:
    def __init__(self, model, reference, cfg, *, rng, amp=None):
        self.model, self.colour = model, mean_colour(reference.images[None], reference.masks[None])

    def prepare(self, clip):
        return clip.images[None]

    @torch.inference_mode()
    def __call__(self, images, clip):
        margins = self.model(images, self.colour)
        return Prediction(margins, {"largest_margin": margins.amax((0, 2, 3))})
