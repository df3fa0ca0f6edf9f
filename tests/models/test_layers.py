"""Layers without an equation in the paper, against loops over positions."""
import math

import pytest
import torch
import torch.nn.functional as F

from models.vipmt.layers import (
    FFN,
    Fuse,
    LearnedUpsample,
    ReducedSelfAttention,
    ResidualConvs,
    convolve_together,
    mask_classifier,
    sine_position,
)

pytestmark = pytest.mark.usefixtures("exact")


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def test_ffn_is_residual_and_has_no_biases():
    ffn, x = FFN(6, 10, dropout=0.0), torch.randn(2, 3, 6)
    expected = x.clone()
    for b in range(2):
        for n in range(3):
            hidden = [max(0.0, float(row @ x[b, n])) for row in ffn.expand.weight]
            expected[b, n] += torch.stack([row @ torch.tensor(hidden) for row in ffn.contract.weight])
    close(ffn(x), expected)
    assert not ffn(torch.zeros(1, 6)).any()


@pytest.mark.parametrize("maps", [0, 2])
def test_fuse_equals_the_convolution_over_the_real_concatenation(maps):
    fuse, features, vector = Fuse(5, 3, maps=maps), torch.randn(2, 5, 4, 6), torch.randn(2, 3)
    extra = torch.randn(2, maps, 4, 6)
    joined = torch.cat([features, vector[:, :, None, None].expand(-1, -1, 4, 6), extra], dim=1)
    close(fuse(features, vector, extra if maps else None), F.conv2d(joined, fuse.conv.weight).relu())


def test_residual_convs_keep_their_input():
    block, x = ResidualConvs(4), torch.randn(2, 4, 5, 6)
    first, second = block.convs[0], block.convs[2]
    y = F.conv2d(F.conv2d(x, first.weight, padding=1).relu(), second.weight, padding=1).relu()
    close(block(x), x + y)
    assert first.bias is None and second.bias is None


def test_mask_classifier_has_two_channels_and_one_bias():
    head, x = mask_classifier(4, dropout=0.0), torch.randn(3, 4, 5, 6)
    weights = list(head.parameters())
    assert [tuple(w.shape) for w in weights] == [(4, 4, 3, 3), (2, 4, 1, 1), (2,)]
    expected = F.conv2d(F.conv2d(x, weights[0], padding=1).relu(), weights[1]) + weights[2][:, None, None]
    close(head(x), expected)


def self_attention_of_one_frame(module, x, heads):
    """x (h, w, C)  ->  the same; every query position and head on its own."""
    h, w, c = x.shape
    size = c // heads
    tokens = []
    for i in range(h // 4):
        for j in range(w // 4):
            patch = x[4 * i:4 * i + 4, 4 * j:4 * j + 4].permute(2, 0, 1)
            token = (module.reduce.weight * patch).sum((1, 2, 3)) + module.reduce.bias
            token = (token - token.mean()) / (token.var(unbiased=False) + 1e-5).sqrt()
            tokens.append(token * module.norm.weight + module.norm.bias)
    keys_values = [module.kv.weight @ token + module.kv.bias for token in tokens]
    out = torch.empty_like(x)
    for i in range(h):
        for j in range(w):
            q, read = module.q.weight @ x[i, j] + module.q.bias, []
            for head in range(heads):
                own = slice(head * size, (head + 1) * size)
                scores = torch.stack([q[own] @ kv[:c][own] for kv in keys_values]) / math.sqrt(size)
                weights = scores.exp() / scores.exp().sum()
                read.append(sum(weight * kv[c:][own] for weight, kv in zip(weights, keys_values, strict=True)))
            out[i, j] = module.proj.weight @ torch.cat(read) + module.proj.bias
    return out


@pytest.mark.parametrize(("h", "w"), [(4, 4), (9, 11)])
def test_reduced_self_attention_equals_its_loop(h, w):
    module, x = ReducedSelfAttention(8, heads=2, dropout=0.1).eval(), torch.randn(2, h, w, 8)
    torch.nn.init.normal_(module.norm.weight)
    close(module(x), torch.stack([self_attention_of_one_frame(module, frame, heads=2) for frame in x]))


def test_rows_and_columns_beyond_a_multiple_of_four_give_no_keys():
    module, x = ReducedSelfAttention(8, heads=2, dropout=0.0).eval(), torch.randn(1, 6, 7, 8)
    changed = x.clone()
    changed[:, 4:], changed[:, :, 4:] = 9.0, 9.0
    close(module(changed)[:, :4, :4], module(x)[:, :4, :4])


@pytest.mark.parametrize(("h", "w", "dim"), [(5, 7, 16), (30, 53, 8)])
def test_sine_position_equals_its_formula(h, w, dim):
    found, half = sine_position(h, w, dim, torch.zeros(1)), dim // 2
    for i in range(h):
        for j in range(w):
            for k in range(half):
                for offset, coordinate in ((0, 2 * math.pi * (i + 1) / (h + 1e-6)),
                                           (half, 2 * math.pi * (j + 1) / (w + 1e-6))):
                    angle = coordinate / 10000 ** (2 * (k // 2) / half)
                    expected = math.sin(angle) if k % 2 == 0 else math.cos(angle)
                    assert abs(float(found[i, j, offset + k]) - expected) < 1e-12


def test_upsampling_filters_a_nearest_enlargement_with_zero_padding():
    layer, logits = LearnedUpsample(), torch.randn(1, 2, 2, 2, 3)
    torch.nn.init.normal_(layer.weight)
    found = layer(logits, (16, 24))
    generator = torch.Generator().manual_seed(3)
    for _ in range(60):
        t, c, y, x = (int(torch.randint(n, (), generator=generator)) for n in (2, 2, 16, 24))
        total = 0.0
        for dy in range(-4, 5):
            for dx in range(-4, 5):
                if 0 <= y + dy < 16 and 0 <= x + dx < 24:
                    value = logits[0, t, c, (y + dy) // 8, (x + dx) // 8]
                    total += float(layer.weight[c, 0, dy + 4, dx + 4] * value)
        assert abs(float(found[0, t, c, y, x]) - total) < 1e-12


def test_upsampling_starts_as_a_mean_that_fades_at_the_border():
    out = LearnedUpsample()(torch.ones(1, 1, 2, 3, 4), (24, 32))
    assert float(out[0, 0, 0, 0, 0]) == pytest.approx(25 / 81)
    assert float(out[0, 0, 1, 12, 16]) == pytest.approx(1)


def test_upsampling_is_cut_to_sizes_that_are_no_multiple_of_eight():
    layer, logits = LearnedUpsample(), torch.randn(1, 1, 2, 3, 4)
    assert torch.equal(layer(logits, (20, 27)), layer(logits, (24, 32))[..., :20, :27])


def test_convolving_maps_together_equals_their_concatenation():
    conv = torch.nn.Conv2d(9, 5, 3, stride=2, padding=1)
    maps = [torch.randn(2, channels, 7, 8) for channels in (2, 3, 4)]
    found = convolve_together(conv, maps) + conv.bias[:, None, None]
    torch.testing.assert_close(found, conv(torch.cat(maps, dim=1)))
