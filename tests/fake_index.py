"""Earlier name of a part of material.py."""
from material import FakeIndex, small_config, video_of, with_few_videos

__all__ = ["FakeIndex", "small_config", "video_of", "with_few_videos"]
