"""Pictures and films: written, read back and compared."""
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from utils import visualise
from utils.visualise import denormalise, overlay, palette, save_episode, save_palette_mask, write_video

rng = np.random.default_rng(0)


def disc(size=(48, 64)):
    y, x = np.mgrid[:size[0], :size[1]]
    return (y - size[0] / 2) ** 2 + (x - size[1] / 2) ** 2 < 150


def moving_frames(count=10, size=(48, 64)):
    frames = np.full((count, *size, 3), 60, np.uint8)
    for t in range(count):
        frames[t, 10:30, 4 * t:4 * t + 15] = (250, 120, 0)
    return frames


def test_palette_mask_keeps_object_numbers_and_davis_colours(tmp_path):
    mask = rng.integers(0, 22, (20, 30))
    save_palette_mask(tmp_path / "deep" / "a.png", mask)
    image = Image.open(tmp_path / "deep" / "a.png")
    assert image.mode == "P" and (np.array(image) == mask).all()
    colours = np.array(image.convert("RGB"))
    assert colours[mask == 1][0].tolist() == [128, 0, 0] and colours[mask == 4][0].tolist() == [0, 0, 128]


def test_palette_is_the_known_map():
    assert palette()[:9].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128],
                                      [0, 128, 128], [128, 128, 128], [64, 0, 0]]
    assert len(np.unique(palette(), axis=0)) == 256


def test_boolean_mask_is_object_one(tmp_path):
    save_palette_mask(tmp_path / "a.png", disc())
    assert (np.array(Image.open(tmp_path / "a.png")) == disc()).all()


@pytest.mark.parametrize("mask", [np.zeros((2, 3, 4)), np.full((2, 2), 256), np.full((2, 2), -1)])
def test_mask_that_fits_no_palette_is_an_error(tmp_path, mask):
    with pytest.raises(ValueError, match="values 0 to 255"):
        save_palette_mask(tmp_path / "a.png", mask)


def test_overlay_touches_only_mask_and_outlines():
    frame = moving_frames(1)[0]
    before = frame.copy()
    picture = overlay(frame, disc())
    changed = (picture != frame).any(-1)
    assert picture.dtype == np.uint8 and (frame == before).all()
    assert changed[disc()].all() and not changed[~disc() & ~visualise.boundary(disc())].any()
    truth = np.roll(disc(), 5, axis=1)
    assert (overlay(frame, disc(), truth)[visualise.boundary(truth)] == visualise.TRUTH_COLOUR).all()
    assert (overlay(frame, np.zeros((48, 64), bool)) == frame).all()


def test_denormalise_inverts_the_normalisation():
    pixels = rng.integers(0, 256, (2, 6, 7, 3), dtype=np.uint8)
    images = ((pixels / 255.0 - visualise.IMAGENET_MEAN) / visualise.IMAGENET_STD).transpose(0, 3, 1, 2)
    assert (denormalise(torch.from_numpy(images).float()) == pixels).all()


def test_normalisation_is_that_of_the_data():
    transforms = pytest.importorskip("dataloaders.transforms")
    np.testing.assert_allclose(visualise.IMAGENET_MEAN, transforms.MEAN)
    np.testing.assert_allclose(visualise.IMAGENET_STD, transforms.STD)


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_video_reads_back_and_nothing_is_printed(tmp_path, capfd, size):
    frames = moving_frames(10, size)
    path = write_video(tmp_path / "deep" / "film.mp4", frames, fps=5)
    assert capfd.readouterr() == ("", "")
    assert path.parent == tmp_path / "deep" and path.stem == "film" and list(path.parent.iterdir()) == [path]
    reader, read = cv2.VideoCapture(str(path)), []
    while (entry := reader.read())[0]:
        read.append(entry[1][:size[0], :size[1], ::-1])
    assert len(read) == 10 and np.abs(np.stack(read).astype(int) - frames).mean() < 6


def test_without_any_encoder_the_video_is_a_gif(tmp_path, monkeypatch):
    monkeypatch.setattr(visualise, "CODECS", (("avc1", ".mp4"),))
    monkeypatch.setattr(visualise, "_encode", lambda *_: False)
    path = write_video(tmp_path / "v1.2", moving_frames(4), fps=5)
    assert path.name == "v1.2.gif" and Image.open(path).n_frames == 4


def test_video_without_frames_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="T > 0"):
        write_video(tmp_path / "a", np.zeros((0, 4, 4, 3), np.uint8))


@pytest.mark.parametrize("original", [False, True])
def test_episode_is_saved_frame_by_frame_and_as_a_film(tmp_path, original):
    small, large = (24, 32), (48, 64)
    episode = SimpleNamespace(
        run=2, class_name="cat", video="v1", frames=["v1/00000.jpg", "v1/00005.jpg"], original_size=large,
        query_images=torch.zeros(2, 3, *small), query_masks=torch.zeros(2, *small, dtype=torch.bool),
        original_masks=torch.zeros(2, *large, dtype=torch.bool))
    masks = np.stack([disc(large if original else small)] * 2)

    def restore(maps, size):
        return torch.nn.functional.interpolate(maps[:, None], size)[:, 0]

    save_episode(episode, masks, tmp_path / "masks", tmp_path / "films", restore)
    folder = tmp_path / "masks" / "run2" / "cat" / "v1"
    assert sorted(p.name for p in folder.iterdir()) == ["00000.png", "00005.png"]
    assert (np.array(Image.open(folder / "00005.png")) == masks[1]).all()
    [film] = (tmp_path / "films" / "run2" / "cat").iterdir()
    assert film.stem == "v1"
    save_episode(episode, masks)   # no folders: nothing to do
