"""XMem (Cheng and Schwing 2022) as a plug: its own code, whose folder has to be in PYTHONPATH, and its own weights.

Tried with a stand-in of its interface, not with XMem itself.
"""
from functools import lru_cache

import torch
from inference.inference_core import InferenceCore
from model.network import XMem as Network

# As its eval.py, for videos of any length.
CONFIG = {"top_k": 30, "mem_every": 5, "deep_update_every": -1, "enable_long_term": True,
          "enable_long_term_count_usage": True, "max_mid_term_frames": 10, "min_mid_term_frames": 5,
          "max_long_term_elements": 10000, "num_prototypes": 128}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@lru_cache(maxsize=2)
def network(weights, device):
    """->  network, its config with what it has added; read once for all videos"""
    config = dict(CONFIG)
    return Network(config, weights, map_location=device).to(device).eval(), config


class XMem:
    """The factory of `propagation.plug: xmem`; one object per video."""
    own_size = True

    def __init__(self, cfg, model, device):
        self.core = InferenceCore(*network(cfg.propagation.weights, device))
        self.core.set_all_labels([1])

    @staticmethod
    def check(own):
        if own.weights == "none":
            raise ValueError("propagation.weights: xmem needs its weights: propagation.weights=path/to/XMem.pth")

    def begin(self, image, mask):
        """image (3, H, W) in [0, 1], mask (H, W) bool"""
        self.core.step(normalised(image), mask[None].float(), [1])

    def propagate(self, images):
        """images (T, 3, H, W)  ->  margins (T, H, W) in [-1, 1]: its probabilities, object minus background"""
        return torch.stack([torch.sub(*self.core.step(normalised(image)).flip(0)) for image in images])


def normalised(image):
    mean, deviation = (image.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (image - mean) / deviation
