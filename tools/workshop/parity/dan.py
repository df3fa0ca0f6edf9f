"""What check_parity compares for DAN: forward pass, losses and gradients with the encoder's normalisation frozen and as
released, and online learning.

The parts of the network are seen by hooks; its two attentions, which a library computes, are computed here once more.
"""
import re

import numpy as np
import torch
from easydict import EasyDict

from dataloaders.episode import Batch
from models import get_method
from models.dan import losses
from models.dan.online import learn, with_stage
from tools.workshop.parity import Found, Limit
from utils.config import load_config

SOURCES = ("official_parameters.json",)
INPUTS = ()
EXACT = Limit()
LIMITS = {
    "float64": {"array": Limit(rms=1e-9), "attention": Limit(rms=1e-9), "stored": Limit(rms=1e-7),
                "loss": Limit(value=1e-10), "norm": Limit(value=1e-5, rms=1e-12),
                "eval": Limit(rms=1e-5), "train": Limit(rms=1e-5),               # gradients
                "j": Limit(value=1e-6), "learned": Limit(rms=1e-7)},
    "float32": {"array": Limit(rms=1e-3), "attention": Limit(rms=5e-3), "stored": Limit(rms=1e-3),
                "loss": Limit(value=1e-4), "norm": Limit(value=1e-2, rms=1e-6),
                # A ReLU at zero that rounds to the other side moves the gradients of its place: by up to 0.07 rms here,
                # with statistics of four frames.
                "eval": Limit(rms=5e-2), "train": Limit(rms=2e-1),
                "j": Limit(value=1e-2), "learned": Limit(rms=5e-3)},
}
NAMES = (       # released name -> ours, by its beginning
    (r"encoder\.layer0\.([036])\.", lambda m: f"encoder.body.conv{int(m[1]) // 3 + 1}."),
    (r"encoder\.layer0\.([147])\.", lambda m: f"encoder.body.bn{int(m[1]) // 3 + 1}."),
    (r"encoder\.(layer[123])\.", r"encoder.body.\1."),
    (r"support_qkv\.(Key|Value)\.", lambda m: f"support_{m[1].lower()}."),
    (r"query_qkv\.(query|Key)\.", lambda m: f"query_{m[1].lower()}."),
    (r"conv_q\.", "reduce."), (r"Decoder\.convFM\.", "decoder.first.0."), (r"Decoder\.ResMM\.", "decoder.first.1."),
    (r"Decoder\.RF([32])\.convFS\.", lambda m: f"decoder.skips.{3 - int(m[1])}.level.0."),
    (r"Decoder\.RF([32])\.ResFS\.", lambda m: f"decoder.skips.{3 - int(m[1])}.level.1."),
    (r"Decoder\.RF([32])\.ResMM\.", lambda m: f"decoder.skips.{3 - int(m[1])}.fuse."),
    (r"Decoder\.pred2\.", "decoder.head."),
)
NO_EFFECT = ("support_qkv.Key.bias", "query_qkv.Key.bias")       # a softmax ignores them: gradients of rounding alone


# -- the released network ---------------------------------------------------------------------------------------------

def our_name(name):
    """Released  ->  ours; None for the parameters that never reach an output, which we have not"""
    for pattern, place in NAMES:
        found, count = re.subn(f"^{pattern}", place, name)
        if count:
            return found
    return None


def released_step(case, running):
    """running: its normalisation is the release's  ->  TrainStep with the folder's weights, {released name: ours}"""
    state = case.fill.official_state_dict(case.folder / SOURCES[0], getattr(torch, case.dtype))
    table = {name: our_name(name) for name in state}
    cfg = load_config([], ["model.method=dan", f"backbone.released_bn={str(running).lower()}"])
    method = get_method("dan")
    with torch.device("meta"):
        model = method.build(cfg)
    model.load_state_dict({ours: state[name] for name, ours in table.items() if ours}, strict=True, assign=True)
    model.requires_grad_(True).encoder.requires_grad_(False)
    return method.TrainStep(model, cfg).train(running), table


