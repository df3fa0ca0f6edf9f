"""What check_parity compares for LWL: every part alone, a training step in two variants, the tracker.

The folder's weights run in the released settings. Parts of the data side are imported when they are compared.
"""
import math
import typing

import msgspec
import numpy as np
import torch
from easydict import EasyDict

from models.backbone import Pyramid
from models.lwl import crops, inference
from models.lwl.config import Config
from models.lwl.learner import learn, learner_loss
from models.lwl.losses import lovasz_loss
from models.lwl.memory import Memory
from models.lwl.model import LWL
from models.lwl.train_step import TrainStep
from tools.conversion.lwl import our_name
from tools.workshop.parity import Found, Limit

INPUTS = ("grad_names",)
SOURCES = ("official_parameters.json",)
EXACT = Limit()
LIMITS = {
    "float64": {"exact": Limit(rms=1e-9), "rounded": Limit(rms=1e-7, value=1e-7), "loss": Limit(value=1e-10),
                "norm": Limit(value=1e-6), "sample": Limit(rms=1e-6), "labels": EXACT},
    "float32": {"exact": Limit(rms=1e-3), "rounded": Limit(rms=1e-3), "loss": Limit(value=1e-4),
                "norm": Limit(value=1e-2), "sample": Limit(rms=5e-2), "labels": Limit(flips=50)},
}

def settings(config=Config, **changes):
    """A method's own defaults, released where there is a choice, without a task  ->  EasyDict"""
    cfg = EasyDict({name: msgspec.to_builtins(section()) for name, section in typing.get_type_hints(config).items()})
    cfg.backbone |= {"flavour": "caffe2", "stride_in_1x1": True, "bn_eps": 1e-5}
    for section, values in changes.items():
        cfg[section] = EasyDict(cfg.get(section, {}) | values)
    return cfg


def released_model(case, box=False):
    """LWL with the folder's weights, in the case's precision, every parameter trainable"""
    dtype = getattr(torch, case.dtype)
    torch.set_default_dtype(dtype)           # also of the constants that images are normalised with
    try:
        backbone = Pyramid(flavour="caffe2", stride_in_1x1=True)
        model = LWL(backbone, box_encoder=box)
    finally:
        torch.set_default_dtype(torch.float32)
    state = case.fill.official_state_dict(case.folder / SOURCES[0], dtype, box=box)
    fresh = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict(fresh | {our_name(k): v for k, v in state.items()}, strict=True)
    return model.requires_grad_(True)


# -- units ------------------------------------------------------------------------------------------------------------

def units(case):
    """units_*: each part alone"""
    spec, found = case.fill.UNITS[case.letter], {}
    source = Source(case)
    with torch.random.fork_rng():
        for part in (learners, encoders, network_parts, losses, test_crops, states, merging, memories, training_data):
            found |= part(source, spec)
    limits = LIMITS[case.dtype]
    for key, value in found.items():
        if not isinstance(value, Found):
            stored = case.arrays.get(key)
            kind = "rounded" if stored is not None and stored.dtype == np.float32 else "exact"
            found[key] = Found(value, limits[kind])
    return found


class Source:
    """The folder's inputs in the case's precision"""

    def __init__(self, case):
        self.case, self.fill, self.dtype = case, case.fill, getattr(torch, case.dtype)
        self.exact = EXACT
        self.model = released_model(case, box=True)

    def normal(self, name, shape, scale=1.0, base=0.0):
        """base + scale N, in float32, then cast; scale 'abs' has no sign"""
        array = self.fill.normal(f"{self.case.letter}/{name}", shape)
        array = np.abs(array) if scale == "abs" else np.float32(base) + np.float32(scale) * array
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.dtype)

    def soft_mask(self, name, shape):
        return torch.from_numpy(self.fill.soft_mask(f"{self.case.letter}/{name}", shape)).to(self.dtype)

    def picture(self, size):
        return self.fill.picture(f"{self.case.letter}/image", size)

    def tensor(self, array):
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.dtype)


