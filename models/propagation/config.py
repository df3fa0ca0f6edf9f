"""Config of Table 3's competitors: that of VIPMT, whose checkpoints segment the first frames, and the propagator."""
from typing import Annotated, Literal

from msgspec import Meta

from models import vipmt
from utils.config import TEST, Count, Section, Whole


class Propagation(Section):
    plug: Annotated[str, TEST] = "matching"      # matching: ours, with the keys below; module:factory: yours
    level: Annotated[Literal["c3", "c4"], TEST] = "c4"       # the encoder's maps that are matched
    frames: Annotated[Whole, TEST] = 7           # n, last frames in context beside the first one; 7 to 20 are usual
    top_k: Annotated[Count, TEST] = 5            # matches that are averaged; 5 to 10 are usual
    temperature: Annotated[float, Meta(ge=0.001), TEST] = 0.1    # of the softmax over their cosines; 0.05 to 0.1
    radius: Annotated[Whole, TEST] = 6           # of the window in the last frames, in positions of 8 pixels


class Config(vipmt.Config):
    propagation: Propagation
