"""From the config to the part of VIPMT that predicts IoUs: its encoder, its similarity maps and an IoUNet to train."""
from pathlib import Path

from easydict import EasyDict

from models import vipmt
from models.vipmt.iou_net_files import load_iou_net
from utils.checkpoint import load_checkpoint, load_weights
from utils.config import to_dict

Config, parameter_groups, load, compile_parts = vipmt.Config, vipmt.parameter_groups, vipmt.load, vipmt.compile_parts

SEGMENTS_NOTHING = """model.method: iounet trains IoUNet and segments nothing.
  Set validate.classes=none in its training, use its checkpoint as iou_net.weights of a VIPMT, and measure IoUNet itself
  with tools/workshop/iou_study.py."""


def build(cfg, pretrained=False, split=None):
    """A VIPMT without iterations, of which only IoUNet is trained. Its checkpoint serves as `iou_net.weights`.

    Without iterations the file cannot be taken for a trained VIPMT. pretrained: with the weights of backbone.weights,
    which may also be a checkpoint of VIPMT: IoUNet then learns on the encoder that was trained with it.
    """
    if not cfg.model.memory_prototype:
        raise ValueError("model.memory_prototype: false: a VIPMT without memory has no IoUNet to train.\n"
                         "  Set model.memory_prototype=true.")
    if cfg.model.method == "iounet" and cfg.validate.classes != "none":
        raise ValueError(SEGMENTS_NOTHING)
    if pretrained and cfg.iou_net.confidence:
        raise ValueError("iou_net.confidence: synthesised masks have no probabilities that promise anything.\n"
                         "  Set iou_net.confidence=false, or train IoUNet jointly")
    source, cfg = cfg.backbone.weights, EasyDict(to_dict(cfg))
    cfg.model.layers, cfg.iou_net.confidence = 0, False
    state = trained_encoder(Path(source)) if pretrained and not cfg.backbone.name.startswith("timm/") else None
    if state is not None:
        cfg.backbone.weights = "none"
    model = vipmt.build(cfg, pretrained, split)
    if state is not None:
        load_encoder(model, state, source)
    model.requires_grad_(False)
    model.iou_net.requires_grad_(True)
    return model


def trained_encoder(path):
    """The weights of a VIPMT checkpoint where backbone.weights names one; None for all else, left to vipmt.build"""
    return load_checkpoint(path).get("model") if path.is_file() else None


def load_encoder(model, state, source):
    """The encoder of a VIPMT checkpoint: its weights by name; ValueError where they do not fit"""
    prefix = "backbone."
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    load_weights(model.backbone, own, source)


def load_encoder_and_iou_net(model, path):
    """Encoder and IoUNet of any checkpoint of ours, trained jointly or on its own, for measuring it."""
    state = load_checkpoint(path)
    if "model" not in state:
        raise ValueError(f"{path}: no entry 'model': expected a checkpoint of train.py")
    load_encoder(model, state["model"], path)
    load_iou_net(model.iou_net, path)


class Segmenter:
    """An IoUNet alone segments nothing: one clear error where a test asks for it."""

    def __init__(self, *_, **__):
        raise ValueError(SEGMENTS_NOTHING)
