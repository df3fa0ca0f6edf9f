"""Online learning: before a test, stage 3 of the encoder learns to segment the supports with one another.

It takes up to rounds x S steps for each set of supports: per class and run in protocol I, per query video in
protocol II. docs/dan.md states the cost.
"""
import copy
import logging
import time
from dataclasses import dataclass, replace
from hashlib import blake2b

import torch
from torch import nn

from models.dan import losses

log = logging.getLogger(__name__)


@dataclass
class Learned:
    """stage: the adapted copy of stage 3; losses: per step (total, cross entropy, IoU)

    j: mean J over the supports before learning, and since the last check at each check
    """
    stage: nn.Module
    losses: list
    j: list


def learn(model, support, masks, settings):
    """Features of S supports, their masks (1, S, H, W), cfg.online  ->  Learned

    Each step segments one support with all of them, itself included. What stands before stage 3 does not change, so
    that its features are computed once.
    """
    size, stop = masks.shape[-2:], settings.stop
    stage = copy.deepcopy(model.encoder.body.layer3).eval()
    weights = [module.weight.requires_grad_() for module in stage.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        before = model(support, model.read_supports(support, masks), size) > 0
    learned, since = Learned(stage, [], [losses.mean_j(before, masks).item()]), []
    optimizer = torch.optim.Adam(weights, settings.lr, weight_decay=settings.weight_decay)
    for number in range(settings.rounds if learned.j[0] <= stop else 0):
        for k in range(masks.shape[1]):
            values, j = step(model, with_stage(support, stage), masks, k, weights, settings.background)
            optimizer.step()
            learned.losses.append(values)
            since.append(j)
        if number % settings.check_every == 0:
            learned.j.append(sum(since) / len(since))
            since = []
            if learned.j[-1] > stop:
                break
    stage.requires_grad_(False)
    return learned


def step(model, support, masks, k, weights, background):
    """Support k segmented with all supports; gradients into the weights  ->  (total, cross entropy, IoU loss), J"""
    truth = masks[:, k:k + 1]
    logits = model(support.frames([k]), model.read_supports(support, masks), masks.shape[-2:])
    prob = logits.sigmoid()
    parts = losses.cross_entropy(prob, truth, background), losses.iou_loss(prob, truth)
    for weight, gradient in zip(weights, torch.autograd.grad(sum(parts), weights), strict=True):
        weight.grad = gradient
    return [value.item() for value in (sum(parts), *parts)], losses.mean_j(logits > 0, truth).item()


def with_stage(features, stage):
    """The same Features with another stage 3."""
    c4 = stage(features.c3.flatten(0, 1)).unflatten(0, features.c3.shape[:2])
    return replace(features, c4=c4)


def stage_for(model, support, masks, settings, keep):
    """Stage 3 adapted to these supports; model.learned keeps the last `keep` of them, found by content  ->  module"""
    key = blake2b(support.c3.cpu().numpy().tobytes() + masks.cpu().numpy().tobytes(), digest_size=16).digest()
    if key not in model.learned:
        started = time.perf_counter()
        learned = learn(model, support, masks, settings)
        log.info("online learning: %d steps in %.1f s, J of the supports %s", len(learned.losses),
                 time.perf_counter() - started, " -> ".join(f"{j:.2f}" for j in learned.j))
        model.learned[key] = learned.stage
        for oldest in list(model.learned)[:-keep]:
            del model.learned[oldest]
    return model.learned[key]
