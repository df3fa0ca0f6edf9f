"""VIPMT: multi-grained temporal prototypes for few-shot video object segmentation (ICCV 2023)."""
from models.vipmt.build import build
from models.vipmt.inference import segment_video
from models.vipmt.train_step import TrainStep

__all__ = ["TrainStep", "build", "segment_video"]
