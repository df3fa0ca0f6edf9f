"""Films, folders and cameras: the frames that players show, with their times, and what is said of broken ones."""
import gc
import itertools
import logging
import os
import re
import struct
from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders import images as image_file
from dataloaders.own import film as film_file
from dataloaders.own.video import Frame, as_frames, clips_of, open_video
from utils.pictures.film import Film

FILMS = [("film.mp4", "mp4v"), ("film.avi", "MJPG"), ("film.webm", "VP80")]
SIZE, FPS = (48, 64), 10


def pictures(count=12, size=SIZE):
    """Frame t is grey 20 t, its left upper quarter red: (T, H, W, 3) uint8 RGB"""
    frames = np.empty((count, *size, 3), np.uint8)
    frames[:] = 20 * np.arange(count, dtype=np.uint8)[:, None, None, None]
    frames[:, :size[0] // 2, :size[1] // 2] = (220, 30, 20)
    return frames


def number_of(image):
    """Which of `pictures` an image shows, whatever a codec made of it"""
    return round(float(image[-8:, -8:].mean()) / 20)


def write_film(path, codec, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), FPS, frames.shape[2:0:-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def encode(path, codec, frames, rate=FPS, container=None, sound=0, **options):
    """A film as PyAV writes it, with so many seconds of silence"""
    with av.open(str(path), "w", options=container or {}) as file:
        film = file.add_stream(codec, rate=rate, options=options)
        film.height, film.width, film.pix_fmt = *frames[0].shape[:2], "yuv420p"
        streams = [film]
        if sound:
            streams.append(file.add_stream("pcm_s16le", rate=8000))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * sound), np.int16), format="s16", layout="mono")
            silence.rate = 8000
        for picture in frames:
            file.mux(film.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for coded in ([streams[1].encode(silence)] if sound else []) + [stream.encode() for stream in streams]:
            file.mux(coded)
    return path


def write_folder(path, frames, name="frame_{}.png"):
    path.mkdir()
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(path / name.format(t))
    return path


def numbers(video):
    return [(frame.index, number_of(frame.image)) for frame in video]


@pytest.mark.parametrize(("name", "codec"), FILMS)
def test_a_film_gives_all_frames_in_rgb_with_their_times(tmp_path, name, codec):
    video = open_video(write_film(tmp_path / name, codec, pictures()))
    frames = list(video)
    assert numbers(frames) == [(t, t) for t in range(12)] and video.expected == video.total == 12
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) / FPS, atol=2e-3)
    assert frames[3].image.shape == (*SIZE, 3) and frames[3].image.dtype == np.uint8
    assert np.abs(frames[3].image[4:16, 4:24].astype(int) - (220, 30, 20)).mean() < 12
    assert numbers(video) == numbers(frames)                      # it can be read again


SELECTIONS = [({}, slice(None)), ({"every": 5}, slice(None, None, 5)), ({"start": "3f", "end": "9f"}, slice(3, 9)),
              ({"start": 0.3, "end": "0.9s", "every": 2}, slice(3, 9, 2)), ({"start": "11f"}, slice(11, None)),
              ({"end": 99}, slice(None)), ({"end": "1f"}, slice(1)), ({"start": ".31"}, slice(4, None))]


@pytest.mark.parametrize(("settings", "expected"), SELECTIONS)
@pytest.mark.parametrize("kind", ["film", "folder"])
def test_every_start_and_end_choose_frames_as_a_slice_does(tmp_path, kind, settings, expected):
    source = (write_film(tmp_path / "film.avi", "MJPG", pictures()) if kind == "film" else
              write_folder(tmp_path / "frames", pictures()))
    video = open_video(source, fps=FPS, **settings)
    wanted = list(range(12))[expected]
    assert numbers(video) == [(t, t) for t in wanted] and video.expected == len(wanted)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    """frame_2 comes before frame_10; other files do not count, nor do hidden ones."""
    folder = write_folder(tmp_path / "frames", pictures())
    (folder / "notes.txt").write_text("frames")
    (folder / "._frame_0.png").write_bytes(b"what file managers leave")
    video = open_video(folder)
    assert numbers(video) == [(t, t) for t in range(12)] and video.fps == 6
    assert [frame.time for frame in video][:3] == [0, 1 / 6, 2 / 6]


