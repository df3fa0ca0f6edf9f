"""What check_parity compares for CMA: every part of a training step and its gradients, as released and repaired, two
ablations, and windows of a test up to masks and scores.

What the network computes only where it reaches an output, such as the features of all support frames, is computed here
for all of them. Golden numbers of the data (episodes, transforms, metrics) are compared by the tests of these.
"""
import json
import typing
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from easydict import EasyDict

from models.cma import Segmenter, TrainStep, build
from models.cma.config import Config
from models.cma.fusion import amplify
from models.cma.losses import target_of
from tools.conversion.cma import our_name
from tools.workshop.parity import Found, Limit, take_inputs_as_they_are
from utils.evaluation.metrics import boundary_f, jaccard

SOURCES = ("official_parameters.json", "cases.json", "checksums.json",
           "episodes_golden.json", "transforms_golden.json", "metrics_golden.json")
INPUTS = ("(.*/)?limit", "min_margin")
EXACT = Limit()
LIMITS = {      # padded clips: codes of rows that are padding alone turn rounding into differences, see positions.py
    "float64": {"array": Limit(rms=1e-9), "loss": Limit(value=1e-10), "cost": Limit(rms=1e-10, value=1e-10),
                "norm": Limit(value=1e-7, rms=1e-12), "grad": Limit(rms=1e-6), "score": Limit(value=1e-12)},
    "float64 padded": {"array": Limit(rms=1e-7), "loss": Limit(value=1e-8), "cost": Limit(rms=1e-8, value=1e-8),
                       "norm": Limit(value=1e-7, rms=1e-12), "grad": Limit(rms=1e-6)},
    "float32": {"array": Limit(rms=1e-3), "loss": Limit(value=1e-5), "cost": Limit(rms=1.5e-5, value=1.5e-5),
                "norm": Limit(value=1e-4, rms=1e-6), "steep": Limit(value=5e-4, rms=1e-6),
                "grad": Limit(rms=1.5e-3), "score": Limit(value=1e-2)},
}
# steep: the projections before `amplify`, in float32. In train_a one support value is 1.6e-8, where the slope is 472
# and falls to half within 1e-5: rounding of the backbone alone (5e-7 of rms), put into a computation in float64, moves
# these norms by 3 to 5 %, those of train_u by 3e-5 to 7e-5. norm: a place that crosses a pixel is 3.6e-5 in train_u.
LIMITS["float32 padded"] = LIMITS["float32"] | {
    "loss": Limit(value=1e-4), "norm": Limit(value=4e-2, rms=1e-6), "steep": Limit(value=1e-1), "grad": Limit(rms=5e-2)}
STEEP = "input_proj."
NO_EFFECT = ("support_qkv.Key.bias", "query_qkv.Key.bias")       # a softmax ignores them: gradients of rounding alone

# -- the released network ---------------------------------------------------------------------------------------------

def settings(version, variant="cross"):
    """The method's own defaults, or the release's, without a task  ->  EasyDict"""
    cfg = EasyDict({name: msgspec.to_builtins(section()) for name, section in typing.get_type_hints(Config).items()})
    cfg.text.encoder, cfg.affinity.variant = "tiny", variant
    cfg.model.broadcast_anchors = cfg.affinity.stretched_masks = version == "released"
    return cfg


def released_step(case, cfg):
    """TrainStep with the folder's weights, in the case's precision and without dropout"""
    dtype = getattr(torch, case.dtype)
    model = build(cfg).to(dtype).eval()
    state = case.fill.state_dict(case.folder / SOURCES[0], case.dtype)
    known = model.state_dict()
    given = {our_name(name): torch.from_numpy(value) for name, value in state.items()}
    counts = {name: value for name, value in known.items() if name.endswith("num_batches_tracked")}
    model.load_state_dict({name: value for name, value in given.items() if name in known} | counts, strict=True)
    normalise = model.backbone.normalise
    take_inputs_as_they_are(normalise, dtype)
    normalise.deviation = normalise.std

    def words(sentences):
        features = torch.from_numpy(np.stack([case.fill.text_features(one, dtype=case.dtype)[0] for one in sentences]))
        return features, torch.zeros(features.shape[:2], dtype=torch.bool)
    model.read_by(words)
    return TrainStep(model, cfg)


def facts_of(case, kind):
    """What cases.json says of train_a, for train_a_fixed and ablation_a"""
    return SimpleNamespace(**json.loads((case.folder / SOURCES[1]).read_text())[f"{kind}_{case.name.split('_')[1]}"])


