"""VIPMT: multi-grained temporal prototypes for few-shot video object segmentation (ICCV 2023).

"Released" and "the release" stand for the code that the authors published; docs/differences.md lists where it leaves
the paper, and the switches.
"""
from models.vipmt.build import build, compile_parts, load, parameter_groups
from models.vipmt.config import Config
from models.vipmt.inference import Segmenter
from models.vipmt.train_step import TrainStep

TASK = "fewshot"

__all__ = ["TASK", "Config", "Segmenter", "TrainStep", "build", "compile_parts", "load", "parameter_groups"]
