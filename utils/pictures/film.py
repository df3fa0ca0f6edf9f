"""Film: frames become a video that browsers and phones play, each as it comes, so that its length is no matter of
memory."""
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CODECS = (("libx264", ".mp4", {"preset": "fast", "crf": "20", "bf": "0"}),       # H.264, played everywhere
          ("libvpx-vp9", ".webm", {"deadline": "realtime", "cpu-used": "6", "crf": "30", "b": "0"}))
TICK = Fraction(1, 90_000)               # seconds: what frame times are rounded to


class Film:
    """A film that grows: `with Film(path) as film: film.add(frames)`, as often as needed; then `film.path` is the file.

    fps: of frames that come without times, and how long the last one is shown. The suffix is .mp4 (H.264), or .webm
    (VP9) where PyAV here cannot write that, whatever `path` ends with. Odd sizes gain one row or column, repeated,
    since the codecs share colour between 2 x 2 pixels. The file gets its name at the end; after an exception there is
    none.
    """

    def __init__(self, path, fps=6):
        path = Path(path).absolute()                           # a relative "run:1/x" would be taken for a protocol
        stem = path.stem if path.suffix in (".mp4", ".webm") else path.name
        self.codec, suffix, self.options = next(c for c in CODECS if c[0] in av.codecs_available)
        self.path, self.fps, self.file, self.last = path.with_name(stem + suffix), fps, None, None
        self.unfinished = path.with_name(f".{stem}.{os.getpid()}{suffix}")

    def add(self, frames, times=None):
        """frames (T, H, W, 3) uint8 RGB, T > 0; times: T seconds, each later than the one before"""
        if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0 or frames.dtype != np.uint8:
            raise ValueError(
                f"{self.path}: expected frames (T, H, W, 3) uint8 with T > 0, got {frames.shape} {frames.dtype}")
        try:
            if self.file is None:
                self._open(frames.shape[1:3])
            for t, frame in enumerate(frames):
                self._add(frame, None if times is None else times[t])
        except av.FFmpegError as error:
            raise OSError(f"{self.path}: cannot write this film of {frames.shape[1]} x {frames.shape[2]} pixels "
                          f"({error.strerror}).\n  Check that the folder is writable and its disk not full, or leave "
                          "the films out") from None

    def _open(self, size):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = av.open(str(self.unfinished), "w", options={"movflags": "faststart"})       # plays while it loads
        self.stream = self.file.add_stream(self.codec, rate=Fraction(self.fps).limit_denominator(1000),
                                           options=self.options)
        self.stream.height, self.stream.width = (n + n % 2 for n in size)
        self.stream.pix_fmt, self.stream.codec_context.time_base = "yuv420p", TICK
        self.stream.codec_context.colorspace = av.video.reformatter.Colorspace.ITU601           # as the pixels are made

    def _add(self, frame, seconds):
        tick = Fraction(1 / self.fps) / TICK
        wanted = (0 if self.last is None else self.last + tick) if seconds is None else seconds / TICK
        self.last = max(round(wanted), 0 if self.last is None else self.last + 1)
        even = np.pad(frame, (*((0, n % 2) for n in frame.shape[:2]), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(even, format="rgb24")
        picture.pts, picture.time_base = self.last, TICK
        self.file.mux(self.stream.encode(picture))

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        try:
            if self.file and error is None:
                self.file.mux(self.stream.encode())            # what the encoder still holds
                self.file.close()
                os.replace(self.unfinished, self.path)
            elif self.file:
                with suppress(av.FFmpegError):                 # a full disk has been told already
                    self.file.close()
        finally:
            self.unfinished.unlink(missing_ok=True)
