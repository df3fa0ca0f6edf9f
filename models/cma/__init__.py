"""CMA: Learning Cross-Modal Affinity for Referring Video Object Segmentation Targeting Limited Samples (ICCV 2023).

A support clip with masks and a sentence says what the category is, a second sentence what to segment in another video.
"The release" stands for the published code; docs/cma.md lists where it leaves the paper, and the switches.
"""
from models.cma.build import build, compile_parts, load, parameter_groups
from models.cma.config import Config
from models.cma.inference import Segmenter
from models.cma.train_step import TrainStep

TASK = "referring"

__all__ = ["TASK", "Config", "Segmenter", "TrainStep", "build", "compile_parts", "load", "parameter_groups"]
