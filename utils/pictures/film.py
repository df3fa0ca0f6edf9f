"""Film: frames become a video that browsers play, a few at a time, so that its length is no matter of memory."""
import os
import sys
import tempfile
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.logger import get_logger

# OpenCV's wheels rarely bring an H.264 encoder, always VP8 and VP9; browsers play all three.
CODECS = (("avc1", ".mp4"), ("VP90", ".webm"), ("VP80", ".webm"))
GIF_FRAMES = 300             # the writer of GIFs wants all frames at once


class Film:
    """A film that grows: `with Film(path) as film: film.add(frames)`, as often as needed; then `film.path` is the file.

    The encoder decides the suffix, whatever `path` ends with: .mp4 (H.264), .webm (VP9, VP8), else .gif. Odd sizes gain
    one row or column, repeated, since the codecs share colour between 2 x 2 pixels. The file gets its name at the end;
    after an exception there is none.
    """

    def __init__(self, path, fps=6):
        path = Path(path)
        stem = path.stem if path.suffix in (".mp4", ".webm", ".gif", ".avi") else path.name
        self.encoder = first_encoder()
        suffix = self.encoder[1] if self.encoder else ".gif"
        self.path, self.fps, self.writer = path.with_name(stem + suffix), fps, None
        self.unfinished = path.with_name(f".{stem}.{os.getpid()}{suffix}")      # encoders go by the suffix

    def add(self, frames):
        """frames (T, H, W, 3) uint8 RGB, T > 0"""
        if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0 or frames.dtype != np.uint8:
            raise ValueError(
                f"{self.path}: expected frames (T, H, W, 3) uint8 with T > 0, got {frames.shape} {frames.dtype}")
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            open_writer = partial(_Codec, codec=self.encoder[0]) if self.encoder else _Gif
            self.writer = open_writer(self.unfinished, size=frames.shape[1:3], fps=self.fps)
        for frame in frames:
            self.writer.add(frame)

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        try:
            if self.writer:
                self.writer.close()
            if self.writer and error is None:
                os.replace(self.unfinished, self.path)
                if self.writer.left_out:
                    get_logger().warning("%s: no video encoder in OpenCV; the GIF ends after %d frames, %d missing",
                                         self.path, GIF_FRAMES, self.writer.left_out)
        finally:
            self.unfinished.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def first_encoder():
    """(codec, suffix) of the first of CODECS whose films this machine writes and reads back; None without any."""
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for codec, suffix in CODECS:
            if _reads_back(Path(folder) / f"film{suffix}", codec, frames):
                return codec, suffix
    return None


def _reads_back(path, codec, frames):
    try:
        writer = _Codec(path, frames.shape[1:3], fps=6, codec=codec)
    except OSError:
        return False
    for frame in frames:
        writer.add(frame)
    writer.close()
    with _quiet():
        reader = cv2.VideoCapture(str(path))
        readable, _ = reader.read()
        reader.release()
    return readable


class _Codec:
    """OpenCV's writer, for frames (H, W, 3) uint8 RGB of any size (H, W)."""
    left_out = 0

    def __init__(self, path, size, fps, codec):
        self.odd = [(0, n % 2) for n in size]
        rows, cols = (n + n % 2 for n in size)
        with _quiet():
            self.writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (cols, rows))
        if not self.writer.isOpened():
            raise OSError(f"{path}: cannot write {codec} films of {rows} x {cols} pixels.\n"
                          "  Check that the folder is writable and its disk not full, or leave the films out")

    def add(self, frame):
        even = np.pad(frame, (*self.odd, (0, 0)), mode="edge")
        self.writer.write(np.ascontiguousarray(even[..., ::-1]))

    def close(self):
        with _quiet():
            self.writer.release()


class _Gif:
    """Frames are kept until the end, so their number has a limit; what comes later is left out."""

    def __init__(self, path, size, fps):
        self.path, self.duration, self.frames, self.left_out = path, round(1000 / fps), [], 0

    def add(self, frame):
        if len(self.frames) < GIF_FRAMES:
            self.frames.append(Image.fromarray(frame))
        else:
            self.left_out += 1

    def close(self):
        first, *rest = self.frames
        first.save(self.path, save_all=True, append_images=rest, duration=self.duration, loop=0)


@contextmanager
def _quiet():
    """Hide what OpenCV and FFmpeg print about missing encoders: they write to the process's stderr, past Python."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
