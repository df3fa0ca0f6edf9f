"""What check_parity compares for LLB: its modules, a training step, the tracker; what is LWL's is done there.

The folder's weights run in the released settings.
"""
import importlib.util
import json

import numpy as np
import torch
from easydict import EasyDict
from torch import nn

from models.backbone import Pyramid
from models.llb.config import Config
from models.llb.fusion import Fusion
from models.llb.inference import Segmenter
from models.llb.label_encoder import LabelEncoder
from models.llb.losses import cosine_loss
from models.llb.matching import Matching
from models.llb.model import LLB
from models.llb.train_step import TrainStep
from models.llb.vitae import ViTAE, tokens
from models.lwl.memory import Memory
from tools.conversion import llb as released
from tools.workshop.parity import Found, Limit, lwl

INPUTS = ("grad_names", "grad_none", "mask_shape")
SOURCES = ("official_parameters.json", "formula.py")
EXACT = Limit()
# known: what no predicted mask has gone into; else float32 follows the masks that it feeds back
LIMITS = {
    "float64": {"exact": Limit(rms=1e-8), "known": Limit(rms=1e-9), "rounded": Limit(rms=1e-7, value=1e-6),
                "loss": Limit(value=1e-9), "norm": Limit(value=1e-6), "sample": Limit(rms=1e-5), "labels": EXACT},
    "float32": {"exact": Limit(rms=1e-1), "known": Limit(rms=1e-3), "rounded": Limit(rms=1e-1),
                "loss": Limit(value=1e-3), "norm": Limit(value=1e-1), "sample": Limit(rms=3e-1),
                "labels": Limit(flips=500)},
}


def our_names(names):
    return released.our_names(names, lwl.our_name)


def our_state(state):
    """A released state dict  ->  ours"""
    return {ours: state[name] for name, ours in our_names(state).items()}


def settings(**changes):
    return lwl.settings(Config, **changes)


def released_model(case, **override):
    """LLB with the folder's weights, in the case's precision, every parameter trainable; override: constants by name"""
    dtype = getattr(torch, case.dtype)
    torch.set_default_dtype(dtype)           # also of the constants that images are normalised with
    try:
        model = LLB(Pyramid(flavour="caffe2", stride_in_1x1=True), bff_flavour="caffe2")
    finally:
        torch.set_default_dtype(torch.float32)
    state = case.fill.official_state_dict(case.folder / SOURCES[0], dtype)
    state |= {name: torch.full_like(state[name], value) for name, value in override.items()}
    fresh = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict(fresh | our_state(state), strict=True)
    return model.requires_grad_(True)


# -- modules ----------------------------------------------------------------------------------------------------------

class Formula:
    """formula.py of the folder, in the case's precision"""

    def __init__(self, case):
        spec = importlib.util.spec_from_file_location("formula", case.folder / SOURCES[1])
        self.formula, self.dtype = importlib.util.module_from_spec(spec), getattr(torch, case.dtype)
        spec.loader.exec_module(self.formula)
        self.names = our_names(one["name"] for one in json.loads((case.folder / SOURCES[0]).read_text()))

    def input(self, name, *shape, lo=-1.0):
        return self.formula.inp(name, *shape, lo=lo).to(self.dtype).requires_grad_(True)

    def filled(self, module, theirs, ours):
        """theirs, ours: what stands before the module's own names in a whole network's"""
        own = module.to(self.dtype).eval().state_dict()
        for their_name, name in self.names.items():
            name = name.removeprefix(ours)
            if their_name.startswith(theirs) and name in own and own[name].is_floating_point():
                own[name].copy_(self.formula.value(their_name.removeprefix(theirs), tuple(own[name].shape)))
        return module


def modules(case):
    """modules.npz: parts with small sizes"""
    source = Formula(case)
    with torch.random.fork_rng():
        found = matched(source) | labelled(source) | memories()
    fusion = source.filled(Fusion(6), "combiner.", "fusion.")
    found["afm"] = fusion(source.input("tm", 1, 2, 6, 4, 5)[0], source.input("tr", 1, 2, 6, 4, 5)[0])[None]
    found["diff"] = cosine_loss(*(source.input(name, 3, 2, 6, 4, 5, lo=0.0) for name in "ab"))
    limit = LIMITS[case.dtype]["known"]
    return {name: value if isinstance(value, Found) else Found(value, limit) for name, value in found.items()}


