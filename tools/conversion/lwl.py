"""Checkpoints that the authors of LWL and LLB published, such as lwl_stage2.pth, for tools/convert_released.py.
"""
import re

import torch

from models import get_method
from tools.conversion import llb
from tools.conversion.reading import read_released
from utils.checkpoint import load_weights
from utils.config import load_config

# Released name  ->  ours, as regular expressions; the first match counts.
NAMES = (
    (r"feature_extractor\.(.*)", r"backbone.body.\1"),
    (r"target_model\.feature_extractor\.0\.(.*)", r"features.conv.\1"),
    (r"target_model\.filter_optimizer\.residual_module\.filter_reg", r"reg"),
    (r"decoder\.TSE\.(layer\d)\.(.*)", r"decoder.levels.\1.\2"),
    (r"decoder\.RRB1\.(layer\d)\.conv1x1\.(.*)", r"decoder.levels.\1.before.reduce.\2"),
    (r"decoder\.RRB1\.(layer\d)\.bblock\.(.*)", r"decoder.levels.\1.before.block.\2"),
    (r"decoder\.RRB2\.(layer\d)\.conv1x1\.(.*)", r"decoder.levels.\1.after.reduce.\2"),
    (r"decoder\.RRB2\.(layer\d)\.bblock\.(.*)", r"decoder.levels.\1.after.block.\2"),
    (r"decoder\.CAB\.(layer\d)\.convreluconv\.(.*)", r"decoder.levels.\1.attention.\2"),
    (r"decoder\.proj\.(layer\d)\.0\.(.*)", r"decoder.levels.\1.project.\2"),
    (r"decoder\.project\.conv(\d)\.(.*)", r"decoder.head\1.\2"),
    (r"label_encoder\.conv_block\.0\.(.*)", r"label_encoder.stem.\1"),
    (r"label_encoder\.res(\d)\.downsample\.(.*)", r"label_encoder.block\1.shortcut.\2"),
    (r"label_encoder\.res(\d)\.(.*)", r"label_encoder.block\1.\2"),
    (r"label_encoder\.label_pred\.0\.(.*)", r"label_encoder.label.\1"),
    (r"label_encoder\.samp_w_pred\.(.*)", r"label_encoder.weight.\1"),
    (r"box_label_encoder\.res\.0\.downsample\.(.*)", r"box_encoder.block1.shortcut.\1"),
    (r"box_label_encoder\.res\.1\.downsample\.(.*)", r"box_encoder.block2.shortcut.\1"),
    (r"box_label_encoder\.res\.0\.(.*)", r"box_encoder.block1.\1"),
    (r"box_label_encoder\.res\.1\.(.*)", r"box_encoder.block2.\1"),
    (r"box_label_encoder\.label_pred\.0\.(.*)", r"box_encoder.label.\1"),
)


def our_name(name):
    """A released name  ->  ours"""
    for pattern, ours in NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, ours, name)
    raise ValueError(f"{name}: no such parameter in the released network")


def convert(path, method="lwl"):
    """A published file  ->  state dict under our names, complete and of the right shapes, and the config it fits"""
    released = read_released(path)
    names = {name: our_name(name) for name in released} if method == "lwl" else llb.our_names(released, our_name)
    state = {ours: released[name].clone() for name, ours in names.items()}
    box = any(name.startswith("box_encoder.") for name in state)
    cfg = load_config([f"config/{method}/released.yaml"], ["model.box_encoder=true"] * box)
    with torch.device("meta"):
        model = get_method(method).build(cfg)
    load_weights(model.to_empty(device="cpu"), state, path)
    return state, cfg
