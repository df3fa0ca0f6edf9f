"""Masks and frames as pictures and films: palette PNGs, overlays, videos that browsers play."""
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.metrics import boundary

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
MASK_COLOUR = (230, 40, 40)
TRUTH_COLOUR = (60, 255, 60)
# OpenCV's wheels rarely bring an H.264 encoder, always VP8 and VP9; browsers play all three.
CODECS = (("avc1", ".mp4"), ("VP90", ".webm"), ("VP80", ".webm"))


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


def denormalise(images):
    """Network input back to pictures, (T, 3, H, W) float  ->  (T, H, W, 3) uint8 RGB"""
    pixels = np.moveaxis(np.asarray(images, np.float32), -3, -1) * IMAGENET_STD + IMAGENET_MEAN
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def overlay(frame, mask, gt=None, opacity=0.45):
    """Mask in red with its outline, the ground truth's outline in green.

    frame (H, W, 3) uint8 RGB, mask and gt (H, W) bool  ->  (H, W, 3) uint8
    """
    mask = np.asarray(mask, bool)
    picture = frame.astype(np.float32)
    picture[mask] = (1 - opacity) * picture[mask] + opacity * np.array(MASK_COLOUR, np.float32)
    picture = picture.round().astype(np.uint8)
    picture[boundary(mask)] = MASK_COLOUR
    if gt is not None:
        picture[boundary(np.asarray(gt, bool))] = TRUTH_COLOUR
    return picture


def save_episode(episode, masks, masks_folder=None, films_folder=None, restore=None):
    """Masks (T, H, W) bool of one video as palette PNGs, and as a film over its frames, each where a folder is given.

    restore(values (T, H, W), original_size) brings the frames to the masks' size where that is the original one.
    """
    below = Path(f"run{episode.run}") / episode.class_name / episode.video
    if masks_folder:
        for mask, name in zip(masks, episode.frames, strict=True):
            save_palette_mask(Path(masks_folder) / below / f"{Path(name).stem}.png", mask)
    if films_folder:
        images, truth = episode.query_images.cpu(), episode.query_masks
        if masks.shape[-2:] != images.shape[-2:]:
            channels = [restore(images[:, c], episode.original_size) for c in range(3)]
            images, truth = np.stack(channels, axis=1), episode.original_masks
        overlay_video(Path(films_folder) / below, denormalise(images), masks, np.asarray(truth.cpu()))


def overlay_video(path, frames, masks, truth=None, fps=6):
    """frames (T, H, W, 3) uint8, masks and truth (T, H, W) bool  ->  the real path of the film of their overlays"""
    truth = [None] * len(masks) if truth is None else truth
    return write_video(path, [overlay(f, m, gt) for f, m, gt in zip(frames, masks, truth, strict=True)], fps)


def write_video(path, frames, fps=6):
    """Write frames (T, H, W, 3) uint8 RGB with the first encoder this machine has  ->  the file's real path

    The encoder decides the suffix, whatever `path` ends with: .mp4 (H.264), .webm (VP9, VP8), else .gif.
    Odd sizes gain one row or column, repeated, since the codecs share colour between 2 x 2 pixels.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0 or frames.dtype != np.uint8:
        raise ValueError(f"{path}: expected frames (T, H, W, 3) uint8 with T > 0, got {frames.shape} {frames.dtype}")
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    path = Path(path)
    path = path.with_suffix("") if path.suffix in (".mp4", ".webm", ".gif", ".avi") else path
    path.parent.mkdir(parents=True, exist_ok=True)
    for codec, suffix in CODECS:
        target = Path(f"{path}{suffix}")
        if _encode(target, codec, even, fps):
            return target
        target.unlink(missing_ok=True)
    return _write_gif(Path(f"{path}.gif"), frames, fps)


def _encode(path, codec, frames, fps):
    """Whether the encoder exists and its file reads back."""
    with _quiet():
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (frames.shape[2], frames.shape[1]))
        if not writer.isOpened():
            return False
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
        writer.release()
        reader = cv2.VideoCapture(str(path))
        readable, _ = reader.read()
        reader.release()
    return readable


def _write_gif(path, frames, fps):
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return path


@contextmanager
def _quiet():
    """Hide what OpenCV and FFmpeg print about missing encoders: they write to the process's stderr, past Python."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
