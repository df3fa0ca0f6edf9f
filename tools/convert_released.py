"""A released checkpoint into ours, and back: only the names of the tensors change.

    python -m tools.convert_released model_best.pth output/converted.pth
    python -m tools.convert_released --back output/vipmt_ytvis/fold1/last.pth released_names.pth
    python -m tools.convert_released --method lwl lwl_stage2.pth output/lwl.pth
    python -m tools.convert_released --method cma --fold 1 checkpoint.pth output/cma.pth
"""
import re

from utils.command_line import Parser
from utils.config import load_config, to_dict, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--method", choices=("vipmt", "lwl", "llb", "cma"), default="vipmt")
    parser.add_argument("--back", action="store_true", help="ours -> released names, of VIPMT")
    parser.add_argument("--fold", type=int, default=0, help="fold the checkpoint was trained on; test.py asks for it")
    return parser.parse_args()


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
import torch

from tools.conversion import cma, lwl
from utils.checkpoint import load_checkpoint, save_checkpoint

ATTENTION = {"q_fc": "to_q", "k_fc": "to_k", "v_fc": "to_v", "proj": "proj"}
FFN = {"layers.0.0": "expand", "layers.1": "contract"}
SCORE_HEAD = {"donw_samp": "downsample", "fuse_conv1": "fuse1", "fuse_conv2": "fuse2"}
PLAIN = {                                   # released -> ours, the part of the name before .weight or .bias
    "adjust_feature_supp.0": "activation.reduce_support",
    "adjust_feature_qry.0": "activation.reduce_query",
    "qry_merge_feat.0": "activation.merge_query.conv",
    "supp_merge_feat.0": "activation.merge_support.conv",
    "merge_res.0": "activation.initial_refine.convs.0",
    "merge_res.2": "activation.initial_refine.convs.2",
    "ini_cls.0": "activation.initial_classifier.0",
    "ini_cls.3": "activation.initial_classifier.3",
    "transformer.level_embed": "level_embed",
    "transformer.prototype.weight": "prototype",
    "transformer.decoder_norm_clip": "mask_heads.clip.norm",
    "transformer.decoder_norm_frame": "mask_heads.frame.norm",
    "merge_multi_lvl_reduce.0": "final_reduce",
    "merge_multi_lvl_sum.0": "final_refine.convs.0",
    "merge_multi_lvl_sum.2": "final_refine.convs.2",
    "cls.0": "final_classifier.0",
    "cls.3": "final_classifier.3",
    "upsample1": "upsample_final",
    "upsample2": "upsample_initial",
    **{f"transformer.mask_embed_{kind}.{theirs}": f"mask_heads.{kind}.embed.{ours}"
       for kind in ("clip", "frame") for theirs, ours in FFN.items()},
    **{f"score_head.{part}": f"iou_net.{SCORE_HEAD.get(part, part)}"
       for part in (*SCORE_HEAD, "conv1", "conv2", "conv3", "conv4", "fc1", "fc2")},
}
MESSAGES = {"support_memory": "support", "query": "clip", "query_frame": "frame"}      # attentions with their MLP
QUERY = {                                   # the rest of one iteration, all of it in the query activation
    "update_q.{l}.0": "fuse.conv", "res_q.{l}.0": "convs.convs.0", "res_q.{l}.2": "convs.convs.2",
    "qry_self_layers.{l}.q": "attention.q", "qry_self_layers.{l}.kv": "attention.kv",
    "qry_self_layers.{l}.proj": "attention.proj", "qry_self_layers.{l}.sr": "attention.reduce",
    "qry_self_layers.{l}.norm": "attention.norm", "layer_norms_q1.{l}": "norm_attention",
    "layer_norms_q2.{l}": "norm_out", **{f"ffns_q.{{l}}.{theirs}": f"ffn.{ours}" for theirs, ours in FFN.items()},
}


def layer_names(layer):
    """released -> ours for iteration `layer`"""
    names = {f"transformer.{theirs.format(l=layer)}": f"layers.{layer}.query_activation.{ours}"
             for theirs, ours in QUERY.items()}
    for theirs, ours in MESSAGES.items():
        kind, suffix = theirs.removesuffix("_frame"), "_frame" if theirs.endswith("_frame") else ""
        attention, refine = f"layers.{layer}.{ours}_attention", f"layers.{layer}.{ours}_refine"
        for their_part, our_part in ATTENTION.items():
            names[f"transformer.{kind}_decoder_cross_attention_layers{suffix}.{layer}.{their_part}"] = (
                f"{attention}.{our_part}")
        names[f"transformer.{kind}_layer_norms{suffix}.{layer}"] = f"{refine}.norm_in"
        names[f"transformer.{kind}_layer_norms1{suffix}.{layer}"] = f"{refine}.norm_out"
        for their_part, our_part in FFN.items():
            names[f"transformer.{kind}_ffns{suffix}.{layer}.{their_part}"] = f"{refine}.ffn.{our_part}"
    return names


def name_table(names, back=False):
    """{given name: name in the other convention} for every tensor name; ValueError where one is unknown."""
    layers = {int(n) for name in names for n in re.findall(r"^(?:transformer\.\w+|layers)\.(\d+)\.", name)}
    table = PLAIN | {k: v for layer in sorted(layers) for k, v in layer_names(layer).items()}
    table = {v: k for k, v in table.items()} if back else table
    return {name: rename(name, table) for name in names}


def rename(name, table):
    if name.startswith("backbone.body."):
        return name
    stem, _, leaf = name.rpartition(".")
    if name in table:
        return table[name]
    if stem not in table:
        raise ValueError(f"{name}: not a name of a released VIPMT state_dict.\n"
                         "  Give the released model's state_dict (or ours with --back).")
    return f"{table[stem]}.{leaf}"


def convert(state, back=False):
    """A state_dict under the other convention's names, tensors untouched (cloned where they share memory)."""
    table = name_table([k for k in state if not k.endswith("num_batches_tracked")], back)
    return {ours: state[theirs].clone() for theirs, ours in table.items()}


def check_complete(state, source):
    """ValueError unless the converted state_dict is exactly that of the released configuration."""
    from models import get_method
    from utils.checkpoint import load_weights
    cfg = load_config(["config/vipmt/released.yaml"], ["backbone.weights=none"])
    with torch.device("meta"):
        model = get_method(cfg.model.method).build(cfg)
    load_weights(model.to_empty(device="cpu"), state, source)
    return cfg


def main(args=None):
    args = args or parse_arguments()
    if args.method != "vipmt":
        if args.back:
            raise ValueError("--back: of VIPMT alone")
        state, cfg = cma.convert(args.source) if args.method == "cma" else lwl.convert(args.source, args.method)
        fold = args.fold if args.method == "cma" else None
        save_checkpoint(args.target, {"model": state, "config": to_dict(cfg), "fold": fold, "epoch": -1})
        return
    checkpoint = load_checkpoint(args.source)
    if args.back:
        save_checkpoint(args.target, convert(checkpoint.get("model", checkpoint), back=True))
        return
    state = convert(checkpoint.get("state_dict", checkpoint.get("model", checkpoint)))
    cfg = check_complete(state, args.source)
    save_checkpoint(args.target, {"model": state, "config": to_dict(cfg), "fold": args.fold, "epoch": -1})


if __name__ == "__main__":
    with user_errors():
        main(arguments)
