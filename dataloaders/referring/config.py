"""Config of the referring task: what is tested and trained on, and how samples are made. Defaults are those of CMA."""
from typing import Annotated, Literal

from msgspec import Meta

from utils.config import BOTH, NOTHING, TEST, WEIGHTS, Count, Section, Share, Whole

Side = Annotated[int, Meta(ge=8)]
Sides = Annotated[tuple[Side, ...], Meta(min_length=1)]


class Data(Section):
    dataset: Annotated[Literal["ref_ytvos", "ref_sailvos"], BOTH] = "ref_ytvos"      # ref_sailvos: tested only
    root: Annotated[str, NOTHING] = "data"           # the data set's folder, or the one above it; it finds its files
    size: Annotated[tuple[Side, Side], NOTHING] = (360, 640)     # made-up frames of benchmarks; clips keep their shape
    members: Annotated[Literal["last", "each"], BOTH] = "last"
    #        last: a video, all its sentences with it, belongs to the class of its last sentence's object, as released
    #        each: every sentence belongs to the class of its object
    frames: Count = 5            # T of the query in training
    support_frames: Annotated[Count, WEIGHTS] = 5    # S
    samples_per_class: Count = 100       # per epoch
    shuffle: bool = True         # false: released, class by class in order
    test_size: Annotated[Side, WEIGHTS] = 360        # short side in tests; the long one has no limit
    sizes: Sides = (288, 320, 352, 392, 416, 448, 480, 512)      # short side in training, one of these
    longest: Side = 640          # long side in training, at most
    mirror: Share = 0.5
    mirror_words: bool = True    # left and right change places in the sentence, too
    crop: Share = 0.5            # probability of a crop before
    crop_from: Sides = (400, 500, 600)   # short side that is cropped
    crop_sides: tuple[Side, Side] = (384, 600)       # of the crop, each of its own, where the frame is larger
    photometric: Literal["clip", "released", "none"] = "clip"    # released: values beyond 0 to 255 wrap
    boxes: Literal["right", "released"] = "right"    # released: cut at the wrong side, and mirrored a pixel too far
    # Ours: in this share of the training clips a second object, that other sentences are about, lies in the frames
    compose: Share = 0.0
    compose_with: Annotated[Literal["other", "same", "any"], BOTH] = "other"     # category of the second object


class Validate(Section):
    classes: Literal["base_holdout", "novel", "none"] = "base_holdout"   # novel: selects on test classes
    holdout: Share = 0.05        # share of each base class's videos kept out of training


class Test(Section):
    window: Annotated[Whole, TEST] = 10              # frames of a clip; 0: the whole video, as the paper says
    compose: Annotated[Share, TEST] = 0.0            # share of the test clips with a second object in them
    swap_sentences: Annotated[bool, TEST] = False    # also measures whether the sentence decides, see docs/data.md


class Metrics(Section):
    average: Annotated[Literal["class", "object", "frame"], TEST] = "frame"
    tolerance: Annotated[Share, TEST] = 0.010        # 0.008: DAVIS'


class Config:
    data: Data
    validate: Validate
    test: Test
    metrics: Metrics
