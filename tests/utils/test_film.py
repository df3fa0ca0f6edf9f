"""Films: written a few frames at a time, read back, complete or not there."""
import av
import numpy as np
import pytest
from material import film_frames

from utils.pictures import film
from utils.pictures.film import Film


def moving_frames(count=10, size=(48, 64)):
    frames = np.full((count, *size, 3), 60, np.uint8)
    for t in range(count):
        frames[t, 10:30, 4 * t:4 * t + 15] = (250, 120, 0)
    return frames


def write(path, frames, at_once, fps=5, times=None):
    with Film(path, fps) as video:
        for first in range(0, len(frames), at_once):
            video.add(frames[first:first + at_once], times and times[first:first + at_once])
    return video.path


@pytest.mark.parametrize("codec", film.CODECS, ids=lambda codec: codec[0])
@pytest.mark.parametrize(("size", "at_once"), [((48, 64), 1), ((47, 63), 4), ((48, 64), 10)])
def test_film_reads_back_and_nothing_is_printed(tmp_path, monkeypatch, capfd, codec, size, at_once):
    monkeypatch.setattr(film, "CODECS", (("none", ".none", {}), codec))
    frames = moving_frames(10, size)
    path = write(tmp_path / "deep" / "film.mp4", frames, at_once)
    assert capfd.readouterr() == ("", "")
    assert path.name == f"film{codec[1]}" and list((tmp_path / "deep").iterdir()) == [path]
    found = film_frames(path)[:, :size[0], :size[1]]           # without what was added to odd sizes
    assert len(found) == 10 and np.abs(found.astype(int) - frames).mean() < 6
    with av.open(str(path)) as reader:
        assert float(reader.duration / av.time_base) == pytest.approx(2, abs=0.01)        # 10 frames at 5 per second


def test_phones_and_browsers_play_it_while_it_loads(tmp_path):
    """What Safari, Android and every browser ask for: H.264 in 4:2:0, even sizes, the index before the pictures."""
    path = write(tmp_path / "a", moving_frames(4, (47, 63)), 1)
    with av.open(str(path)) as reader:
        coded = reader.streams.video[0].codec_context
        assert (coded.name, coded.pix_fmt, coded.height, coded.width) == ("h264", "yuv420p", 48, 64)
    data = path.read_bytes()
    assert path.suffix == ".mp4" and data.index(b"moov") < data.index(b"mdat")


def test_frames_are_shown_at_their_times(tmp_path):
    """A film of a slide show lasts as long as the slide show; a clock that stands still does not stop it."""
    path = write(tmp_path / "slides", moving_frames(4), 2, fps=2, times=[0, 2, 2, 4.5])
    with av.open(str(path)) as reader:
        assert [round(f.time, 3) for f in reader.decode(video=0)] == [0, 2, 2, 4.5]
        assert reader.duration / av.time_base == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize("name", ["run:1/x", "12:30", "caf\udce9", "犬", "v1.2"])
def test_any_name_that_a_disk_takes_is_a_films_name(tmp_path, monkeypatch, name):
    """Relative, too: FFmpeg takes `run:` for a protocol. \\udce9 is a byte that is no UTF-8."""
    monkeypatch.chdir(tmp_path)
    path = write(name, moving_frames(2), 1)
    assert path == tmp_path / f"{name}.mp4" and path.is_file()


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


def test_what_cannot_be_written_says_why(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(OSError, match="a"), Film(tmp_path / "a" / "b") as video:      # below a file
        video.add(moving_frames(1))
    with pytest.raises(OSError, match=r"of 2 x 70000 pixels .*\n  Check that"), Film(tmp_path / "wide") as video:
        video.add(np.zeros((1, 2, 70_000, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
