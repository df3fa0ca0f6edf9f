"""IoUNet trained on its own, on synthesised masks: "Video" and "Image" of Table 6 (Section 4.3)."""
from models.iou_training.build import Config, Segmenter, build, compile_parts, load, parameter_groups
from models.iou_training.train_step import TrainStep

TASK = "fewshot"

__all__ = ["TASK", "Config", "Segmenter", "TrainStep", "build", "compile_parts", "load", "parameter_groups"]
