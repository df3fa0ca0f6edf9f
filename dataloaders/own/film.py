"""A film file, decoded: the frames that players show, with their times. Part of video.py.

In: a path of anybody's file. Out: pictures in RGB, upright, whole where the film mixes the lines of two moments.
"""
import logging
from contextlib import contextmanager

import av
import numpy as np

from dataloaders.images import MAX_PIXELS

log = logging.getLogger(__name__)

FILMS = (".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv", ".mpg", ".mts")
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg"       # no play lists, which name other files
MOST_BOXES = 100_000
UNKNOWN_FPS = 25                     # some films do not say how fast they are
PLAUSIBLE_FPS = (0.1, 240)           # films made by browsers give the ticks of their clock instead, 1000 per second
CONVERT = "Convert it, for example: ffmpeg -i {} converted.mp4"


@contextmanager
def opened(path):
    """Around reading: yields (container of PyAV, its video stream); ValueError for what is no film or too large

    The file is handed over open, so that no letter of its name has a meaning for FFmpeg.
    """
    with open(path, "rb") as file:
        try:
            film = av.open(file, options={"max_pixels": str(MAX_PIXELS)},
                           container_options={"format_whitelist": FORMATS, "protocol_whitelist": "file"})
        except (av.FFmpegError, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read as a film: it is of another kind, or its beginning or end is "
                             f"missing ({getattr(error, 'strerror', error)}).\n  Films are {' '.join(FILMS)}. Copy it "
                             f"again. {CONVERT.format(path)}") from None
        with film:
            yield film, pictures_of(film, path)


def pictures_of(film, path):
    """An open film  ->  its video stream; a sleeve's picture beside music is none"""
    streams = [s for s in film.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        others = ", ".join(sorted({s.type for s in film.streams}))
        raise ValueError(f"{path} holds no video" + (f", only {others}.\n  Name a film" if others else
                         f" of a codec that PyAV here knows.\n  {CONVERT.format(path)}"))
    coded = streams[0].codec_context
    if coded is None:
        raise ValueError(f"{path}: PyAV here lacks the codec of this film, or its index is cut off.\n  "
                         + CONVERT.format(path))
    if not 0 < coded.width * coded.height <= MAX_PIXELS:
        raise ValueError(f"{path} has frames of more than {MAX_PIXELS} pixels, or damaged ones.\n  Make them smaller, "
                         f"for example: ffmpeg -i {path} -vf scale=1920:-2 smaller.mp4")
    return streams[0]


def fps_of(stream):
    """Frames per second as the film says, UNKNOWN_FPS where it says nothing that can be true"""
    said = [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
    return next((fps for fps in said if PLAUSIBLE_FPS[0] <= fps <= PLAUSIBLE_FPS[1]), UNKNOWN_FPS)


def note_shape(stream, path):
    """A word on pixels that are not square: players stretch them, masks keep the film's own pixels"""
    shape = stream.sample_aspect_ratio
    if shape and shape != 1:
        log.warning("%s: its pixels are not square (%s:%s), and players stretch them; masks and overlay have the "
                    "film's own", path, shape.numerator, shape.denominator)


def seconds_of(film, stream):
    """How long the pictures last, None if nothing says it; the whole file may last longer, by its sound"""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    parts = stream.metadata.get("DURATION", "").split(":")                      # Matroska: 00:00:03.128000000
    try:
        hours, minutes, seconds = map(float, parts)
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds - (film.start_time or 0) / av.time_base       # said from 0 on


def pictures(film, stream, damaged):
    """An open film  ->  its pictures (av.VideoFrame) as they are shown; damaged: a list that gets the number of the
    picture at every place where one is broken or missing"""
    graph, of, count, packets = None, None, 0, film.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            found = packet.decode() if packet else []
        except (av.FFmpegError, OSError):
            damaged.append(count)
            continue
        for picture in found:
            damaged.extend([count] * picture.is_corrupt)
            count += 1
            kind = picture.width, picture.height, picture.format.name
            if graph and of != kind:                           # films may change within
                yield from passed(graph, None)
                graph = None
            if graph is None and picture.interlaced_frame:
                graph, of = deinterlacer(picture, stream), kind
            yield from [picture] if graph is None else passed(graph, picture)
        if packet is None:
            break
    if graph:
        yield from passed(graph, None)


def deinterlacer(picture, stream):
    """Camcorders and television put the lines of two moments into one picture; this keeps the first, as players do"""
    graph = av.filter.Graph()
    ends = (graph.add_buffer(template=stream, width=picture.width, height=picture.height, format=picture.format),
            graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.link_nodes(*ends).configure()
    return graph


def passed(graph, picture):
    """A picture, or None at the end, put into a filter  ->  those that come out, which may lag behind by one"""
    graph.push(picture)
    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def upright(picture):
    """av.VideoFrame  ->  (H, W, 3) uint8 RGB, turned and mirrored as the film notes that the camera was held"""
    image, note = picture.to_ndarray(format="rgb24"), picture.side_data.get("DISPLAYMATRIX")
    if note is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(note), np.int32)[:5]
    x, y = (a, d) if abs(a) >= abs(b) else (c, b)              # where columns and rows go
    image = image if abs(a) >= abs(b) else image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[::-1 if y < 0 else 1, ::-1 if x < 0 else 1])


def cut_short(path):
    """Whether the end of a file is missing: its outermost boxes (MP4), elements (Matroska) or lists (AVI) are longer"""
    place, length = 0, path.stat().st_size
    with open(path, "rb") as file:
        for _ in range(MOST_BOXES):
            file.seek(place)
            size = size_of(file.read(24))
            if not size:
                break
            place += size
    return place > length


def size_of(start):
    """The first bytes of a box, element or list  ->  its length; 0 for what is not known or ends with the file"""
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"sidx", b"styp", b"uuid"):
        size = int.from_bytes(start[:4])
        return int.from_bytes(start[8:16]) if size == 1 else size
    if start[:4] in (b"\x1aE\xdf\xa3", b"\x18S\x80g"):                         # Matroska's head, its segment
        width = 9 - start[4].bit_length()
        size = int.from_bytes(start[4:4 + width]) - (1 << 7 * width)
        return 0 if size == (1 << 7 * width) - 1 else 4 + width + size          # all ones: a live recording
    return 8 + int.from_bytes(start[4:8], "little") if start[:4] == b"RIFF" else 0


def picture_at(path, seconds):
    """What players show at a moment, from the beginning of the film  ->  (H, W, 3) uint8 RGB"""
    for jump in (True, False):                                 # some containers cannot jump, or land too late
        with opened(path) as (film, stream):
            begin, shown = (film.start_time or 0) / av.time_base, None
            try:
                if jump:
                    film.seek(round((begin + seconds) * av.time_base))
                for picture in pictures(film, stream, []):
                    if shown and (picture.time or 0) - begin > seconds + 1e-3:
                        break
                    shown = picture
            except (av.FFmpegError, OSError):
                continue
            if shown and (not jump or (shown.time or 0) - begin <= seconds + 1e-3):
                return upright(shown)
    raise ValueError(f"{path}: nothing can be read at {seconds:.2f} s.\n  Choose another moment")
