"""How the process computes: float32 precision, cuDNN's choice of algorithms, and the CPU's memory allocator."""
import ctypes
import os
import sys

import torch

AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name=None):
    """--device  ->  its name; without one the GPU where there is one. ValueError: cuda without a GPU"""
    if str(name or "").startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: PyTorch sees no GPU here; use --device cpu or check nvidia-smi")
    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def prepare_runtime(speed, device):
    """Set up this process for a run: the config's section, torch.device  ->  dtype of the test's autocast, or None

    ValueError for a precision that the device does not compute in.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = speed.tf32
    torch.backends.cudnn.benchmark = device.type == "cuda" and not speed.deterministic   # input sizes are fixed
    if speed.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")      # cuBLAS asks for it
    torch.use_deterministic_algorithms(speed.deterministic)
    if device.type == "cpu":
        tune_malloc()
    if speed.amp == "fp16" and device.type == "cpu":
        raise ValueError("speed.amp: fp16 is for GPUs.\n  Set speed.amp=bf16 or speed.amp=off.")
    if speed.amp == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ValueError("speed.amp: this GPU has no bf16.\n  Set speed.amp=fp16 or speed.amp=off.")
    return AMP[speed.amp]


def tune_malloc():
    """Let glibc keep large blocks that were freed, instead of giving them back and faulting every page in again.

    Feature maps are tens of megabytes and come and go with every layer: a clip takes about half the time with this
    (benchmarks/speed.md). Other C libraries have no mallopt, or ignore it.
    """
    set_allocator(mmap_max=0, trim_threshold=2 ** 31 - 1)


def set_allocator(**parameters):
    """glibc's mallopt by name; nothing where there is none."""
    numbers = {"trim_threshold": -1, "mmap_threshold": -3, "mmap_max": -4}
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        for name, value in parameters.items() if mallopt is not None else ():
            mallopt(numbers[name], value)
