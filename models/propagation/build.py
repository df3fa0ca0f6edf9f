"""From the config to the model of the first frame: that of `vipmt`, so that its checkpoints load."""
from models import vipmt
from models.propagation.propagator import find_factory

NOTHING_TO_TRAIN = """model.method: propagation trains nothing: its first frames come from a checkpoint of IPMT.
  Train that with --config config/vipmt/ytvis.yaml --config config/vipmt/ablation/ipmt_baseline.yaml, and name this
  method in tests only (config/vipmt/ablation/ipmt_propagation.yaml)."""


def build(cfg, pretrained=False, split=None):
    """The model that segments first frames.

    ValueError: a plug that cannot be had, or pretrained, which only the start of a training asks for
    """
    if pretrained:
        raise ValueError(NOTHING_TO_TRAIN)
    factory = find_factory(cfg.propagation.plug)
    getattr(factory, "check", lambda own: None)(cfg.propagation)     # found now, not at the first video
    return vipmt.build(cfg)


class TrainStep:
    """One clear error where a training asks for it."""

    def __init__(self, *_, **__):
        raise ValueError(NOTHING_TO_TRAIN)
