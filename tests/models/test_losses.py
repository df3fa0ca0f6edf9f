"""Every loss against loops in plain Python, and on the edge cases that its docstring promises."""
import math

import pytest
import torch

from models.vipmt import losses
from models.vipmt.losses import (
    auxiliary_loss,
    ccds_loss,
    ccds_loss_released,
    dice_loss,
    iou_cross_entropy,
    iou_losses,
    iou_regression_loss,
    mask_iou,
    segmentation_loss,
)

B, T, H, W = 3, 2, 4, 5


pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def output():
    """logits (B, T, 2, H, W), masks (B, T, H, W)"""
    return 2 * torch.randn(B, T, 2, H, W), torch.rand(B, T, H, W) > 0.6


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def near(found, expected):
    assert float(found) == pytest.approx(expected, rel=1e-12, abs=1e-14)


def certain(masks, margin=60.0):
    """Logits that are sure of `masks` in both channels."""
    sign = torch.where(masks, margin, -margin)
    return torch.stack([-sign, sign], dim=2)


# Final and initial masks

def test_dice_adds_both_channels_through_a_sigmoid(output):
    logits, masks = output
    total = 0.0
    for b in range(B):
        for t in range(T):
            for channel in (0, 1):
                prob = [sigmoid(x) for x in logits[b, t, channel].flatten().tolist()]
                truth = [float(m == bool(channel)) for m in masks[b, t].flatten().tolist()]
                overlap = sum(p * g for p, g in zip(prob, truth, strict=True))
                total += 1 - 2 * overlap / max(sum(p * p for p in prob) + sum(g * g for g in truth), 1e-8)
    near(dice_loss(logits, masks), total / (B * T))


def test_iou_losses_are_per_frame_and_per_clip(output):
    logits, masks = output
    per_frame, per_clip = [], []
    for b in range(B):
        clip = [0.0, 0.0]
        for t in range(T):
            back, front = logits[b, t].flatten(1).tolist()
            prob = [sigmoid(f - g) for g, f in zip(back, front, strict=True)]
            pairs = list(zip(prob, masks[b, t].flatten().tolist(), strict=True))
            overlap, union = sum(min(p, g) for p, g in pairs), sum(max(p, g) for p, g in pairs)
            per_frame.append(1 - overlap / union)
            clip = [clip[0] + overlap, clip[1] + union]
        per_clip.append(1 - clip[0] / clip[1])
    mean, overall = iou_losses(logits, masks)
    near(mean, sum(per_frame) / (B * T))
    near(overall, sum(per_clip) / B)
    near(segmentation_loss(logits, masks), float(dice_loss(logits, masks) + mean + overall))


def test_right_and_certain_costs_nothing_wrong_and_certain_everything(output):
    _, masks = output
    near(segmentation_loss(certain(masks), masks), 0.0)
    near(dice_loss(certain(~masks), masks), 2.0)
    for value in iou_losses(certain(~masks), masks):
        near(value, 1.0)


def test_empty_mask_costs_one_whatever_is_predicted():
    masks = torch.zeros(1, 2, H, W, dtype=torch.bool)
    for value in iou_losses(torch.randn(1, 2, 2, H, W), masks):
        near(value, 1.0)


def test_empty_mask_with_a_certain_prediction_stays_finite():
    """In float32 the probability of the object underflows to zero everywhere: no intersection, and no union."""
    masks = torch.zeros(1, 2, H, W, dtype=torch.bool)
    logits = certain(masks).float().requires_grad_()
    loss = segmentation_loss(logits, masks)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    for value in iou_losses(logits, masks):
        assert float(value.detach()) == pytest.approx(1.0)


# Masks of the iterations

def test_auxiliary_loss_is_the_mean_of_binary_cross_entropies():
    logits, masks = [torch.randn(B, T, H, W) for _ in range(3)], torch.rand(B, T, H, W) > 0.5
    total = 0.0
    for x in logits:
        for value, truth in zip(x.flatten().tolist(), masks.flatten().tolist(), strict=True):
            total -= math.log(sigmoid(value) if truth else 1 - sigmoid(value))
    near(auxiliary_loss(logits, masks), total / (3 * masks.numel()))


# IoU

def test_mask_iou_counts_an_empty_union_as_zero():
    pred, masks = torch.rand(B, T, H, W) > 0.5, torch.rand(B, T, H, W) > 0.5
    pred[0, 0], masks[0, 0] = False, False
    found = mask_iou(pred, masks)
    assert found[0, 0] == 0 and found.dtype == torch.float64
    for b in range(B):
        for t in range(T):
            p, g = (set(x[b, t].flatten().nonzero().flatten().tolist()) for x in (pred, masks))
            near(found[b, t], len(p & g) / len(p | g) if p | g else 0.0)


def test_iou_regression_is_a_mean_or_as_released_a_sum_per_episode():
    predicted, true = torch.rand(B, T), torch.rand(B, T)
    error = [abs(p - q) for p, q in zip(predicted.flatten().tolist(), true.flatten().tolist(), strict=True)]
    near(iou_regression_loss(predicted, true), sum(error) / (B * T))
    near(iou_regression_loss(predicted, true, per_batch=True), sum(error) / B)


def test_iou_cross_entropy_has_the_true_iou_as_its_soft_target():
    logits, true = torch.randn(B, T), torch.rand(B, T)
    total = 0.0
    for x, target in zip(logits.flatten().tolist(), true.flatten().tolist(), strict=True):
        total -= target * math.log(sigmoid(x)) + (1 - target) * math.log(1 - sigmoid(x))
    near(iou_cross_entropy(logits, true), total / (B * T))
    exact = torch.logit(true).requires_grad_()
    iou_cross_entropy(exact, true).backward()
    assert exact.grad.abs().max() < 1e-12       # least where the prediction is the truth


