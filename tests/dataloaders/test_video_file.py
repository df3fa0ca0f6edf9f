"""Films, folders and cameras: which frames come, upright and in their colours, and what is said of broken ones."""
import gc
import logging
import struct
import weakref

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders import images as image_file
from dataloaders.own import video as video_file
from dataloaders.own.video import Frame, as_frames, clips_of, open_video, parse_moment
from dataloaders.picture import read_picture

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
              ({"end": 99}, slice(None)), ({"end": "1f"}, slice(1)), ({"start": 0.31}, slice(4, None))]


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


def turned(path, quarter):
    """The same .mp4 with the note of a phone that was held turned, in the matrix of its track header."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[quarter]
    data[place:place + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("quarter", "red"), [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_films_of_turned_phones_stand_upright(tmp_path, quarter, red):
    """red: the corner to which the clockwise turn brings the left upper one"""
    video = open_video(turned(write_film(tmp_path / "film.mp4", "mp4v", pictures(3)), quarter))
    image = next(iter(video)).image
    assert image.shape == ((*SIZE, 3) if quarter == 180 else (*SIZE[::-1], 3))
    corners = {(y, x): image[y, x, 0] > 150 for y in (0, -1) for x in (0, -1)}
    assert corners == {corner: corner == red for corner in corners}


def test_phones_pictures_are_turned_and_may_have_more_behind_their_end(tmp_path):
    """EXIF says how the phone was held; a film may follow the picture; a small JPEG may lie in its header."""
    image, path = Image.fromarray(pictures(1)[0]), tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[274] = 6                                                 # to be turned clockwise by 90 degrees
    image.save(path, quality=95, exif=exif)
    assert read_picture(path).shape == (*SIZE[::-1], 3) and read_picture(path)[0, -1, 0] > 150
    path.write_bytes(path.read_bytes() + b"ftypmp42" * 500)
    assert read_picture(path).shape == (*SIZE[::-1], 3)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_truncated_picture_is_refused_even_with_a_whole_one_in_its_header(tmp_path, name):
    rng, small, path = np.random.default_rng(0), tmp_path / "small.jpg", tmp_path / name
    Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(small)
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    whole, inner = path.read_bytes(), small.read_bytes()
    if name == "a.jpg":
        whole = whole[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(inner)) + inner + whole[2:]
    path.write_bytes(whole[:-500])
    with pytest.raises(ValueError, match=r"a\.(jpg|png) is truncated"):
        read_picture(path)


def test_a_broken_frame_of_a_folder_is_named_and_those_before_it_come(tmp_path):
    folder = write_folder(tmp_path / "frames", pictures(8))
    (folder / "frame_5.png").write_bytes((folder / "frame_5.png").read_bytes()[:60])
    seen = []
    with pytest.raises(ValueError, match=r"frame_5\.png .*\(frame 5\)"):
        for clip in clips_of(open_video(folder), 3):
            seen.append([frame.index for frame in clip])
    assert seen == [[0, 1, 2], [3, 4]]
    assert numbers(open_video(folder, end="5f")) == [(t, t) for t in range(5)]


@pytest.mark.parametrize(("name", "codec"), FILMS[1:])
def test_a_film_that_breaks_off_says_where_and_prints_nothing_else(tmp_path, capfd, name, codec):
    path = write_film(tmp_path / name, codec, np.concatenate([pictures()] * 3))
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    capfd.readouterr()                                            # what OpenCV said when it wrote
    seen = []
    with pytest.raises(ValueError, match=r"breaks off after frame .* of its 36 frames .*\n.*--end") as error:
        for frame in open_video(path):
            seen.append(frame)
    last = len(seen) - 1
    assert 5 < last < 30 and f"after frame {last} " in str(error.value) and f"--end {last + 1}f" in str(error.value)
    assert len(list(open_video(path, end=f"{last + 1}f"))) == last + 1
    assert capfd.readouterr() == ("", "")


def test_frames_missing_in_the_middle_of_a_film_are_reported(tmp_path, monkeypatch, caplog):
    """A pause in which frames are missing: the decoder went on behind the damage."""
    times = [t / 10 for t in (*range(20), *range(23, 40))]
    monkeypatch.setattr(video_file.FilmFile, "open", lambda self: FakeFilm(times, total=40))
    path = tmp_path / "film.webm"
    path.write_bytes(b"\x1aE\xdf\xa3" + bytes(20))
    with caplog.at_level(logging.WARNING):
        assert [frame.index for frame in open_video(path)] == list(range(37))
    assert "3 of 40 frames could not be read" in caplog.text and "before frame 20 (0.40 s)" in caplog.text


class FakeFilm:
    """OpenCV's reader: frames at the given times, those in `broken` cannot be decoded."""
    live, most = weakref.WeakSet(), 0

    def __init__(self, times, total=0, fps=10.0, size=SIZE, broken=(), opened=True):
        self.times, self.position, self.broken, self.opened = times, -1, broken, opened
        self.values = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: total, cv2.CAP_PROP_FRAME_HEIGHT: size[0],
                       cv2.CAP_PROP_FRAME_WIDTH: size[1]}
        self.size, self.released = size, False

    def isOpened(self):
        return self.opened

    def get(self, key):
        return 1000 * self.times[self.position] if key == cv2.CAP_PROP_POS_MSEC else self.values[key]

    def grab(self):
        self.position += 1
        return self.position < len(self.times)

    def retrieve(self):
        return self.position not in self.broken, np.full((*self.size, 3), self.position % 256, np.uint8)

    def release(self):
        self.released = True


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file.FilmFile, "open", lambda self: FakeFilm([0, 0.1, 0.2], total=3, broken=(2,)))
    (tmp_path / "film.avi").write_bytes(b"RIFF0000AVI ")
    with pytest.raises(ValueError, match="film.avi, frame 2 cannot be decoded"):
        list(open_video(tmp_path / "film.avi"))
    assert len(list(open_video(tmp_path / "film.avi", every=3))) == 1       # what nobody asks for is not decoded


