"""What check_parity compares for VIPMT: forward passes, a training step, metrics, preprocessing.

The released recipe runs with the folder's weights; every part of the network is one array.
"""
import dataclasses
import itertools
import json
import zlib
from pathlib import Path

import numpy as np
import torch

from dataloaders.episode import Batch
from dataloaders.fewshot.sampling import training_windows
from dataloaders.transforms import TestTransform, letterbox_area
from models import get_method
from models.backbone import MEAN, STD
from models.vipmt import losses
from models.vipmt.layer import mask_logits
from models.vipmt.reference_frames import at_feature_size
from tools.convert_released import convert, name_table
from tools.workshop.parity import Found, Limit
from utils.config import load_config
from utils.evaluation.metrics import boundary_f, jaccard, vc_windows, video_consistency

RELEASED = Path(__file__).parents[3] / "config" / "vipmt" / "released.yaml"
INPUTS = (
    r".*/(gt|pred|class_id|prediction_id|source_size|n_frames|index|seed)", "size",
    "boundary_radius_pixels", "max_abs_difference_between_toolkits/.",
    ".*/[JF]_davis2017",                            # of another toolkit: it differs where a mask is full
    ".*/source_mask_pixels", ".*/(repeated_clip_always|distinct_clips_min)",         # follow from the windows
)
SOURCES = ("official_parameters.json",)
EXACT = Limit()
LIMITS = {
    "float64": {"exact": Limit(rms=1e-9), "rounded": Limit(rms=1e-8, value=1e-7), "mask": EXACT,
                "loss": Limit(value=1e-6), "auxiliary": Limit(value=1e-6), "score_loss": Limit(value=1e-6),
                "grad_norm": Limit(value=1e-4), "gradient": Limit(rms=1e-3)},
    "float32": {"exact": Limit(rms=1e-3, flips=50), "rounded": Limit(rms=1e-3, flips=50), "mask": Limit(flips=50),
                "loss": Limit(value=1e-5), "auxiliary": Limit(value=1e-4), "score_loss": Limit(value=1e-3),
                "grad_norm": Limit(value=1e-2), "gradient": Limit(rms=5e-2)},
}
UNDECIDED = 1e-4        # class margins below this are rounding noise in float32
CLEAR = 1e-3            # where margins and mask logits are above, float32 decides as float64 does
AFTER_A_FLIP = Limit(rms=1e-2, flips=50)        # one position more or less that an attention reads
BEFORE_LAYERS = ("backbone", "query_feat", "support_feat", "prior", "init_out", "aug_supp")


# -- the released network ---------------------------------------------------------------------------------------------

def released_step(case, override=None):
    """TrainStep of the released configuration with the folder's weights, without dropout, and their released names"""
    cfg = load_config([RELEASED], ["model.dropout=0.0", "model.feature_dropout=0.0"])
    dtype = getattr(torch, case.dtype)
    state = case.fill.official_state_dict(case.folder / SOURCES[0], dtype)
    for name, value in (override or {}).items():
        state[name] = torch.tensor(value, dtype=dtype).view_as(state[name])
    method = get_method("vipmt")
    with torch.device("meta"):
        model = method.build(cfg)
    model.load_state_dict(convert(state), strict=True, assign=True)
    model.requires_grad_(True).backbone.requires_grad_(False)
    model.backbone.mean = torch.zeros(1, dtype=dtype)           # the golden inputs are what the first convolution sees
    model.backbone.std = torch.ones(1, dtype=dtype)
    return method.TrainStep(model, cfg), list(state)


def as_tensors(case, arrays):
    """numpy images and masks, the latter with a channel axis  ->  torch, masks bool without it"""
    dtype = getattr(torch, case.dtype)
    return [torch.from_numpy(a).to(dtype) if a.shape[2] == 3 else torch.from_numpy(a[:, :, 0] > 0) for a in arrays]


# -- forward passes ---------------------------------------------------------------------------------------------------

