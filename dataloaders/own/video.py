"""Video from anywhere, frame after frame: a film, a folder of pictures or a camera.

In: a path or a camera's number, and which frames are wanted. Out: Frames as players show them, RGB and upright, one at
a time: how long the video is is no matter of memory. What cannot be read stops with the frame's number; what came
before it stays.
"""
import itertools
import logging
import math
import re
import time
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dataloaders.images import MAX_PIXELS, PICTURES, as_picture, read_image
from dataloaders.own.film import (
    CONVERT,
    FILMS,
    PLAUSIBLE_FPS,
    UNKNOWN_FPS,
    cut_short,
    fps_of,
    note_shape,
    opened,
    pictures,
    seconds_of,
    upright,
)
from dataloaders.own.folder import OTHER_PICTURES, pictures_in

log = logging.getLogger(__name__)

MOST_SORTS = 50                      # of names in a folder that are compared
FOLDER_FPS = 6                       # the annotated frames of YouTube-VIS


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

    source: a film (FILMS), a folder of JPEGs or PNGs in the order of their names (2 before
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
    """Pictures of a folder; their sizes may differ. Masks that lie beside them are no frames."""

    def __init__(self, path, limits, fps):
        self.files, masks = pictures_in(path)
        self.files = [p for p in self.files if p.suffix.lower() in PICTURES]
        if not self.files:
            raise ValueError(f"{path}: no frames in this folder ({' '.join(PICTURES)}).\n  Name the folder that holds "
                             "the pictures themselves; folders within it are not looked at, and pictures of other "
                             f"kinds ({' '.join(OTHER_PICTURES)}) are to be saved as one of these")
        refuse_two_sorts(self.files, path)
        if masks:
            log.warning("%s: %d masks beside the frames, %s and so on, are no frames", path, len(masks), masks[0].name)
        super().__init__(str(path), limits, fps or FOLDER_FPS, len(self.files))

    def moments(self):
        for index, file in enumerate(self.files):
            yield index, index / self.fps, lambda file=file, index=index: self.read(file, index)

    def read(self, file, index):
        try:
            return read_image(file, upright=True)
        except ValueError as error:
            what, _, how = str(error).partition("\n")
            raise ValueError(f"{what.removesuffix('.')} (frame {index}).\n{how}") from None


def refuse_two_sorts(files, path):
    """ValueError where pictures of two sorts of names have the same numbers, as frame_1.jpg and mask_1.png"""
    sorts = {}
    for file in files:
        sorts.setdefault(re.sub("[0-9]+", "0", file.name.lower()), {})[tuple(re.findall("[0-9]+", file.stem))] = file
    for one, other in itertools.combinations(itertools.islice(sorts.values(), MOST_SORTS), 2):
        both = [number for number in one if number and number in other]
        if 2 * len(both) > min(len(one), len(other)):
            names = one[both[0]].name, other[both[0]].name
            raise ValueError(f"{path}: are {names[0]} and {names[1]} two frames, or a frame and its mask?\n"
                             "  Leave only the frames in the folder")


class FilmFile(Video):
    """A film as PyAV (FFmpeg) decodes it; total is about right. fps: for a film whose own clock is wrong."""

    def __init__(self, path, limits, fps):
        if path.suffix.lower() in PICTURES + OTHER_PICTURES:
            raise ValueError(f"{path} is a picture; films are {' '.join(FILMS)}, pictures are given as their folder.\n"
                             "  Name the folder that it lies in")
        self.path, self.clock = path, fps
        with opened(path) as (film, stream):
            said, self.seconds, total = fps_of(stream), seconds_of(film, stream), stream.frames
            note_shape(stream, path)
        if self.seconds and not total:
            total = round(self.seconds * said)
        super().__init__(str(path), limits, fps or said, total or None)

    def moments(self):
        damaged, index, last, shown = [], -1, 0.0, 0.0
        with opened(self.path) as (film, stream):
            begin = (film.start_time or 0) / 1e6
            for index, picture in enumerate(pictures(film, stream, damaged)):
                own = index / self.fps if picture.time is None else picture.time - begin
                last = max(last, index / self.clock if self.clock else own)
                shown = own + (float(picture.duration * picture.time_base) or 1 / self.fps)       # up to here
                yield index, last, lambda picture=picture: upright(picture)
        self.check_end(index + 1, last, shown, damaged, stream.codec.name)

    def check_end(self, count, last, shown, damaged, codec):
        """After the last picture: its number, its time, when it ends, where pictures were broken"""
        if not count:
            raise ValueError(f"{self.path}: none of its pictures can be decoded (codec {codec})"
                             + "; its end is missing" * cut_short(self.path) + ".\n  Copy the file again. "
                             + CONVERT.format(self.path))
        wanted = not self.end or not reached(self.end, count, last + 1 / self.fps)      # what would come next
        short = self.seconds and self.seconds - shown > max(3 / self.fps, 0.25)
        if count and wanted and (short or cut_short(self.path)):
            raise ValueError(f"{self.path} breaks off after frame {count - 1} ({last:.2f} s): the rest of the file is "
                             f"missing or damaged.\n  Copy the file again, or set --end {count}f")
        damaged = [number for number in damaged if wanted or number < count]
        if damaged:
            log.warning("%s: damaged at %d places, first at frame %d; its masks may be wrong there", self.path,
                        len(damaged), damaged[0])


class Camera(Video):
    """A camera, live, as OpenCV reads it. Frames that come while nobody asks are dropped by its driver."""
    endless = True

    def __init__(self, number, limits, fps):
        self.number = number
        super().__init__(f"camera {number}", limits, fps or UNKNOWN_FPS, None)

    def moments(self):
        camera = cv2.VideoCapture(self.number)
        if not camera.isOpened():
            raise ValueError(f"{self.name} cannot be opened.\n  Check that it is plugged in, that no other program "
                             "uses it and that you may read it (/dev/video*); or name a file")
        try:
            size = [camera.get(key) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)]
            if math.prod(size) > MAX_PIXELS:
                raise ValueError(f"{self.name} has frames of {size[0]:.0f} x {size[1]:.0f} pixels, more than "
                                 f"{MAX_PIXELS}.\n  Set it to smaller ones")
            started = time.monotonic()
            for index in itertools.count():
                if not camera.grab():
                    raise ValueError(f"{self.name}: no picture after frame {index - 1}.\n  Check its cable")
                yield index, time.monotonic() - started, lambda index=index: self.retrieve(camera, index)
        finally:
            camera.release()

    def retrieve(self, camera, index):
        good, image = camera.retrieve()
        if not good or image is None or image.dtype != np.uint8:
            raise ValueError(f"{self.name}, frame {index} cannot be decoded.\n  What came before it is kept")
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


# -- what users of Python have  ->  Frames ----------------------------------------------------------------------------

def as_frames(video):
    """A path, a camera's number, a Video, or images or Frames in any iterable, array or tensor  ->  Frames"""
    if isinstance(video, str | Path | int):
        video = open_video(video)
    if isinstance(video, Video):
        return video
    shape = getattr(video, "shape", getattr(video, "size", None))             # of an array, a tensor; of PIL's images
    if shape is not None and len(shape) != 4:
        raise ValueError(f"video: one array or picture of shape {tuple(shape)}, not the frames of a video.\n  Give "
                         "(T, H, W, 3), a tensor (T, 3, H, W), or a list of pictures: [picture]")
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
