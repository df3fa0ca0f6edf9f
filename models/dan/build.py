"""From the config to a DAN with its weights."""
import torch

from models.backbone_weights import load_backbone
from models.dan.encoder import Encoder
from models.dan.model import DAN
from utils.checkpoint import load_trained, load_weights


def build(cfg, pretrained=False, split=None):
    """The model of a config; pretrained: with the encoder of backbone.weights, for a training.

    FileNotFoundError, ValueError: weights that are not there or do not fit
    """
    backbone = cfg.backbone
    encoder = Encoder(released_bn=backbone.released_bn, name=backbone.name, stem=backbone.stem, width=backbone.width,
                      stride_in_1x1=backbone.stride_in_1x1, cache_frames=backbone.cache_frames,
                      weights=backbone.weights, size=cfg.data.size)
    if pretrained and backbone.weights != "none":
        load_backbone(encoder, backbone)
    return DAN(encoder, key_dim=cfg.model.key_dim, value_dim=cfg.model.value_dim, dim=cfg.model.dim)


def compile_parts(model, backend="inductor"):
    """speed.compile: what takes the time."""
    model.encoder.run = torch.compile(model.encoder.run, backend=backend)
    model.decoder.compile(backend=backend)


def parameter_groups(model, cfg):
    """Everything but the encoder and the two biases without effect, at one rate."""
    return [{"params": [p for p in model.parameters() if p.requires_grad]}]


def load(model, path, cfg, split):
    """A checkpoint's weights, strictly  ->  its content; ValueError where they saw this split's test classes"""
    content = load_trained(path, split)
    load_weights(model, content["model"], path)
    return content
