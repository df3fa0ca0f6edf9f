"""Video from anywhere, frame after frame: a film, a folder of pictures or a camera.

In: a path or a camera's number, and which frames are wanted. Out: Frames, RGB and upright, one at a time: how long the
video is is no matter of memory. What cannot be read stops with the frame's number; what came before it stays.
"""
import logging
import math
import os
import re
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

# Damaged films make FFmpeg print a line per block; what matters of it is said here. OpenCV reads this once.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from dataloaders.images import MAX_PIXELS
from dataloaders.picture import PICTURES, as_picture, natural, read_picture

log = logging.getLogger(__name__)

FILMS = (".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv")
FOLDER_FPS, UNKNOWN_FPS = 6, 25      # 6: the annotated frames of YouTube-VIS; some films do not say how fast they are
PLAUSIBLE_FPS = (0.1, 240)           # films made by browsers give the ticks of their clock instead, 1000 per second
CONVERT = "Convert it, for example: ffmpeg -i {} converted.mp4"


@dataclass(eq=False)
class Frame:
    """One frame. index: its number in the whole video, from 0; time: seconds, or None; image (H, W, 3) uint8 RGB."""
    index: int
    time: float
    image: np.ndarray


Moment = namedtuple("Moment", "seconds frame")       # one of the two is None


def parse_moment(value, name):
    """--start, --end: 12.5 or "12.5s" are seconds, "300f" is a frame number, from 0  ->  Moment; None stays"""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)f|(\d+(?:\.\d*)?|\.\d+)s?", str(value).strip())
    if not match:
        raise ValueError(f"{name}: cannot read {str(value)[:40]!r}.\n"
                         "  Write seconds (12.5 or 12.5s) or a frame number, counted from 0 (300f)")
    return Moment(None, int(match[1])) if match[1] else Moment(float(match[2]), None)


def open_video(source, every=1, start=None, end=None, fps=None):
    """What `source` names  ->  Video

    source: a film (.mp4 .m4v .mov .avi .webm .mkv), a folder of JPEGs or PNGs in the order of their names (2 before
        10), or a camera's number
    every: 1 takes all frames, 5 every fifth; start, end: the first frame and the one before which it ends, in seconds
        (12.5, "12.5s") or as a frame number ("300f"); fps: frames per second of a folder, or of a film that lies
    """
    if every < 1:
        raise ValueError(f"--every {every}: expected 1 (all frames) or more")
    if fps is not None and not PLAUSIBLE_FPS[0] <= fps <= PLAUSIBLE_FPS[1]:
        raise ValueError(f"--fps {fps}: expected {PLAUSIBLE_FPS[0]} to {PLAUSIBLE_FPS[1]} frames per second")
    limits = every, parse_moment(start, "--start"), parse_moment(end, "--end")
    path = Path(str(source))
    if path.is_dir():
        return PictureFolder(path, limits, fps)
    if path.is_file():
        return FilmFile(path, limits, fps)
    if str(source).isdecimal():
        return Camera(int(source), limits, fps)
    raise FileNotFoundError(f"video: no file or folder {source}.\n  Name a film ({' '.join(FILMS)}), a folder of "
                            f"frames ({' '.join(PICTURES)}), or a camera: 0, 1, ...")