def forward(case):
    """eval_*: one clip of query frames with supports and, in some, memory frames"""
    spec, limits = case.fill.CASES[case.letter], LIMITS[case.dtype]
    step, _ = released_step(case, spec.get("override"))
    query, _, support, masks = as_tensors(case, case.fill.episode(case.letter))
    with torch.no_grad():
        arrays = every_part(step.model.eval(), query, support, masks, spec["n_support"])
    found, flips = {}, flips_of_noise(case, arrays) if case.dtype == "float32" else 0
    if flips:
        print(f"{case.name}  {flips} positions of layer masks are taken the other way, the first with a logit below "
              f"{CLEAR}: what follows from them may deviate by {AFTER_A_FLIP.rms} rms")
    for name, value in arrays.items():
        stored = [case.arrays[key].dtype for key in (name, f"{name}_sample") if key in case.arrays]
        found[name] = Found(value, limits["exact" if np.float64 in stored else "rounded"])
        if flips and not name.startswith(BEFORE_LAYERS):
            found[name].limit = AFTER_A_FLIP
    clear = np.abs(np.diff(arrays["out_low"].numpy(), axis=2)) >= CLEAR
    found["clip_logits"].threshold = found["frame_logits"].threshold = 0
    found["min_abs_logit"].scale = float(arrays["clip_logits"].double().square().mean().sqrt())  # a difference of such
    found["mask"].limit = limits["mask"]
    if case.dtype == "float32":
        found["ssm"].keep = np.broadcast_to(clear, found["ssm"].value.shape)
    return found | {"mask_shape": Found(arrays["mask"].shape, EXACT)}


def flips_of_noise(case, arrays):
    """How many positions of the layers' masks differ from the golden ones; 0 where the first of them are no noise"""
    names = [name for name in ("clip_logits", "frame_logits") if name in case.arrays]
    first, count = None, 0
    for layer in range(len(arrays["clip_logits"])):
        for name in names:
            golden = case.arrays[name][layer]
            differ = (arrays[name][layer].numpy() >= 0) != (golden >= 0)
            count += int(differ.sum())
            if differ.any() and first is None:
                first = float(np.abs(golden[differ]).max())           # later ones follow from these
    return count if first is not None and first <= CLEAR else 0


def every_part(model, query, support, masks, shots):
    """query (B, T, 3, H, W), support and memory frames (B, K + M, ...) with masks  ->  {golden name: tensor}"""
    raw_frames, fused = [], []
    hooks = [layer.frame_refine.register_forward_hook(lambda _, __, y: raw_frames.append(y)) for layer in model.layers]
    hooks.append(model.final_refine.register_forward_hook(lambda _, __, y: fused.append(y)))
    clip, guides = model.prepare(model.encode(query)), model.encode(support)
    memory = None
    if support.shape[1] > shots:
        memory = model.encode_memory(guides.frames(slice(shots, None)), masks[:, shots:])
    guidance = model.encode_reference(guides.frames(slice(0, shots)), masks[:, :shots])
    out = model(clip, guidance, memory, size=query.shape[-2:])
    maps = model.similarity_maps(out, clip, guidance, memory)
    for hook in hooks:
        hook.remove()
    found = {f"backbone_q{i}": x.flatten(0, 1) for i, x in enumerate(clip.levels.levels())}
    found |= {f"backbone_s{i}": x.flatten(0, 1) for i, x in enumerate(guides.levels())}
    found |= {"support_feat23": model.activation.reduce(model.activation.reduce_support, guides).flatten(0, 1),
              "ssm": maps, "score": model.iou_net(clip.iou_features, maps).sigmoid(), "fused_query_feat": fused[0],
              "proto_frame_raw": torch.stack(raw_frames).unflatten(1, query.shape[:2]), "mask": out.masks}
    return found | of_output(out, clip, [g for g in (guidance, memory) if g is not None])


def of_output(out, clip, guides):
    """What a Segmentation holds, under the golden names."""
    def stack(name):
        return torch.stack([getattr(layer, name) for layer in out.layers])

    pa = out.activation
    found = {
        "query_feat23": clip.reduced.flatten(0, 1), "prior": pa.prior, "query_feat": pa.query.flatten(0, 1),
        "init_out": pa.initial_logits, "aug_supp_feat": torch.cat([g.features for g in guides], 1).flatten(0, 1),
        "clip_logits": stack("clip_logits"), "frame_logits": stack("frame_logits"),
        "support_logits": stack("support_logits"), "proto_support": stack("support_proto"),
        "proto_query": stack("clip_proto"), "proto_clip": stack("clip_inter"), "proto_frame": stack("frame_inter"),
        "query_layer": stack("query").flatten(1, 2).flatten(3), "transformer_out": out.layers[-1].query.flatten(0, 1),
        "out_low": out.low_logits, "out_full": out.logits.flatten(0, 1),
    }
    if len(guides) > 1:
        found["proto_memory"] = stack("memory_proto")
    found["min_abs_logit"] = torch.stack([x.abs().min() for pair in zip(
        found["clip_logits"], found["frame_logits"], strict=True) for x in pair])
    if clip.reduced.shape[0] > 1:
        found["cross_sample"] = cross_sample(found["proto_clip"], clip.reduced)
    return found


