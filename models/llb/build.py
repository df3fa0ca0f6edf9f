"""From the config to an LLB with its weights; which parts are trained at which rate. The rest is LWL's."""
from pathlib import Path

import torch

from models.backbone_weights import read_state_dict
from models.llb.model import LLB
from models.lwl.build import load_pretrained, pyramid_of
from models.lwl.build import parameter_groups as lwl_groups
from models.lwl.decoder import initialise_he
from utils.checkpoint import load_weights

PARTS = {"reg": "reg", "features": "features", "decoder": "decoder", "label": "label_encoder", "matching": "matching",
         "fusion": "fusion", "backbone": "backbone"}         # key of rates -> part of the model
GET_VITAE = """ViTAE-6M, trained on ImageNet, is linked from its authors' page (github.com/ViTAE-Transformer/ViTAE);
  put the file there, or take a network of timm: model.label_encoder=resnet18 model.label_weights=timm"""


def build(cfg, pretrained=False, split=None):
    """The model of a config; pretrained: for a training, from train.start, else with the weights that it names.

    FileNotFoundError, ValueError: weights that are not there or do not fit
    """
    model, fresh = cfg.model, pretrained and cfg.train.start == "none"
    network = LLB(pyramid_of(cfg), feature_dim=model.feature_dim, key_dim=model.key_dim, filters=model.filters,
                  widths=model.widths, reg=cfg.learner.reg, label_encoder=model.label_encoder,
                  label_input=model.label_input, bff_flavour="caffe2" if model.bff_norm == "official" else "imagenet",
                  label_pretrained=fresh and model.label_weights == "timm", fusion=model.fusion)
    if model.decoder_init == "he":
        initialise_he(network.decoder)
    network.to(memory_format=torch.channels_last)          # as LWL
    if fresh and model.label_weights not in ("none", "timm"):
        load_vitae(network.label_encoder.trunk, model.label_weights)
    if pretrained:
        load_pretrained(network, cfg)
    return network


def load_vitae(trunk, path):
    """The published file into a ViTAE: its classifier is left out, the rest is strict."""
    state = read_state_dict(Path(path), "model.label_weights", GET_VITAE)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    load_weights(trunk, {name: value for name, value in state.items() if not name.startswith("head.")}, path)


def parameter_groups(model, cfg):
    """What has gradients, part by part at its share of train.lr (section rates)."""
    return lwl_groups(model, cfg, PARTS)
