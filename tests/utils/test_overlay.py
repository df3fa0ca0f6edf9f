"""Images with masks, and what is recorded of a video: written, read back and compared."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from material import film_frames
from PIL import Image

from dataloaders.episode import Clip
from utils.evaluation.metrics import boundary
from utils.pictures.overlay import TRUTH_COLOUR, as_pixels, overlay, palette, recording, save_palette_mask

rng = np.random.default_rng(0)


def disc(size=(48, 64)):
    y, x = np.mgrid[:size[0], :size[1]]
    return (y - size[0] / 2) ** 2 + (x - size[1] / 2) ** 2 < 150


def test_palette_mask_keeps_object_numbers_and_davis_colours(tmp_path):
    mask = rng.integers(0, 22, (20, 30))
    save_palette_mask(tmp_path / "deep" / "a.png", mask)
    image = Image.open(tmp_path / "deep" / "a.png")
    assert image.mode == "P" and (np.array(image) == mask).all()
    colours = np.array(image.convert("RGB"))
    assert colours[mask == 1][0].tolist() == [128, 0, 0] and colours[mask == 4][0].tolist() == [0, 0, 128]
    save_palette_mask(tmp_path / "b.png", disc())
    assert (np.array(Image.open(tmp_path / "b.png")) == disc()).all()


def test_palette_is_the_known_map():
    assert palette()[:9].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128],
                                      [0, 128, 128], [128, 128, 128], [64, 0, 0]]
    assert len(np.unique(palette(), axis=0)) == 256


@pytest.mark.parametrize("mask", [np.zeros((2, 3, 4)), np.full((2, 2), 256), np.full((2, 2), -1)])
def test_mask_that_fits_no_palette_is_an_error(tmp_path, mask):
    with pytest.raises(ValueError, match="values 0 to 255"):
        save_palette_mask(tmp_path / "a.png", mask)


def test_overlay_touches_only_mask_and_outlines():
    frame = rng.integers(0, 200, (48, 64, 3)).astype(np.uint8)
    before = frame.copy()
    image = overlay(frame, disc())
    changed = (image != frame).any(-1)
    assert image.dtype == np.uint8 and (frame == before).all()
    assert changed[disc()].all() and not changed[~disc() & ~boundary(disc())].any()
    truth = np.roll(disc(), 5, axis=1)
    assert (overlay(frame, disc(), truth)[boundary(truth)] == TRUTH_COLOUR).all()
    assert (overlay(frame, np.zeros((48, 64), bool)) == frame).all()


def test_as_pixels_gives_the_bytes_that_were_read():
    pixels = rng.integers(0, 256, (2, 6, 7, 3), dtype=np.uint8)
    assert (as_pixels(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255) == pixels).all()


def video(original, frames=7):
    """A video, its reference, its only clip; frames are as large as the masks that are measured, or half of it."""
    generator, small, large = torch.Generator().manual_seed(0), (24, 32), (48, 64)
    episode = (SimpleNamespace(original_size=large, frames=[f"v1/{5 * t:05d}.jpg" for t in range(frames)]),
               SimpleNamespace(folder=("run2", "cat", "v1")))
    truth = torch.rand(1, frames, *large, generator=generator) > 0.5
    clip = Clip(torch.rand(frames, 3, *small, generator=generator), truth[..., ::2, ::2], truth if original else None)
    masks = np.stack([np.roll(disc(large if original else small), 2 * t, axis=1) for t in range(frames)])[None]
    return episode, clip, masks


def restore(maps, size):
    return torch.nn.functional.interpolate(maps[:, None], size)[:, 0]


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("length", [1, 3])
def test_clips_give_the_masks_and_the_film_of_the_whole_video(tmp_path, original, length):
    episode, clip, masks = video(original)
    for name, step in (("whole", 7), ("clips", length)):
        with recording(*episode, tmp_path / name / "masks", tmp_path / name / "films", restore) as write:
            for part in (slice(first, first + step) for first in range(0, 7, step)):
                truth = clip.original_masks[:, part] if original else None
                write(Clip(clip.images[part], clip.masks[:, part], truth), masks[:, part])
        folder = tmp_path / name / "masks" / "run2" / "cat" / "v1"
        assert sorted(p.name for p in folder.iterdir()) == [f"{5 * t:05d}.png" for t in range(7)]
        for t in range(7):
            assert (np.array(Image.open(folder / f"{5 * t:05d}.png")) == masks[0, t]).all()
    whole, clips = (film_frames(tmp_path / name / "films/run2/cat/v1.mp4") for name in ("whole", "clips"))
    assert whole.shape == clips.shape == (7, *masks.shape[2:], 3)
    distances = np.abs(whole[:, None].astype(int) - clips[None]).mean((2, 3, 4))    # its bits depend on threads
    assert (distances.argmin(1) == np.arange(7)).all() and distances.diagonal().max() < distances.min() + 5
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 2 * 8
    with recording(*episode) as write:      # no folders: nothing to do
        write(clip, masks)


def test_an_unfinished_video_leaves_no_film(tmp_path):
    episode, clip, masks = video(False)
    with pytest.raises(KeyboardInterrupt), recording(*episode, None, tmp_path, restore) as write:
        write(clip, masks)
        raise KeyboardInterrupt
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_no_name_out_of_data_leads_out_of_the_folder(tmp_path):
    """Of a category or a video; and two names never share a file."""
    episode, clip, masks = video(False)
    for name in ("../../escaped", "/escaped", "a/b", "a%2Fb", "a.mp4", "a"):
        episode[1].folder = ("run2", name, name)
        with recording(*episode, tmp_path / "masks", tmp_path / "films", restore) as write:
            write(clip, masks)
    assert len(list((tmp_path / "masks" / "run2").glob("*/*/*.png"))) == 6 * 7
    assert len(list((tmp_path / "films" / "run2").glob("*/*.mp4"))) == 6
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 6 * 8
