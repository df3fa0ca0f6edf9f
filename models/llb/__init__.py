"""LLB: learning to learn better for video object segmentation (AAAI 2023), on top of LWL.

"Released" and "the release" stand for the code that the authors published (ViTAE-Transformer/VOS-LLB); docs/llb.md
lists where it leaves the paper, and the switches.
"""
from models.llb.build import build, parameter_groups
from models.llb.config import Config
from models.llb.inference import Segmenter
from models.llb.train_step import TrainStep
from models.lwl import compile_parts, load

TASK = "vos"

__all__ = ["TASK", "Config", "Segmenter", "TrainStep", "build", "compile_parts", "load", "parameter_groups"]