def test_frames_of_a_folder_may_differ_in_size(tmp_path):
    folder = write_folder(tmp_path / "frames", pictures(2))
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(folder / "frame_2.png")              # and one is grey
    assert [frame.image.shape for frame in open_video(folder)] == [(*SIZE, 3), (*SIZE, 3), (10, 20, 3)]


def test_masks_beside_the_frames_are_no_frames(tmp_path, caplog):
    folder = write_folder(tmp_path / "frames", pictures(4), "{}.jpg")
    for name in ("0.png", "1.png", "2_mask.png"):
        Image.fromarray(np.eye(*SIZE, dtype=np.uint8)).save(folder / name)
    assert numbers(open_video(folder)) == [(t, t) for t in range(4)]
    assert "3 masks beside the frames, 0.png" in caplog.text


@pytest.mark.parametrize("names", [("frame_{}.jpg", "mask_{}.png"), ("{}.jpg", "{}.jpg.png"), ("{}.png", "{}_seg.png"),
                                   ("{}.jpg", "{}_MASK.jpg")])
def test_two_sorts_of_pictures_of_the_same_numbers_are_no_video(tmp_path, names):
    folder = write_folder(tmp_path / "frames", pictures(4), names[0])
    assert len(open_video(folder).files) == 4
    for t in range(4):
        Image.fromarray(np.eye(*SIZE, dtype=np.uint8)).save(folder / names[1].format(t))
    with pytest.raises(ValueError, match="two frames, or a frame and its mask.\n  Leave only the frames"):
        open_video(folder)


def test_two_frames_of_one_name_and_other_kinds_of_picture_are_named(tmp_path):
    folder = write_folder(tmp_path / "frames", pictures(2), "{}.jpg")
    Image.fromarray(pictures(1)[0]).save(folder / "1.jpeg")
    with pytest.raises(ValueError, match="1.jpe?g: 1.jpe?g has the same name"):
        open_video(folder)
    (tmp_path / "web").mkdir()
    Image.fromarray(pictures(1)[0]).save(tmp_path / "web" / "0.webp")
    with pytest.raises(ValueError, match=r"no frames in this folder \(.jpg.*\n[^$]*\.webp"):
        open_video(tmp_path / "web")
    (tmp_path / "web" / "0.webp").rename(tmp_path / "web" / "0.jpg")
    with pytest.raises(ValueError, match=r"0.jpg is WebP.*\(frame 0\)"):
        list(open_video(tmp_path / "web"))


def test_raised_digits_in_names_are_no_numbers(tmp_path):
    folder = write_folder(tmp_path / "frames", pictures(3), "1\u00b2{}.png")
    assert [p.name for p in open_video(folder).files] == [f"1\u00b2{t}.png" for t in range(3)]


TURNS = {(1, 0, 0, 1): lambda a: a, (0, 1, -1, 0): lambda a: np.rot90(a, -1), (-1, 0, 0, -1): lambda a: np.rot90(a, 2),
         (0, -1, 1, 0): np.rot90, (-1, 0, 0, 1): np.fliplr, (1, 0, 0, -1): np.flipud,
         (0, 1, 1, 0): lambda a: a.swapaxes(0, 1), (0, -1, -1, 0): lambda a: np.rot90(a.swapaxes(0, 1), 2)}


