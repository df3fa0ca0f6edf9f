"""Config of the few-shot task: which episodes are drawn and tested. Defaults are the paper's (Section 5.1)."""
from typing import Annotated, Literal

from utils.config import BOTH, NOTHING, TEST, WEIGHTS, Count, Section, Share, Whole


class Data(Section):
    dataset: Annotated[Literal["ytvis", "minivspw", "coco20i", "coco20i_minivspw", "coco"], WEIGHTS] = "ytvis"
    root: Annotated[str, NOTHING] = "data/Youtube-VOS/train"     # the same data may move
    annotations: Annotated[str, BOTH] = "train.json"     # below root; minivspw: the folder with its lists
    shots: Annotated[Count, WEIGHTS] = 5                 # K, support frames per episode
    clip_length: Annotated[Count, WEIGHTS] = 5           # T_c, frames per clip
    clips: Count = 3                                     # clips of one training sample
    samples_per_class: Count = 100   # training episodes per class and epoch: 30 x 100 / 4 = 750 iterations
    mask_resize: Annotated[Literal["nearest", "released"], WEIGHTS] = "nearest"    # released: bilinear and truncated
    augmentation: Literal["paper", "released", "none"] = "paper"
    first_frame_augmented: bool = True       # false: released slip, the first frame of a sequence keeps its place
    portrait: Literal["letterbox", "transpose"] = "letterbox"    # transpose: released, in training only
    support_from_query_video: bool = False   # true: released, in training only
    short_video: Literal["distinct", "repeat"] = "distinct"      # repeat: released, the last window twice
    windows: Literal["blocks", "any"] = "blocks"     # blocks: clips start at 1, 1 + T, ... | any: DAN's, anywhere
    few_videos: Annotated[Literal["error", "repeat"], BOTH] = "error"    # repeat: supports may share a video
    # Of training, ours: in this share of the clips and supports an object of another class lies in the frames
    compose: Share = 0.0
    compose_pool: Whole = 0      # so many clips and supports per class, again and again; 0: fresh ones every time
    stills: str = "none"         # COCO annotations whose objects are laid, too: FOLDER/instances.json beside images/
    prefer_mixed: Share = 0.0    # share of the episodes whose query shows other classes, too, where there are such


class Validate(Section):
    classes: Literal["base_holdout", "novel", "none"] = "base_holdout"   # novel: released, selects on test classes
    holdout: Share = 0.05                    # share of each base class's videos kept out of training


class Test(Section):
    protocol: Annotated[Literal["II", "I"], TEST] = "II"     # II: supports per query video | I: per class and run
    compose: Annotated[Share, TEST] = 0.0    # share of the test clips with an object of another test class in them
    swap_supports: Annotated[bool, TEST] = False     # every episode with supports of another test class as well


class Config:
    data: Data
    validate: Validate
    test: Test
