"""Config of Table 3's competitors: that of VIPMT, whose checkpoints segment the first frames, and the propagator."""
from typing import Annotated, Literal

from msgspec import Meta

from models import vipmt
from utils.config import TEST, Count, Section, Whole


class Matching(Section):
    """Our own propagator."""
    level: Annotated[Literal["c3", "c4"], TEST] = "c4"       # the encoder's maps that are matched
    frames: Annotated[Whole, TEST] = 7           # n, last frames in context beside the first one; 7 to 20 are usual
    top_k: Annotated[Count, TEST] = 5            # matches that are averaged; 5 to 10 are usual
    temperature: Annotated[float, Meta(ge=0.001), TEST] = 0.1    # of the softmax over their cosines; 0.05 to 0.1
    radius: Annotated[Whole, TEST] = 6           # of the window in the last frames, in positions of 8 pixels


class Propagation(Matching):
    # matching: ours, with the keys above | lwl or another method of the vos task | sam2 | xmem | module:factory: yours
    plug: Annotated[str, TEST] = "matching"
    weights: Annotated[str, TEST] = "none"       # of the plug: a checkpoint of lwl, XMem's file, a folder of SAM 2's
    keys: Annotated[tuple[str, ...], TEST] = ()              # key=value, over the config in the checkpoint of lwl
    start: Annotated[Literal["mask", "box"], TEST] = "mask"  # box: lwl gets the box around the first mask
    min_pixels: Annotated[Count, TEST] = 100     # of the first mask, at the video's size; the model goes on until then


class Config(vipmt.Config):
    propagation: Propagation