@pytest.mark.parametrize("matrix", TURNS)
def test_films_of_turned_phones_stand_upright(tmp_path, matrix):
    """The note of a phone that was held turned, or of a camera that mirrors: the matrix of the track header."""
    path = write_film(tmp_path / "film.mp4", "mp4v", pictures(3))
    plain, data = next(iter(open_video(path))).image, bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = (n << 16 for n in matrix)
    data[place:place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert np.array_equal(next(iter(open_video(path))).image, TURNS[matrix](plain))


def test_frames_have_their_own_times(tmp_path):
    """A slide show; --start and --end go by them, and a film whose clock is wrong follows --fps."""
    with Film(tmp_path / "slides", fps=2) as film:
        film.add(pictures(4), [0, 2, 4, 4.5])
    assert [round(frame.time, 3) for frame in open_video(film.path)] == [0, 2, 4, 4.5]
    assert [frame.index for frame in open_video(film.path, start=1.5, end="4.2s")] == [1, 2]
    assert [frame.time for frame in open_video(film.path, fps=10)] == [0, 0.1, 0.2, 0.3]


def test_what_an_edit_list_hides_is_not_shown(tmp_path, caplog):
    """Films that were trimmed without coding them again start before their first frame; that is no damage."""
    with Film(tmp_path / "whole", fps=10) as film:
        film.add(pictures())
    data = bytearray(film.path.read_bytes())
    place = data.index(b"elst") + 12
    length, begin = struct.unpack_from(">Ii", data, place)
    ticks = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    struct.pack_into(">Ii", data, place, length * 8 // 12, begin + ticks * 4 // 10)
    (tmp_path / "trimmed.mp4").write_bytes(data)
    frames = list(open_video(tmp_path / "trimmed.mp4"))
    assert [(f.index, round(f.time, 3), number_of(f.image)) for f in frames] == [(t, t / 10, t + 4) for t in range(8)]
    assert not caplog.text


def test_sound_may_last_longer_than_the_pictures(tmp_path):
    encode(tmp_path / "long.mkv", "mpeg4", pictures(), sound=9)
    with av.open(str(tmp_path / "long.mkv")) as file:
        assert file.duration / av.time_base == pytest.approx(9, abs=0.1)
    assert numbers(open_video(tmp_path / "long.mkv")) == [(t, t) for t in range(12)]


def test_interlaced_films_are_shown_in_whole_pictures(tmp_path):
    """Every other line shows a bar one moment later: in the picture of one moment its sides are straight."""
    shown = np.zeros((6, 96, 160, 3), np.uint8)
    for t, field in itertools.product(range(6), (0, 1)):
        left = 20 + 12 * t + 6 * field
        shown[t, field::2, left:left + 40] = 220
    encode(tmp_path / "camcorder.mp4", "libx264", shown, 25, **{"x264-params": "tff=1", "crf": "5", "preset": "fast"})
    frames = list(open_video(tmp_path / "camcorder.mp4"))
    assert [frame.index for frame in frames] == list(range(6))
    for t, frame in enumerate(frames):
        rows = frame.image[8:-8, :, 0].astype(int)
        assert np.abs(np.diff(rows, axis=0)).mean() < 2                # 16 with the lines of two moments
        sides = (rows.mean(axis=0) > 110).nonzero()[0][[0, -1]] - (20 + 12 * t, 59 + 12 * t)
        assert min(np.abs(sides - moment).max() for moment in (0, 6)) <= 1


def test_an_interlaced_film_may_change_its_size(tmp_path):
    """As recordings of television do, from one programme to the next."""
    for number, size in enumerate((SIZE, (32, 48))):
        encode(tmp_path / f"{number}.ts", "mpeg2video", pictures(5, size), 25, flags="+ildct+ilme", top="1")
    (tmp_path / "both.ts").write_bytes(b"".join((tmp_path / f"{number}.ts").read_bytes() for number in (0, 1)))
    shapes = [frame.image.shape[:2] for frame in open_video(tmp_path / "both.ts")]
    assert len(shapes) >= 9 and shapes[:4] == [SIZE] * 4 and shapes[-5:] == [(32, 48)] * 5


def test_a_film_that_starts_late_does_not_break_off(tmp_path):
    """Matroska counts the length of a track from the file's beginning, not from its first picture."""
    with av.open(str(tmp_path / "late.mkv"), "w") as file:
        film = file.add_stream("mpeg4", rate=FPS)
        film.height, film.width, film.pix_fmt = *SIZE, "yuv420p"
        for t, picture in enumerate(pictures()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = t + 100, Fraction(1, FPS)
            file.mux(film.encode(frame))
        file.mux(film.encode())
    frames = list(open_video(tmp_path / "late.mkv"))
    assert [round(frame.time, 2) for frame in frames] == [t / FPS for t in range(12)]


def test_pixels_that_are_not_square_are_told(tmp_path, caplog):
    encode(tmp_path / "tv.mp4", "libx264", pictures(2), 25, **{"x264-params": "sar=16/11"})
    assert next(iter(open_video(tmp_path / "tv.mp4"))).image.shape == (*SIZE, 3)
    assert "not square (16:11)" in caplog.text


@pytest.mark.parametrize("name", [b"caf\xe9.avi", b"run:1.avi", "\u72d7.avi".encode(), b"%03d.avi"])
def test_any_name_that_a_disk_takes_can_be_read(tmp_path, monkeypatch, name):
    """Not UTF-8, a colon, a pattern: no letter means anything to FFmpeg."""
    monkeypatch.chdir(tmp_path)
    write_film(tmp_path / "film.avi", "MJPG", pictures(3)).rename(os.fsdecode(name))
    assert numbers(open_video(os.fsdecode(name))) == [(t, t) for t in range(3)]


def test_a_broken_frame_of_a_folder_is_named_and_those_before_it_come(tmp_path):
    folder = write_folder(tmp_path / "frames", pictures(8))
    (folder / "frame_5.png").write_bytes((folder / "frame_5.png").read_bytes()[:60])
    seen = []
    with pytest.raises(ValueError, match=r"frame_5\.png .*\(frame 5\)"):
        for clip in clips_of(open_video(folder), 3):
            seen.append([frame.index for frame in clip])
    assert seen == [[0, 1, 2], [3, 4]]
    assert numbers(open_video(folder, end="5f")) == [(t, t) for t in range(5)]


@pytest.mark.parametrize("damage", ["cut", "zeros"])
@pytest.mark.parametrize(("name", "codec"), [*FILMS[1:], ("film.mp4", None)])
def test_a_film_that_breaks_off_says_where_and_prints_nothing_else(tmp_path, capfd, name, codec, damage):
    """Cut off, or filled with zeros as interrupted downloads leave it"""
    frames, path = np.concatenate([pictures()] * 3), tmp_path / name
    if codec:
        write_film(path, codec, frames)
    else:
        with Film(path, FPS) as film:
            film.add(frames)
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) * 5 // 8] + bytes(len(whole) * 3 // 8 if damage == "zeros" else 0))
    capfd.readouterr()                                            # what OpenCV said when it wrote
    seen = []
    with pytest.raises(ValueError, match=r"breaks off after frame .*\n.*--end") as error:
        for frame in open_video(path):
            seen.append(frame)
    last = len(seen) - 1
    assert 1 < last < 30 and f"after frame {last} " in str(error.value) and f"--end {last + 1}f" in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert len(list(open_video(path, end=f"{last + 1}f"))) == last + 1


def test_damage_in_the_middle_of_a_film_is_reported(tmp_path, caplog):
    """The decoder goes on behind it."""
    frames = np.random.default_rng(0).integers(0, 255, (40, *SIZE, 3), np.uint8)
    with Film(tmp_path / "film", FPS) as film:
        film.add(frames)
    data = bytearray(film.path.read_bytes())
    data[len(data) // 2:len(data) // 2 + 4000] = bytes(4000)
    film.path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        found = list(open_video(film.path))
    assert 30 < len(found) <= 40 and found[-1].time == pytest.approx(3.9)
    [first] = re.findall(r"damaged at \d+ places, first at frame (\d+)", caplog.text)
    assert 15 <= int(first) <= 25


def test_a_film_without_a_length_is_read_to_its_end(tmp_path):
    """As browsers record them, which cannot go back to write it into the beginning."""
    encode(tmp_path / "live.mkv", "mpeg4", pictures(4), container={"live": "1"})
    video = open_video(tmp_path / "live.mkv", start=0.15)
    assert video.total is None and video.expected is None
    assert [(f.index, number_of(f.image)) for f in video] == [(2, 2), (3, 3)]


def test_a_clock_without_sense_is_not_taken_for_frames_per_second():
    def said(*rates):
        return film_file.fps_of(SimpleNamespace(average_rate=rates[0], guessed_rate=rates[1]))
    assert said(Fraction(1000), None) == said(None, Fraction(0)) == 25 and said(Fraction(1000), Fraction(24)) == 24
    assert said(Fraction(30000, 1001), Fraction(30)) == pytest.approx(29.97, abs=0.001)


def test_a_missing_codec_is_named(tmp_path):
    path = write_film(tmp_path / "film.mp4", "mp4v", pictures(3))
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"zz99").replace(b"esds", b"free"))
    with pytest.raises(ValueError, match="lacks the codec.*\n.*ffmpeg -i .*film.mp4"):
        open_video(path)
    path = encode(tmp_path / "film.mkv", "mpeg4", pictures(3))
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_UNKNOWN/X/ASP"))
    with pytest.raises(ValueError, match="codec.*\n.*ffmpeg -i .*film.mkv"):
        open_video(path)


class FakeCamera:
    """OpenCV's reader of a camera that gives so many pictures."""

    def __init__(self, count, opened=True, size=SIZE):
        self.count, self.position, self.opened, self.size, self.released = count, -1, opened, size, False

    def isOpened(self):
        return self.opened

    def get(self, key):
        return self.size[key != cv2.CAP_PROP_FRAME_HEIGHT]

    def grab(self):
        self.position += 1
        return self.position < self.count

    def retrieve(self):
        return True, np.full((*self.size, 3), self.position % 256, np.uint8)

    def release(self):
        self.released = True


def test_a_camera_goes_on_until_its_end_time(monkeypatch):
    reader = FakeCamera(500)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: reader if number == 3 else None)
    video = open_video("3", every=2, end="9f")
    assert [frame.index for frame in video] == [0, 2, 4, 6, 8] and video.endless and video.expected is None
    gc.collect()
    assert reader.released
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: FakeCamera(0, opened=False))
    with pytest.raises(ValueError, match="camera 3 cannot be opened.\n  Check"):
        list(open_video("3"))
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: FakeCamera(4))
    with pytest.raises(ValueError, match="camera 3: no picture after frame 3"):
        list(open_video(3))
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: FakeCamera(4, size=(10_000, 10_000)))
    with pytest.raises(ValueError, match="camera 3 has frames of 10000 x 10000"):
        list(open_video(3))


