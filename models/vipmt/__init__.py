"""VIPMT: multi-grained temporal prototypes for few-shot video object segmentation (ICCV 2023)."""
from models.vipmt.build import build, compile_parts
from models.vipmt.inference import VideoSegmenter
from models.vipmt.train_step import TrainStep

__all__ = ["TrainStep", "VideoSegmenter", "build", "compile_parts"]
