"""Config of the vos task: what is tested, what is trained on, and how training samples are made.

Defaults are those of LWL (ECCV 2020), where its paper is silent those of its release.
"""
from typing import Annotated, Literal

from msgspec import Meta

from utils.config import NOTHING, TEST, WEIGHTS, Count, Positive, Section, Share, Whole

Side = Annotated[int, Meta(ge=32)]
Pair = tuple[Positive, Positive]


class Data(Section):
    """dataset, root, annotations, images and truth say what is tested and validated; `sources` what is trained on."""
    dataset: Annotated[Literal["davis", "davis2016", "ytvos"], TEST] = "davis"
    root: Annotated[str, NOTHING] = "data/DAVIS"
    annotations: Annotated[str, TEST] = "ImageSets/2017/val.txt"     # the list of videos, below root or anywhere; of
    #                                                                  ytvos meta.json (all), or such a list
    images: Annotated[str, TEST] = "JPEGImages"      # of ytvos: ../valid_all_frames/JPEGImages has them at 30 fps
    truth: Annotated[str, TEST] = "none"             # a folder with the masks of all frames, where root has first ones
    size: Annotated[tuple[Side, Side], WEIGHTS] = (480, 832)         # H, W of a crop, which is what the network sees
    clip_length: Annotated[Count, NOTHING] = 5       # frames that are read together in a test; changes no mask
    samples: Count = 20000       # training samples per epoch
    test_frames: Whole = 3       # T, frames of a training sample beside the first one; 0: single crops
    gap: Count = 100             # test frames come from so many annotated frames behind the first one
    min_pixels: Count = 11       # of an object, for a frame to show it
    min_frames: Whole = 9        # that show an object, for it to be trained on
    area: Positive = 5.0         # of the crop, in sides of the jittered box
    size_jitter: Pair = (0.25, 0.5)      # sigma of log(side): first frame, test frames
    place_jitter: Pair = (3.0, 3.0)      # of the first frame, in sides of the box: x, y
    test_place_jitter: Pair = (5.5, 4.5)     # of the test frames
    rotation: Positive = 15.0    # degrees at most
    scale: Positive = 0.2        # log(factor) at most
    brightness: Share = 0.2      # factors 1 - b to 1 + b
    grey: Share = 0.05           # probability, one draw for the first frame and one for the test frames
    mirror: Share = 0.5          # the same
    crop_border: Literal["released", "exact"] = "released"       # released: crops at the border lose a row or column


class Sources(Section):
    """Training data and how often each is drawn from; 0 leaves it out. Lists: as data.annotations."""
    ytvos: Annotated[str, NOTHING] = "data/YouTube-VOS/train"
    ytvos_list: str = "meta.json"        # the release trains on its list jjtrain.txt
    ytvos_weight: Positive = 6.0
    davis: Annotated[str, NOTHING] = "data/DAVIS"
    davis_list: str = "ImageSets/2017/train.txt"
    davis_weight: Positive = 1.0
    coco: Annotated[str, NOTHING] = "data/COCO"      # pictures that the augmentation moves
    coco_list: str = "annotations/instances_train2017.json"
    coco_images: str = "train2017"
    coco_weight: Positive = 0.0


class Test(Section):
    runs: Annotated[Literal[1], NOTHING] = 1         # nothing is drawn
    resolution: Annotated[Literal["input"], TEST] = "input"      # frames come at the videos' own size
    submission: Annotated[Literal["none", "folder", "zip"], NOTHING] = "folder"
    #            folder: Annotations/VIDEO/FRAME.png below the output, as the official evaluations take them


class Validate(Section):
    every: Count = 10            # epochs
    episodes: Whole = 0          # videos of the tested data at most; they take long


class Metrics(Section):
    average: Annotated[Literal["class", "object", "frame"], TEST] = "object"
    skip_ends: Annotated[Literal["none", "first", "both"], TEST] = "both"    # of every object: the frame in which it is
    #            given; both: the video's last one, too, as DAVIS; first: as YouTube-VOS


class Config:
    data: Data
    sources: Sources
    test: Test
    validate: Validate
    metrics: Metrics


