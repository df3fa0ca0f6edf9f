"""Table 3's competitors: the model segments the first frame, a propagation method carries its mask through the video.

`propagation.plug: matching` is our own propagator (matching.py). `propagation.plug: module:factory` plugs in any other
one without a change here: `module` has to be importable (PYTHONPATH), and factory(cfg, model, device), called once per
video and run, returns an object with

    begin(image, mask)      the first frame, (3, H, W), and its mask, (H, W) bool; nothing is returned
    propagate(images)       the next frames in their order, (T, 3, H, W), T at least 1, the last call's may be fewer
                            ->  margins (T, H, W), floating point: object minus background, > 0 is object
    encode(images, features), optional   what begin (its [0]) and propagate shall get instead of the images, indexed by
                            frame; computed once for all runs over a video. features() are the model's own maps of these
                            images (models.backbone.Features, B = 1), computed when first asked for.

Images are on the model's device, letterboxed to data.size, RGB in [0, 1].
Calls come in inference mode. Several runs go through a video at a time: state belongs to the object, weights to the
module.

An adapter for a method that is driven like XMem, one frame at a time, as a file xmem_plug.py (tried with a stand-in of
that interface, not with XMem itself):

    from functools import cache
    import torch
    from inference.inference_core import InferenceCore
    from model.network import XMem
    CONFIG = {"mem_every": 5, "enable_long_term": True}              # and the other keys of its eval.py

    @cache
    def network(device):                          # its weights are read once
        return XMem(CONFIG, "saves/XMem.pth", device).to(device).eval()

    class Plug:
        def __init__(self, cfg, model, device):
            self.core = InferenceCore(network(device), CONFIG)
            self.core.set_all_labels([1])
        def begin(self, image, mask):
            self.core.step(image, mask[None].float(), [1])     # image: as XMem normalises it
        def propagate(self, images):              # its probabilities: background, object
            return torch.stack([torch.sub(*self.core.step(image).flip(0)) for image in images])

    PYTHONPATH=.:path/to/XMem python test.py ... propagation.plug=xmem_plug:Plug
"""
from models.propagation.build import TrainStep, build
from models.propagation.config import Config
from models.propagation.inference import Segmenter
from models.vipmt import compile_parts, load, parameter_groups

TASK = "fewshot"

__all__ = ["TASK", "Config", "Segmenter", "TrainStep", "build", "compile_parts", "load", "parameter_groups"]
