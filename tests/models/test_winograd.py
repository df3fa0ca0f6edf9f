"""Winograd's way against the direct one: equal in exact arithmetic, near in float32, chosen only where it may be."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import get_method, winograd
from models.backbone import fold_normalisation
from utils.config import load_config


def inputs(n, c, h, w, outputs, dtype=torch.float64):
    return (torch.randn(n, c, h, w, dtype=dtype).relu(), torch.randn(outputs, c, 3, 3, dtype=dtype) / (3 * c ** 0.5),
            torch.randn(outputs, dtype=dtype))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("size", "dilation"), [((1, 1), 1), ((4, 8), 1), ((9, 14), 1), ((7, 13), 2), ((18, 11), 4)])
def test_it_is_the_convolution_in_exact_arithmetic(size, dilation, layout, monkeypatch):
    x, weight, bias = inputs(3, 5, *size, 7)
    x, weight = x.to(memory_format=layout), weight.to(memory_format=layout)
    expected = F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(winograd.winograd(x, weight, bias, dilation), expected, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(winograd, "CHUNK", 1)                   # frame by frame
    found = winograd.winograd(x, weight, dilation=dilation)
    torch.testing.assert_close(found, expected - bias[:, None, None], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dilation", [1, 2])
def test_its_error_in_float32_is_a_ten_thousandth_of_the_outputs_at_most(dilation):
    x, weight, bias = inputs(2, 512, 15, 22, 256)
    exact = F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)
    found = winograd.winograd(x.float(), weight.float(), bias.float(), dilation)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() <= 1e-4 * exact.square().mean().sqrt()


def convolution(**changes):
    usual = {"in_channels": 256, "out_channels": 256, "kernel_size": 3, "padding": 1}
    model = nn.Sequential(nn.Conv2d(**usual | changes))
    winograd.use_winograd(model, "auto")
    return model[0]


@pytest.mark.parametrize("changes", [
    {"stride": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 2}, {"padding_mode": "reflect"}, {"kernel_size": 1},
    {"in_channels": 128}, {"out_channels": 128}], ids=str)
def test_other_convolutions_stay_as_they_are(changes):
    assert type(convolution(**changes)) is nn.Conv2d


def ways(monkeypatch, conv, x):
    """->  whether it went Winograd's way"""
    calls = []
    monkeypatch.setattr(winograd, "winograd", lambda *arguments: calls.append(arguments))
    conv(x)
    return bool(calls)


def test_it_is_chosen_in_float32_without_gradients_where_there_are_tiles_enough(monkeypatch):
    conv, x = convolution(), torch.randn(1, 256, 32, 32)
    with torch.no_grad():
        assert ways(monkeypatch, conv, x)
        assert not ways(monkeypatch, conv, x[..., :28])         # 56 tiles
        assert not ways(monkeypatch, conv, torch.randn(40, 256, 5, 9))                # 96 outputs for 45
        assert not ways(monkeypatch, conv, x[0])
        with torch.autocast("cpu", torch.bfloat16):
            assert not ways(monkeypatch, conv, x)
        assert not ways(monkeypatch, conv.double(), x.double())
    assert not ways(monkeypatch, conv.float(), x)


def test_gradients_are_those_of_the_direct_convolution():
    conv, x = convolution(), torch.randn(1, 256, 32, 32, requires_grad=True)
    found = torch.autograd.grad(conv(x).square().sum(), [x, conv.weight])
    expected = torch.autograd.grad(F.conv2d(x, conv.weight, conv.bias, padding=1).square().sum(), [x, conv.weight])
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(("choice", "outside", "inside"), [("auto", 20, 9), ("off", 0, 0)])
def test_the_config_decides_and_the_folded_backbone_keeps_it(choice, outside, inside):
    with torch.device("meta"):
        model = get_method("vipmt").build(load_config([], [f"speed.winograd={choice}"]))
        folded = fold_normalisation(model.backbone.body)

    def count(part):
        return sum(isinstance(module, winograd.WinogradConv2d) for module in part.modules())
    assert (count(model) - count(model.backbone), count(folded)) == (outside, inside)
