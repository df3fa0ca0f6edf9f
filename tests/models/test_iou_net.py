"""Structural similarity maps against Eqs. 15-16 with real zero vectors; IoUNet against functional calls."""
import pytest
import torch
import torch.nn.functional as F

from models.backbone import Backbone
from models.vipmt import build
from models.vipmt.iou_net import GRID, IoUNet, mutual_similarity, promised_iou, structural_similarity_maps
from models.vipmt.model import VIPMT
from models.vipmt.similarity import gather_foreground, max_similarity
from utils.config import load_config

B, T, C, H, W = 2, 2, 6, 4, 5


pytestmark = pytest.mark.usefixtures("double")


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


def norm_of_max(rows, columns, cosine):
    """Norm(Max(rows columns^T, 1)) of Eq. 15: rows (N, C), columns (M, C), zero vectors included  ->  (N)"""
    best = torch.empty(len(rows))
    for n, x in enumerate(rows):
        values = [float(x @ y) / (float(x.norm() * y.norm()) + 1e-7 if cosine else 1.0) for y in columns]
        best[n] = max(values)
    return (best - best.min()) / (best.max() - best.min() + 1e-7)


def maps_of_one_frame(high, mask, support, support_masks, cosine):
    """high (C, h, w), mask (h, w), support (S, C, h, w), support_masks (S, h, w)  ->  (5, h, w)"""
    def positions(x):
        return x.flatten(-2).movedim(-1, -2).reshape(-1, x.shape[-3])
    front, back = positions(high * mask), positions(high * ~mask)
    known = positions(support * support_masks[:, None])
    maps = [norm_of_max(back, known, cosine), norm_of_max(front, known, cosine),
            norm_of_max(front, back, cosine), norm_of_max(back, front, cosine)]
    return torch.stack([mask.flatten().to(high.dtype), *maps]).unflatten(-1, mask.shape)


# Eqs. 15-16

@pytest.mark.parametrize("cosine", [False, True], ids=["dot", "cosine"])
def test_maps_equal_the_equations_with_zeroed_vectors(cosine):
    high, support = torch.randn(B, T, C, H, W).relu(), torch.randn(B, 3, C, H, W).relu()
    mask, support_masks = torch.rand(B, T, H, W) > 0.5, torch.rand(B, 3, H, W) > 0.5
    mask[0, 0], mask[1, 1], support_masks[0, 2] = False, True, False
    to_support = max_similarity(high, gather_foreground(support, support_masks), cosine).amax(2)
    found = structural_similarity_maps(high, mask, to_support, cosine)
    for b in range(B):
        for t in range(T):
            close(found[b, t], maps_of_one_frame(high[b, t], mask[b, t], support[b], support_masks[b], cosine))


@pytest.mark.parametrize("cosine", [False, True], ids=["dot", "cosine"])
@pytest.mark.parametrize("value", [False, True], ids=["empty", "full"])
def test_maps_of_degenerate_masks_are_finite(cosine, value):
    high, mask = torch.rand(B, T, C, H, W), torch.full((B, T, H, W), value)
    found = structural_similarity_maps(high, mask, torch.zeros(B, T, H * W), cosine)
    assert torch.isfinite(found).all() and not found[:, :, 3:].any()      # one region only: nothing to compare
    assert (found[:, :, 0] == value).all()


def test_similarities_of_one_frame_do_not_see_another():
    high, mask = torch.rand(B, T, C, H, W), torch.rand(B, T, H, W) > 0.5
    both = mutual_similarity(high, mask, cosine=True)
    alone = mutual_similarity(high[:, 1:], mask[:, 1:], cosine=True)
    for a, b in zip(both, alone, strict=True):
        close(a[:, 1:], b)