def test_videos_without_a_frame_are_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.mp4").touch()
    film = write_film(tmp_path / "film.avi", "MJPG", pictures(4))
    none = write_film(tmp_path / "none.avi", "MJPG", pictures(1)[:0])
    for source, settings, reason in (
            ("empty", {}, "no frames in this folder"), ("empty.mp4", {}, "empty.mp4 cannot be read as a film"),
            (none.name, {}, "none.avi"),
            (film.name, {"start": 5}, r"between --start and --end: it has 4"),
            (film.name, {"start": "3f", "end": "2f"}, r"no frame between"), ("gone.mp4", {}, "no file or folder"),
            (film.name, {"every": 0}, "--every 0"), (film.name, {"end": "-3"}, "--end: cannot read '-3'"),
            (film.name, {"start": "1:20"}, "--start: cannot read"), (film.name, {"fps": 0}, "--fps 0")):
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            list(open_video(tmp_path / source, **settings))


def test_files_that_are_no_films_are_refused(tmp_path, capfd):
    """A play list names other files, and FFmpeg would follow it."""
    write_film(tmp_path / "other.avi", "MJPG", pictures(2))
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nother.avi\n")
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(50))
    capfd.readouterr()
    for name, reason in (("list.mp4", "cannot be read as a film"), ("a.png", "is a picture"),
                         ("cut.mp4", "cannot be read as a film")):
        with pytest.raises(ValueError, match=reason):
            open_video(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_absurdly_large_frames_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    film = write_film(tmp_path / "film.avi", "MJPG", pictures(2))
    monkeypatch.setattr(film_file, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    for path in (film, write_film(tmp_path / "film.mp4", "mp4v", pictures(2))):
        with pytest.raises(ValueError, match="frames of more than 3071 pixels"):
            open_video(path)
    folder = write_folder(tmp_path / "frames", pictures(1))
    monkeypatch.setattr(image_file, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    with pytest.raises(ValueError, match="has 48 x 64 pixels"):
        list(open_video(folder))


@pytest.mark.parametrize("how", ["arrays", "array", "tensors", "tensor", "floats", "pil", "frames"])
def test_images_of_any_kind_are_frames(how):
    frames = pictures(3)
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)
    given = {"arrays": iter(frames), "array": frames, "tensors": list(tensor), "tensor": tensor,
             "floats": tensor.float() / 255, "pil": map(Image.fromarray, frames),
             "frames": [Frame(t, None, frame) for t, frame in enumerate(frames)]}[how]
    found = list(as_frames(given))
    assert [frame.index for frame in found] == [0, 1, 2]
    assert all(np.array_equal(frame.image, picture) for frame, picture in zip(found, frames, strict=True))


@pytest.mark.parametrize("picture", [
    pictures(1)[0], torch.zeros(3, *SIZE), np.zeros(SIZE), Image.fromarray(pictures(1)[0])], ids=type)
def test_one_picture_is_no_video(picture):
    with pytest.raises(ValueError, match=r"not the frames of a video.\n .* \[picture\]"):
        as_frames(picture)
