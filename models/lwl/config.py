"""Config of LWL: every key of the method, once. Defaults: the paper where it speaks, the release where it is silent."""
from typing import Annotated, Literal

from msgspec import Meta

from utils.config import BOTH, TEST, WEIGHTS, Count, Positive, Section, Share, Whole


class Backbone(Section):
    name: Annotated[Literal["resnet18", "resnet50", "resnet101"], WEIGHTS] = "resnet50"
    weights: str = "maskrcnn"        # torchvision's Mask R-CNN | torchvision: its ImageNet weights | file | none
    # of the images, RGB in [0, 1] before: imagenet: mean and deviation | caffe2: BGR 0..255 minus a mean, as released
    flavour: Annotated[Literal["imagenet", "caffe2"], WEIGHTS] = "imagenet"
    stride_in_1x1: Annotated[bool, WEIGHTS] = False      # true: as released, on a stage's first 1x1
    bn_eps: Annotated[Positive, WEIGHTS] = 0.0           # 0 belongs to maskrcnn, 1e-5 to everything else
    trained: bool = False            # true: layer2 and on, with their normalisations' weights and biases (stage 2)


class Model(Section):
    feature_dim: Annotated[Count, WEIGHTS] = 512         # C of the target model
    filters: Annotated[Count, WEIGHTS] = 16              # D, channels of a mask's encoding; 1 where label is mask
    widths: Annotated[tuple[Count, Count, Count, Count], WEIGHTS] = (64, 128, 128, 256)      # decoder, layer1 to layer4
    high_level: Annotated[Literal["c5", "c4"], WEIGHTS] = "c5"       # c4: ours, the decoder begins at layer3
    label: Annotated[Literal["encoder", "mask"], WEIGHTS] = "encoder"        # mask: baseline of Table 1
    weight: Annotated[Literal["predictor", "one"], WEIGHTS] = "predictor"    # one: without W (Table 1)
    box_encoder: Annotated[bool, WEIGHTS] = False        # B, for boxes instead of masks
    # released: PyTorch's own | he: [12] as the paper says, with a last convolution near 0; for short trainings
    decoder_init: Literal["released", "he"] = "released"


class Learner(Section):
    steps: Annotated[Whole, TEST] = 20           # on the first frame of a test
    update_steps: Annotated[Whole, TEST] = 3     # after each further one
    update_every: Annotated[Count, TEST] = 1     # frames
    train_steps: Whole = 5
    train_update_steps: Whole = 2
    train_update: Literal["paper", "none"] = "paper"     # none: released, all test frames see the first frame's filter
    end_to_end: bool = True          # false: baseline of Table 1, only the decoder learns
    reg: Positive = 0.01             # r before training; lambda of Eq. 3 is its square


class Memory(Section):
    size: Annotated[Count, BOTH] = 32        # K_max, samples per object
    rate: Annotated[Annotated[float, Meta(ge=0.001, le=0.999)], TEST] = 0.1          # 1 - eta
    # released: the weights multiply residuals, so the loss sees their squares | paper: they multiply the loss
    weights: Annotated[Literal["released", "paper"], TEST] = "released"
    first_share: Annotated[Share, TEST] = 0.25           # released: at least, of the first frame; 0: it may be replaced
    first_update: Annotated[Literal["decayed", "half"], TEST] = "decayed"    # half: both samples weigh the same then


class Box(Section):
    """What takes the place of the keys of learner and memory where an object starts from a box (Section 3.7)."""
    rate: Annotated[Annotated[float, Meta(ge=0.001, le=0.999)], TEST] = 0.2
    first_share: Annotated[Share, TEST] = 0.0
    first_update: Annotated[Literal["decayed", "half"], TEST] = "half"
    update_steps: Annotated[Whole, TEST] = 5
    update_every: Annotated[Count, TEST] = 5


class Tracking(Section):
    """The window in which an object is searched; the paper says no more than search_area."""
    search_area: Annotated[Annotated[float, Meta(ge=0.1)], TEST] = 5.0         # side, in sides of the object
    min_scale: Annotated[Share, TEST] = 0.95     # of the last window's size; 0: no limit
    max_scale: Annotated[Annotated[float, Meta(ge=1)], TEST] = 1.1           # the same
    min_mass: Annotated[Positive, TEST] = 100.0  # pixels: with less the window stays where it is
    half_cell: Annotated[bool, TEST] = True      # released: the window is half a position of the features off
    paste: Annotated[Literal["one_factor", "per_axis"], TEST] = "one_factor"     # one_factor: released
    keep_offset: Annotated[bool, TEST] = False   # false: released, large windows are pasted up to a step up and left
    box_plus_one: Annotated[bool, TEST] = False  # false: released, a start box is last minus first row, not + 1


class Loss(Section):
    weight: Positive = 100.0         # of Lovasz; 10 for the box encoder
    bce: Positive = 0.0           # ours: of binary cross-entropy beside it; for short trainings


class Rates(Section):
    """Shares of train.lr."""
    reg: Positive = 1.0
    features: Positive = 0.2         # convolution of the target model's features
    decoder: Positive = 1.0
    label: Positive = 2.0            # E and W
    backbone: Positive = 1.0
    box: Positive = 1.0


class Train(Section):
    part: Literal["network", "box"] = "network"          # box: the box encoder alone
    start: str = "none"              # file: a checkpoint of the stage before


class Config:
    backbone: Backbone
    model: Model
    learner: Learner
    memory: Memory
    box: Box
    tracking: Tracking
    loss: Loss
    rates: Rates
    train: Train

    @staticmethod
    def check(cfg, truth=True):
        """ValueError for what one key alone cannot show"""
        model, backbone = cfg.model, cfg.backbone
        if model.label == "mask" and (model.filters != 1 or model.weight == "predictor"):
            raise ValueError("config: model.label: mask is one channel with weight 1: "
                             "set model.filters=1 and model.weight=one")
        check_backbone(cfg)
        if cfg.train.part == "box" and not model.box_encoder:
            raise ValueError("config: train.part: box needs model.box_encoder: true")
        if cfg.train.part == "box" and backbone.trained:
            raise ValueError("config: train.part: box trains the box encoder alone; set backbone.trained: false")


def check_backbone(cfg):
    """ValueError where the weights do not belong to the backbone, or the size of the crops not to its stride"""
    backbone = cfg.backbone
    if backbone.weights == "maskrcnn" and (backbone.name, backbone.flavour, backbone.stride_in_1x1,
                                           backbone.bn_eps) != ("resnet50", "imagenet", False, 0):
        raise ValueError("config: backbone.weights: maskrcnn needs name: resnet50, flavour: imagenet, "
                         "stride_in_1x1: false and bn_eps: 0.0")
    if any(n % 16 for n in cfg.data.size):
        raise ValueError(f"config: data.size {list(cfg.data.size)}: expected multiples of 16, "
                         "the stride of the target model's features")
