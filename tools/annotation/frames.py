"""What is to be marked: a folder of images, or a video at any of its moments. Part of tools/annotate.py.

In: a path. Out: pictures by number, as (H, W, 3) uint8 RGB, with a name for each that is safe to write to.
"""
from pathlib import Path

from dataloaders.images import PICTURES, read_image
from dataloaders.own.film import picture_at
from dataloaders.own.folder import pictures_in
from dataloaders.own.video import open_video
from utils.files import safe_name


def open_source(path):
    """A folder of images or a video file  ->  ImageFolder or VideoFrames; FileNotFoundError, ValueError"""
    path = Path(path)
    if path.is_dir():
        return ImageFolder(path)
    if not path.is_file():
        raise FileNotFoundError(f"IMAGES: nothing at {path}.\n  Give a folder of JPEG or PNG images, or a video file")
    return VideoFrames(path)


def stem_of(text):
    """Any text  ->  a file name without suffix; a support folder takes x_mask.png for the mask of x.jpg"""
    stem = safe_name(text)
    return f"{stem}%" if stem.endswith("_mask") else stem


class ImageFolder:
    """The images of a folder by number, in the order of their names; masks that lie beside them are none."""
    step = 1

    def __init__(self, path):
        self.path = path
        self.files = [p for p in pictures_in(path)[0] if p.suffix.lower() in PICTURES]
        if not self.files:
            raise ValueError(f"IMAGES: {path} holds no JPEG or PNG image.\n"
                             "  Give a folder with *.jpg, *.jpeg or *.png directly in it, or a video file")

    @property
    def last(self):
        return len(self.files) - 1

    def name(self, number):
        return stem_of(self.files[number].stem)

    def read(self, number):
        """Number  ->  (H, W, 3) uint8 RGB, upright as its file says"""
        return read_image(self.files[number], upright=True)


class VideoFrames:
    """What a video shows at its moments, numbered by the frames that it has at its mean rate."""

    def __init__(self, path):
        self.path, self.video = path, open_video(path)
        if not self.video.total:
            raise ValueError(f"IMAGES: {path} does not say how long it is.\n"
                             "  Write its frames to a folder of JPEGs and give that")
        self.last = self.video.total - 1

    def name(self, number):
        return stem_of(f"{self.path.stem}_{number:05d}")

    def read(self, number):
        """Number  ->  (H, W, 3) uint8 RGB: what players show then; ValueError where the film cannot be read"""
        return picture_at(self.path, number / self.video.fps)
