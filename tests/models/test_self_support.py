"""The self-support prior against one solved step by step with NumPy, and what it says of objects, there or not."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.backbone import Features
from models.vipmt import self_support
from models.vipmt.prototype_activation import PrototypeActivation
from models.vipmt.self_support import ridge_regression, self_support_prior

B, S, T, H, W = 2, 2, 3, 6, 7

pytestmark = pytest.mark.usefixtures("exact")


def episode(likeness=1.0, noise=0.15, channels=8):
    """Supports and a clip whose object and background have a direction each, with noise; boxes as masks

    likeness: how much of the clip's object is the supports'
    ->  rows (B, T, P, h, w), keys (B, S, h w, P), masks, truth
    """
    generator = torch.Generator().manual_seed(0)
    looks = torch.linalg.qr(torch.randn(channels, 3, generator=generator))[0].T          # object, background, stranger
    stranger = likeness * looks[0] + (1 - likeness) * looks[2]

    def frames(count, look):
        masks = torch.zeros(B, count, H, W, dtype=torch.bool)
        for number in range(count):
            masks[:, number, 1:4, number:number + 3] = True
        x = torch.where(masks[:, :, None], look[:, None, None], looks[1][:, None, None])
        return F.normalize(x + noise * torch.randn(x.shape, generator=generator), dim=2), masks
    (seen, masks), (asked, truth) = frames(S, looks[0]), frames(T, stranger)
    return asked, seen.flatten(3).transpose(2, 3), masks, truth


def solved(x, share, target):
    """Ridge regression by the normal equations: rows (N, P), weights, targets (N,)  ->  fitted values (N,)"""
    share = share / share.sum()
    x = x - share @ x
    left = sum(s * np.outer(row, row) for s, row in zip(share, x, strict=True))
    left += self_support.PENALTY * np.eye(x.shape[1])
    return x @ np.linalg.solve(left, sum(s * t * row for s, t, row in zip(share, target, x, strict=True)))


def test_the_classifier_is_that_of_the_normal_equations():
    generator = torch.Generator().manual_seed(1)
    x, share, target = (torch.randn(s, generator=generator) for s in ((B, 30, 6), (B, 30), (B, 30)))
    found = ridge_regression(x, share.abs(), target.sign())
    for b in range(B):
        expected = solved(x[b].numpy(), share[b].abs().numpy(), target[b].sign().numpy())
        np.testing.assert_allclose(found[b], expected, atol=1e-8)


def test_the_prior_is_that_of_position_after_position():
    rows, keys, masks, _ = episode()
    found = self_support_prior(rows, keys, masks)
    for b in range(B):
        inside = masks[b].flatten(1).numpy()
        means = [m / np.linalg.norm(m) for m in (k[i].mean(0) for k, i in zip(keys[b].numpy(), inside, strict=True))]
        clip = rows[b].permute(0, 2, 3, 1).reshape(-1, rows.shape[2]).numpy()
        score = np.array([np.mean([row @ mean for mean in means]) for row in clip])
        score = (score - self_support.MIDDLE) / self_support.SPREAD
        for _ in range(self_support.PASSES):
            limit = min(self_support.OBJECT, self_support.OF_BEST * np.sort(score)[-self_support.BEST:].mean())
            seeds, ground = score > limit, score < self_support.BACKGROUND
            shares = [i / i.sum() / S + ~i / (~i).sum() / S for i in inside]
            shares.append(seeds / seeds.sum() + ground / ground.sum())
            x, target = np.concatenate([*keys[b].numpy(), clip]), np.concatenate([*inside, seeds]) * 2.0 - 1
            fitted = solved(x, np.concatenate(shares), target)[-len(clip):]
            score = (fitted - self_support.OFFSET) / self_support.SLOPE
        np.testing.assert_allclose(found[b].flatten(), score, atol=1e-6)


def test_an_object_like_that_of_the_supports_is_above_zero_and_all_else_below():
    rows, keys, masks, truth = episode(likeness=0.7)
    assert torch.equal((self_support_prior(rows, keys, masks) > 0).view(truth.shape), truth)


def test_of_an_object_that_is_not_there_nothing_is_above_zero():
    rows, keys, masks, _ = episode(likeness=0.0, noise=0.03)
    assert not (self_support_prior(rows, keys, masks) > 0).any()


def test_episodes_of_a_batch_do_not_meet():
    rows, keys, masks, _ = episode()
    alone = torch.cat([self_support_prior(rows[b:b + 1], keys[b:b + 1], masks[b:b + 1]) for b in range(B)])
    torch.testing.assert_close(self_support_prior(rows, keys, masks), alone)


def test_the_skip_adds_the_prior_to_the_margin():
    torch.manual_seed(0)
    features = [Features(None, torch.randn(B, n, 4, H, W), torch.randn(B, n, 6, H, W), None) for n in (S, T)]
    masks = torch.zeros(B, S, 8 * H, 8 * W, dtype=torch.bool)
    masks[..., 8:32, :24] = True
    margins = []
    for skip in (0, 2):
        torch.manual_seed(1)
        module = PrototypeActivation(inputs=10, dim=8, dropout=0.1, feature_dropout=0.5, self_support=True,
                                     keep_high=False, prior_skip=skip).eval()
        keys = module.search_keys(None, masks[..., ::8, ::8], module.pool(features[0], None))
        found = module(*module.prepare(features[1], None), [module.encode_reference(features[0], keys, masks)])
        margins.append(found.initial_logits[:, :, 1] - found.initial_logits[:, :, 0])
    torch.testing.assert_close(margins[1] - margins[0], 2 * found.prior)
