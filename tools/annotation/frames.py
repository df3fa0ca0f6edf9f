"""What is to be marked: a folder of images, or the frames of a video. Part of tools/annotate.py, without its page.

In: a path. Out: frames by number, as (H, W, 3) uint8 RGB, with a name for each that is safe to write to.
"""
import re
from pathlib import Path

import cv2
import numpy as np

from dataloaders.images import MAX_PIXELS, decode, read_bytes
from dataloaders.picture import natural

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LONGEST_STEM = 80            # characters; file systems take 255 bytes


def open_source(path):
    """A folder of images or a video file  ->  ImageFolder or VideoFrames; FileNotFoundError, ValueError"""
    path = Path(path)
    if path.is_dir():
        return ImageFolder(path)
    if not path.is_file():
        raise FileNotFoundError(f"IMAGES: nothing at {path}.\n  Give a folder of JPEG or PNG images, or a video file")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"IMAGES: {path} is one image.\n  Give the folder it lies in: {path.parent}")
    return VideoFrames(path)


def safe_stem(text):
    """Any text  ->  a file name without suffix that stays in its folder and reads the same on every system.

    'x_mask' becomes 'x_mask_': a support folder takes x_mask.png for the mask of x.jpg.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", text).strip(".")[:LONGEST_STEM] or "image"
    return f"{stem}_" if stem.lower().endswith("_mask") else stem


class ImageFolder:
    """The images of a folder by number, in the order of their names, 2 before 10.

    A PNG that shares its stem with a JPEG, or has its stem and _mask, is the mask of that image and none itself.
    """

    def __init__(self, path):
        self.path = Path(path)
        files = sorted((f for f in self.path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()
                        and not f.name.startswith(".")), key=natural)
        with_masks = {f.stem for f in files if f.suffix.lower() != ".png"}
        masks = with_masks | {f"{f.stem}_mask" for f in files}
        self.files = [f for f in files if f.suffix.lower() != ".png" or f.stem not in masks]
        if not self.files:
            raise ValueError(f"IMAGES: {path} holds no JPEG or PNG image.\n"
                             "  Give a folder with *.jpg, *.jpeg or *.png directly in it, or a video file")
        self.names = _distinct([safe_stem(f.stem) for f in self.files])

    def __len__(self):
        return len(self.files)

    def name(self, number):
        return self.names[number]

    def read(self, number):
        """Number  ->  (H, W, 3) uint8 RGB, upright as its file says"""
        image = decode(read_bytes(self.files[number]), self.files[number])
        if image is None:
            raise ValueError(f"{self.files[number]} cannot be read as JPEG or PNG.\n  Replace it or take it away")
        return np.ascontiguousarray(image[..., ::-1])

    def jpeg(self, number):
        """The bytes of the file where a plain copy shows the pixels of `read`: an upright JPEG; else None"""
        file = self.files[number]
        if file.suffix.lower() == ".png":
            return None
        data = read_bytes(file)
        stored = decode(data, file, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        upright = stored is not None and np.array_equal(stored[..., ::-1], self.read(number))
        return data if upright and data.startswith(b"\xff\xd8") else None


class VideoFrames:
    """The frames of a video file by number, counted from 0."""

    def __init__(self, path):
        self.path, self.stem = Path(path), safe_stem(Path(path).stem)
        video = self._open()
        self.count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        size = [int(video.get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)]
        video.release()
        if self.count < 1:
            raise ValueError(f"IMAGES: {path} does not say how many frames it has.\n"
                             "  Write its frames to a folder of JPEGs and give that")
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"IMAGES: {path} has frames of {size[0]} x {size[1]} pixels, more than {MAX_PIXELS}.\n"
                             "  Make it smaller first")
        self.read(0)

    def __len__(self):
        return self.count

    def name(self, number):
        return f"{self.stem}_{number:05d}"

    def read(self, number):
        """Number  ->  (H, W, 3) uint8 RGB; ValueError where the file ends before or is damaged"""
        video = self._open()
        try:
            if number:
                video.set(cv2.CAP_PROP_POS_FRAMES, number)
            readable, frame = video.read()
        finally:
            video.release()
        if not readable:
            raise ValueError(f"{self.path}: frame {number} of {self.count} cannot be read.\n  Choose another one")
        return np.ascontiguousarray(frame[..., ::-1])

    def jpeg(self, number):
        """None: a frame of a video has no file of its own."""
        return None

    def _open(self):
        video = cv2.VideoCapture(str(self.path))
        if not video.isOpened():
            raise ValueError(f"IMAGES: {self.path} is no video that OpenCV reads.\n"
                             "  Give an mp4, webm or avi file, or a folder of images")
        return video


def _distinct(names):
    """Names  ->  the same, with a number behind those that some file system takes for one before them"""
    taken, out = set(), []
    for name in names:
        unique, number = name, 2
        while unique.casefold() in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique.casefold())
        out.append(unique)
    return out
