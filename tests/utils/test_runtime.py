"""How the process computes: what is set, and what is refused."""
from types import SimpleNamespace

import pytest
import torch

from utils import runtime


@pytest.fixture(autouse=True)
def restored():
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


def speed(**changes):
    return SimpleNamespace(**{"amp": "off", "tf32": False, "compile": False, "deterministic": False} | changes)


@pytest.mark.parametrize(("amp", "dtype"), [("off", None), ("bf16", torch.bfloat16)])
def test_precision_of_the_test_is_a_dtype(amp, dtype):
    assert runtime.prepare_runtime(speed(amp=amp), torch.device("cpu")) is dtype


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_set_for_products_and_convolutions_alike(tf32):
    runtime.prepare_runtime(speed(tf32=tf32), torch.device("cpu"))
    assert torch.backends.cuda.matmul.allow_tf32 is tf32 and torch.backends.cudnn.allow_tf32 is tf32


def test_half_precision_on_a_cpu_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="speed.amp: fp16 is for GPUs.\n.*speed.amp=bf16"):
        runtime.prepare_runtime(speed(amp="fp16"), torch.device("cpu"))


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: SimpleNamespace())
    runtime.tune_malloc()
    monkeypatch.setattr(runtime.sys, "platform", "win32")
    monkeypatch.setattr(runtime.ctypes, "CDLL", None)
    runtime.tune_malloc()
