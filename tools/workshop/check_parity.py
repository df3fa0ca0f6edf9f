"""Proof that our network computes what the released one does: every golden case found in a folder.

    python -m tools.workshop.check_parity tests/parity --dtype float32
    python -m tools.workshop.check_parity DIR [--dtype float64] [--cases a b]

DIR holds eval_*.npz and train_*.npz with fill.py and official_parameters.json, which make weights and inputs.
One line per case and tensor: largest error relative to the golden tensor's rms. Exit code 1 beyond a tolerance.
"""
import dataclasses
import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import torch

from dataloaders.episode import EpisodeBatch
from models import get_method
from models.vipmt import losses
from models.vipmt.guidance import at_feature_size
from models.vipmt.layer import mask_logits
from tools.convert_released import convert, name_table
from utils.command_line import Parser
from utils.config import load_config, user_errors

# Largest error allowed: relative to the golden tensor's rms, plus relative to each value (stored in float32).
TOLERANCE = {
    "float64": {"tensor": (1e-5, 2e-7), "loss": 1e-6, "iou_loss": 1e-6, "aux": 1e-6, "grad_norm": 1e-4,
                "grad_sample": 1e-3, "pixels": 0},
    "float32": {"tensor": (1e-3, 0.0), "loss": 1e-5, "iou_loss": 1e-3, "aux": 1e-4, "grad_norm": 1e-2,
                "grad_sample": 5e-2, "pixels": 50},
}
UNDECIDED = 1e-4        # class margins below this are rounding noise in float32


class Report:
    """Prints a line per tensor and remembers whether all were within tolerance."""

    def __init__(self, dtype):
        self.tolerance, self.failed = TOLERANCE[dtype], []

    def line(self, case, name, error, limit, unit="rms"):
        good = error <= limit
        verdict = "ok" if good else f"FAIL, limit {limit:.1e}"
        print(f"{case}  {name:24s} {error:9.2e} {unit:9s} {verdict}", flush=True)
        if not good:
            self.failed.append(f"{case} {name}")

    def tensor(self, case, name, ours, golden, keep=None, scale=None):
        """scale: another rms to measure by; keep: positions that count"""
        relative_rms, relative_value = self.tolerance["tensor"]
        rms = scale or max(float(np.sqrt(np.mean(np.square(golden, dtype=np.float64)))), 1e-12)
        error = np.abs(ours - golden) if keep is None else np.abs(ours - golden)[keep]
        allowed = relative_rms * rms + relative_value * (np.abs(golden) if keep is None else np.abs(golden)[keep])
        worst = float((error / allowed).max(initial=0.0))
        self.line(case, name, worst * relative_rms, relative_rms)

    def pixels(self, case, name, ours, golden):
        self.line(case, name, int((ours != golden).sum()), self.tolerance["pixels"], "pixels")

    def relative(self, case, name, ours, golden, kind):
        error = np.abs(np.asarray(ours, float) - golden) / np.maximum(np.abs(golden), 1e-12)
        self.line(case, name, float(error.max()), self.tolerance[kind], "relative")


