"""DAN: Delving Deep into Many-to-many Attention for Few-shot Video Object Segmentation (CVPR 2021).

The middle frame of a clip is its agent: it alone reads the supports, and the other frames read from it. docs/dan.md
has the paper-to-code table, and where the published code leaves the paper.
"""
from models.dan.build import build, compile_parts, load, parameter_groups
from models.dan.config import Config
from models.dan.inference import Segmenter
from models.dan.train_step import TrainStep

TASK = "fewshot"

__all__ = ["TASK", "Config", "Segmenter", "TrainStep", "build", "compile_parts", "load", "parameter_groups"]
