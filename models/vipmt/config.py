"""Config of VIPMT: every key of the method, once. Defaults are the paper's; `released` is what the release does."""
from typing import Annotated, Literal

from easydict import EasyDict
from msgspec import Meta

from utils.config import BOTH, NOTHING, TEST, WEIGHTS, Count, Positive, Section, Share, Whole

BACKBONES = r"^(resnet50|resnet101|tiny|timm/[\w.-]+)$"
NEEDS_TRUTH = ("oracle", "ground_truth")      # values of memory.select; with the others the truth is not looked at


class Backbone(Section):
    # tiny: ours, for demos | timm/NAME: ours, docs/backbones.md
    name: Annotated[str, Meta(pattern=BACKBONES), WEIGHTS] = "resnet50"
    stem: Annotated[Literal["deep", "plain"], WEIGHTS] = "deep"      # deep: three 3x3 (the paper's) | plain: one 7x7
    weights: str = "pretrain_model/resnet50_v2.pth"      # file | torchvision: ImageNet's | timm: its own | none
    stride_in_1x1: Annotated[bool, WEIGHTS] = False      # true: original ResNet, stride on the first 1x1 of a stage
    standardise: Annotated[bool, WEIGHTS] = False        # true: ours, channels of all levels to mean 0, deviation 1
    trained: bool = False                    # true: learned with the rest (tiny); the paper freezes it
    width: Annotated[Count, WEIGHTS] = 64    # channels of the first stage of tiny; ResNets ignore it
    cache_frames: Annotated[Whole, NOTHING] = 0      # frozen only: so many encoded frames are kept by content, 0 = none


class Model(Section):
    dim: Annotated[int, Meta(ge=4), WEIGHTS] = 384       # C
    layers: Annotated[Count, WEIGHTS] = 5    # L, VIPMT iterations
    heads: Annotated[Count, WEIGHTS] = 8     # of the spatial-reduction self-attention
    ffn_dim: Annotated[Count, WEIGHTS] = 1152            # hidden width of the feed-forward networks
    dropout: Share = 0.1                     # inside layers and classifiers
    feature_dropout: Share = 0.5             # on the reduced backbone features, whole channels
    high_level: Annotated[Literal["c5", "c4"], WEIGHTS] = "c5"       # the level of prior and similarity maps
    frame_prototype: Annotated[bool, WEIGHTS] = True     # false: +C of Table 4, the clip prototype serves every frame
    memory_prototype: Annotated[bool, WEIGHTS] = True    # false: no memory, neither prototype nor bank
    # bidirectional: Eq. 11 | one_way: the clip prototype is handed on (Table 5)
    communication: Annotated[Literal["bidirectional", "one_way"], WEIGHTS] = "bidirectional"
    # separate: Eqs. 2 and 13 | joint: released, one softmax over both
    memory_attention: Annotated[Literal["separate", "joint"], WEIGHTS] = "separate"
    # cumulative: released, frame t averages frames 0..t
    prior: Annotated[Literal["per_frame", "cumulative"], WEIGHTS] = "per_frame"
    # pooled: released, averages of neighbouring channels, C in all | all: ours, for a small C, every one
    # self_support: ours, for small data, c3 and c4 by a linear classifier that is solved for supports and clip
    prior_channels: Annotated[Literal["pooled", "all", "self_support"], WEIGHTS] = "pooled"
    # ours: times the prior before it is merged; one map of 0 to 1 beside 2 C is hardly looked at in a short training
    prior_scale: Annotated[Positive, WEIGHTS] = 1.0
    prior_skip: Annotated[Positive, WEIGHTS] = 0.0       # ours: times self_support's prior, added to the margins
    match: Annotated[bool, WEIGHTS] = False  # true: ours, cosines of learned features beside the prior
    memory_in_prior: Annotated[bool, WEIGHTS] = False    # true: released, memory as extra support in prior and maps
    init: Literal["released", "balanced"] = "released"   # balanced: ours, for trainings of a few hundred steps
    # plain: Eq. 4 as it stands | patch: released, see docs/differences.md
    degenerate_masks: Annotated[Literal["plain", "patch"], WEIGHTS] = "plain"


class Memory(Section):
    length: Annotated[Count, WEIGHTS] = 5    # T_m, frames drawn from the reliable ones
    # of tests, see config/vipmt/ablation/memory_*
    select: Annotated[Literal["predicted", "random", "none", "oracle", "ground_truth"], TEST] = "predicted"
    min_iou: Annotated[Share, BOTH] = 0.8    # a frame enters from this predicted (oracle: true) IoU on (Table 7)
    keep: Annotated[Count, BOTH] = 40        # frames kept encoded; of longer videos a random sample