class Video:
    """Can be iterated over, and gives the wanted Frames. A subclass says what all of its frames are (`moments`).

    name: for people; fps: frames per second of the whole video; total: its frames, None if nobody knows; endless: goes
    on until somebody stops it
    """
    endless = False

    def __init__(self, name, limits, fps, total):
        self.name, self.fps, self.total = name, fps, total
        self.every, self.start, self.end = limits

    def moments(self):
        """(index, seconds, read) of every frame of the video; read() gives its image, before the next one is due"""
        raise NotImplementedError

    def __iter__(self):
        first, index = None, -1
        for index, seconds, read in self.moments():
            if self.start and not reached(self.start, index, seconds):
                continue
            if self.end and reached(self.end, index, seconds):
                break
            first = index if first is None else first
            if (index - first) % self.every == 0:
                yield Frame(index, seconds, read())
        if first is None:
            raise ValueError(f"{self.name} has no frame" + (
                "" if index < 0 else f" between --start and --end: it has {index + 1} or more.\n"
                "  Numbers are seconds, with an f behind them frames; --start is the smaller of the two"))

    @property
    def expected(self):
        """How many Frames will come, as far as the video tells; None where it does not"""
        if self.total is None:
            return None
        first, last = (self.frame_at(moment) for moment in (self.start or Moment(0, None), self.end))
        return max(-(-(last - first) // self.every), 0)

    def frame_at(self, moment):
        """The first frame that has `reached` a Moment, if all take equally long; None is the end"""
        if moment is None:
            return self.total
        frame = math.ceil(moment.seconds * self.fps - 1e-6) if moment.frame is None else moment.frame
        return min(frame, self.total)


def reached(moment, index, seconds):
    """Whether a frame is at a Moment or behind it; rounded clocks of films are off by less than a millisecond"""
    return index >= moment.frame if moment.seconds is None else seconds >= moment.seconds - 1e-3


class PictureFolder(Video):
    """Pictures of a folder; their sizes may differ."""

    def __init__(self, path, limits, fps):
        names = [p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
        if not names:
            raise ValueError(f"{path}: no frames in this folder ({' '.join(PICTURES)}).\n  Name the folder that holds "
                             "the pictures themselves; folders within it are not looked at")
        self.files = sorted(names, key=natural)
        super().__init__(str(path), limits, fps or FOLDER_FPS, len(names))

    def moments(self):
        for index, file in enumerate(self.files):
            yield index, index / self.fps, lambda file=file, index=index: read_picture(file, f" (frame {index})")


class FilmFile(Video):
    """A film as OpenCV's FFmpeg reads it; turned upright where a phone has noted how it was held."""

    def __init__(self, path, limits, fps):
        check_film(path)
        self.path = path
        film = self.open()
        said, total = film.get(cv2.CAP_PROP_FPS), film.get(cv2.CAP_PROP_FRAME_COUNT)
        film.release()
        plausible = PLAUSIBLE_FPS[0] <= said <= PLAUSIBLE_FPS[1]
        known = plausible and 0 < total < 1e9
        super().__init__(str(path), limits, fps or (said if plausible else UNKNOWN_FPS), int(total) if known else None)

    def open(self):
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            # The absolute name cannot be taken for an address; this backend does not look for numbered pictures.
            film = cv2.VideoCapture(str(self.path.absolute()), cv2.CAP_FFMPEG)
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not film.isOpened():
            raise ValueError(f"{self.path} cannot be read as a film: its beginning or end is missing, or OpenCV here "
                             f"lacks its codec.\n  Copy it again. {CONVERT.format(self.path)}")
        check_pixels(film, self.path)
        return film

    def moments(self):
        film, index, last, gap = self.open(), -1, 0.0, (0.0, 0)
        try:
            while film.grab():
                index += 1
                seconds = film.get(cv2.CAP_PROP_POS_MSEC) / 1000
                gap = max(gap, (seconds - last, index))
                last = seconds = max(seconds, last)
                yield index, seconds, lambda index=index: retrieve(film, f"{self.path}, frame {index}")
        finally:
            film.release()
        self.check_end(index + 1, last, gap)

    def check_end(self, count, last, gap):
        """Frames that were read, the time of the last one, (the longest pause, the frame after it)"""
        wanted = not self.end or not reached(self.end, count, last + 1 / self.fps)      # what comes next
        if self.total is None or count in (0, self.total) or count > self.total or not wanted:
            return
        missing, length = self.total - count, last + 1 / self.fps
        if self.total / self.fps - length > max(3 / self.fps, 0.25):
            raise ValueError(f"{self.path} breaks off after frame {count - 1} ({last:.2f} s): {missing} of its "
                             f"{self.total} frames cannot be read.\n  Copy the file again, or set --end {count}f")
        log.warning("%s: %d of %d frames could not be read; the longest pause lies before frame %d (%.2f s)",
                    self.path, missing, self.total, gap[1], gap[0])


class Camera(Video):
    """A camera, live. Frames that come while nobody asks are dropped by its driver."""
    endless = True

    def __init__(self, number, limits, fps):
        self.number = number
        super().__init__(f"camera {number}", limits, fps or UNKNOWN_FPS, None)

    def moments(self):
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        film = cv2.VideoCapture(self.number)
        cv2.utils.logging.setLogLevel(level)
        if not film.isOpened():
            raise ValueError(f"{self.name} cannot be opened.\n  Check that it is plugged in, that no other program "
                             "uses it and that you may read it (/dev/video*); or name a file")
        try:
            check_pixels(film, self.name)
            started = cv2.getTickCount()
            for index in range(2 ** 62):
                if not film.grab():
                    raise ValueError(f"{self.name}: no picture after frame {index - 1}.\n  Check its cable")
                seconds = (cv2.getTickCount() - started) / cv2.getTickFrequency()
                yield index, seconds, lambda index=index: retrieve(film, f"{self.name}, frame {index}")
        finally:
            film.release()


def retrieve(film, where):
    """The frame that was grabbed last  ->  (H, W, 3) uint8 RGB"""
    good, image = film.retrieve()
    if not good or image is None or image.dtype != np.uint8:
        raise ValueError(f"{where} cannot be decoded.\n  What came before it is kept. Copy the file again")
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


def check_pixels(film, name):
    """ValueError for frames that are absurdly large: they are not decoded."""
    rows, cols = film.get(cv2.CAP_PROP_FRAME_HEIGHT), film.get(cv2.CAP_PROP_FRAME_WIDTH)
    if rows * cols > MAX_PIXELS:
        film.release()
        raise ValueError(f"{name} has frames of {rows:.0f} x {cols:.0f} pixels, more than {MAX_PIXELS}.\n"
                         "  Make them smaller, for example: ffmpeg -i FILM -vf scale=1920:-2 smaller.mp4")


def check_film(path):
    """ValueError unless the file begins as a film: FFmpeg also follows play lists, which name other files."""
    with open(path, "rb") as file:
        start = file.read(12)
    if not start:
        raise ValueError(f"{path} is empty: no frame is in it.\n  Copy it again")
    known = (start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
             or start[:4] == b"RIFF" and start[8:] == b"AVI " or start[:4] == b"\x1aE\xdf\xa3")
    if not known:
        what = "is a picture" if path.suffix.lower() in PICTURES else "does not begin as a film"
        raise ValueError(f"{path} {what}; films are {' '.join(FILMS)}, pictures are given as their folder.\n  "
                         + CONVERT.format(path))


# -- what users of Python have  ->  Frames ----------------------------------------------------------------------------

def as_frames(video):
    """A path, a camera's number, a Video, or images or Frames in any iterable, array or tensor  ->  Frames"""
    if isinstance(video, str | Path | int):
        video = open_video(video)
    if isinstance(video, Video):
        return video
    return (image if isinstance(image, Frame) else Frame(index, None, as_picture(image, f"frame {index}"))
            for index, image in enumerate(video))


def clips_of(frames, length):
    """Frames  ->  lists of `length` of them, the last one perhaps shorter

    Where a frame cannot be read, those before it still come; then the error goes up.
    """
    clip, failure = [], None
    try:
        for frame in frames:
            clip.append(frame)
            if len(clip) == length:
                yield clip
                clip = []
    except (ValueError, OSError) as error:
        failure = error
    if clip:
        yield clip
    if failure:
        raise failure
