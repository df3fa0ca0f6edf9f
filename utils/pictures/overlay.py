"""Masks as images: palette PNGs, overlays, and what `test.py` keeps of every video (films: film.py)."""
from contextlib import contextmanager, nullcontext
from itertools import islice
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


def overlay_objects(frame, labels, opacity=0.45):
    """Every object in its colour of the palette, with its outline: frame (H, W, 3) uint8 RGB, labels (H, W) uint8

    Number 1 is the palette's dark red, 2 its green, and so on.
    """
    colours, object_, outline = palette()[labels], labels > 0, boundary(labels) > 0
    mixed = ((1 - opacity) * frame.astype(np.float32) + opacity * colours).round().astype(np.uint8)
    picture = np.where(object_[..., None], mixed, frame)
    edge = outline & object_
    picture[edge] = colours[edge]
    return picture


def labels_of(masks, object_ids):
    """masks (O, T, H, W) bool, at most one of them at a pixel; their numbers  ->  (T, H, W) uint8"""
    numbers = np.array(object_ids, np.uint8)[:, None, None, None]
    return (masks * numbers).max(axis=0)


@contextmanager
def recording(video, reference, masks_folder=None, films_folder=None, restore=None, submission=None):
    """Around a video: yields write(clip, masks (O, T, H, W) bool), to be called with clip after clip.

    Masks become palette PNGs, one per frame, masks over their frames a film, each where a folder is given. Frames are
    brought to the masks' size by restore(values (T, H, W), original_size) where that is the original one. The film
    appears once the video is complete; if it stops before its end there is none. submission: a folder that gets the
    frames of `video.asked`, below the video's own name.
    """
    below, names = Path(*map(safe_name, reference.folder)), iter(video.frames)
    row = getattr(reference, "row", 0)
    film_path = films_folder and Path(films_folder, below.with_name(f"{below.name}.mp4"))
    with Film(film_path) if films_folder else nullcontext() as film:
        def write(clip, masks):
            stems = [Path(name).stem for name in islice(names, masks.shape[1])]
            for mask, stem in zip(labels_of(masks, getattr(reference, "object_ids", [1])), stems, strict=True):
                if masks_folder:
                    save_palette_mask(Path(masks_folder) / below / f"{stem}.png", mask)
                if submission and (video.asked is None or stem in video.asked):
                    save_palette_mask(Path(submission) / below / f"{stem}.png", mask)
            if film:
                film.add(_overlays(clip, masks, video.original_size, restore, row) if clip.given is None else
                         _objects_over(clip, labels_of(masks, reference.object_ids)))
        yield write


def _objects_over(clip, labels):
    """A Clip of the vos task, labels (T, H, W)  ->  (T, H, W, 3) uint8"""
    return np.stack([overlay_objects(*pair) for pair in zip(as_pixels(clip.images), labels, strict=True)])


def _overlays(clip, masks, original_size, restore, row):
    """Clip, masks (1, T, H, W) bool  ->  (T, H, W, 3) uint8, at the size of the masks; row: of the clip's masks"""
    images, truth = clip.images, clip.masks
    if masks.shape[-2:] != images.shape[-2:]:
        images = torch.stack([restore(images[:, c], original_size) for c in range(3)], dim=1)
        truth = clip.original_masks
    shown = zip(as_pixels(images), masks.any(axis=0), truth[row].numpy(), strict=True)
    return np.stack([overlay(*frame) for frame in shown])