def matched(source):
    matching = source.filled(Matching(4, dim=16), "transformer.", "matching.")
    query, memory = source.input("query", 1, 2, 16, 4, 5), source.input("mem", 3, 2, 16, 4, 5)
    value = source.input("value", 3, 2, 6, 4, 5, lo=0.0)
    encoded = matching.encode(memory)
    out = matching.read(matching.key(matching.encode(query)), matching.key(encoded), value)[None]
    (out.square().sum() / 2).backward()
    return {"tr_encode": encoded, "tr_out": out, "tr_grad_mem": memory.grad, "tr_grad_query": query.grad,
            "tr_grad_value": value.grad, "tr_grad_self_WK": matching.self_key.weight.grad,
            "tr_grad_cross_WK": matching.cross_key.weight.grad}


@torch.no_grad()
def labelled(source):
    vitae = source.filled(ViTAE(), "label_encoder.label_backbone.", "label_encoder.trunk.")
    cells = {"rc0": vitae.layers[0]["RC"], "rc1": vitae.layers[1]["RC"], "rc2": vitae.layers[2]["RC"],
             "nc0": vitae.layers[2]["NC"][0]}
    found = {}
    for name, cell in cells.items():
        cell.register_forward_hook(lambda _, __, y, name=name: found.update({f"vitae_{name}": tokens(y)}))
    found["vitae_out"] = vitae(source.input("im", 1, 3, 64, 96))
    dlgm = source.filled(LabelEncoder(filters=8), "label_encoder.", "label_encoder.")
    dlgm.normalise, bff = nn.Identity(), source.input("bff", 2, 1, 3, 64, 96)
    return found | dict(zip(("dlgm_tm", "dlgm_w", "dlgm_tr"), dlgm(bff, torch.ones_like(bff[:, :, 0])), strict=True))


def memories():
    found = {}
    for size in (20, 4):
        memory = Memory(size=size)
        memory.free_slot()
        rows = [(memory.free_slot(), memory.weights) for _ in range(60)]
        found |= {f"slots_{size}": Found(np.array([slot for slot, _ in rows]), EXACT),
                  f"weights_{size}": np.array([weights for _, weights in rows])}
    return found


# -- one training step ------------------------------------------------------------------------------------------------

def training(case):
    """train_*: forward, losses and gradients"""
    spec, dtype, limits = case.fill.TRAIN_CASES[case.letter], getattr(torch, case.dtype), LIMITS[case.dtype]
    inputs = [torch.from_numpy(one).to(dtype) for one in case.fill.train_inputs(case.letter)]
    images, masks = torch.cat(inputs[:2]).transpose(0, 1), torch.cat(inputs[2:]).transpose(0, 1)
    model = released_model(case)
    model.backbone.normalise = model.label_encoder.normalise = nn.Identity()       # the inputs are normalised already
    step = TrainStep(model, settings(learner={"train_update_steps": spec["refinement"]}))
    arrays = one_step(step, images, masks)
    parameters = dict(model.named_parameters())
    gradients = {str(name): parameters[our_names([str(name)])[str(name)]].grad for name in case.arrays["grad_names"]}
    arrays |= {f"grad/{name}": one for name, one in gradients.items()}
    arrays["grad_norms"] = torch.stack([one.norm() for one in gradients.values()])
    assert all(one.grad is not None for one in parameters.values())
    found = {}
    for name, value in arrays.items():
        kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), "exact")
        if case.arrays.get(name) is not None and case.arrays[name].dtype == np.float32:
            kind = "rounded"
        found[name] = Found(value, limits[kind], sampled=name.startswith("grad/"))
        if name == "logits":
            found["logits_sample"] = Found(value, limits["exact"], sampled=True)
            found["logits_summary"] = Found(case.fill.summary(value.detach().numpy()), limits["exact"])
    return found


KINDS = {"backbone": "known", "x_": "known", "z_": "known", "tau_0": "known", "query": "known", "memory_0": "known",
         "loss": "loss", "learner_loss": "loss", "grad_norms": "norm", "grad/": "sample",
         "mask": "labels"}


