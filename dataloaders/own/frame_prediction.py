"""What is known of one frame of a user's video: its mask, with the numbers of several objects or categories."""
import statistics
from dataclasses import dataclass, field

import numpy as np

from dataloaders.own.video import Frame


@dataclass(eq=False)
class FramePrediction:
    """What is known of one frame.

    index: its number in the video; mask (H, W) bool and margin (H, W) float32, object minus background logit, at the
    frame's own size; of several objects or categories their numbers, uint8, and the margin of the best one; values:
    what else the method says of it, {name: number}, of several categories the means; frame:
    dataloaders.own.video.Frame, with its time and image; more: {"NAME area": ..., "NAME predicted_iou": ...} of these
    """
    index: int
    mask: np.ndarray
    margin: np.ndarray
    values: dict
    frame: Frame
    more: dict = field(default_factory=dict)

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
    return FramePrediction(frame.index, labels, margin, means, frame, more)


def columns(names, judged):
    """Names of what FramePrediction.more has: names of several categories, whether their presence is judged"""
    present = ["present"] * judged
    return [f"{name} {what}" for name in names for what in ("area", "predicted_iou", *present)] or present