@pytest.mark.parametrize("cosine", [False, True], ids=["dot", "cosine"])
@pytest.mark.parametrize("in_prior", [False, True], ids=["supports_only", "memory_too"])
def test_model_compares_with_the_supports_and_as_released_with_memory(cosine, in_prior):
    """On the pooled channels of the prior (cosine) or on all channels (dot)."""
    backbone = Backbone(name="tiny", width=8).double()
    model = VIPMT(backbone, IoUNet(channels=backbone.channels, maps=5, dim=4, hidden=4), dim=16, num_layers=1, heads=2,
                  ffn_dim=16, cosine_maps=cosine, memory_in_prior=in_prior).eval()
    images, masks = torch.randn(1, 6, 3, 32, 40), torch.rand(1, 4, 32, 40) > 0.5
    with torch.no_grad():
        features = model.encode(images)
        support = model.encode_reference(features.frames([0, 1]), masks[:, :2])
        clip = model.prepare(features.frames([4, 5]))
        memory = model.encode_memory(model.memory_features(features.frames([2, 3])), masks[:, 2:])
        out = model(clip, support, memory)
        found = model.similarity_maps(out, clip, support, memory)
    high = features.c5[0]
    if cosine:
        high = torch.stack([high[:, 4 * i:4 * i + 4].mean(1) for i in range(16)], dim=1)       # 64 channels to 16
    known = 4 if in_prior else 2
    truths, predicted = masks[0, :known, ::8, ::8], out.low_logits[0].argmax(1).bool()
    for t in (0, 1):
        close(found[0, t], maps_of_one_frame(high[4 + t], predicted[t], high[:known], truths, cosine))


# The regressor

def score(net, levels, maps):
    """IoUNet on one frame, no pooling, before the sigmoid: levels list of (C, h, w), maps (5, h, w)  ->  scalar"""
    def conv(x, name, stride=1):
        layer = getattr(net, name)
        return F.conv2d(x, layer.weight, layer.bias, stride=stride, padding=1).relu()
    x = torch.cat([conv(levels[0][None], "downsample", 2), *(x[None] for x in levels[1:])], dim=1)
    x = torch.cat([conv(conv(x, "fuse1"), "fuse2"), maps[None]], dim=1)
    x = conv(conv(conv(conv(x, "conv1", 2), "conv2"), "conv3"), "conv4", 2)
    x = (net.fc1.weight @ x.flatten() + net.fc1.bias).relu()
    return (net.fc2.weight @ x + net.fc2.bias)[0]


def net_and_inputs(height, width, levels=4):
    channels = (3, 4, 5, 6)[:levels]
    net = IoUNet(channels=channels, maps=5, dim=4, hidden=6)
    sizes = [(height // 4, width // 4)] + [(height // 8, width // 8)] * (levels - 1)
    maps = torch.rand(1, 2, 5, height // 8, width // 8)
    return net, [torch.rand(1, 2, c, *size) for c, size in zip(channels, sizes, strict=True)], maps


def test_pooling_is_the_identity_at_240_by_424():
    net, levels, maps = net_and_inputs(240, 424)
    torch.nn.init.normal_(net.fc2.bias)
    seen = []
    net.conv4.register_forward_hook(lambda module, inputs, output: seen.append(output))
    found = net(net.fuse(levels), maps)
    assert seen[0].shape[-2:] == GRID and torch.equal(F.adaptive_avg_pool2d(seen[0], GRID), seen[0])
    for t in (0, 1):
        close(found[0, t], score(net, [x[0, t] for x in levels], maps[0, t]))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 160), (480, 424)])
@pytest.mark.parametrize("levels", [3, 4], ids=["c4", "c5"])
def test_iou_is_predicted_at_any_input_size(height, width, levels):
    net, inputs, maps = net_and_inputs(height, width, levels)
    found = net(net.fuse(inputs), maps)
    assert found.shape == (1, 2) and torch.isfinite(found).all() and found.any()


