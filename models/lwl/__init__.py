"""LWL: learning what to learn for video object segmentation (ECCV 2020).

"Released" and "the release" stand for the code that the authors published (visionml/pytracking); docs/lwl.md lists
where it leaves the paper, and the switches.
"""
from models.lwl.build import build, compile_parts, load, parameter_groups
from models.lwl.config import Config
from models.lwl.inference import Segmenter
from models.lwl.train_step import TrainStep

TASK = "vos"

__all__ = ["TASK", "Config", "Segmenter", "TrainStep", "build", "compile_parts", "load", "parameter_groups"]