def episode(case):
    """The case's inputs as a Batch"""
    data, dtype = case.fill.inputs(case.name), getattr(torch, case.dtype)
    images = [torch.from_numpy(data[f"{part}_img"]).to(dtype) for part in ("support", "query")]
    masks = [torch.from_numpy(data[f"{part}_mask"][:, :, 0] > 0) for part in ("support", "query")]
    return Batch(images[0], masks[0], images[1], masks[1], [], images[1].shape[1], [])


# -- a training step --------------------------------------------------------------------------------------------------

def training(case):
    """a, b, c, d: one step with the normalisation frozen (eval/) and in training mode (train/)"""
    return {name: value for mode in ("eval", "train") for name, value in one_mode(case, mode).items()}


def one_mode(case, mode):
    step, table = released_step(case, running=mode == "train")
    batch, model, limit = episode(case), step.model, LIMITS[case.dtype]
    seen, hooks = {}, []
    modules = {"network": model, "encoder": model.encoder, "support_key": model.support_key,
               "support_value": model.support_value, "conv_q": model.reduce, "decoder": model.decoder,
               "m4": model.decoder.first, "m3": model.decoder.skips[0], "m2": model.decoder.skips[1]}
    for name, module in modules.items():
        hooks.append(module.register_forward_hook(lambda _, given, out, name=name: seen.update({name: (given, out)})))
    named, _ = step(*step.units(batch)[0])
    for hook in hooks:
        hook.remove()
    sum(named.values()).backward()
    prob = seen["network"][1].detach().sigmoid()
    found = {name: Found(value, limit["attention" if "attention" in name else "array"])      # an exponential
             for name, value in parts(model, seen, batch).items()}
    found["prob"] = Found(prob[:, :, None], limit["stored"])
    found["prob_sample"] = Found(prob, limit["array"], sampled=True)      # stored with all digits, as its summary
    found["prob_summary"] = Found(case.fill.summary(prob), limit["array"])
    parts_of_loss = [losses.cross_entropy(prob, batch.query_masks), losses.iou_loss(prob, batch.query_masks)]
    found["loss"] = Found([sum(named.values()).item(), *map(float, parts_of_loss)], limit["loss"])
    found["loss_background_0.1"] = Found(losses.cross_entropy(prob, batch.query_masks, 0.1), limit["loss"])
    norm = model.encoder.body.layer3[0].bn1
    found |= {f"running_{kind}_layer3": Found(getattr(norm, f"running_{kind}"), limit["array"])
              for kind in ("mean", "var")}
    common, own = gradients(case, model, table, mode)
    return common | {f"{mode}/{name}": value for name, value in (found | own).items()}


def parts(model, seen, batch):
    """What the hooks saw, and the attentions from the queries, keys and values  ->  {golden name: array}"""
    features = seen["encoder"][1].map(torch.Tensor.detach)
    frames, (episodes, count) = features.frames(slice(0, batch.clip_length)), batch.query_masks.shape[:2]
    found = {name: torch.cat([level[:, :count].flatten(0, 1), level[:, count:].flatten(0, 1)])
             for name, level in (("l1", features.c2), ("l2", features.c3), ("l3", features.c4))}
    found |= {name: seen[name][1].detach() for name in ("support_key", "support_value", "conv_q", "m4", "m3", "m2")}
    with torch.no_grad():
        found |= {name: getattr(model, name)(frames.c4.flatten(0, 1)) for name in ("query_query", "query_key")}
    found["logits"] = seen["network"][1].detach().flatten(0, 1)[:, None]

    def rows(name):                                                   # (B, frames, channels, positions)
        return found[name].unflatten(0, (episodes, -1)).flatten(3)

    def side_by_side(x):
        return x.transpose(1, 2).flatten(2)                           # (B, channels, frames * positions)

    middle = count // 2
    scale = model.query_query.out_channels ** -0.5
    keys, values = side_by_side(rows("support_key")), side_by_side(rows("support_value"))
    found["agent_attention"] = (scale * keys.mT @ rows("query_query")[:, middle]).softmax(dim=1)
    found["agent_value"] = values @ found["agent_attention"]
    queries = side_by_side(rows("query_query"))
    found["out_attention"] = (scale * rows("query_key")[:, middle].mT @ queries).softmax(dim=1)
    fused = seen["decoder"][0][0].detach()[:, :values.shape[1]]       # what the network's own attention gave
    found["out_value"] = side_by_side(fused.unflatten(0, (episodes, count)).flatten(3))
    torch.testing.assert_close(found["out_value"], found["agent_value"] @ found["out_attention"], rtol=1e-3, atol=1e-4)
    return found


