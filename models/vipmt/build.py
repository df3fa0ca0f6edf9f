"""From the config to a VIPMT with its pretrained parts: the one place where the model meets the config."""
from pathlib import Path

import torch

from models.backbone import Backbone
from models.vipmt.iou_net import IoUNet
from models.vipmt.model import VIPMT
from utils.checkpoint import load_checkpoint
from utils.config import flatten, to_dict
from utils.logger import get_logger

VIDEO_DATA = ("ytvis", "minivspw")      # values of data.dataset whose folds test classes that other folds train on

GET_WEIGHTS = """The paper's encoder, a ResNet-50 with a deep stem trained on ImageNet, is linked from the released
  README (github.com/nankepan/VIPMT) as resnet50_v2.pth; put it there (pretrain_model/README.md).
  Without it: backbone.weights=torchvision backbone.stem=plain takes torchvision's ImageNet weights."""


def build(cfg, pretrained=False):
    """The model of a config; pretrained: with the weights of backbone.weights and iou_net.weights, for training.

    FileNotFoundError, ValueError: weights that are not there or do not fit
    """
    backbone = Backbone(
        name=cfg.backbone.name, stem=cfg.backbone.stem, stride_in_1x1=cfg.backbone.stride_in_1x1,
        high_level=cfg.model.high_level, trained=cfg.backbone.trained, width=cfg.backbone.width,
        cache_frames=cfg.backbone.cache_frames)
    iou_net = build_iou_net(cfg, backbone.channels) if cfg.model.memory_prototype else None
    model = VIPMT(
        backbone, iou_net, dim=cfg.model.dim, num_layers=cfg.model.layers, heads=cfg.model.heads,
        ffn_dim=cfg.model.ffn_dim, dropout=cfg.model.dropout, feature_dropout=cfg.model.feature_dropout,
        frame_prototype=cfg.model.frame_prototype, communication=cfg.model.communication,
        memory_attention=cfg.model.memory_attention, cumulative_prior=cfg.model.prior == "cumulative",
        memory_in_prior=cfg.model.memory_in_prior, patch_masks=cfg.model.degenerate_masks == "patch",
        cosine_maps=cfg.iou_net.similarity == "pooled_cosine", use_maps=cfg.iou_net.similarity_maps,
        init=cfg.model.init)
    if pretrained and cfg.backbone.weights != "none":
        load_backbone(model.backbone, cfg.backbone)
    if pretrained and iou_net is not None and cfg.iou_net.weights != "none":
        load_iou_net(iou_net, cfg.iou_net.weights, cfg)
        iou_net.requires_grad_(cfg.iou_net.training == "joint")
    return model


def compile_parts(model, backend="inductor"):
    """speed.compile: the parts that take the time, each once for all clips; the first clips then take minutes."""
    model.backbone.run = torch.compile(model.backbone.run, backend=backend)
    for layer in model.layers:
        layer.compile(backend=backend)
    if model.iou_net is not None:
        model.iou_net.compile(backend=backend)


def build_iou_net(cfg, channels):
    maps = 5 if cfg.iou_net.similarity_maps else 1
    return IoUNet(channels=channels, maps=maps, dim=cfg.iou_net.dim, hidden=cfg.iou_net.hidden, init=cfg.iou_net.init)


def load_backbone(backbone, cfg):
    """ImageNet weights into the encoder: classifier and stages that we do not have are left out, the rest is strict."""
    if cfg.weights == "torchvision":
        state, source = torchvision_weights(cfg), "torchvision"
    else:
        state, source = read_state_dict(Path(cfg.weights), "backbone.weights", GET_WEIGHTS), cfg.weights
    state = {k.removeprefix("module."): v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    dropped = ("fc.",) if hasattr(backbone.body, "layer4") else ("fc.", "layer4.")
    state = {k: v for k, v in state.items() if not k.startswith(dropped)}
    check_backbone_keys(backbone.body.state_dict(), state, source, cfg)
    backbone.body.load_state_dict(state)


def torchvision_weights(cfg):
    import torchvision
    if cfg.name == "tiny":
        raise ValueError("backbone.weights=torchvision: the tiny encoder is ours; set backbone.weights=none or a file")
    if cfg.stem != "plain":
        raise ValueError("backbone.weights=torchvision: its ResNets have the plain stem; set backbone.stem=plain")
    weights = torchvision.models.get_model_weights(cfg.name).IMAGENET1K_V1
    return weights.get_state_dict(progress=True, check_hash=True)


def check_backbone_keys(expected, state, source, cfg):
    """ValueError with a readable difference and the likely fix."""
    wrong = sorted(set(expected) ^ set(state)) + [
        k for k in expected if k in state and expected[k].shape != state[k].shape]
    if not wrong:
        return
    hint = "backbone.name and backbone.stem have to be those of the file"
    if "conv3.weight" in wrong:
        hint = f"backbone.stem={'plain' if cfg.stem == 'deep' else 'deep'} is this file's stem"
    elif all(k.startswith("layer4.") for k in wrong):
        hint = "the file ends before stage 4: set model.high_level=c4"
    raise ValueError(f"backbone.weights: {source} does not fit {cfg.name} with the {cfg.stem} stem: "
                     f"{len(wrong)} tensors differ, first {', '.join(wrong[:3])}.\n  {hint}")


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


def check_iou_net(cfg, fold):
    """What `build`, which knows no folds, cannot see: iou_net.weights may have learned test classes of this fold."""
    if cfg.model.memory_prototype and cfg.iou_net.weights != "none":
        read_iou_net(cfg.iou_net.weights, cfg, fold)


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
    keys = ("model.high_level", "iou_net.similarity_maps", "iou_net.dim", "iou_net.hidden")
    keys += ("iou_net.similarity",) if now["iou_net.similarity_maps"] else ()
    differ = [key for key in keys if then.get(key, now[key]) != now[key]]
    if differ:
        there, here = (" ".join(f"{key}={config[key]}" for key in differ).replace("=True", "=true").replace(
            "=False", "=false") for config in (then, now))
        raise ValueError(f"{source} was trained with {there}; the config says {here}.\n"
                         "  Set it as there, or name an IoUNet that was trained as the config says.")


def with_iou_net(model, state, path, cfg, fold):
    """test.py --iou-net: the weights of a VIPMT with the IoUNet of another file, as config and model describe it.

    state: the VIPMT's weights by name, whose own IoUNet may have other sizes  ->  the same with the file's IoUNet
    """
    if model.iou_net is None:
        raise ValueError(f"--iou-net {path}: this model has no IoUNet (model.memory_prototype: false, or a method "
                         "without memory).\n  Leave the flag out.")
    trained = load_iou_net(model.iou_net, path, cfg, fold, "--iou-net")
    encoder = [name for name in trained if name.startswith("backbone.") and name in state]
    if not all(torch.equal(trained[name], state[name]) for name in encoder):
        get_logger().warning("--iou-net %s: it learned on another encoder than that of the checkpoint; what it says "
                             "of these features means little", path)
    own = {f"iou_net.{name}": value for name, value in model.iou_net.state_dict().items()}
    return {name: value for name, value in state.items() if not name.startswith("iou_net.")} | own


def read_state_dict(path, key, advice):
    """Tensors by name; FileNotFoundError with the advice, ValueError where the file is something else."""
    if not path.is_file():
        raise FileNotFoundError(f"{key}: no file {path}.\n  {advice}")
    state = load_checkpoint(path)
    return state.get("state_dict", state)