def learners(source, spec):
    found = {}
    for i, (t, b, c, k, h, w, steps, zero, reg) in enumerate(spec["learner"]):
        x = source.normal(f"learner{i}/x", (t, b, c, h, w), 0.2)
        e = source.normal(f"learner{i}/e", (t, b, k, h, w), "abs")
        weight = source.normal(f"learner{i}/w", (t, b, k, h, w), 0.5, 1.0)
        start = torch.zeros(b, k, c, 3, 3, dtype=source.dtype) if zero else source.normal(
            f"learner{i}/tau", (b, k, c, 3, 3), 0.1)
        r = torch.tensor([reg], dtype=source.dtype)
        inputs = dict(zip("xewr", (x, e, weight, r), strict=True)) | ({} if zero else {"tau": start})
        for one in inputs.values():
            one.requires_grad_(True)
        iterates, losses_ = learned(x, e, weight, r, start, steps)
        (iterates[-1] * source.normal(f"learner{i}/coefficient", (b, k, c, 3, 3))).sum().backward()
        found |= {f"learner{i}/iterates": torch.stack(iterates), f"learner{i}/loss": losses_}
        found |= {f"learner{i}/grad_{name}": one.grad for name, one in inputs.items()}
    return found


def learned(x, e, w, r, tau, steps):
    """->  all iterates, and the loss that the release logs at each: the mean over all squared residuals

    The last iterate comes from one call, so that what is differentiated is what training uses.
    """
    iterates = [tau]
    for _ in range(steps - 1):
        with torch.no_grad():
            iterates.append(learn(x, e, w, r, iterates[-1], 1)[0])
    iterates.append(learn(x, e, w, r, tau, steps)[0])
    count = e.numel() + tau.numel()
    return iterates, torch.stack([2 * learner_loss(x, e, w, r, one).detach() / count for one in iterates])


