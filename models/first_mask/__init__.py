"""A reference of the vos task with nothing to train: every object stays where its mask was given."""
import torch
from torch import nn

from models.method import Prediction

TASK, UNTRAINED = "vos", True
NOTHING_TO_TRAIN = "model.method: {} trains nothing; name it in test.py and segment.py only"


class Config:
    """No keys of its own."""


def build(cfg, pretrained=False, split=None):
    return nn.Identity()


def parameter_groups(model, cfg):
    raise ValueError(NOTHING_TO_TRAIN.format(cfg.model.method))


def load(model, path, cfg, split):
    """Nothing is read from the file."""
    return {}


def compile_parts(model, backend="inductor"):
    pass


class TrainStep:
    """One clear error where a training asks for it."""

    def __init__(self, model, cfg):
        raise ValueError(NOTHING_TO_TRAIN.format(cfg.model.method))


class Segmenter:
    def __init__(self, model, reference, cfg, *, rng, amp=None):
        self.masks = None                          # (O, H, W) bool, as far as they are given

    def prepare(self, clip):
        return None

    def __call__(self, prepared, clip):
        found = []
        for given in clip.given.unbind(dim=1):
            self.masks = given if self.masks is None else with_given(self.masks, given)
            found.append(self.masks)
        return Prediction(margins_of(torch.stack(found, dim=1).float()))


def with_given(values, given):
    """Where a mask is given it counts, and no other object is there: values (O, H, W), given (O, H, W) bool"""
    named = given.flatten(1).any(dim=1)[:, None, None]
    return torch.where(named, given.to(values.dtype), values * ~given.any(dim=0))


def margins_of(shares):
    """Shares of the objects at every pixel, the background has the rest: (O, T, H, W) in [0, 1]  ->  margins, the same

    A margin is an object's share less the largest of all others, so that at most one is above 0.
    """
    whole = torch.cat([(1 - shares.sum(dim=0, keepdim=True)).clamp(min=0), shares])
    (first, second), (winner, _) = whole.topk(2, dim=0)
    numbers = torch.arange(1, len(whole), device=shares.device).view(-1, 1, 1, 1)
    return shares - torch.where(winner == numbers, second, first)
