"""Inference (Section 3.5): each object is searched in its own window; all meet in the soft aggregation.

Per frame and object: remember the last frame, update the filter, move the window, segment it; then merge.
"""
import math
from dataclasses import dataclass

import torch

from models.lwl.crops import Window, crop_image, crop_mask, first_crop, paste, search_window
from models.lwl.learner import apply_target_model
from models.lwl.memory import Memory
from models.method import Prediction

AT_ONCE = 8                # windows that the network sees together
CERTAIN = 200.0            # logits of a given mask are +-100
ABSENT = -200.0            # margin of an object that has not started


@dataclass
class Target:
    """One object from its first mask on.

    centre, size: (row, column) of the object as last seen; base: its size at scale 1; scale: pixels of the image per
    pixel of the network's input; frame: 1 where its mask is given; window, seen: where it was searched last, and what
    Segmenter.look keeps of there, (1, ...) each; prob (H, W): of the merged masks
    """
    centre: tuple
    size: tuple
    base: tuple
    scale: float
    memory: Memory
    tau: torch.Tensor
    frame: int = 1
    search: tuple | None = None
    window: Window | None = None
    seen: tuple = ()
    prob: torch.Tensor | None = None
    mass: float = 0.0


class Segmenter:
    """Follows the objects of one video. A mask that is given again starts its object anew.

    model: LWL; reference: FirstMasks; cfg: learner, memory, box and tracking are read, data.size is the window's
    """

    def __init__(self, model, reference, cfg, *, rng=None, amp=None):
        self.model, self.cfg, self.amp = model, cfg, amp
        self.out, self.tracking = tuple(cfg.data.size), cfg.tracking
        self.from_boxes = getattr(reference, "from_boxes", False)
        if self.from_boxes and model.box_encoder is None:
            raise ValueError("model.box_encoder: this model starts from masks alone.\n  Give masks, or a checkpoint "
                             "of config/lwl/box.yaml")
        self.rule, self.updates = (cfg.box, cfg.box) if self.from_boxes else (cfg.memory, cfg.learner)
        self.targets = {}

    def arithmetic(self):
        return torch.autocast(self.model.device.type, dtype=self.amp, enabled=self.amp is not None)

    @torch.inference_mode()
    def prepare(self, clip):
        """The frames on the model's device: what the network sees of them depends on the object."""
        return clip.images.to(self.model.reg, non_blocking=True)

    @torch.inference_mode()
    def __call__(self, images, clip):
        """images (T, 3, H, W), Clip  ->  Prediction; per_frame: scale (O, T) of each object's window, 0 without one"""
        margins, scales = [], []
        with self.arithmetic():
            for image, given in zip(images, clip.given.transpose(0, 1), strict=True):
                margins.append(self.follow(image, given))
                scales.append([self.targets[o].scale if o in self.targets else 0.0 for o in range(len(given))])
        return Prediction(torch.stack(margins, dim=1), {"scale": torch.tensor(scales).T})

    def follow(self, image, given):
        """The next frame: image (3, H, W), given (O, H, W) bool  ->  margins (O, H, W)"""
        starting = [o for o in range(len(given)) if given[o].any()]
        logits = self.search(image, [o for o in self.targets if o not in starting])
        for o in starting:
            mask = given[o].to(image)
            logits[o], first = self.from_box(image, mask) if self.from_boxes else (None, mask)
            logits[o] = (mask - 0.5) * CERTAIN if logits[o] is None else logits[o]
            box = start_box(given[o], plus_one=self.from_boxes or self.tracking.box_plus_one)
            self.targets[o] = self.start(image, first, box)
        margins = image.new_full((len(given), *image.shape[1:]), ABSENT)
        if logits:
            present = sorted(logits)
            scores = aggregate(torch.stack([logits[o].to(image.dtype) for o in present]))
            self.see(present, scores.softmax(dim=0)[1:])
            margins[present] = margins_of(scores)
        return margins.float()

    def start(self, image, mask, box):
        """Image, mask (H, W) in [0, 1], box (row, column, height, width)  ->  Target with its first filter"""
        row, column, *size = box
        centre = (row + (size[0] - 1) / 2, column + (size[1] - 1) / 2)
        scale = self.tracking.search_area * math.sqrt(size[0] * size[1] / (self.out[0] * self.out[1]))
        crop, mask, _ = first_crop(image, mask, centre, scale, self.out)
        _, seen = self.look(crop[None])
        base, tau = tuple(n / scale for n in size), self.model.zero_filters(seen[0], 1)
        target = Target(centre, tuple(size), base, scale, self.new_memory(), tau)
        self.remember(target, seen, mask)
        self.learn(target, self.cfg.learner.steps)
        return target

    def new_memory(self, kind=Memory):
        return kind(size=self.cfg.memory.size, rate=self.rule.rate, first_share=self.rule.first_share,
                    first_update=self.rule.first_update, weighting=self.cfg.memory.weights)

    def from_box(self, image, box):
        """image (3, H, W), filled box (H, W)  ->  logits and probabilities (H, W), of the uncropped image"""
        logits = self.model.segment_box(box[None], image[None])[0]
        return logits, logits.sigmoid()

    def look(self, crops):
        """Crops (N, 3, H, W)  ->  backbone levels; what a frame's mask will enter the memory with, features first"""
        levels, x = self.model.encode(crops)
        return levels, (x,)

    def search(self, image, objects):
        """Objects that have started, in the next frame  ->  {object: logits (H, W) of the image}"""
        for o in objects:
            self.update(self.targets[o])
            self.move(self.targets[o], image.shape[1:])
        windows = list(dict.fromkeys(self.targets[o].window for o in objects))
        found = {}
        for i in range(0, len(windows), AT_ONCE):          # objects in the same window share a pass
            some = windows[i:i + AT_ONCE]
            levels, seen = self.look(torch.stack([crop_image(image, w, self.out) for w in some]))
            inside = [o for o in objects if self.targets[o].window in some]
            for j in range(0, len(inside), AT_ONCE):
                found |= self.decode(inside[j:j + AT_ONCE], some, seen, levels, image.shape[1:])
        return found

    def decode(self, objects, windows, seen, levels, image):
        """Objects of these N windows, of which there are `seen` and levels  ->  as search"""
        targets = [self.targets[o] for o in objects]
        index = torch.tensor([windows.index(one.window) for one in targets], device=levels[0].device)
        logits = self.segment(targets, [one[index] for one in seen], [level[index] for level in levels])
        for target, place in zip(targets, index.tolist(), strict=True):
            target.seen = tuple(one[place:place + 1] for one in seen)
        return {o: paste(one, target.window, image, self.tracking)[0]
                for o, target, one in zip(objects, targets, logits, strict=True)}

    def segment(self, targets, seen, levels):
        """B targets, what is seen of each one's window and its levels  ->  logits (B, h, w)"""
        return self.model.segment(torch.cat([one.tau for one in targets]), seen[0], levels, self.out)

    def update(self, target):
        """From an object's third frame on: the last frame enters its memory, and its filter learns from all of it."""
        target.frame += 1
        if target.frame < 3:
            return
        self.remember(target, target.seen, crop_mask(target.prob, target.window, self.out))
        if (target.frame - 1) % self.updates.update_every == 0:
            self.learn(target, self.updates.update_steps)

    def learn(self, target, steps):
        """Steps on all of an object's memory."""
        x, label, weight, scores = target.memory.samples()
        target.tau, scores = self.model.learn(x, label, weight, target.tau, steps, scores)
        target.memory.learned(scores)

    def remember(self, target, seen, mask):
        """What was seen and the mask of its crop, which is encoded now, once  ->  the slot of the memory"""
        x, (label, weight, *more) = seen[0], self.encode_mask(seen, mask.to(seen[0]))
        scores = apply_target_model(x[None], target.tau.to(x.dtype))[0]
        return target.memory.insert(x, label, weight, scores.to(target.tau.dtype), *more)

    def encode_mask(self, seen, mask):
        """The mask (h, w) of what was seen  ->  E and W (1, D, h, w), and what else is kept of the frame"""
        return [one[0] for one in self.model.label_encoder(mask[None, None])]

    def move(self, target, image):
        """The window goes after the object: to the mean of its last mask, at the scale of its spread."""
        track, scale = self.tracking, target.scale
        if target.mass >= track.min_mass and target.mass > 0:
            scale = math.sqrt(math.prod(target.size) / math.prod(target.base))
        scale = min(max(scale, track.min_scale * target.scale), track.max_scale * target.scale)
        target.scale = scale = max(scale, 1 / self.out[0])
        target.size = tuple(scale * n for n in target.base)
        half = [8 * scale if track.half_cell and (n // 16) % 2 == 0 else 0.0 for n in self.out]
        target.search = tuple(c + d for c, d in zip(target.centre, half, strict=True))
        target.window = search_window(target.search, [scale * n for n in self.out], self.out, image)

    def see(self, objects, probs):
        """The merged probabilities (O, H, W) of this frame: where each object is, and how large."""
        for o, prob, (mass, *moments) in zip(objects, probs, spread(probs).tolist(), strict=True):
            target = self.targets[o]
            target.prob, target.mass = prob, mass
            if mass >= self.tracking.min_mass and mass > 0:
                target.centre, target.size = tuple(moments[:2]), tuple(moments[2:])


def start_box(mask, plus_one):
    """mask (H, W)  ->  (row, column, height, width), at least 1; as released last minus first row, plus_one: and one"""
    rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
    size = [max(1, int(one[-1] - one[0]) + plus_one) for one in (rows, columns)]
    return int(rows[0]), int(columns[0]), *size


def spread(probs):
    """probs (O, H, W)  ->  (O, 5): mass, mean row and column, and four standard deviations of each"""
    sums = [probs.sum(axis, dtype=torch.float64) for axis in (2, 1)]                       # over columns, over rows
    mass = sums[0].sum(1)
    means, sizes = [], []
    for one in sums:
        place = torch.arange(one.shape[1], device=one.device, dtype=torch.float64)
        means.append((one * place).sum(1) / mass.clamp(min=1e-12))
        variance = (one * (place - means[-1][:, None]).square()).sum(1) / mass.clamp(min=1e-12)
        sizes.append(4 * variance.sqrt())
    return torch.stack([mass, *means, *sizes], dim=1)


def aggregate(logits):
    """Soft aggregation [24]: logits (O, H, W)  ->  scores (1 + O, H, W), background first; their softmax sums to 1"""
    nothing = (1 - logits.sigmoid()).prod(0).clamp(1e-7, 1 - 1e-7)
    return torch.cat([(nothing / (1 - nothing)).log()[None], logits])


def margins_of(scores):
    """Scores (1 + O, H, W), background first  ->  (O, H, W): each object minus the best of all else; > 0 is argmax"""
    best = scores.topk(2, dim=0).values
    objects = scores[1:]
    margins = objects - torch.where(objects == best[0], best[1], best[0])
    winner = torch.arange(1, len(scores), device=scores.device)[:, None, None] == scores.argmax(0)
    tiny = torch.finfo(scores.dtype).tiny
    return torch.where(winner, margins.clamp(min=1e-30 if tiny < 1e-30 else tiny), margins.clamp(max=0))
