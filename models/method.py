"""The contract: all that train.py, test.py, segment.py, the report and the tools know of a method.

A method is a module (a package of this folder, or any of your own: `model.method: package.module`) with these names:

    TASK                    "fewshot", "vos", "referring": which data it takes, a key of dataloaders.TASKS
    Config                  its own config sections: a class whose annotations are sections, see utils/config.py
    build(cfg, pretrained=False, split=None)  ->  nn.Module
                            pretrained: with the weights that the config names, for a training; split: whose test
                            classes these weights must not have seen
    parameter_groups(model, cfg)  ->  list of {"params": [...], "share": of train.lr, 1 where it is missing}
    load(model, path, cfg, split)  ->  the checkpoint's content
                            its weights, strictly; ValueError where they have seen the split's test classes
    compile_parts(model, backend="inductor")  speed.compile
    TrainStep, Segmenter    as below

UNTRAINED = True, optional, says that it has nothing to train: test.py and segment.py then ask for no checkpoint.

Config may have two static methods: check(cfg, truth=True), which raises ValueError for what one key alone cannot show
(truth=False: nobody knows the true masks, as in a user's own video), and for_validation(cfg), the config of the
validation while training. docs/method.md walks through a whole method.
"""
from dataclasses import dataclass, field
from typing import Protocol

import torch


@dataclass
class Prediction:
    """What a method says of a clip.

    margins (O, T, H, W): object minus the rest, > 0 is object; O = 1 in the few-shot task. In the vos task at the size
    of the video, at most one object above 0 at a pixel, none before its mask is given
    per_frame: {name: (T,) tensor, or (O, T)}, such as pred_iou and remembered; they go into the result line as they are
    """
    margins: torch.Tensor
    per_frame: dict = field(default_factory=dict)

    @property
    def masks(self):
        """(O, T, H, W) bool; a tie is background"""
        return self.margins > 0


class TrainStep(Protocol):
    """An nn.Module, which DistributedDataParallel wraps: TrainStep(model, cfg).

    one_graph: True where the losses of all units have one graph, so that there is one backward pass for their sum
    about: in words, what is trained how, for the log
    """
    one_graph: bool = False
    about: str = ""

    def units(self, batch):
        """A batch of the task  ->  list of tuples, arguments of forward: one per backward pass"""

    def forward(self, *unit):
        """->  ({name: weighted loss}, {name: statistic}), scalars; the losses are summed and logged by name"""


class Segmenter(Protocol):
    """One video, one reference; owns memory, filters and the mode of gradients.

    reference: of the task, dataloaders.episode.SupportSet, FirstMasks or ReferringSupport; rng: NumPy generator of its
    draws; amp: dtype of autocast, None computes as it is
    encoded(), optional  ->  {name: tensor}, what it has computed of its supports: where SupportSet.encoded brings it to
    another Segmenter of the same model, that one does not compute it again
    recall(clip, fixed), optional, before the first clip: enters the frames of this Clip into memory with the masks that
    they have (Clip.given (1, T, H, W), none empty); those of fixed (T,) bool, which a person has corrected, at least
    one, stay  ->  whether there is a memory. Without one, corrected frames become supports
    """

    def __init__(self, model, reference, cfg, *, rng, amp=None):
        ...

    def prepare(self, clip):
        """Clip  ->  what no reference matters for: computed once for all runs and objects"""

    def __call__(self, prepared, clip):
        """The next clip  ->  Prediction"""