def load_fill(folder):
    """fill.py of the folder, as a module."""
    spec = importlib.util.spec_from_file_location("fill", folder / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def released_model(fill, folder, dtype, override=()):
    """The released configuration with the folder's weights, without dropout."""
    cfg = load_config([Path(__file__).parents[2] / "config" / "vipmt" / "released.yaml"],
                      ["model.dropout=0.0", "model.feature_dropout=0.0"])
    state = fill.official_state_dict(folder / "official_parameters.json", dtype)
    for name, value in dict(override).items():
        state[name] = torch.tensor(value, dtype=dtype).view_as(state[name])
    method = get_method(cfg.model.method)
    with torch.device("meta"):
        model = method.build(cfg)
    model.load_state_dict(convert(state), strict=True, assign=True)
    for p in model.parameters():
        p.requires_grad_(True)
    model.backbone.requires_grad_(False)
    return method.TrainStep(model, cfg), list(state)


def torch_inputs(arrays, dtype):
    """numpy (images, masks with a channel axis, ...)  ->  torch, masks bool without it"""
    return [torch.from_numpy(a).to(dtype) if a.shape[2] == 3 else torch.from_numpy(a[:, :, 0] > 0) for a in arrays]


def run_eval(model, query, support, support_masks, shots):
    """The network on one eval case  ->  {golden name: array}"""
    raw_frames, fused = [], []
    hooks = [layer.frame_refine.register_forward_hook(lambda _, __, y: raw_frames.append(y)) for layer in model.layers]
    hooks.append(model.final_refine.register_forward_hook(lambda _, __, y: fused.append(y)))
    clip, guides = model.prepare(model.encode(query)), model.encode(support)
    memory = None
    if support.shape[1] > shots:
        memory = model.guide_memory(guides.frames(slice(shots, None)), support_masks[:, shots:])
    guidance = model.guide(guides.frames(slice(0, shots)), support_masks[:, :shots])
    out = model(clip, guidance, memory, size=query.shape[-2:])
    maps = model.similarity_maps(out, clip, guidance, memory)
    found = {f"backbone_q{i}": x.flatten(0, 1) for i, x in enumerate(clip.levels.levels())}
    found |= {f"backbone_s{i}": x.flatten(0, 1) for i, x in enumerate(guides.levels())}
    found |= {"support_feat23": model.activation.reduce(model.activation.reduce_support, guides).flatten(0, 1),
              "ssm": maps, "score": model.iou_net(clip.judged, maps).sigmoid(), "fused_query_feat": fused[0],
              "proto_frame_raw": torch.stack(raw_frames).unflatten(1, query.shape[:2]), "mask": out.masks}
    for hook in hooks:
        hook.remove()
    return found | from_output(out, clip, [g for g in (guidance, memory) if g is not None])


def from_output(out, clip, guides):
    """What a Segmentation holds, under the golden names."""
    def stack(name):
        return torch.stack([getattr(layer, name) for layer in out.layers])

    pa, last = out.activation, out.layers[-1].query.flatten(0, 1)
    found = {
        "query_feat23": clip.reduced.flatten(0, 1), "prior": pa.prior, "query_feat": pa.query.flatten(0, 1),
        "init_out": pa.initial_logits, "aug_supp_feat": torch.cat([g.features for g in guides], 1).flatten(0, 1),
        "clip_logits": stack("clip_logits"), "frame_logits": stack("frame_logits"),
        "support_logits": stack("support_logits"), "proto_support": stack("support_proto"),
        "proto_query": stack("clip_proto"), "proto_clip": stack("clip_inter"), "proto_frame": stack("frame_inter"),
        "query_layer": stack("query").flatten(1, 2).flatten(3), "transformer_out": last,
        "out_low": out.low_logits, "out_full": out.logits.flatten(0, 1),
    }
    if len(guides) > 1:
        found["proto_memory"] = stack("memory_proto")
    found["min_abs_logit"] = torch.stack([x.abs().min() for pair in zip(
        found["clip_logits"], found["frame_logits"], strict=True) for x in pair])
    filters = found["proto_clip"]
    batch = filters.shape[1]
    if batch > 1:
        others = [[j for j in range(batch) if j != b] for b in range(batch)]
        found["cross_sample"] = torch.stack([torch.stack([
            mask_logits(filters[layer, j][None], clip.reduced[b:b + 1])[0]
            for layer in range(len(filters)) for j in others[b]]) for b in range(batch)])
    return found


def compare(report, fill, case, golden, found):
    """Every golden array of an eval case against ours."""
    margin = np.abs(np.diff(golden["out_low"], axis=2))[:, :, 0] if "out_low" in golden else None
    for key in golden.files:
        name = key.removesuffix("_summary").removesuffix("_sample")
        if key == "mask_shape":
            continue
        name = "cross_sample" if name.startswith("cross_sample") else name
        if name not in found:
            print(f"{case}  {key}: not known to this tool, not compared")
            report.failed.append(f"{case} {key}")
            continue
        ours, expected = found[name].detach().cpu().numpy(), golden[key]
        if key == "mask":
            shape = golden["mask_shape"]
            expected = np.unpackbits(expected)[:np.prod(shape)].reshape(shape)
            report.pixels(case, key, ours, expected > 0)
            continue
        keep, scale = None, None
        if key == "ssm" and ours.dtype == np.float32:
            keep = np.broadcast_to((margin >= 1e-3)[:, :, None], ours.shape)
        if key == "min_abs_logit":      # of the logits' own scale: it is a difference of large numbers
            scale = float(found["clip_logits"].double().square().mean().sqrt())
        if key in ("clip_logits", "frame_logits"):
            report.pixels(case, f"{key} >= 0", ours >= 0, expected >= 0)
        report.tensor(case, key, reduce_like(fill, key, ours, expected), expected, keep, scale)


def reduce_like(fill, key, ours, golden):
    """Full array -> the summary or sample that the golden file holds (query_layer: per row)."""
    if key.endswith("_summary"):
        reduce = fill.summary
    elif key.endswith("_sample"):
        def reduce(a):
            return fill.sample(a, golden.shape[-1])
    else:
        return ours.reshape(golden.shape)
    return np.stack([reduce(row) for row in ours]) if golden.ndim == 2 else reduce(ours)


def check_eval(report, fill, folder, case, dtype):
    spec = fill.CASES[case]
    step, _ = released_model(fill, folder, dtype, spec.get("override", {}))
    query, _, support, masks = torch_inputs(fill.episode(case), dtype)
    with torch.no_grad():
        found = run_eval(step.model.eval(), query, support, masks, spec["n_support"])
    compare(report, fill, case, np.load(folder / f"eval_{case}.npz"), found)


def check_train(report, fill, folder, case, dtype):
    spec, golden = fill.CASES[case], np.load(folder / f"train_{case}.npz")
    step, names = released_model(fill, folder, dtype)
    step.train()
    data = fill.inputs(spec["seed"], spec["batch"], spec["n_support"], spec["n_query"])
    support, support_masks, query, query_masks = torch_inputs(
        [data[k] for k in ("support_img", "support_mask", "query_img", "query_mask")], dtype)
    length = spec["n_query"] // 3
    memory = [torch.tensor([index] * spec["batch"]) for index in (range(length), fill.TRAIN_MEMORY_CLIP3)]
    encoded = step.encode(EpisodeBatch(support, support_masks, query, query_masks, memory, length, [0] * len(query)))
    total = 0.0
    for number in range(3):
        total += check_clip(report, step, case, golden, encoded, number)
    report.relative(case, "total", total, golden["total"], "loss")
    check_gradients(report, fill, case, golden, step.model, name_table(
        [n for n in names if not n.endswith("num_batches_tracked")]))


def check_clip(report, step, case, golden, encoded, number):
    """Losses of one training clip, and its backward pass  ->  the clip's total"""
    clip, truth, support, memory, guide_truth = step.parts(encoded, number)
    out = step.model(clip, support, memory, size=truth.shape[-2:])
    named = step.losses(out, clip, truth, guide_truth)
    k, masks = number + 1, at_feature_size(truth)
    scores = [losses.iou_regression_loss(step.model.predict_iou(variant, clip, support, memory),
                                         losses.mask_iou(out.masks, truth), per_batch=True)
              for variant in rounding_variants(out)]
    score = min(scores, key=lambda x: abs(x.item() - golden[f"score_{k}"]))
    if score is not scores[0]:
        print(f"{case}  clip {k}: a low-resolution pixel with a class margin below {UNDECIDED} taken the other way")
    sums = {"main": (named["final"] + named["initial"], "loss"), "score": (score, "iou_loss"),
            "aux": (named["aux_query"] + named["aux_support"], "aux"), "contrast": (named["ccds"], "aux")}
    for name, (value, kind) in sums.items():
        report.relative(case, f"{name}_{k}", value.item(), golden[f"{name}_{k}"], kind)
    outputs = (out.logits, out.initial_logits)
    terms = np.array([[losses.dice_loss(x, truth).item(), *(v.item() for v in losses.iou_losses(x, truth))]
                      for x in outputs])
    for column, name in enumerate(("dice", "iou_mean", "iou_overall")):
        report.relative(case, f"{name}_{k}", terms[:, column], golden[f"{name}_{k}"], "loss")
    query = [losses.auxiliary_loss([x], masks).item() for y in out.layers for x in (y.clip_logits, y.frame_logits)]
    guide = [losses.auxiliary_loss([y.support_logits], guide_truth).item() for y in out.layers]
    report.relative(case, f"bce_query_{k}", query, golden[f"bce_query_{k}"], "aux")
    report.relative(case, f"bce_support_{k}", guide, golden[f"bce_support_{k}"], "aux")
    shape = out.masks.shape
    expected = np.unpackbits(golden[f"mask_{k}"])[:np.prod(shape)].reshape(shape)
    report.pixels(case, f"mask_{k}", out.masks.numpy(), expected > 0)
    total = sum(value for value, _ in sums.values())
    total.backward()
    return total.item()


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


def check_gradients(report, fill, case, golden, model, table):
    """Norms of all gradients (in float64) and samples of some, under the released names."""
    gradient = {name: p.grad for name, p in model.named_parameters()}
    names = [str(n) for n in golden["grad_norm_names"]]
    norms = np.array([gradient[table[n]].double().norm().item() for n in names])
    report.relative(case, "grad_norms", norms, golden["grad_norms"], "grad_norm")
    trained = {n for n, g in gradient.items() if g is not None}
    report.line(case, "tensors with gradient", len(trained ^ {table[n] for n in names}), 0, "differ")
    limit = report.tolerance["grad_sample"]
    for key in (k for k in golden.files if k.startswith("grad/")):
        expected = golden[key]
        ours = fill.sample(gradient[table[key[5:]]].numpy(), len(expected))
        rms = max(float(np.sqrt((expected ** 2).mean())), 1e-12)
        report.line(case, key, float(np.abs(ours - expected).max() / rms), limit)


def main():
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float64")
    parser.add_argument("--cases", nargs="*", help="letters; default: all that DIR holds")
    args = parser.parse_args()
    files = sorted(p for p in args.folder.glob("*_*.npz") if p.name.startswith(("eval_", "train_")))
    if not files:
        raise FileNotFoundError(
            f"{args.folder}: no eval_*.npz or train_*.npz.\n  Give the folder with the golden files.")
    fill, report = load_fill(args.folder), Report(args.dtype)
    for path in files:
        kind, case = path.stem.split("_", 1)
        if not args.cases or case in args.cases:
            check = check_train if kind == "train" else check_eval
            check(report, fill, args.folder, case, getattr(torch, args.dtype))
    print(f"{len(report.failed)} beyond tolerance" + (": " + ", ".join(report.failed) if report.failed else ""))
    return 1 if report.failed else 0


if __name__ == "__main__":
    with user_errors():
        sys.exit(main())
