"""Films: written a few frames at a time, read back, complete or not there."""
import cv2
import numpy as np
import pytest
from PIL import Image

from utils.pictures import film
from utils.pictures.film import Film, first_encoder


@pytest.fixture
def no_encoder(monkeypatch):
    first_encoder.cache_clear()
    monkeypatch.setattr(film, "CODECS", (("nope", ".mp4"),))
    yield
    first_encoder.cache_clear()


def moving_frames(count=10, size=(48, 64)):
    frames = np.full((count, *size, 3), 60, np.uint8)
    for t in range(count):
        frames[t, 10:30, 4 * t:4 * t + 15] = (250, 120, 0)
    return frames


def write(path, frames, at_once, fps=5):
    with Film(path, fps) as video:
        for first in range(0, len(frames), at_once):
            video.add(frames[first:first + at_once])
    return video.path


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
@pytest.mark.parametrize("at_once", [1, 4, 10])
def test_film_reads_back_and_nothing_is_printed(tmp_path, capfd, size, at_once):
    first_encoder.cache_clear()      # looking for an encoder is silent, too
    frames = moving_frames(10, size)
    path = write(tmp_path / "deep" / "film.mp4", frames, at_once)
    assert capfd.readouterr() == ("", "")
    assert path.parent == tmp_path / "deep" and path.stem == "film" and list(path.parent.iterdir()) == [path]
    reader, read = cv2.VideoCapture(str(path)), []
    while (entry := reader.read())[0]:
        read.append(entry[1][:size[0], :size[1], ::-1])
    assert len(read) == 10 and np.abs(np.stack(read).astype(int) - frames).mean() < 6


def test_the_encoder_is_looked_for_once(tmp_path, monkeypatch):
    first_encoder.cache_clear()
    looked, honest = [], film._reads_back
    monkeypatch.setattr(film, "_reads_back", lambda *arguments: looked.append(1) or honest(*arguments))
    for name in "ab":
        write(tmp_path / name, moving_frames(2), 1)
    assert 1 <= len(looked) <= len(film.CODECS)


def test_without_any_encoder_the_film_is_a_gif(tmp_path, no_encoder):
    path = write(tmp_path / "v1.2", moving_frames(4), 3)
    assert path.name == "v1.2.gif" and Image.open(path).n_frames == 4 and list(tmp_path.iterdir()) == [path]


def test_a_long_gif_is_cut_and_says_so(tmp_path, no_encoder, monkeypatch, caplog):
    monkeypatch.setattr(film, "GIF_FRAMES", 3)
    path = write(tmp_path / "long", moving_frames(8), 2)
    assert Image.open(path).n_frames == 3
    assert "long.gif" in caplog.text and "5 missing" in caplog.text


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_unfinished_film_leaves_nothing_and_spares_the_one_before(tmp_path, error):
    before = write(tmp_path / "a", moving_frames(3), 1).read_bytes()
    with pytest.raises(error), Film(tmp_path / "a") as video:
        video.add(moving_frames(5))
        assert video.path.read_bytes() == before
        raise error
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("frames", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8),
                                    np.zeros((2, 4, 4, 3), np.float32)])
def test_what_is_no_frames_is_an_error(tmp_path, frames):
    with pytest.raises(ValueError, match="T > 0"), Film(tmp_path / "a") as video:
        video.add(frames)
    assert not list(tmp_path.iterdir())