def cross_sample(filters, features):
    """Clip prototypes (L, B, C) of the other episodes on features (B, T, C, h, w)  ->  (B, L (B - 1), T, h, w)"""
    batch = range(len(features))
    return torch.stack([torch.stack([mask_logits(layer[j][None], features[b:b + 1])[0]
                                     for layer in filters for j in batch if j != b]) for b in batch])


# -- a training step --------------------------------------------------------------------------------------------------

def training(case):
    """train_*: losses and gradients of three clips"""
    spec = case.fill.CASES[case.letter]
    step, names = released_step(case)
    step.train()
    data = case.fill.inputs(spec["seed"], spec["batch"], spec["n_support"], spec["n_query"])
    support, support_masks, query, query_masks = as_tensors(
        case, [data[k] for k in ("support_img", "support_mask", "query_img", "query_mask")])
    length = spec["n_query"] // 3
    memory = [torch.tensor([index] * spec["batch"]) for index in (range(length), case.fill.TRAIN_MEMORY_CLIP3)]
    step.memory_index = lambda batch: memory
    encoded = step.encode(Batch(support, support_masks, query, query_masks, [], length, []))
    found, total = {}, 0.0
    for number in range(3):
        total += train_clip(case, step, encoded, number, found)
    found["total"] = Found(total, LIMITS[case.dtype]["loss"])
    return found | gradients(case, step.model, names)


def train_clip(case, step, encoded, number, found):
    """Losses of one clip into `found`, and its backward pass  ->  their sum"""
    clip, truth, support, memory, reference_truth = step.parts(encoded, number)
    out = step.model(clip, support, memory, size=truth.shape[-2:])
    named, masks = step.losses(out, clip, truth, reference_truth), at_feature_size(truth)
    sums = {"main": named["final"] + named["initial"], "aux": named["aux_query"] + named["aux_support"],
            "contrast": named["ccds"], "score": score_loss(case, step.model, out, clip, support, memory, truth, number)}
    outputs = (out.logits, out.initial_logits)
    iou = [[value.item() for value in losses.iou_losses(x, truth)] for x in outputs]
    parts = {
        "dice": [losses.dice_loss(x, truth).item() for x in outputs],
        "iou_mean": [x[0] for x in iou], "iou_overall": [x[1] for x in iou],
        "bce_query": [losses.auxiliary_loss([x], masks).item() for y in out.layers
                      for x in (y.clip_logits, y.frame_logits)],
        "bce_support": [losses.auxiliary_loss([y.support_logits], reference_truth).item() for y in out.layers]}
    kinds = dict.fromkeys(("aux", "contrast", "bce_query", "bce_support"), "auxiliary") | {"score": "score_loss"}
    for name, value in (sums | parts).items():
        found[f"{name}_{number + 1}"] = Found(value, LIMITS[case.dtype][kinds.get(name, "loss")])
    found[f"mask_{number + 1}"] = Found(out.masks, LIMITS[case.dtype]["mask"])
    found["mask_shape"] = Found(out.masks.shape, EXACT)
    total = sum(sums.values())
    total.backward()
    return total.item()


def score_loss(case, model, out, clip, support, memory, truth, number):
    """IoUNet's loss; in float32 that of the pixels' decisions which comes nearest to the golden one."""
    found = [losses.iou_regression_loss(model.predict_iou(variant, clip, support, memory),
                                        losses.mask_iou(out.masks, truth), per_batch=True)
             for variant in rounding_variants(out)]
    best = min(found, key=lambda x: abs(x.item() - case.arrays[f"score_{number + 1}"]))
    if best is not found[0]:
        print(f"{case.name}  clip {number + 1}: a low-resolution pixel with a class margin below {UNDECIDED} is taken "
              "the other way")
    return best


def rounding_variants(out):
    """The Segmentation, and in float32 every way to decide its few pixels whose class margin is rounding noise.

    One flipped pixel of the low-resolution mask changes whole similarity maps, hence the score head's gradients.
    """
    yield out
    margin = (out.low_logits[:, :, 1] - out.low_logits[:, :, 0]).abs()
    places = (margin < UNDECIDED).nonzero().tolist() if margin.dtype == torch.float32 else []
    for count in range(1, min(len(places), 3) + 1):
        for chosen in itertools.combinations(places, count):
            logits = out.low_logits.clone()
            for b, t, y, x in chosen:
                logits[b, t, :, y, x] = out.low_logits[b, t, :, y, x].flip(0)
            yield dataclasses.replace(out, low_logits=logits)


