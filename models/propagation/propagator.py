"""The socket for propagation methods: find the factory that the config names, and check every answer.

A method's own code may be anything; what it returns is not trusted, so that a mistake in an adapter is told from one
here. models/propagation/__init__.py says what an adapter looks like.
"""
import importlib

import torch

from models import METHODS, get_method
from models.propagation.matching import FeatureMatching
from models.propagation.vos_method import VosMethod

SEE = "models/propagation/__init__.py says what a plug looks like."
NAMED = {"sam2": ("models.propagation.sam2:Sam2", "transformers with Sam2VideoModel: pip install transformers"),
         "xmem": ("models.propagation.xmem:XMem", "XMem's own code: put its folder into PYTHONPATH")}


def find_factory(name):
    """propagation.plug: matching, a method of the vos task, sam2, xmem, or module:factory  ->  its factory

    ValueError: nothing of that name, or something that cannot be called
    """
    if name == "matching":
        return FeatureMatching.of_config
    if name in NAMED:
        return imported(*NAMED[name][0].split(":"), name, NAMED[name][1])
    module, colon, attribute = name.partition(":")
    if not colon and (name in METHODS or "." in name):
        if get_method(name).TASK != "vos":
            raise ValueError(f"propagation.plug: {name} follows no masks: its task is {get_method(name).TASK}.\n"
                             f"  Methods that do: {', '.join(n for n in METHODS if get_method(n).TASK == 'vos')}")
        return VosMethod
    if not (module and colon and attribute):
        raise ValueError(f"propagation.plug: cannot read '{name}': write matching, a method of the vos task (lwl), "
                         f"{', '.join(NAMED)}, or module:factory.\n  {SEE}")
    return imported(module, attribute, name)


def imported(module, attribute, name, needs=None):
    """What a module has by this name; needs: what a plug of ours must have beside the project"""
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        if needs:
            raise ValueError(f"propagation.plug: {name} needs {needs} ({error}).") from error
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
        self.own_size = getattr(self.plugged, "own_size", False)

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
