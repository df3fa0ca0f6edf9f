"""Checkpoints of CMA's release, for tools/convert_released.py: only the names of the tensors change.

RoBERTa's weights, which it keeps beside them untrained, are left out: they are those of huggingface.co. So is what
reaches no output, the query projection of the support.
"""
import re

import torch

from models import get_method
from tools.conversion.reading import read_released
from utils.checkpoint import load_weights
from utils.config import load_config

ATTENTION = r"(sampling_offsets|attention_weights|value_proj|output_proj)"
PARTS = {"sampling_offsets": "offsets", "attention_weights": "weights", "value_proj": "values", "output_proj": "output",
         "self_attn": "self_attention", "multihead_attn": "word_attention", "linear1": "ffn.0", "linear2": "ffn.3"}
NAMES = (       # released name -> ours
    (r"backbone\.0\.(body\..*)", r"backbone.\1"),
    (r"input_proj\.(.*)", r"project.\1"),
    (r"resizer\.fc\.(.*)", r"resizer.linear.\1"), (r"resizer\.layer_norm\.(.*)", r"resizer.norm.\1"),
    (r"fusion_module\.multihead_attn\.(.*)", r"fusion.attention.\1"),
    (r"(support|query)_qkv\.(\w+)\.(.*)", lambda m: f"affinity.{m[1]}_{m[2].lower()}.{m[3]}"),
    (r"conv_q\.(.*)", r"affinity.reduce.\1"), (r"layer_norm\.(.*)", r"affinity.norm.\1"),
    (r"transformer\.level_embed", "encoder.level_embed"),
    (rf"transformer\.(..coder)\.layers\.(\d)\.(?:self|cross)_attn\.{ATTENTION}\.(.*)",
     lambda m: f"{m[1]}.layers.{m[2]}.attention.{PARTS[m[3]]}.{m[4]}"),
    (r"transformer\.(..coder\.layers\.\d)\.(linear\d|self_attn)\.(.*)", lambda m: f"{m[1]}.{PARTS[m[2]]}.{m[3]}"),
    (r"transformer\.(..coder\.layers\.\d\.norm.*)", r"\1"),
    (r"transformer\.decoder\.ref_point_head\.layers\.(\d)\.(.*)", lambda m: f"decoder.position.{2 * int(m[1])}.{m[2]}"),
    (r"transformer\.decoder\.query_scale\.layers\.(\d)\.(.*)", lambda m: f"decoder.scale.{2 * int(m[1])}.{m[2]}"),
    (r"(?:transformer\.decoder\.)?bbox_embed\.(\d)\.layers\.(\d)\.(.*)",
     lambda m: f"decoder.boxes.{m[1]}.{2 * int(m[2])}.{m[3]}"),
    (r"class_embed\.(.*)", r"decoder.classes.\1"),
    (r"tgt_embed\.weight", "decoder.content_embed"), (r"refpoint_embed\.weight", "decoder.anchor_embed"),
    (r"controller\.layers\.(\d)\.(.*)", lambda m: f"mask_head.controller.{2 * int(m[1])}.{m[2]}"),
    (r"pixel_decoder\.mask_features\.(.*)", r"pixel_decoder.output.\1"),
    (r"pixel_decoder\.(adapter|layer)_(\d)\.(norm\.)?(.*)", lambda m: (
        f"pixel_decoder.stages.{4 - int(m[2])}.{'out' if m[1] == 'layer' else 'reduce'}.{1 if m[3] else 0}.{m[4]}")),
    (r"pixel_decoder\.cross_attn_(\d)\.(norm\d|\w+)\.(.*)",
     lambda m: f"pixel_decoder.stages.{4 - int(m[1])}.block.{PARTS.get(m[2], m[2])}.{m[3]}"),
)
UNUSED = r"text_encoder\..*|support_qkv\.query\..*|transformer\.decoder\.bbox_embed\..*"     # the last: also bbox_embed


def our_name(name):
    """A released name  ->  ours"""
    for pattern, ours in NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(f"^{pattern}$", ours, name)
    raise ValueError(f"{name}: no such parameter in the released network")


def convert(path):
    """A published file  ->  state dict under our names, complete and of the right shapes, and the config it fits"""
    released = read_released(path, "model")
    state = {our_name(name): value.clone() for name, value in released.items() if not re.fullmatch(UNUSED, name)}
    cfg = load_config(["config/cma/released.yaml"])
    with torch.device("meta"):
        model = get_method("cma").build(cfg)
    counts = [name for name in model.state_dict() if name.endswith("num_batches_tracked")]     # of no use where frozen
    state |= {name: torch.tensor(0) for name in counts}
    load_weights(model.to_empty(device="cpu"), state, path)
    return state, cfg
