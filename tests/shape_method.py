"""A method of the vos task, as small as one can be: an object is where pixels have the mean colour of its mask."""
import torch
import torch.nn.functional as F
from torch import nn

from models.first_mask import Config as Config
from models.first_mask import margins_of, with_given
from models.method import Prediction
from utils.checkpoint import load_trained, load_weights

TASK = "vos"


class ColourModel(nn.Module):
    """images (B, T, 3, H, W), colour (B, 3)  ->  logits (B, T, H, W)"""

    def __init__(self):
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.tensor(40.0)), nn.Parameter(torch.tensor(4.0))

    def forward(self, images, colour):
        return self.bias - self.scale * (images - colour[:, None, :, None, None]).square().sum(dim=2)


def mean_colour(image, mask):
    """image (B, 3, H, W), mask (B, H, W)  ->  (B, 3)"""
    weight = mask.to(image.dtype)
    return torch.einsum("bchw,bhw->bc", image, weight) / weight.sum((1, 2))[:, None].clamp(min=1)


def build(cfg, pretrained=False, split=None):
    return ColourModel()


def parameter_groups(model, cfg):
    return [{"params": list(model.parameters())}]


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
        logits = self.model(batch.images[:, 1:], mean_colour(batch.images[:, 0], batch.masks[:, 0]))
        truth = batch.masks[:, 1:]
        loss = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))
        both, either = ((logits > 0) & truth).sum(), ((logits > 0) | truth).sum()
        return {"cross_entropy": loss}, {"iou": both / either.clamp(min=1)}


class Segmenter:
    def __init__(self, model, reference, cfg, *, rng, amp=None):
        self.model, self.colours = model, [None] * len(reference.object_ids)

    def prepare(self, clip):
        return clip.images

    @torch.inference_mode()
    def __call__(self, images, clip):
        found = []
        for image, given in zip(images, clip.given.unbind(dim=1), strict=True):
            for o, mask in enumerate(given):
                if mask.any():
                    self.colours[o] = mean_colour(image[None], mask[None])
            logits = [torch.full(image.shape[1:], -9.0) if colour is None else
                      self.model(image[None, None], colour)[0, 0] for colour in self.colours]
            found.append(with_given(torch.stack(logits).sigmoid(), given))
        margins = margins_of(torch.stack(found, dim=1))
        return Prediction(margins, {"certainty": margins.amax(dim=(2, 3))})
