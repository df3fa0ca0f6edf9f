"""Listening: does the answer depend on what is asked for? Every video also with supports of another test category.

In: two Segmenters of one video, with the right and with the wrong supports. Out: the right one's Prediction, which
says of every frame how well the wrong supports do and how much both masks overlap; and the table of it.
"""
from dataclasses import replace
from itertools import groupby
from statistics import mean

import torch

from utils.evaluation.metrics import jaccard
from utils.evaluation.tables import Table


class Listening:
    """A Segmenter of the contract: that with the right supports, compared with that with the wrong ones.

    per_frame gains j_swapped and overlap, (T,) float64: J of the wrong supports' masks, and of both masks to each
    other, at input size.
    """

    def __init__(self, right, swapped):
        self.right, self.swapped = right, swapped

    def prepare(self, clip):
        return self.right.prepare(clip)

    def __call__(self, prepared, clip):
        prediction, other = self.right(prepared, clip), self.swapped(prepared, clip)
        masks, wrong, truth = ((x[0] > 0).cpu().numpy() for x in (prediction.margins, other.margins, clip.masks))
        compared = {"j_swapped": jaccard(wrong, truth), "overlap": jaccard(masks, wrong)}
        return replace(prediction, per_frame=prediction.per_frame | {
            name: torch.from_numpy(values) for name, values in compared.items()})


def listening_table(results):
    """Lines of a test with test.swap_supports  ->  Table per class, over all frames and over those that show both
    categories; None without such lines"""
    results = sorted((line for line in results if "overlap" in line), key=lambda line: line["class"])
    rows = {name: _frames(lines) for name, lines in groupby(results, key=lambda line: line["class"])}
    table = []
    for label, choose in (("all frames", lambda both: True), ("both shown", lambda both: both)):
        means = {name: [mean(x) for x in zip(*(numbers for both, numbers in frames if choose(both)), strict=True)]
                 for name, frames in rows.items()}
        means = {name: values for name, values in means.items() if values}
        if len(means) > 1:
            means["mean"] = [mean(x) for x in zip(*means.values(), strict=True)]
        table += [[f"{name}, {label}", *_cells(*values)] for name, values in means.items()]
    return Table(["class", "J right", "J wrong", "difference", "overlap"], table) if table else None


def _frames(lines):
    """[(whether the frame shows both categories, (J right, J wrong, overlap))]"""
    return [(both, numbers) for line in lines for both, *numbers in zip(
        line["shows_both"], line["j"], line["j_swapped"], line["overlap"], strict=True)]


def _cells(right, wrong, overlap):
    return [*((100 * x, None) for x in (right, wrong, right - wrong)), f"{overlap:.2f}"]