def test_a_film_that_does_not_know_its_speed_or_length_is_read_to_its_end(tmp_path, monkeypatch):
    """As browsers record them: the ticks of a clock instead of frames per second, and no length."""
    reader = FakeFilm([0, 0.03, 0.07, 0.1], total=-9e15, fps=1000.0)
    monkeypatch.setattr(video_file.FilmFile, "open", lambda self: reader)
    path = tmp_path / "film.webm"
    path.write_bytes(b"\x1aE\xdf\xa3" + bytes(20))
    video = open_video(path, start=0.05)
    assert video.fps == 25 and video.total is None and video.expected is None
    assert [(frame.index, frame.time) for frame in video] == [(2, 0.07), (3, 0.1)] and reader.released


def test_a_camera_goes_on_until_its_end_time(monkeypatch):
    reader = FakeFilm([0.0] * 500)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: reader if number == 3 else None)
    video = open_video("3", every=2, end="9f")
    assert [frame.index for frame in video] == [0, 2, 4, 6, 8] and video.endless and video.expected is None
    gc.collect()
    assert reader.released
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: FakeFilm([], opened=False))
    with pytest.raises(ValueError, match="camera 3 cannot be opened.\n  Check"):
        list(open_video("3"))
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: FakeFilm([0.0] * 4))
    with pytest.raises(ValueError, match="camera 3: no picture after frame 3"):
        list(open_video(3))


def test_videos_without_a_frame_are_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.mp4").touch()
    film = write_film(tmp_path / "film.avi", "MJPG", pictures(4))
    none = write_film(tmp_path / "none.avi", "MJPG", pictures(1)[:0])
    for source, settings, reason in (
            ("empty", {}, "no frames in this folder"), ("empty.mp4", {}, "is empty"), (none.name, {}, "none.avi"),
            (film.name, {"start": 5}, r"between --start and --end: it has 4"),
            (film.name, {"start": "3f", "end": "2f"}, r"no frame between"), ("gone.mp4", {}, "no file or folder"),
            (film.name, {"every": 0}, "--every 0"), (film.name, {"end": "-3"}, "--end: cannot read '-3'"),
            (film.name, {"start": "1:20"}, "--start: cannot read"), (film.name, {"fps": 0}, "--fps 0")):
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            list(open_video(tmp_path / source, **settings))


def test_files_that_are_no_films_are_refused_before_ffmpeg_sees_them(tmp_path, capfd):
    """A play list names other files, and FFmpeg would follow it."""
    write_film(tmp_path / "other.avi", "MJPG", pictures(2))
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nother.avi\n")
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(50))
    capfd.readouterr()
    for name, reason in (("list.mp4", "does not begin as a film"), ("a.png", "is a picture"),
                         ("cut.mp4", "cannot be read as a film")):
        with pytest.raises(ValueError, match=reason):
            open_video(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_absurdly_large_frames_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    film = write_film(tmp_path / "film.avi", "MJPG", pictures(2))
    monkeypatch.setattr(video_file, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    with pytest.raises(ValueError, match="frames of 48 x 64 pixels"):
        open_video(film)
    folder = write_folder(tmp_path / "frames", pictures(1))
    monkeypatch.setattr(image_file, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    with pytest.raises(ValueError, match="has 48 x 64 pixels"):
        list(open_video(folder))


@pytest.mark.parametrize(("text", "seconds", "frame"), [("12.5", 12.5, None), ("3s", 3, None), (7, 7, None),
                                                       ("300f", None, 300), (0, 0, None), (".5", 0.5, None)])
def test_moments_are_seconds_or_frames(text, seconds, frame):
    assert parse_moment(text, "--start") == (seconds, frame)


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
