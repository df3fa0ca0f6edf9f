"""Config of CMA: every key of the method, once. Defaults: the release with its mistakes repaired, see docs/cma.md."""
from typing import Annotated, Literal

from utils.config import WEIGHTS, Count, Positive, Section, Share


class Backbone(Section):
    """Frozen, normalised with stored statistics."""
    name: Annotated[Literal["resnet18", "resnet50", "resnet101"], WEIGHTS] = "resnet50"
    weights: str = "torchvision"     # its ImageNet weights | file | none
    stride_in_1x1: Annotated[bool, WEIGHTS] = False      # true: original ResNet, stride on the first 1x1 of a stage


class Text(Section):
    # of huggingface.co, or a folder of save_pretrained | tiny: ours, without a file, knows no word
    encoder: Annotated[str, WEIGHTS] = "FacebookAI/roberta-base"
    dim: Annotated[Count, WEIGHTS] = 768             # of the encoder's features
    dropout: Annotated[bool, WEIGHTS] = False        # true: released, the frozen encoder stays in training mode


class Model(Section):
    dim: Annotated[Count, WEIGHTS] = 256
    heads: Annotated[Count, WEIGHTS] = 8
    hidden: Annotated[Count, WEIGHTS] = 2048         # of the feed-forwards
    layers: Annotated[Count, WEIGHTS] = 4            # of the encoder, and of the decoder
    queries: Annotated[Count, WEIGHTS] = 5           # per frame
    dropout: Share = 0.1
    high_level: Annotated[Literal["c5", "c4"], WEIGHTS] = "c5"       # c4: ours, the backbone ends before its last stage
    # released, against the paper:
    amplify: Annotated[bool, WEIGHTS] = True         # the support's features, before the words
    sentence: Annotated[bool, WEIGHTS] = False       # true: the queries start from the sentence, too
    broadcast_anchors: Annotated[bool, WEIGHTS] = False      # true: the release's mistake in the first decoder layer


class Affinity(Section):
    variant: Annotated[Literal["cross", "self", "base"], WEIGHTS] = "cross"      # self, base: Table 4
    dim: Annotated[Count, WEIGHTS] = 128             # d
    support_frames: Annotated[Literal["middle", "all"], WEIGHTS] = "middle"      # middle: released, paper: all
    query_frames: Annotated[Literal["middle", "all"], WEIGHTS] = "middle"        # keys of the self-affinity, as above
    residual: Annotated[bool, WEIGHTS] = True        # false: Eqs. 2 and 3 as they stand, without LayerNorm
    trained: bool = True             # false: released, its convolutions stay as they were drawn
    stretched_masks: bool = False    # true: released, in training support masks are not padded like their frames


class Loss(Section):
    """Weights, in the matching, too; of the paper: box, giou, mask and auxiliary 0.0, dice 5.0."""
    score: Positive = 2.0            # focal, of the object being there
    box: Positive = 5.0              # L1
    giou: Positive = 2.0
    mask: Positive = 2.0             # focal
    dice: Positive = 5.0
    auxiliary: Positive = 1.0        # share of the same losses of the decoder layers before the last
    absent_boxes: bool = True        # released, frames without the object ask for a box of zeros; false: for none
    mask_frames: bool = True         # released, mask terms are divided by the number of frames, too


class Train(Section):
    start: str = "none"              # file: a checkpoint of ours, such as one that was trained on pictures


class Config:
    backbone: Backbone
    text: Text
    model: Model
    affinity: Affinity
    loss: Loss
    train: Train

    @staticmethod
    def check(cfg, truth=True):
        """ValueError for what one key alone cannot show"""
        model = cfg.model
        if model.dim % 32 or model.dim < 64 or model.dim % model.heads:
            raise ValueError(f"config: model.dim {model.dim}: expected a multiple of 32 groups, from 64 on, and of "
                             "model.heads")
        if cfg.affinity.dim >= model.dim:
            raise ValueError(f"config: affinity.dim {cfg.affinity.dim} leaves no channel to the query's own features: "
                             f"take less than model.dim, {model.dim}")