@pytest.mark.parametrize(("init", "inputs"), [("fan_out", 32), ("fan_in", 64)])
def test_initialisation_is_kaiming_with_zero_biases(init, inputs):
    """As released fan_out, relu gain: sqrt(2 / (9 outputs)); linear layers uniform within sqrt(3 / inputs)."""
    net = IoUNet(channels=(16, 16, 16, 16), maps=5, dim=32, hidden=64, init=init)
    assert not any(p.any() for name, p in net.named_parameters() if name.endswith("bias"))
    assert float(net.fuse1.weight.detach().std()) == pytest.approx((2 / (inputs * 9)) ** 0.5, rel=0.05)
    bound = (3 / net.fc1.in_features) ** 0.5
    assert 0.98 * bound < float(net.fc1.weight.detach().abs().max()) <= bound


def test_the_promised_iou_is_that_of_truths_drawn_as_the_network_says():
    logits = 2 * torch.randn(1, 2, 2, 12, 20)
    logits[0, 1, 1] = -20                                       # an empty mask
    p, mask = logits[0, 0].softmax(0)[1], logits[0, 0, 1] > logits[0, 0, 0]
    truths = torch.rand(4000, 12, 20) < p
    wanted = (truths & mask).double().mean(0).sum() / (truths | mask).double().mean(0).sum()
    found = promised_iou(logits)[0]
    torch.testing.assert_close(found[0], wanted, rtol=0.01, atol=0)
    assert found[1] == 0


def test_with_confidence_iou_net_starts_from_what_the_masks_promise():
    tiny = ["backbone.name=tiny", "backbone.width=8", "model.dim=16", "model.heads=2", "model.ffn_dim=16",
            "model.layers=1", "iou_net.dim=4", "iou_net.hidden=4", "iou_net.confidence=true"]
    model = build(load_config([], tiny)).double().eval()
    features = model.encode(torch.randn(1, 4, 3, 32, 40))
    support = model.encode_reference(features.frames([0, 1]), torch.rand(1, 2, 32, 40) > 0.5)
    clip = model.prepare(features.frames([2, 3]))
    out = model(clip, support)
    torch.testing.assert_close(model.predict_iou(out, clip, support), promised_iou(out.low_logits).clamp(0.02, 0.98))
    torch.nn.init.normal_(model.iou_net.fc2.weight)
    assert not torch.equal(model.predict_iou(out, clip, support), promised_iou(out.low_logits).clamp(0.02, 0.98))


@pytest.mark.parametrize("confidence", [False, True], ids=["paper", "confidence"])
@pytest.mark.parametrize("trained", [False, True])
def test_gradients_reach_only_the_iou_net(trained, confidence):
    backbone = Backbone(name="tiny", width=8, trained=trained)
    model = VIPMT(backbone, IoUNet(channels=backbone.channels, maps=5, dim=4, hidden=4), dim=16, num_layers=1, heads=2,
                  ffn_dim=16, confidence=confidence)
    features = model.encode(torch.randn(1, 4, 3, 32, 40))
    support = model.encode_reference(features.frames([0, 1]), torch.rand(1, 2, 32, 40) > 0.5)
    clip = model.prepare(features.frames([2, 3]))
    iou = model.predict_iou(model(clip, support), clip, support)
    assert (iou > 0).all() and (iou < 1).all()
    iou.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("iou_net."), name


def test_without_maps_the_mask_alone_is_read():
    backbone = Backbone(name="tiny", width=8)
    model = VIPMT(backbone, IoUNet(channels=backbone.channels, maps=1, dim=4, hidden=4), dim=16, num_layers=1, heads=2,
                  ffn_dim=16, use_maps=False).eval()
    with torch.no_grad():
        features = model.encode(torch.randn(1, 4, 3, 32, 40))
        support = model.encode_reference(features.frames([0, 1]), torch.rand(1, 2, 32, 40) > 0.5)
        clip = model.prepare(features.frames([2, 3]))
        out = model(clip, support)
        assert torch.equal(model.similarity_maps(out, clip, support)[:, :, 0] > 0, out.low_logits.argmax(2) > 0)
        assert model.predict_iou(out, clip, support).shape == (1, 2)
