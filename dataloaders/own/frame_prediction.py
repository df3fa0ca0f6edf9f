"""What is known of one frame of a user's video: its mask, with the numbers of several objects or categories."""
import statistics
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from dataloaders.own.video import Frame
from utils.pictures.result_folder import CORRECTED


@dataclass(eq=False)
class FramePrediction:
    """What is known of one frame.

    index: its number in the video; mask (H, W) bool and margin (H, W) float32, object minus background logit, at the
    frame's own size; of several objects or categories their numbers, uint8, and the margin of the best one; values:
    what else the method says of it, {name: number}, of several categories the means; frame:
    dataloaders.own.video.Frame, with its time and image; more: {"NAME area": ..., "NAME predicted_iou": ...} of these
    ious: {number of a category: predicted IoU}, where the method predicts it; objects: {number in the mask: (number of
    its category, mean probability within it)}, where categories were split
    """
    index: int
    mask: np.ndarray
    margin: np.ndarray
    values: dict
    frame: Frame
    more: dict = field(default_factory=dict)
    ious: dict = field(default_factory=dict)
    objects: dict = field(default_factory=dict)

    @property
    def iou(self):
        """As the method predicts it, None where it does not"""
        return self.values.get("pred_iou")

    @property
    def remembered(self):
        """Whether later clips may read it from memory"""
        return bool(self.values.get("remembered", False))

    @property
    def probability(self):
        """(H, W) float32 in [0, 1]: the sigmoid of the margin, without overflow"""
        return 0.5 + 0.5 * np.tanh(0.5 * self.margin)


def frame_prediction(frame, margins, values, least_margin, numbers, names):
    """margins (O, H, W), a tensor, of which the largest wins; {name: number} of each Segmenter  ->  FramePrediction

    least_margin: above which a pixel is object; numbers: of the O objects or categories, [] of a single one, whose mask
    is bool; names: of several categories
    """
    margin, best = (x.cpu().numpy() for x in margins.max(dim=0))
    mask, more = margin > least_margin, {}
    labels = np.where(mask, np.array(numbers, np.uint8)[best], np.uint8(0)) if numbers else mask
    for number, name, own in zip(numbers or [1], names or [""], values, strict=False):
        known = {"present": int(own.pop("present"))} if "present" in own else {}
        if names:
            known |= {"area": int((labels == number).sum())}
            known |= {"predicted_iou": round(own["pred_iou"], 4)} if "pred_iou" in own else {}
        more |= {f"{name} {what}".strip(): value for what, value in known.items()}
    means = {key: statistics.fmean(one[key] for one in values) for key in values[0]} if len(values) > 1 else values[0]
    ious = {number: own["pred_iou"] for number, own in enumerate(values, start=1) if "pred_iou" in own}
    return FramePrediction(frame.index, labels, margin, means, frame, more, ious)


def split(predictions, instances, least_iou):
    """FramePredictions of categories  ->  of their objects, a few frames later, when it is known which will be some

    instances: models.instances.Instances; least_iou: predicted IoU from which a frame is trusted, so that objects may
    begin in it; without an IoU all are
    """
    waiting, failure = deque(), None
    try:
        for one in predictions:
            if waiting and one.mask.shape != waiting[-1][0].mask.shape:
                raise ValueError(f"frame {one.index} has {one.mask.shape} rows and columns, those before it "
                                 f"{waiting[-1][0].mask.shape}.\n  Leave --instances out where sizes change")
            trusted = {number for number in range(1, 256) if one.ious.get(number, 1) >= least_iou}
            waiting.append((one, instances.step(one.frame.image, one.mask, trusted)))
            if len(waiting) == instances.patience:
                yield _with_objects(*waiting.popleft(), instances)
    except (ValueError, OSError, KeyboardInterrupt) as error:
        failure = error
    for pair in waiting:
        yield _with_objects(*pair, instances)
    if failure:
        raise failure


def _with_objects(one, ids, instances):
    """FramePrediction of categories, what instances.step gave  ->  FramePrediction of objects"""
    mask = instances.numbered(ids)
    areas, sums = np.bincount(mask.ravel()), np.bincount(mask.ravel(), weights=one.probability.ravel())
    objects = {n: (instances.categories[n], sums[n] / areas[n]) for n in (np.flatnonzero(areas[1:]) + 1).tolist()}
    return replace(one, mask=mask, objects=objects, more=one.more | {"objects": " ".join(map(str, objects))})


def columns(names, judged, instances, corrected):
    """Names of what FramePrediction.more has: names of several categories, whether their presence is judged, whether
    they are split, and whether masks were drawn by hand"""
    present = ["present"] * judged
    return ([f"{name} {what}" for name in names for what in ("area", "predicted_iou", *present)] or present) + [
        "objects"] * instances + [CORRECTED] * bool(corrected)