def sample_of(case, facts):
    """->  what dataloaders.episode.ReferringSample holds, and its boxes and flags as the golden files have them"""
    dtype = getattr(torch, case.dtype)
    images, masks, boxes = case.fill.clip(f"{facts.name}/query", facts.query_frames, facts.query_size, facts.absent)
    support = case.fill.clip(f"{facts.name}/support", facts.support_frames, facts.support_size)
    _, valid = case.fill.target(masks, boxes)
    return SimpleNamespace(
        query_images=torch.from_numpy(images).to(dtype), query_masks=torch.from_numpy(masks) > 0,
        query_boxes=torch.from_numpy(boxes).to(dtype), query_valid=torch.from_numpy(valid) > 0,
        query_text=facts.query_text, support_images=torch.from_numpy(support[0]).to(dtype),
        support_masks=torch.from_numpy(support[1]) > 0, support_text=facts.support_text)


# -- a training step --------------------------------------------------------------------------------------------------

def training(case):
    """train_LETTER_released, train_LETTER_fixed: one step of the whole method"""
    found = one_step(case, "cross", case.name.rpartition("_")[2])
    return found | {f"{name}_shape": Found(np.array(one.value.shape), EXACT) for name, one in found.items()
                    if torch.is_tensor(one.value)}


def ablation(case):
    """ablation_LETTER: both variants, as released and repaired"""
    found = {}
    for variant in ("base", "self"):
        for version in ("released", "fixed"):
            step = one_step(case, variant, version)
            step |= {f"{name}_shape": Found(np.array(one.value.shape), EXACT) for name, one in step.items()
                     if torch.is_tensor(one.value)}
            found |= {f"{variant}_{version}/{name}": one for name, one in step.items()}
    return found


def one_step(case, variant, version):
    """->  {golden name: Found}"""
    facts = facts_of(case, "train")
    padded = any(n % 32 for n in [*facts.query_size, *facts.support_size])
    limit = LIMITS[case.dtype + (" padded" if padded else "")]
    step, sample = released_step(case, settings(version, variant)), sample_of(case, facts)
    with Watch(step.model) as seen:
        output, query = step.run(sample)
    target = target_of(sample.query_boxes, sample.query_valid, sample.query_masks, query.padded)
    parts, costs, chosen = step.criterion(output, target)
    total = (parts @ parts.new_tensor(step.weights)).sum()
    total.backward()
    with torch.no_grad():
        arrays = watched(step.model, seen) | encoded(step, sample, query, seen) | outputs(output)
    found = {name: Found(value.detach(), limit["array"]) for name, value in arrays.items()}
    found |= {"match": Found(chosen, EXACT), "costs": Found(costs, limit["cost"]),
              "losses": Found(parts.detach(), limit["loss"]), "total": Found(total.item(), limit["loss"]),
              "target_boxes": Found(target.boxes.numpy(), limit["array"]),
              "target_valid": Found(target.valid.long().numpy(), EXACT)}
    return found | gradients(case, step.model, variant, version, limit)


class Watch:
    """Inputs and outputs of the network's parts, in the order of their calls: {name: [(inputs, output), ...]}"""

    def __init__(self, model):
        self.parts = {"resizer": model.resizer, "affinity": model.affinity, "encoder": model.encoder,
                      "mask_features": model.pixel_decoder, "controller": model.mask_head.controller,
                      "layer": model.decoder.layers, "attention": [x.attention for x in model.decoder.layers],
                      "vl": [stage.block for stage in model.pixel_decoder.stages],
                      "fpn": [stage.out for stage in model.pixel_decoder.stages], "decoder": model.decoder}
        if hasattr(model.affinity, "norm"):
            self.parts["norm"] = model.affinity.norm
        self.seen, self.hooks = {name: [] for name in self.parts}, []

    def __enter__(self):
        for name, part in self.parts.items():
            for module in part if isinstance(part, list | torch.nn.ModuleList) else [part]:
                self.hooks.append(module.register_forward_hook(
                    lambda _, given, out, name=name: self.seen[name].append((given, out))))
        return self.seen

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def watched(model, seen):
    """What the hooks saw  ->  {golden name: tensor}"""
    out = {name: [out for _, out in calls] for name, calls in seen.items()}
    found = {"text_s": out["resizer"][0], "text_q": out["resizer"][1], "memory": out["encoder"][0],
             "hs": out["decoder"][0].states, "references": out["decoder"][0].boxes,
             "init_reference": model.decoder.anchor_embed.sigmoid(), "mask_features": out["mask_features"][0]}
    for name in ("vl", "fpn", "controller"):
        found |= {f"{name}{i}": value for i, value in enumerate(out[name])}
    found |= {f"cma{i}": value for i, value in enumerate(out["affinity"])}
    for i, ((_, position, *_), _) in enumerate(seen["layer"]):
        queries, reference, _, sizes, _ = seen["attention"][i][0]
        places, weights = model.decoder.layers[i].attention.places(queries, reference, sizes)
        found |= {f"dec_query_pos{i}": position, f"dec_reference_input{i}": reference, f"dec_locations{i}": places,
                  f"dec_weights{i}": weights}
    steps = [name for name in ("self", "cross") if name in ("self", model.affinity.variant)]
    for i, value in enumerate(out.get("norm", ())):
        level = found[f"cma{i % 4}"]
        value = value[0].unflatten(0, (len(level), -1)).mT.unflatten(2, level.shape[-2:])
        found[f"{steps[i // 4]}_affinity{i % 4}"] = value
    return found


