"""Config of DAN: every key of the method, once; config/dan/released.yaml has what its published code does otherwise."""
from typing import Annotated, Literal

from easydict import EasyDict
from msgspec import Meta

from utils.config import NOTHING, TEST, WEIGHTS, Count, Positive, Section, Share, Whole

BACKBONES = r"^(resnet50|resnet101|tiny|timm/[\w.-]+)$"


class Backbone(Section):
    # tiny: ours, for demos | timm/NAME: ours, docs/backbones.md
    name: Annotated[str, Meta(pattern=BACKBONES), WEIGHTS] = "resnet50"
    stem: Annotated[Literal["deep", "plain"], WEIGHTS] = "deep"      # deep: three 3x3 (the paper's) | plain: one 7x7
    weights: str = "pretrain_model/resnet50_v2.pth"      # file | torchvision: ImageNet's | timm: its own | none
    stride_in_1x1: Annotated[bool, WEIGHTS] = False      # true: original ResNet, stride on the first 1x1 of a stage
    released_bn: Annotated[bool, WEIGHTS] = False        # true: normalised by the batch in training, statistics drift
    width: Annotated[Count, WEIGHTS] = 64    # channels of the first stage of tiny; ResNets ignore it
    cache_frames: Annotated[Whole, NOTHING] = 0      # so many encoded frames are kept by content, 0 = none


class Model(Section):
    key_dim: Annotated[Count, WEIGHTS] = 128     # channels of queries and keys
    value_dim: Annotated[Count, WEIGHTS] = 512   # of values, and of the query's own features beside them
    dim: Annotated[Count, WEIGHTS] = 256         # of the decoder


class Loss(Section):
    cross_entropy: Positive = 5.0
    iou: Positive = 1.0


class Online(Section):
    """Learning on the supports before a test: only the convolutions of stage 3 change, and only for these supports."""
    learning: Annotated[bool, TEST] = False
    rounds: Annotated[Count, TEST] = 21          # at most, of one step per support
    check_every: Annotated[Count, TEST] = 5      # after rounds 0, 5, 10, ...
    stop: Annotated[Share, TEST] = 0.5           # mean J over the supports from which on nothing is learned
    lr: Annotated[Positive, TEST] = 5.0e-6       # Adam
    weight_decay: Annotated[Positive, TEST] = 5.0e-4
    background: Annotated[Share, TEST] = 0.1     # weight of the background in the cross entropy


class Config:
    backbone: Backbone
    model: Model
    loss: Loss
    online: Online

    @staticmethod
    def for_validation(cfg):
        """While training nothing is learned online."""
        return EasyDict(cfg, online=EasyDict(cfg.online, learning=False))

    @staticmethod
    def check(cfg, truth=True):
        """ValueError for what one key alone cannot show"""
        backbone = cfg.backbone
        if backbone.released_bn and backbone.cache_frames:
            raise ValueError("config: backbone.released_bn makes a frame's features depend on its batch, so that none "
                             "can be kept: set backbone.cache_frames to 0")
        if backbone.released_bn and not backbone.name.startswith("resnet"):
            raise ValueError(f"config: backbone.released_bn: {backbone.name} has no such batch normalisation; "
                             "set it to false or take a ResNet")
        if cfg.online.learning and backbone.name.startswith("timm/"):
            raise ValueError(f"config: online.learning changes stage 3 of a ResNet, and {backbone.name} stays frozen; "
                             "set it to false")
