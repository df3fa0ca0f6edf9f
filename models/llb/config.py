"""Config of LLB: LWL's keys where it does not say otherwise. Defaults: the paper, where it is silent the release."""
from typing import Annotated, Literal

from models.lwl.config import Backbone, Tracking, check_backbone
from models.lwl.config import Loss as LWLLoss
from models.lwl.config import Memory as LWLMemory
from utils.config import TEST, WEIGHTS, Count, Positive, Section, Whole


class Model(Section):
    feature_dim: Annotated[Count, WEIGHTS] = 512         # C of both branches
    key_dim: Annotated[Count, WEIGHTS] = 128             # of what the matching compares
    filters: Annotated[Count, WEIGHTS] = 32              # D, channels of the target encodings; JOINT: 16
    widths: Annotated[tuple[Count, Count, Count, Count], WEIGHTS] = (64, 128, 128, 256)      # decoder, layer1 to layer4
    high_level: Annotated[Literal["c5", "c4"], WEIGHTS] = "c5"       # c4: ours, the decoder begins at layer3
    label_encoder: Annotated[str, WEIGHTS] = "vitae"     # vitae | cnn: JOINT's | a network of timm, to stride 16
    label_input: Annotated[Literal["bff", "mask"], WEIGHTS] = "bff"  # bff: the frame times its mask (DLGM)
    label_weights: str = "none"      # file: ViTAE-6M as published | timm: its own | none
    # of the frames in a BFF: imagenet: mean and deviation | official: BGR 0..255 minus a mean, as released
    bff_norm: Annotated[Literal["imagenet", "official"], WEIGHTS] = "imagenet"
    fusion: Annotated[Literal["gate", "sum"], WEIGHTS] = "gate"      # gate: AFM | sum: JOINT's
    decoder_init: Literal["released", "he"] = "released"             # as LWL's


class Learner(Section):
    steps: Annotated[Whole, TEST] = 20           # on the first frame of a test
    update_steps: Annotated[Whole, TEST] = 3     # after each further one that is stored
    train_steps: Whole = 5
    train_update_steps: Whole = 2
    train_update: Literal["paper", "none"] = "paper"     # none: both branches see the first frame alone
    reg: Positive = 0.01             # r before training; lambda of Eq. 1 is its square


class Memory(LWLMemory):
    size: Annotated[Count, TEST] = 20            # frames per object, the first one included
    interval: Annotated[Count, TEST] = 5         # T, frames between two that are stored; released for DAVIS: 3


class Loss(LWLLoss):
    cosine: Positive = 1.0           # of the similarity of the two target encodings


class Rates(Section):
    """Shares of train.lr, those of stage 1."""
    reg: Positive = 1.0
    features: Positive = 0.2         # convolution of the target model's features
    decoder: Positive = 1.0
    label: Positive = 1.0            # DLGM with its trunk
    matching: Positive = 0.2
    fusion: Positive = 1.0
    backbone: Positive = 1.0


class Train(Section):
    start: str = "none"              # file: a checkpoint of the stage before


class Config:
    backbone: Backbone
    model: Model
    learner: Learner
    memory: Memory
    tracking: Tracking
    loss: Loss
    rates: Rates
    train: Train

    @staticmethod
    def check(cfg, truth=True):
        """ValueError for what one key alone cannot show"""
        model = cfg.model
        if model.label_encoder == "cnn" and model.label_weights != "none":
            raise ValueError("config: model.label_weights: there are none for model.label_encoder: cnn; set none")
        if (model.label_weights == "timm") != (model.label_weights != "none" and model.label_encoder != "vitae"):
            raise ValueError(f"config: model.label_weights: {model.label_weights} does not belong to "
                             f"model.label_encoder: {model.label_encoder}; a file is for vitae, timm for its networks")
        check_backbone(cfg)