def encoded(step, sample, query, seen):
    """Everything before the transformer, for all frames of query and support  ->  {golden name: tensor}"""
    model, found = step.model, {}
    support = model.encode(sample.support_images, pad=True)
    for side, frames, images in (("q", query, sample.query_images), ("s", support, sample.support_images)):
        pads = [frames.padded[1] - images.shape[-1], frames.padded[0] - images.shape[-2]]
        levels = model.backbone(F.pad(images, (0, pads[0], 0, pads[1])))
        found |= {f"backbone_{side}{i}": level for i, level in enumerate(levels)}
        found |= {f"proj_{side}{i}": level for i, level in enumerate(frames.levels)}
        words = model.words(sample.query_text if side == "q" else sample.support_text)
        found |= {f"fused_{side}{i}": x for i, x in enumerate(model.fuse(frames.levels, words, support=side == "s"))}
    found |= {f"fusion_in_s{i}": level if i == 3 else amplify(level) for i, level in enumerate(support.levels)}
    masks = sample.support_masks.to(sample.support_images.dtype)
    if not step.stretched:
        masks = F.pad(masks, (0, support.padded[1] - masks.shape[2], 0, support.padded[0] - masks.shape[1]))
    for i in range(4):
        size = found[f"fused_q{i}"].shape[-2:]
        marked = found[f"support_fg{i}"] = model.affinity.mark(found[f"fused_s{i}"], masks, size)
        for part, x in (("support_key", marked), ("support_value", marked), *(
                (f"query_{name}", found[f"fused_q{i}"]) for name in ("query", "key", "value"))):
            if hasattr(model.affinity, part):
                found[f"{part}{i}"] = getattr(model.affinity, part)(x)
        if model.affinity.variant == "cross":      # what the network itself read is the middle one's
            keys, values = seen["affinity"][i][0][1]
            for name, read in (("key", keys), ("value", values)):
                middle = found[f"support_{name}{i}"][len(marked) // 2].flatten(1).mT
                torch.testing.assert_close(read[0], middle, rtol=1e-4, atol=1e-4)
    return found


def outputs(output):
    """->  pred_logits0 to pred_masks3"""
    found = {}
    for i in range(len(output.logits)):
        found |= {f"pred_logits{i}": output.logits[i][None, ..., None], f"pred_boxes{i}": output.boxes[i][None],
                  f"pred_masks{i}": output.masks[i][None]}
    return found


def gradients(case, model, variant, version, limit):
    """Norms and samples of all trained parameters, and the names of those that have none"""
    entries = json.loads((case.folder / SOURCES[0]).read_text())["state_dict"]
    names = [one["name"] for one in entries if one["kind"] == "parameter" and one["released_group"] != "frozen"
             and "same_as" not in one]
    ours = dict(model.named_parameters())
    gradient = {name: ours[our_name(name)].grad for name in names if our_name(name) in ours}
    prefix = f"{variant}_{version}/" if case.name.startswith("ablation") else ""
    asked = [str(name) for name in case.arrays.get(f"{prefix}grad_names", ())]
    have = [name for name in asked if gradient.get(name) is not None]
    have += sorted({name for name in gradient if gradient[name] is not None} - set(asked))
    found = {"grad_names": Found(have, EXACT),
             "no_grad_names": Found([name for name in names if gradient.get(name) is None], EXACT)}
    norms = {name: gradient[name].double().norm().item() for name in have}
    for name in set(NO_EFFECT) & norms.keys() & set(asked):
        assert norms[name] < (1e-9 if case.dtype == "float64" else 1e-4) * max(norms.values()), name
        at = asked.index(name)
        norms[name] = float(case.arrays[f"{prefix}grad_norms"][at])        # rounding against rounding says nothing
    steep = limit.get("steep", limit["norm"])
    each = np.array([(steep if name.startswith(STEEP) else limit["norm"]).value for name in asked])
    found["grad_norms"] = Found([norms[name] for name in asked], replace(limit["norm"], value=each))
    found["grad_total_norm"] = Found(float(np.linalg.norm(list(norms.values()))), steep)
    return found | {f"grad/{name}": Found(gradient[name], limit["grad"], sampled=True) for name in have}


# -- a test -----------------------------------------------------------------------------------------------------------

def test(case):
    """eval_LETTER_released, eval_LETTER_fixed: a video in windows, to masks of the original size"""
    facts, limit, dtype = facts_of(case, "eval"), LIMITS[case.dtype], getattr(torch, case.dtype)
    step = released_step(case, settings(case.name.rpartition("_")[2]))

    def clip(part, count, size, absent=()):
        images, masks, _ = case.fill.clip(f"{facts.name}/{part}", count, size, absent)
        return torch.from_numpy(images).to(dtype), torch.from_numpy(masks) > 0

    images, _ = clip("query", facts.query_frames, facts.query_size, facts.absent)
    _, truth = clip("query", facts.query_frames, facts.query_original, facts.absent)
    support_images, _ = clip("support", facts.support_frames, facts.support_size)
    _, support_masks = clip("support", facts.support_frames, facts.support_original)
    reference = SimpleNamespace(images=support_images, masks=support_masks, text=facts.support_text,
                                query_text=facts.query_text)
    windows = tested(Segmenter(step.model, reference, None), images.split(facts.window))
    found = {name: Found(windows[0][name], limit["array"]) for name in ("window0_pred_logits", "window0_pred_boxes")}
    found["chosen"] = Found(torch.stack([one["chosen"] for one in windows]).numpy(), EXACT)
    found["window_scores"] = Found(torch.stack([one["scores"] for one in windows]).numpy(), limit["array"])
    found["mask_logits"] = Found(torch.cat([one["masks"] for one in windows]), limit["array"])
    prob = torch.cat([one["margins"] for one in windows]).sigmoid()
    original = F.interpolate(prob[None], facts.query_original, mode="bilinear")[0]
    small = F.interpolate(truth[None].to(dtype), facts.query_size, mode="bilinear")[0] > 0.5
    found |= {"probability": Found(prob, limit["array"]), "probability_original": Found(original, limit["array"])}
    for name, mask in (("mask", prob > 0.5), ("mask_original", original >= 0.5), ("ground_truth", small)):
        found |= {f"{name}_packed": Found(mask.numpy(), EXACT if case.dtype == "float64" else Limit(flips=5)),
                  f"{name}_shape": Found(np.array(mask.shape), EXACT)}
    found |= {f"{name}_shape": Found(np.array(one.value.shape), EXACT) for name, one in found.items()
              if torch.is_tensor(one.value)}
    return found | scores_of((prob > 0.5).numpy(), small.numpy(), limit["score"])


@torch.inference_mode()
def tested(segmenter, windows):
    """What the Segmenter says of each window, and what it says so from  ->  list of dicts"""
    found = []
    for images in windows:
        clip = SimpleNamespace(images=images)
        prepared = segmenter.prepare(clip)
        frames = prepared.frames
        support = segmenter.support_at(tuple(tuple(level.shape[-2:]) for level in frames.levels))
        decoded, _ = segmenter.model.decode(frames, support, segmenter.words)
        chosen, masks, scores = segmenter.model.best(frames, support, segmenter.words)
        found.append({"window0_pred_logits": decoded.logits[-1][None, ..., None], "chosen": chosen, "masks": masks,
                      "window0_pred_boxes": decoded.boxes[-1][None], "scores": scores.mean(0),
                      "margins": segmenter(prepared, clip).margins[0]})
    return found


def scores_of(found, truth, limit):
    """Masks (T, H, W) bool twice  ->  J and F of all frames with the release's tolerance, IoU over all pixels"""
    j, f = jaccard(found, truth), boundary_f(found, truth, bound_th=0.010)
    overall = (found & truth).sum() / (found | truth).sum()
    return {name: Found(value, limit) for name, value in (
        ("J", j), ("F", f), ("mean_J", j.mean()), ("mean_F", f.mean()), ("overall_iou", overall))}


VERSION = "(released|fixed)"
CASES = {rf"train_\w+_{VERSION}": training, rf"eval_\w+_{VERSION}": test, r"ablation_\w+": ablation}
