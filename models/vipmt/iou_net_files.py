"""IoUNets of other files: which may serve, and how they come into a VIPMT (Section 4.3, Tables 6 and 7)."""
from pathlib import Path

import torch

from models.backbone_weights import read_state_dict
from utils.config import flatten, to_dict
from utils.logger import get_logger

VIDEO_DATA = ("ytvis", "minivspw")      # values of data.dataset whose folds test classes that other folds train on


def load_iou_net(iou_net, path, cfg=None, fold=None, key="iou_net.weights"):
    """The IoUNet of a checkpoint (or a state_dict of its own)  ->  all weights of that file

    cfg, fold: what it is to serve, see check_origin; key: who named the file, for errors
    """
    state = read_iou_net(path, cfg, fold, key)
    own = {k.removeprefix("iou_net."): v for k, v in state.items() if k.startswith("iou_net.")} or state
    expected = iou_net.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in expected.items()}:
        raise ValueError(
            f"{key}: {path} holds another IoUNet ({len(own)} tensors, {len(expected)} expected).\n"
            "  iou_net.dim, hidden and similarity_maps and the backbone have to be those it was trained with.")
    iou_net.load_state_dict(own)
    return state


def read_iou_net(path, cfg=None, fold=None, key="iou_net.weights"):
    """The weights of a file with an IoUNet, by name; ValueError where it may not serve this config and fold"""
    advice = "Name a checkpoint with an IoUNet" + (", or iou_net.weights=none." if key == "iou_net.weights" else ".")
    checkpoint = read_state_dict(Path(path), key, advice)
    weights = checkpoint.get("model", checkpoint)
    if not isinstance(weights, dict) or (
            "model" in checkpoint and not any(str(name).startswith("iou_net.") for name in weights)):
        raise ValueError(f"{key}: {path} holds no IoUNet (was model.memory_prototype false?).\n  {advice}")
    if cfg is not None and isinstance(checkpoint.get("config"), dict):
        check_origin(checkpoint, cfg, fold, f"{key}: {path}")
    return weights


def check_origin(checkpoint, cfg, fold, source):
    """ValueError for an IoUNet that has seen what it will be tested on, that has other sizes or learned other maps.

    Trained on video, jointly or alone, it knows the base classes of its fold, which are the test classes of others;
    trained on COCO it serves all folds. fold None, on either side, fits all.
    """
    then, now, trained = flatten(checkpoint["config"]), flatten(to_dict(cfg)), checkpoint.get("fold")
    data, ours = then.get("data.dataset"), now["data.dataset"]
    if data in VIDEO_DATA and None not in (fold, trained) and (data, trained) != (ours, fold):
        raise ValueError(
            f"{source} was trained on video ({data}, fold {trained}), with classes that are tested here ({ours}, fold "
            f"{fold}).\n  Name the IoUNet of this fold, or one of COCO, which serves all "
            "(config/vipmt/iounet_coco20i.yaml).")
    keys = ("model.high_level", "iou_net.similarity_maps", "iou_net.dim", "iou_net.hidden", "iou_net.confidence")
    keys += ("iou_net.similarity",) if now["iou_net.similarity_maps"] else ()
    differ = [key for key in keys if then.get(key, now[key]) != now[key]]
    if differ:
        there, here = (" ".join(f"{key}={config[key]}" for key in differ).replace("=True", "=true").replace(
            "=False", "=false") for config in (then, now))
        raise ValueError(f"{source} was trained with {there}; the config says {here}.\n"
                         "  Set it as there, or name an IoUNet that was trained as the config says.")


def with_iou_net(model, state, path, cfg, fold):
    """iou_net.replace: the weights of a VIPMT with the IoUNet of another file, as config and model describe it.

    state: the VIPMT's weights by name, whose own IoUNet may have other sizes  ->  the same with the file's IoUNet
    """
    if model.iou_net is None:
        raise ValueError(f"iou_net.replace: {path}: this model has no IoUNet (model.memory_prototype: false, or a "
                         "method without memory).\n  Leave it out.")
    trained = load_iou_net(model.iou_net, path, cfg, fold, "iou_net.replace")
    encoder = [name for name in trained if name.startswith("backbone.") and name in state]
    if not all(torch.equal(trained[name], state[name]) for name in encoder):
        get_logger().warning("iou_net.replace: %s: it learned on another encoder than that of the checkpoint; what it "
                             "says of these features means little", path)
    own = {f"iou_net.{name}": value for name, value in model.iou_net.state_dict().items()}
    return {name: value for name, value in state.items() if not name.startswith("iou_net.")} | own
