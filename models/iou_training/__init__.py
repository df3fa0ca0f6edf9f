"""IoUNet trained on its own, on synthesised masks: "Video" and "Image" of Table 6 (Section 4.3)."""
from models.iou_training.build import VideoSegmenter, build, compile_parts
from models.iou_training.train_step import TrainStep

__all__ = ["TrainStep", "VideoSegmenter", "build", "compile_parts"]
