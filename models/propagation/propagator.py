"""The socket for propagation methods: find the factory that the config names, and check every answer.

A method's own code may be anything; what it returns is not trusted, so that a mistake in an adapter is told from one
here. models/propagation/__init__.py says what an adapter looks like.
"""
import importlib

import torch

from models.propagation.matching import FeatureMatching

SEE = "models/propagation/__init__.py says what a plug looks like."


def find_factory(name):
    """propagation.plug: matching, or module:factory  ->  factory(cfg, model, device)

    ValueError: no such module, no such name in it, or something that cannot be called
    """
    if name == "matching":
        return FeatureMatching.of_config
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"propagation.plug: cannot read '{name}': write matching, or module:factory.\n  {SEE}")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        hint = "Put its folder into PYTHONPATH." if missing else "The module is there, but what it imports is not."
        raise ValueError(f"propagation.plug: {name}: cannot import {module}: {error}.\n  {hint}") from error
    if not callable(getattr(found, attribute, None)):
        near = ", ".join(n for n, value in vars(found).items() if callable(value) and not n.startswith("_"))
        raise ValueError(f"propagation.plug: {name}: {module} has no function or class '{attribute}'.\n"
                         f"  It has: {near or 'none'}")
    return getattr(found, attribute)


class Propagator:
    """What the factory returned, for one video: the same methods, their answers checked."""

    def __init__(self, cfg, model):
        self.name = cfg.propagation.plug
        self.plugged = find_factory(self.name)(cfg, model, model.device)
        for method in ("begin", "propagate"):
            if not callable(getattr(self.plugged, method, None)):
                self.refuse(f"the factory returned a {type(self.plugged).__name__} without the method '{method}'")

    def encode(self, images, features):
        """images (T, 3, H, W), features: a function  ->  one entry per frame, the images themselves by default"""
        encode = getattr(self.plugged, "encode", None)
        frames = images if encode is None else encode(images, features)
        if not hasattr(frames, "__getitem__") or len(frames) != len(images):
            found = len(frames) if hasattr(frames, "__len__") else type(frames).__name__
            self.refuse(f"encode: expected one entry per frame, {len(images)}, got {found}")
        return frames

    def begin(self, frame, mask):
        """The first entry of encode, mask (H, W) bool"""
        self.size = tuple(mask.shape)
        self.plugged.begin(frame, mask)

    def propagate(self, frames):
        """The next T entries of encode  ->  margins (T, H, W)"""
        margins, expected = self.plugged.propagate(frames), (len(frames), *self.size)
        if not isinstance(margins, torch.Tensor) or not margins.is_floating_point():
            kind = margins.dtype if isinstance(margins, torch.Tensor) else type(margins).__name__
            self.refuse(f"propagate: expected a tensor of floating point margins, got {kind}")
        if tuple(margins.shape) != expected:
            self.refuse(f"propagate: expected margins of shape {expected}, (T, H, W), got {tuple(margins.shape)}")
        if not torch.isfinite(margins).all():
            self.refuse(f"propagate: {int((~torch.isfinite(margins)).sum())} of {margins.numel()} margins are NaN or "
                        "infinite")
        return margins

    def refuse(self, what):
        raise ValueError(f"propagation.plug: {self.name}: {what}.\n  {SEE}")
