"""Masks as images: palette PNGs, overlays, and what `test.py` keeps of every video (films: film.py)."""
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from utils.evaluation.metrics import boundary
from utils.files import safe_name
from utils.pictures.film import Film

MASK_COLOUR = (230, 40, 40)
TRUTH_COLOUR = (60, 255, 60)


def palette():
    """The colour map of PASCAL VOC and DAVIS: bits of the index spread over R, G and B, (256, 3) uint8"""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def save_palette_mask(path, mask):
    """Write a mask (H, W), bool or object numbers 0 to 255, as a one-channel PNG with the DAVIS palette."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.size and not 0 <= int(mask.min()) <= int(mask.max()) <= 255:
        raise ValueError(f"{path}: expected a mask (H, W) with values 0 to 255, got shape {mask.shape}")
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(palette().tobytes())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def as_pixels(images):
    """(T, 3, H, W) float, RGB in [0, 1]  ->  (T, H, W, 3) uint8"""
    return (np.moveaxis(np.asarray(images, np.float32), -3, -1).clip(0, 1) * 255).round().astype(np.uint8)


def overlay(frame, mask, gt=None, opacity=0.45):
    """Mask in red with its outline, the ground truth's outline in green.

    frame (H, W, 3) uint8 RGB, mask and gt (H, W) bool  ->  (H, W, 3) uint8
    """
    mask = np.asarray(mask, bool)
    image = frame.astype(np.float32)
    image[mask] = (1 - opacity) * image[mask] + opacity * np.array(MASK_COLOUR, np.float32)
    image = image.round().astype(np.uint8)
    image[boundary(mask)] = MASK_COLOUR
    if gt is not None:
        image[boundary(np.asarray(gt, bool))] = TRUTH_COLOUR
    return image


@contextmanager
def recording(video, reference, masks_folder=None, films_folder=None, restore=None):
    """Around a video: yields write(clip, masks (O, T, H, W) bool), to be called with clip after clip.

    Masks become palette PNGs, one per frame, masks over their frames a film, each where a folder is given. Frames are
    brought to the masks' size by restore(values (T, H, W), original_size) where that is the original one. The film
    appears once the video is complete; if it stops before its end there is none.
    """
    below, names = Path(*map(safe_name, reference.folder)), iter(video.frames)
    film_path = films_folder and Path(films_folder, below.with_name(f"{below.name}.mp4"))
    with Film(film_path) if films_folder else nullcontext() as film:
        def write(clip, masks):
            if masks_folder:
                for mask, name in zip(masks.any(axis=0), names, strict=False):
                    save_palette_mask(Path(masks_folder) / below / f"{Path(name).stem}.png", mask)
            if film:
                film.add(_overlays(clip, masks, video.original_size, restore))
        yield write


def _overlays(clip, masks, original_size, restore):
    """Clip, masks (O, T, H, W) bool  ->  (T, H, W, 3) uint8, at the size of the masks"""
    images, truth = clip.images, clip.masks
    if masks.shape[-2:] != images.shape[-2:]:
        images = torch.stack([restore(images[:, c], original_size) for c in range(3)], dim=1)
        truth = clip.original_masks
    shown = zip(as_pixels(images), masks.any(axis=0), truth.any(dim=0).numpy(), strict=True)
    return np.stack([overlay(*frame) for frame in shown])