def gradients(case, model, names):
    """Norms (in float64) of all, samples of some, under the released names"""
    table, limits = name_table([name for name in names if not name.endswith("num_batches_tracked")]), LIMITS[case.dtype]
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    gradient = {name: ours[table[name]] for name in table if table[name] in ours}
    asked = [str(name) for name in case.arrays["grad_norm_names"]]
    have = [name for name in asked if name in gradient] + sorted(gradient.keys() - set(asked))
    return {"grad_norm_names": Found(have, EXACT),
            "grad_norms": Found([gradient[n].double().norm().item() for n in asked], limits["grad_norm"]),
            **{f"grad/{name}": Found(value, limits["gradient"], sampled=True) for name, value in gradient.items()}}


# -- data and metrics -------------------------------------------------------------------------------------------------

def metrics(case):
    """J, F and VC7 of packed masks, to the last digit"""
    facts, found = case.arrays, {}

    def masks(name, frames):
        size = [int(n) for n in facts["size"]]
        return [np.unpackbits(facts[f"{name}/{kind}"])[:frames * size[0] * size[1]].reshape(frames, *size) > 0
                for kind in ("pred", "gt")]

    for path in [key for key in facts if key.endswith("/n_frames")]:
        *group, name = path.split("/")[:-1]
        pred, gt = masks(name if group == ["sequences"] else f"vc_edge/{name}", int(facts[path]))
        values = {"J": jaccard(pred, gt), "F": boundary_f(pred, gt), "vc7_windows": vc_windows(pred, gt),
                  "vc7": np.array(video_consistency(pred, gt), float)}
        for key, value in values.items():
            found[f"{'/'.join(group)}/{name}/{key}"] = found[f"{name}/{key}"] = Found(value, EXACT)
    edges = {key.split("/")[1]: int(index) for key, index in facts.items() if key.endswith("/index")}
    pred, gt = masks("edge", len(edges))
    for key, values in (("J", jaccard(pred, gt)), ("F", boundary_f(pred, gt))):
        found |= {f"edge/{name}/{key}": Found(values[index], EXACT) for name, index in edges.items()}
    return found


def preprocessing(case, size=(240, 424)):
    """The test transform on frames of several sizes, and the windows that training clips are drawn from"""
    facts, found = case.arrays, {}
    for path in [key for key in facts if key.endswith("/seed")]:
        name = path.split("/")[1]
        frame, mask = case.fill.raw_frame(int(facts[path]), tuple(int(n) for n in name.split("x")))
        (image,), (small,) = TestTransform(size, "released")([frame], [mask > 0])
        image = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        nearest = TestTransform(size, "nearest")([frame], [mask > 0])[1]
        rows, cols, top, left = letterbox_area(mask.shape, size)
        found |= {f"{name}/image": Found(image[:, ::5, ::5], Limit(rms=1e-5)), f"{name}/mask": Found(small, EXACT),
                  f"{name}/image_summary": Found(case.fill.summary(image), Limit(rms=1e-5))}
        found |= {f"frames/{name}/{key}": Found(value, EXACT) for key, value in (
            ("size", (rows, cols)), ("pad_top", top), ("pad_left", left), ("mask_pixels", int(small.sum())),
            ("mask_pixels_if_nearest", int(nearest.sum())))}
    for path in [key for key in facts if key.endswith("/windows")]:
        windows = [tuple(w) for w in training_windows(int(path.split("/")[2]), 5, 3, "repeat")]
        found[path] = Found(sorted(set(windows)), EXACT)
        found[path.replace("windows", "n_triples").replace("training_n_triples", "training_windows")] = Found(
            len(set(itertools.combinations(windows, 3))), EXACT)
    return found


def checksums(case):
    """CRC-32 of every weight and input that fill.py makes here"""
    arrays = {f"parameters/{n}": a for n, a in case.fill.official_arrays(case.folder / SOURCES[0]).items()}
    names = json.loads((case.folder / "checksums.json").read_text())["inputs"]
    for letter in names:
        spec = case.fill.CASES[letter]
        made = case.fill.inputs(*(spec[k] for k in ("seed", "batch", "n_support", "n_query", "n_memory")))
        arrays |= {f"inputs/{letter}/{key}": value for key, value in made.items()}
    return {key: Found(zlib.crc32(np.ascontiguousarray(a)), EXACT) for key, a in arrays.items()}


CASES = {r"eval_\w+": forward, r"train_\w+": training, "metrics_golden": metrics, "preprocess_golden": preprocessing,
         "checksums": checksums}
