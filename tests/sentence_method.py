"""A method of the referring task, as small as one can be: an object has the colour of the support's, or another one.

What a sentence names counts: a colour in it moves the colour that is looked for. It knows one colour, red.
"""
import torch
import torch.nn.functional as F
from torch import nn

from models.first_mask import Config as Config
from models.method import Prediction
from utils.checkpoint import load_trained, load_weights

TASK = "referring"
RED = torch.tensor([0.8, 0.1, 0.1])


class ColourModel(nn.Module):
    """images (T, 3, H, W), colour (3,)  ->  logits (T, H, W)"""

    def __init__(self):
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.tensor(20.0)), nn.Parameter(torch.tensor(2.0))

    def forward(self, images, support_images, support_masks, text):
        if support_images.shape[-2:] != support_masks.shape[-2:]:
            support_masks = F.interpolate(support_masks[None].float(), support_images.shape[-2:])[0] > 0.5
        weight = support_masks.to(images.dtype)
        mean = torch.einsum("tchw,thw->c", support_images, weight) / weight.sum().clamp(min=1)
        colour = RED if "red" in text.split() else mean
        return self.bias - self.scale * (images - colour[:, None, None]).square().sum(dim=1)


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
        return [(one, len(batch.samples)) for one in batch.samples]

    def forward(self, one, count):
        """count: samples of the process; their gradients add up, and a step's is to be their mean"""
        logits = self.model(one.query_images, one.support_images, one.support_masks, one.query_text)
        loss = F.binary_cross_entropy_with_logits(logits, one.query_masks.to(logits.dtype))
        return {"cross_entropy": loss / count}, {}


class Segmenter:
    def __init__(self, model, reference, cfg, *, rng, amp=None):
        self.model, self.reference = model, reference

    def prepare(self, clip):
        return clip.images

    @torch.inference_mode()
    def __call__(self, images, clip):
        one = self.reference
        margins = self.model(images, one.images, one.masks, one.query_text)
        return Prediction(margins[None], {"score": margins.amax((1, 2)).sigmoid()})
