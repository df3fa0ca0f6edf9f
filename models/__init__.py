"""METHODS: name -> module with build, TrainStep and VideoSegmenter. The only registry."""
from models import iou_training, propagation, vipmt

METHODS = {"vipmt": vipmt, "iounet": iou_training, "propagation": propagation}


def get_method(name):
    """The module of `model.method`; ValueError where there is none of that name."""
    if name not in METHODS:
        raise ValueError(f"model.method: unknown value {name!r}.\n  Choose one of: {', '.join(METHODS)}")
    return METHODS[name]