def test_saturated_iou_still_learns_from_cross_entropy():
    logits = torch.full((1, 1), -60.0, requires_grad=True)
    iou_cross_entropy(logits, torch.full((1, 1), 0.9)).backward()
    assert float(logits.grad) == pytest.approx(-0.9)


# CCDS

def ccds_inputs(episodes=B, layers=4):
    masks = torch.rand(episodes, T, H, W) > torch.linspace(0.2, 0.8, episodes)[:, None, None, None]
    return torch.randn(layers, episodes, 6), torch.randn(episodes, T, 6, H, W), masks


def pair_loss(prototype, features, mask):
    """BCE(MG(G_b, F_j) * O_j, Z) of Eq. 18, one iteration, summed over positions."""
    total = 0.0
    for t in range(T):
        for i in range(H):
            for j in range(W):
                activation = sigmoid(float(prototype @ features[t, :, i, j])) * float(mask[t, i, j])
                total -= math.log(1 - activation)
    return total


def test_ccds_equals_equations_17_and_18():
    prototypes, features, masks = ccds_inputs()
    total = 0.0
    for b in range(B):
        for j in range(B):
            if j != b:
                pair = sum(pair_loss(layer[b], features[j], masks[j]) for layer in prototypes)
                total += pair / float(masks[j].sum())
    assert float(ccds_loss(prototypes, features, masks)) == pytest.approx(total / ((B - 1) * B), rel=1e-6)


def test_released_ccds_pools_the_batch_before_dividing():
    """For every iteration and k-th other sample, one sum over the batch over one area."""
    prototypes, features, masks = ccds_inputs()
    terms = []
    for layer in prototypes:
        for k in range(1, B):
            shifted = sum(pair_loss(layer[(b + k) % B], features[b], masks[b]) for b in range(B))
            terms.append(shifted / (float(masks.sum()) + 1e-7))
    found = ccds_loss_released(prototypes, features, masks)
    assert float(found) == pytest.approx(sum(terms) / len(terms), rel=1e-6)


@pytest.mark.parametrize("loss", [ccds_loss, ccds_loss_released])
def test_ccds_of_a_batch_is_the_mean_over_the_processes_that_share_it(loss):
    prototypes, features, masks = ccds_inputs()
    area = {} if loss is ccds_loss else {"area": masks.sum() / B}
    shares = [float(loss(prototypes, features[b:b + 1], masks[b:b + 1], b, **area)) for b in range(B)]
    assert sum(shares) / B == pytest.approx(float(loss(prototypes, features, masks)), rel=1e-6)


def test_paper_ccds_is_the_released_one_times_the_layers_where_areas_agree():
    prototypes, features, _ = ccds_inputs(layers=5)
    masks = torch.zeros(B, T, H, W, dtype=torch.bool)
    masks[:, :, 1:3, 1:4] = True
    ratio = ccds_loss(prototypes, features, masks) / ccds_loss_released(prototypes, features, masks)
    assert float(ratio) == pytest.approx(5, rel=1e-6)


@pytest.mark.parametrize("loss", [ccds_loss, ccds_loss_released])
def test_ccds_of_one_episode_is_zero(loss):
    assert float(loss(*ccds_inputs(episodes=1))) == 0


@pytest.mark.parametrize("loss", [ccds_loss, ccds_loss_released])
def test_empty_masks_add_nothing_to_ccds(loss):
    prototypes, features, masks = ccds_inputs()
    assert float(loss(prototypes, features, torch.zeros_like(masks))) == 0
    masks[1] = False
    before = loss(prototypes, features, masks)
    features[1] += 100
    assert torch.equal(loss(prototypes, features, masks), before) and torch.isfinite(before)


@pytest.mark.parametrize("loss", [ccds_loss, ccds_loss_released])
def test_ccds_leaves_a_prototype_free_on_its_own_object(loss):
    prototypes, features, masks = ccds_inputs(episodes=2)
    prototypes.requires_grad_()
    features = torch.stack([features[0], torch.zeros_like(features[1])])        # others see a video of zeros
    loss(prototypes, features, masks).backward()
    assert not prototypes.grad[:, 0].any() and prototypes.grad[:, 1].any()


def test_cross_entropy_still_pulls_where_dice_and_iou_have_given_up():
    """A confidently empty mask: next to no gradient from dice and IoU, a full one from cross entropy."""
    logits = torch.zeros(1, 1, 2, 4, 4, dtype=torch.float64)
    logits[:, :, 0], logits[:, :, 1] = 15.0, -15.0
    masks = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    masks[..., :2, :2] = True
    pulls = []
    for loss in (losses.segmentation_loss, losses.cross_entropy):
        x = logits.clone().requires_grad_()
        loss(x, masks).backward()
        pulls.append(float(x.grad[:, :, 1][masks].abs().max()))
    assert pulls[0] < 1e-5 and pulls[1] == pytest.approx(1 / 16, rel=1e-6)


def test_cross_entropy_equals_a_loop():
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 2, 4, 5, dtype=torch.float64), torch.rand(2, 3, 4, 5) > 0.5
    expected = [-torch.log_softmax(logits[b, t, :, i, j], 0)[int(masks[b, t, i, j])]
                for b in range(2) for t in range(3) for i in range(4) for j in range(5)]
    assert losses.cross_entropy(logits, masks).item() == pytest.approx(sum(expected).item() / len(expected), rel=1e-12)