@torch.no_grad()
def encoders(source, spec):
    found = {}
    for i, (t, b, h, w) in enumerate(spec["label"]):
        found |= dict(zip((f"label{i}/E", f"label{i}/W"), source.model.label_encoder(
            source.soft_mask(f"label{i}", (t, b, h, w))), strict=True))
    for i, (size, boxes) in enumerate(spec["box"]):
        x = source.normal(f"box{i}/x", (len(boxes), 512, *(-(-n // 16) for n in size)), 0.0147)
        filled = torch.zeros(len(boxes), *size, dtype=source.dtype)
        for mask, (left, top, w, h) in zip(filled, boxes, strict=True):
            mask[int(top):int(top) + int(h), int(left):int(left) + int(w)] = 1
        found[f"box{i}/out"] = source.model.box_encoder(x, filled)[:, None]
    return found


@torch.no_grad()
def network_parts(source, spec):
    found = {}
    for i, (n, h, w) in enumerate(spec["feature"]):
        found[f"feature{i}/x"] = source.model.features(source.normal(f"feature{i}/f", (n, 1024, h, w), "abs"))
    for i, (n, (h, w)) in enumerate(spec["decoder"]):
        levels = [source.normal(f"decoder{i}/layer{k}", (n, 128 * 2 ** k, -(-h // 2 ** (k + 1)), -(-w // 2 ** (k + 1))),
                                "abs") for k in range(1, 5)]
        score = source.normal(f"decoder{i}/score", (1, n, 16, -(-h // 16), -(-w // 16)))
        found[f"decoder{i}/out"] = source.model.decoder(score[0], levels, (h, w))[:, None]
    return found


def losses(source, spec):
    found = {}
    for i, (n, h, w, share) in enumerate(spec["lovasz"]):
        logits = source.normal(f"lovasz{i}/logits", (n, 1, h, w), 2.0).requires_grad_(True)
        mask = source.fill.uniform(f"{source.case.letter}/lovasz{i}/mask", (n, 1, h, w)) < share
        loss = lovasz_loss(logits, torch.from_numpy(mask))
        loss.backward()
        found |= {f"lovasz{i}/loss": loss, f"lovasz{i}/grad": logits.grad}
    return found


def test_crops(source, spec):
    found, out = {}, spec["output"]
    tracking = settings().tracking
    image = source.tensor(source.picture(spec["image"]).transpose(2, 0, 1))
    mask = source.soft_mask("image_mask", spec["image"])
    for i, (row, column, height, width) in enumerate(spec["crops"]):
        window = crops.search_window((row, column), (height, width), out, spec["image"])
        found |= {f"crop{i}/image": crops.crop_image(image, window, out),
                  f"crop{i}/mask": Found(crops.crop_mask(mask, window, out), source.exact),
                  f"crop{i}/window": Found(np.array(window.pixels()), source.exact)}
        logits = source.normal(f"paste{i}", (1, 1, *out), 3.0)[0, 0]
        full, block = crops.paste(logits, window, spec["image"], tracking)
        centre, factor = crops.placement(window, out)
        found |= {f"paste{i}/image": full, f"paste{i}/scale": np.array(factor), f"paste{i}/centre": np.array(centre),
                  f"paste{i}/corner": Found(np.array(block[:2]), source.exact)}
    for i, ((x, y, w, h), area) in enumerate(spec["first"]):
        centre, scale = (y + (h - 1) / 2, x + (w - 1) / 2), area * math.sqrt(h * w / math.prod(out))
        crop, small, move = crops.first_crop(image, mask, centre, scale, out)
        found |= {f"first{i}/image": crop, f"first{i}/mask": Found(small, source.exact),
                  f"first{i}/scale": np.array(scale), f"first{i}/shift": Found(-np.array(move), source.exact)}
    return found


def states(source, spec):
    """Target state from the soft mask; limits of the scale"""
    found = {}
    mask = source.soft_mask("image_mask", spec["image"])
    for i, share in enumerate((1, 0.001)):
        target = blank_target(centre=(11.0, 12.0), size=(13.0, 14.0))
        segmenter = bare_segmenter({0: target})
        segmenter.see([0], (mask * share)[None])
        found |= {f"state{i}/{name}": Found(np.array(getattr(target, name)), LIMITS[source.case.dtype]["rounded"])
                  for name in ("centre", "size")}
    scales = []
    for new in (0.5, 1.24, 1.3, 1.42, 1.44, 9.0):
        target = blank_target(centre=(50.0, 50.0), size=(new, new), scale=1.3, mass=1e6)
        bare_segmenter({0: target}).move(target, spec["image"])
        scales.append(target.scale)
    return found | {"clip_scale": np.array(scales)}


def blank_target(**values):
    return inference.Target(**({"base": (1.0, 1.0), "scale": 1.0, "memory": None, "tau": None} | values))


def bare_segmenter(targets, **tracking):
    segmenter = inference.Segmenter.__new__(inference.Segmenter)
    segmenter.tracking, segmenter.out, segmenter.targets = settings(tracking=tracking).tracking, (480, 832), targets
    return segmenter


def merging(source, spec):
    n, h, w = spec["merge"]
    logits = source.normal("merge", (n, h, w), 6.0)
    logits[:, 0, 0] = -100
    logits[0, 0, 1], logits[1:, 0, 1], logits[:, 1, 0] = 100, -100, 100
    logits[-1] = ((logits[-1] > 3).to(logits) - 0.5) * 200
    scores = inference.aggregate(logits)
    prob, margins = scores.softmax(0)[1:], inference.margins_of(scores)
    ids = np.array([0, *(int(name) for name in spec["objects"])], np.uint8)
    labels = ids[torch.cat([torch.zeros_like(margins[:1]), margins]).argmax(0).numpy()]
    boxes = np.array([reported_box(one[1:3], one[3:5]) for one in inference.spread(prob).tolist()])
    return {"merge/labels": Found(labels, LIMITS[source.case.dtype]["labels"]), "merge/prob": prob,
            "merge/boxes": Found(boxes, LIMITS[source.case.dtype]["rounded"])}


def reported_box(centre, size):
    """As the release reports it: x, y, w, h"""
    (row, column), (height, width) = centre, size
    return column - (width - 1) / 2, row - (height - 1) / 2, width, height


def memories(source, spec):
    found = {}
    for i, (size, rate, floor, half, steps) in enumerate(spec["memory"]):
        memory = Memory(size=size, rate=rate, first_share=floor, first_update="half" if half else "decayed")
        memory.free_slot()
        weights, replaced = [memory.weights], []
        for _ in range(steps):
            replaced.append(memory.free_slot())
            weights.append(memory.weights)
        found |= {f"memory{i}/weights": np.array(weights),
                  f"memory{i}/replaced": Found(np.array(replaced), source.exact)}
    return found


def training_data(source, spec):
    """Crops, jitter and augmentation of training, which belong to the data"""
    try:
        from dataloaders.vos import crops as data
    except ImportError:
        return {}
    found, out = {}, spec["output"]
    image = source.picture(spec["image"])
    mask = (source.fill.soft_mask(f"{source.case.letter}/image_mask", spec["image"]) > 0.5).astype(np.uint8)
    for i, (box, area) in enumerate(spec["train"]):
        window = data.window_of(np.array(box), spec["image"], out, area)
        crop, small = data.cut(image, mask, window, out)
        found |= {f"train{i}/{name}": Found(np.asarray(value), source.exact)
                  for name, value in (("image", crop), ("mask", small), ("window", window))}
    for i, (angle, scale) in enumerate(spec["affine"]):
        *warped, matrix = data.turned(image, mask, angle, scale)
        found |= {f"affine{i}/matrix": matrix} | {f"affine{i}/{name}": Found(value, source.exact)
                                                  for name, value in zip(("image", "mask"), warped, strict=True)}
    for i, (box, normal, uniform) in enumerate(spec["jitter"]):
        found |= {f"jitter{i}/{name}": data.jittered(np.array(box), normal, uniform, *values)
                  for name, values in (("train", (0.25, 3.0)), ("test", (0.5, (5.5, 4.5))))}
    return found


# -- one training step ------------------------------------------------------------------------------------------------

def training(case):
    """train_*: forward, loss and gradients, as released and as in the paper"""
    found, limits, dtype = {"grad_none": Found(np.zeros(0), EXACT)}, LIMITS[case.dtype], getattr(torch, case.dtype)
    inputs = [torch.from_numpy(one).to(dtype) for one in case.fill.train_inputs(case.letter)]
    images, masks = torch.cat(inputs[:2]).transpose(0, 1), torch.cat(inputs[2:]).transpose(0, 1)
    for variant, update in (("released", "none"), ("paper", "paper")):
        model = released_model(case)
        model.backbone.normalise = torch.nn.Identity()     # the inputs are normalised already
        step = TrainStep(model, settings(learner={"train_update": update}, train={"part": "network"}))
        arrays = one_step(step, images, masks)
        parameters = dict(model.named_parameters())
        gradients = {str(name): parameters[our_name(str(name))].grad for name in case.arrays["grad_names"]}
        arrays |= {f"grad/{name}": one for name, one in gradients.items()}
        arrays["grad_norms"] = torch.stack([one.norm() for one in gradients.values()])
        for name, value in arrays.items():
            key = name if name in COMMON or name.startswith("backbone") else f"{variant}/{name}"
            kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), "exact")
            stored = case.arrays.get(key)
            if kind == "exact" and stored is not None and stored.dtype == np.float32:
                kind = "rounded"
            if key not in found:
                found[key] = Found(value, limits[kind], sampled=kind == "sample" and name.startswith("grad/"))
    return found


COMMON = ("x_train", "x_test", "E_train", "W_train", "tau_0", "tau_0_iterates")
KINDS = {"loss": "loss", "learner_loss": "loss", "grad_norms": "norm", "grad/": "sample", "logits_grad": "sample"}


def one_step(step, images, masks):
    """images (S, 4, 3, H, W), masks (S, 4, H, W)  ->  {golden name without its variant: array}"""
    model, found, learning, outputs = step.model, {}, [], []
    arrays = {f"{kind}_layer{i}": [] for kind in ("tse", "decoder") for i in range(1, 5)}
    hooks = [model.backbone.register_forward_hook(lambda _, __, y: found.update(levels=y)),
             model.features.register_forward_hook(lambda _, __, y: found.update(x=y)),
             model.label_encoder.register_forward_hook(lambda _, __, y: outputs.append(y))]
    for name, level in model.decoder.levels.items():
        hooks.append(level.transform.register_forward_hook(lambda _, __, y, n=name: arrays[f"tse_{n}"].append(y)))
        hooks.append(level.register_forward_hook(lambda _, __, y, n=name: arrays[f"decoder_{n}"].append(y)))
    arrays["scores"] = []
    hooks.append(model.decoder.register_forward_pre_hook(lambda _, args: arrays["scores"].append(args[0])))
    honest = model.learn

    def learn_and_note(*args):
        result = honest(*args)
        learning.append((args, result[0]))
        return result
    model.learn = learn_and_note
    logits_of = step.segment

    def keep_gradient(*args):
        found["logits"] = logits_of(*args)
        found["logits"].retain_grad()
        return found["logits"]
    step.segment = keep_gradient
    losses_, _ = step(images, masks)
    losses_["lovasz"].backward()
    for hook in hooks:
        hook.remove()
    model.learn = honest
    arrays = {k: torch.stack(v) for k, v in arrays.items()}
    return of_step(model, found, arrays, learning, outputs) | {"loss": losses_["lovasz"]}


def of_step(model, found, arrays, learning, encoded):
    """What the hooks saw, under the golden names"""
    s = arrays["scores"].shape[1]
    result = dict(arrays) | {"logits": found["logits"], "logits_grad": found["logits"].grad}
    for i, level in enumerate(found["levels"], 1):
        result |= {f"backbone_train_layer{i}": level[:s], f"backbone_test_layer{i}": level[s:]}
    result |= {"x_train": found["x"][:s], "x_test": found["x"][s:], "E_train": encoded[0][0], "W_train": encoded[0][1]}
    more = complete(model, found, learning, encoded)
    for i, (args, tau) in enumerate(learning):
        with torch.no_grad():
            iterates, losses_ = learned(*args[:3], model.reg, *args[3:])
        result |= {f"tau_{i}": tau, f"learner_loss_{i}": losses_}
        if i == 0:
            result["tau_0_iterates"] = torch.stack(iterates)
    return result | more


@torch.no_grad()
def complete(model, found, learning, encoded):
    """What the golden files hold and training does not need: the last predictions encoded, the released updates

    The release updates the filter, too, but no prediction reads it.
    """
    test = [model.label_encoder(one.sigmoid()[None]) for one in found["logits"].detach()]
    labels, weights = ([encoded[0][i].detach(), *(one[i].detach() for one in test)] for i in (0, 1))
    x = found["x"].detach().unflatten(0, (4, -1))
    for t in (1, 2) if len(learning) == 1 else ():
        args = (x[:t + 1], torch.cat(labels[:t + 1]), torch.cat(weights[:t + 1]), learning[-1][1].detach(), 2)
        learning.append((args, model.learn(*args)[0]))
    return {"E_test": torch.cat(labels[1:]), "W_test": torch.cat(weights[1:])}


def tracking(case):
    """track_*: the whole tracker, frame by frame"""
    spec = case.fill.TRACK_CASES[case.letter]
    images, labels = case.fill.video(**spec["video"])
    boxes, objects = spec.get("box", False), spec["video"]["objects"]
    cfg = settings(memory={"size": spec["memory"]}, data={"size": spec["sample"]})
    segmenter = Watched(released_model(case, box=boxes), EasyDict(from_boxes=boxes), cfg)
    frames = torch.from_numpy(images).permute(0, 3, 1, 2).to(getattr(torch, case.dtype)) / 255
    given = given_masks(case, labels, spec, objects)
    with torch.inference_mode():
        for t, image in enumerate(frames):
            segmenter.first = t == 0
            segmenter.follow(image, given[:, t])
    return compared(case, segmenter)


def given_masks(case, labels, spec, objects):
    """Label maps (T, H, W)  ->  (O, T, H, W) bool: what the tracker is given, masks or filled boxes"""
    given = torch.zeros(objects, *labels.shape, dtype=torch.bool)
    for t, some in spec.get("first", {0: range(1, objects + 1)}).items():
        for o in some:
            given[o - 1, t] = torch.from_numpy(labels[t] == o)
            if spec.get("box"):
                x, y, w, h = case.fill.box(labels[t] == o)
                given[o - 1, t] = False
                given[o - 1, t, y:y + h, x:x + w] = True
    return given


NOTHING = {"centre": 2, "search_centre": 2, "scale": 1, "target_size": 2, "crop": 4, "paste": 4, "stored": 1,
           "replaced": 1, "area": 1, "box": 4}
ROUNDED = ("centre", "search_centre", "scale", "target_size", "box", "area")
WINDOWS = ("crop", "paste", "stored", "replaced")


class Watching:
    """In front of a Segmenter: notes what the golden files hold, a row per frame and object"""

    def __init__(self, *args):
        super().__init__(*args)
        self.rows, self.labels, self.once, self.norms, self.slot, self.scores = [], [], {}, {}, {}, {}
        self.first = True

    def follow(self, image, given):
        self.slot, self.scores, self.row = {}, {}, [{} for _ in given]
        margins = super().follow(image, given)
        self.labels.append(torch.cat([torch.zeros_like(margins[:1]), margins]).argmax(0).numpy().astype(np.uint8))
        self.rows.append(self.row)
        return margins

    def start(self, image, mask, box):
        (row, column, *size), o = box, len(self.targets)
        centre, scale = (row + (size[0] - 1) / 2, column + (size[1] - 1) / 2), 5 * math.sqrt(
            math.prod(size) / math.prod(self.out))
        crop, small, _ = crops.first_crop(image, mask, centre, scale, self.out)
        self.once |= {f"{self.first_mask}_{o + 1}": self.encoded(crop, small),
                      f"init_layer3_{o + 1}": self.model.backbone(crop[None])[2]}
        if self.from_boxes:
            self.once[f"box_mask_{o + 1}"] = mask
        return super().start(image, mask, box)

    def encoded(self, crop, mask):
        """What the label encoder sees"""
        return mask

    def remember(self, target, seen, mask):
        slot = super().remember(target, seen, mask)
        self.norms.setdefault(id(target.memory), {})[slot] = self.encoded(seen[-1], mask).norm()
        self.slot[id(target.memory)] = slot
        return slot

    def decode(self, objects, *args):
        honest = self.model.segment

        def note(*inputs):
            logits = honest(*inputs)
            self.scores |= dict(zip(objects, logits, strict=True))
            return logits
        self.model.segment = note
        found = super().decode(objects, *args)
        self.model.segment = honest
        return found

    def see(self, objects, probs):
        first = self.targets[0]
        before = first.centre, first.size
        for o in objects:                                      # the state with which the frame was searched
            self.row[o] |= self.state(o)
        super().see(objects, probs)
        for o, prob in zip(objects, probs, strict=True):
            target = self.targets[o]
            self.row[o] |= {"prob": prob, "area": prob.sum()}
            if not self.first:                                 # released: below the mass limit that of object 1
                self.row[o]["box"] = reported_box(*((target.centre, target.size) if target.mass >= 100 else before))

    def state(self, o):
        """What a Target says before its probabilities are merged"""
        target, searched = self.targets[o], o in self.scores
        memory = target.memory
        norms = [float(self.norms[id(memory)].get(i, 0.0)) for i in range(len(memory.weights))]
        row = {"centre": target.centre, "target_size": target.size, "scale": target.scale, "stored": memory.stored,
               "replaced": self.slot.get(id(memory), -1) if searched else -1, "weights": memory.weights,
               "mem_masks": norms, "tau": target.tau}
        if searched:
            row |= {"search_centre": target.search, "crop": target.window.pixels(), "scores": self.scores[o],
                    "paste": crops.paste(self.scores[o], target.window, (8192, 8192), self.tracking)[1]}
        return row


class Watched(Watching, inference.Segmenter):
    first_mask = "init_mask_crop"


def compared(case, watched, limits=LIMITS, reductions=("tau", "scores", "prob")):
    """->  {golden name: Found}"""
    limits, found = limits[case.dtype], {}
    for name, n in NOTHING.items():
        if name not in case.arrays:
            continue
        values = [[np.broadcast_to(np.asarray(row.get(name, np.nan), np.float64), n) for row in rows]
                  for rows in watched.rows]
        found[name] = Found(np.array(values).reshape(case.arrays[name].shape),
                            limits["rounded"] if name in ROUNDED else EXACT)
    for name in ("weights", "mem_masks"):
        shape = case.arrays[name].shape
        values = [[row.get(name, np.full(shape[2], np.nan)) for row in rows] for rows in watched.rows]
        found[name] = Found(np.array(values, np.float64), limits["exact"])
    for name in reductions:
        for form in ("summary", "sample"):
            found[f"{name}_{form}"] = Found(reduced(case, watched.rows, name, form), limits["exact"])
    for name, value in watched.once.items():
        whole, value = case.arrays[name].ndim == 2, value.numpy()
        if not whole:
            value = np.concatenate([case.fill.summary(value), case.fill.sample(value, 256)])
        found[name] = Found(value, limits["rounded" if whole else "exact"])
    found["scores_last"] = Found(torch.stack([row["scores"] for row in watched.rows[-1]]), limits["rounded"])
    found["labels"] = Found(np.stack(watched.labels), limits["labels"])
    return found


def reduced(case, rows, name, form):
    """Summaries or samples of every frame and object, NaN where there is none"""
    golden = case.arrays[f"{name}_{form}"]
    function = case.fill.summary if form == "summary" else lambda one: case.fill.sample(one, golden.shape[2])
    return np.array([[function(row[name].cpu().numpy()) if name in row else np.full(golden.shape[2], np.nan)
                      for row in some] for some in rows])


CASES = {r"units_\w+": units, r"train_\w+": training, r"track_\w+": tracking}