def gradients(case, model, table, mode):
    """->  names without a mode, and norms and samples of every trained parameter"""
    limit, ours = LIMITS[case.dtype], dict(model.named_parameters())
    trained = [name for name in table if not name.startswith("encoder.")]
    gradient = {name: ours[table[name]].grad for name in trained if table[name]}
    asked = [str(name) for name in case.arrays["grad_names"]]
    have = [name for name in asked if name in gradient] + sorted(gradient.keys() - set(asked))
    golden = {name: float(value) for name, value in zip(asked, case.arrays[f"{mode}/grad_norms"], strict=True)}
    largest = max(golden.values())
    found = {}
    for name, value in gradient.items():
        without = name in NO_EFFECT
        if without:      # both are rounding noise: measured by the largest gradient, and not against one another
            assert float(value.norm()) < 1e-6 * largest if case.dtype == "float64" else 1e-3 * largest, name
        found[f"grad/{name}"] = Found(value, limit[mode], sampled=True, scale=largest if without else None)
    norms = Found([gradient[name].double().norm().item() for name in asked], limit["norm"])
    names = {"grad_names": have, "grad_none": [name for name in trained if not table[name]]}
    return {name: Found(value, EXACT) for name, value in names.items()}, {"grad_norms": norms, **found}


# -- online learning --------------------------------------------------------------------------------------------------

def online(case):
    """online_*: learning on the supports, and what it changes"""
    step, table = released_step(case, running=False)
    model, batch, limit = step.model.eval(), episode(case), LIMITS[case.dtype]
    settings = load_config([], ["model.method=dan"]).online
    learned, before, after, changed = learned_stage(model, batch, EasyDict(settings, **case.fill.ONLINE[case.name]))
    back = {ours: name for name, ours in table.items() if ours}
    changed = {back[name]: value for name, value in changed.items()}
    found = {"losses": Found(np.reshape(learned.losses, (-1, batch.support_masks.shape[1], 3)), limit["learned"]),
             "j": Found(learned.j, limit["j"]), "buffers_changed": Found(np.zeros(0), EXACT)}
    asked = [str(name) for name in case.arrays["changed_names"]]
    found["changed_names"] = Found([n for n in asked if n in changed] + sorted(changed.keys() - set(asked)), EXACT)
    found["changed_norms"] = Found([changed[name][1].norm().item() for name in asked], limit["norm"])
    found |= {f"weight/{name}": Found(value, limit["learned"], sampled=True) for name, (value, _) in changed.items()}
    for when, outputs in (("before", before), ("after", after)):
        for part, prob in outputs.items():
            form = limit["array" if when == "before" else "learned"]
            found[f"{when}/{part}"] = Found(prob, form)
    return found


def learned_stage(model, batch, settings):
    """->  Learned, probabilities before and after {query, support}, {our name: (weight after, its change)}"""
    with torch.no_grad():
        support, query = model.encode(batch.support_images), model.encode(batch.query_images)
    own = model.encoder.body.layer3
    learned = learn(model, support, batch.support_masks, settings)

    def outputs(stage):
        with torch.no_grad():
            supports, frames = with_stage(support, stage), with_stage(query, stage)
            given = model.read_supports(supports, batch.support_masks)
            size = batch.query_masks.shape[-2:]
            return {part: model(x, given, size).sigmoid()[:, :, None]
                    for part, x in (("query", frames), ("support", supports))}

    now, changed = learned.stage.state_dict(), {}
    for name, value in own.state_dict().items():
        if not torch.equal(now[name], value):
            changed[f"encoder.body.layer3.{name}"] = now[name], now[name] - value
    return learned, outputs(own), outputs(learned.stage), changed


CASES = {r"[a-d]": training, r"online_.": online}