class IoUNet(Section):
    similarity: Annotated[Literal["dot", "pooled_cosine"], WEIGHTS] = "dot"    # dot: Eqs. 15-16 | the other: released
    similarity_maps: Annotated[bool, WEIGHTS] = True     # false: "w/o SSM" of Tables 6 and 7
    training: Literal["separate", "joint"] = "separate"  # separate: by `weights` | joint: on own predictions
    weights: str = "none"                    # file | none: then it is trained jointly, and the run says so
    # true: ours, it corrects the IoU that the masks' own probabilities promise; for small data
    confidence: Annotated[bool, WEIGHTS] = False
    rate: Positive = 1.0                     # ours: its share of train.lr; too fast, its units die
    # ours: scale and shift of its logits, fitted on held-out base videos (tools/workshop/iou_study.py)
    calibration: Annotated[tuple[Positive, Annotated[float, Meta(ge=-50, le=50)]], TEST] = (1.0, 0.0)
    replace: Annotated[str, TEST] = "none"   # of a test: file whose IoUNet takes the place of the checkpoint's
    # mean | sum_per_batch: released, T_c times the weight | bce: ours, see docs/differences.md
    loss: Literal["mean", "sum_per_batch", "bce"] = "mean"
    dim: Annotated[Count, WEIGHTS] = 256     # channels of its convolutions
    hidden: Annotated[Count, WEIGHTS] = 1024             # width between its two linear layers
    init: Literal["fan_out", "fan_in"] = "fan_out"       # fan_in: for a narrow net, whose sigmoid would saturate


class Loss(Section):
    final: Positive = 0.7                    # dice + mean IoU + overall IoU of the final masks
    initial: Positive = 0.3                  # the same of the initial masks
    cross_entropy: Positive = 0.0            # ours, of final and initial masks; for trainings of a few hundred steps
    aux_query: Positive = 0.3                # BCE of clip and frame masks of all layers
    aux_support: Positive = 0.7              # BCE of support and memory masks of all layers
    ccds: Literal["paper", "released", "none"] = "paper"     # paper: Eqs. 17-18 | released: pooled over the batch
    ccds_weight: Positive = 1.0
    iou_weight: Positive = 1.0


class Train(Section):
    backward: Literal["per_clip", "once"] = "per_clip"   # once: one graph, needed by a trained backbone
    memory_masks: Literal["ground_truth", "predicted", "noisy"] = "ground_truth"     # ground_truth: Section 4.3


class Validate(Section):
    memory: Literal["predicted", "ground_truth"] = "predicted"       # ground_truth: released


class Config:
    backbone: Backbone
    model: Model
    memory: Memory
    iou_net: IoUNet
    loss: Loss
    train: Train
    validate: Validate

    @staticmethod
    def for_validation(cfg):
        """While training, memory is filled as validate.memory says: as released, with the true masks, or as in tests"""
        return EasyDict(cfg, memory=EasyDict(cfg.memory, select=cfg.validate.memory))

    @staticmethod
    def check(cfg, truth=True):
        """ValueError for what one key alone cannot show; truth: whether anybody knows the true masks"""
        model, backbone = cfg.model, cfg.backbone
        if not truth and cfg.memory.select in NEEDS_TRUTH:
            raise ValueError(f"memory.select: {cfg.memory.select} needs true masks, which your video has not.\n"
                             "  Set memory.select=predicted")
        if model.dim % model.heads:
            raise ValueError(f"config: model.dim {model.dim} is no multiple of model.heads {model.heads}; change one")
        if model.dim % 4:
            raise ValueError(f"config: model.dim {model.dim}: expected a multiple of 4, "
                             "since sine and cosine of rows and columns share the channels")
        if backbone.trained and backbone.cache_frames:
            raise ValueError("config: backbone.cache_frames needs a frozen backbone: "
                             "set it to 0 or backbone.trained to false")
        if backbone.trained and backbone.name.startswith("timm/"):
            raise ValueError(f"config: backbone.trained: {backbone.name} stays frozen; set it to false")
        if backbone.trained and cfg.train.backward == "per_clip":
            raise ValueError("config: backbone.trained needs one graph over all clips: set train.backward to once")