def one_step(step, images, masks):
    """images (S, 4, 3, H, W), masks (S, 4, H, W)  ->  {golden name: array}; its gradients are those of all losses"""
    model, seen, learning, kept = step.model, {}, [], []
    parts = {"levels": model.backbone, "x": model.features, "z": model.matching.conv, "fused": model.fusion,
             "encoded": model.label_encoder, "vitae": model.label_encoder.trunk}
    parts |= {f"decoder_{name}": level for name, level in model.decoder.levels.items()}
    hooks = [part.register_forward_hook(lambda _, args, y, name=name: seen.setdefault(name, []).append((args, y)))
             for name, part in parts.items()]
    learn, encode, segment = model.learn, model.matching.encode, step.segment
    model.learn = lambda *args: (learning.append((args, learn(*args))), learning[-1][1])[1]
    model.matching.encode = lambda z: (kept.append(encode(z)), kept[-1])[1]
    step.segment = lambda *args: (seen.update(logits=segment(*args)), seen["logits"])[1]
    losses, _ = step(images, masks)
    sum(losses.values()).backward()
    for hook in hooks:
        hook.remove()
    model.learn, model.matching.encode, step.segment = learn, encode, segment
    found = of_step(model, seen, learning, kept, len(images))
    return found | {"loss_segm": losses["lovasz"], "loss_diff": losses["cosine"], "loss_total": sum(losses.values())}


def of_step(model, seen, learning, kept, s):
    """What the hooks saw of S sequences, under the golden names"""
    found = {"logits": seen["logits"][0], "mask": seen["logits"][0].detach().numpy() > 0}
    for i, level in enumerate(seen["levels"][0][1], 1):
        found |= {f"backbone_ref_layer{i}": level[:s], f"backbone_test_layer{i}": level[s:]}
    (_, x), (_, z) = seen["x"][0], seen["z"][0]
    found |= {"x_ref": x[:s], "x_test": x[s:], "z_ref": z[:s], "vitae": torch.stack([y for _, y in seen["vitae"]])}
    found |= {name: torch.cat([y[i] for _, y in seen["encoded"]]) for i, name in enumerate(("E2", "W", "E1"))}
    found |= {"e2": torch.stack([args[0] for args, _ in seen["fused"]]),
              "e1": torch.stack([args[1] for args, _ in seen["fused"]]),
              "fused": torch.stack([y for _, y in seen["fused"]])}
    found |= {f"decoder_layer{i}": torch.stack([y for _, y in seen[f"decoder_layer{i}"]]) for i in range(1, 5)}
    queries = kept[0][0].unflatten(0, (4, s))
    for t in range(3):
        found |= {f"query_{t}": queries[t + 1][None], f"memory_{t}": kept[1:][min(t, len(kept) - 2)]}
    for i, (args, (tau, _)) in enumerate(learning):
        with torch.no_grad():
            _, values = lwl.learned(*args[:3], model.reg, *args[3:])
        found |= {f"tau_{i}": tau, f"learner_loss_{i}": values}
    return found


# -- tracking ---------------------------------------------------------------------------------------------------------

class Watched(lwl.Watching, Segmenter):
    first_mask = "init_bff"

    def encoded(self, crop, mask):
        encoder = self.model.label_encoder
        return encoder.normalise(crop.view(1, *crop.shape[-3:])) * mask

    def state(self, o):
        row, memory = super().state(o), self.targets[o].memory
        return row | {"centre": row.get("search_centre", row["centre"]), "E1": memory.value.clone(),
                      "replaced": memory.newest if memory.stored > 1 else -1}


def tracking(case):
    """track_*: the whole tracker, frame by frame"""
    spec = case.fill.TRACK_CASES[case.letter]
    images, labels = case.fill.video(**spec["video"])
    cfg = settings(memory={"size": spec["memory"], "interval": spec["interval"]}, data={"size": spec["sample"]})
    segmenter = Watched(released_model(case, **spec.get("override", {})), EasyDict(from_boxes=False), cfg)
    frames = torch.from_numpy(images).permute(0, 3, 1, 2).to(getattr(torch, case.dtype)) / 255
    given = lwl.given_masks(case, labels, spec, spec["video"]["objects"])
    with torch.inference_mode():
        for t, image in enumerate(frames):
            segmenter.first = t == 0
            segmenter.follow(image, given[:, t])
    return lwl.compared(case, segmenter, LIMITS, ("tau", "scores", "prob", "E1"))


CASES = {"modules": modules, r"train_\w+": training, r"track_\w+": tracking}
