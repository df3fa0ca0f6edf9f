"""Randomness: one generator per draw, by its key (rng_for), and the global ones: seeded, saved and restored together.

Data, tests and memory draw from generators of their own; dropout uses torch's global one.
"""
import hashlib
import json
import random

import numpy as np
import torch


def rng_for(*key):
    """The generator of one draw: the same for the same key of integers and strings, on any machine.

    The only source of randomness of data and memory; the global generators are never used.
    """
    plain = [part if isinstance(part, str) else int(part) for part in key]
    digest = hashlib.sha256(json.dumps(plain).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def seed_generators(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def rng_state():
    """State of all global generators, as tensors, lists and numbers that weights_only loading accepts."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,     # of the process's own GPU
    }


def set_rng_state(state):
    """Continue every generator where rng_state() saw it; a GPU that this machine lacks is left out."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
