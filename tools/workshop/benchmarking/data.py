"""Generated material of tools/workshop/benchmark.py: videos in memory, and on disk in YouTube-VIS layout.

Frames are textured like photographs, so that a JPEG of 720 x 1280 has a photograph's size and takes its time to decode;
an object of about an eighth of the frame moves and changes its shape. All of it follows from a seed.
"""
import json
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from pycocotools import mask as rle

from dataloaders.episode import Clip, SupportSet
from dataloaders.transforms import TestTransform

RECORDED = (720, 1280)           # rows, columns of most YouTube-VIS videos
DISTINCT = 50                    # frames of a longer video repeat these, forwards and backwards
NOVEL, BASE = 1, (2, 3, 4, 6)    # categories; fold 1 tests the first and trains on the others


def texture(rng, rows, cols):
    """Noise at four scales, the coarse ones strong  ->  (rows, cols, 3) uint8"""
    image = np.zeros((rows, cols, 3), np.float32)
    for cells, strength in ((6, 60), (24, 30), (96, 14), (384, 7)):
        noise = rng.standard_normal((cells, 2 * cells, 3)).astype(np.float32)
        image += strength * cv2.resize(noise, (cols, rows), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 110, 0, 255).astype(np.uint8)


def outline(t, size, phase):
    """Mask of the object at time t, (H, W) bool: a wavy disc on a slow orbit."""
    rows, cols = size
    y, x = np.mgrid[:rows, :cols].astype(np.float32)
    y = y - rows * (0.5 + 0.15 * np.sin(0.07 * t + phase))
    x = x - cols * (0.5 + 0.2 * np.cos(0.05 * t + phase))
    angle = np.arctan2(y, x)
    waves = 1 + 0.15 * np.sin(5 * angle + 0.2 * t) + 0.05 * np.sin(11 * angle - t)
    radius = 0.18 * np.sqrt(rows * cols) * waves
    return y * y + x * x < radius * radius


def frames_of(count, size=RECORDED, seed=0):
    """A video: yields `count` times (frame (H, W, 3) uint8, mask (H, W) bool)."""
    rng, (rows, cols) = np.random.default_rng(seed), size
    background, coat = texture(rng, rows + DISTINCT, cols + DISTINCT), texture(rng, rows, cols)
    for t in range(count):
        mask = outline(t, size, phase=seed)
        frame = np.where(mask[..., None], coat[..., ::-1], background[t:t + rows, t:t + cols])
        yield np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8), mask


def distinct_frame(t):
    """Which of the DISTINCT frames stands at time t: 0, 1, ..., 49, 48, ..., 1, 0, 1, ..."""
    t = t % (2 * DISTINCT - 2)
    return min(t, 2 * DISTINCT - 2 - t)


class Video:
    """A query video of any length and its supports in memory, as the network sees them."""

    def __init__(self, size, shots, clip_length, frames):
        def tensors(count, seed):                  # images (count, 3, *size) float32, masks (count, *size) bool
            return TestTransform(size, "nearest")(*zip(*frames_of(count, [2 * n for n in size], seed), strict=True))
        self.count, self.length, self.last = -(-frames // clip_length), clip_length, frames
        self.supports = SupportSet(*map(torch.cat, zip(*(tensors(1, 1 + k) for k in range(shots)), strict=True)))
        self.images, self.masks = tensors(min(frames, DISTINCT), 0)

    def clip(self, number):
        """A Clip; the last one may be short."""
        index = [distinct_frame(t) for t in range(number * self.length, min((number + 1) * self.length, self.last))]
        return Clip(self.images[index], self.masks[None, index])

    def clips(self):
        return map(self.clip, range(self.count))


# -- on disk ----------------------------------------------------------------------------------------------------------

def write_videos(root, videos, size=RECORDED):
    """root/JPEGImages/<video>/<frame>.jpg and root/train.json

    videos: list of (name, category id, number of frames). Frames that repeat are links to one file.
    """
    document = {"videos": [], "annotations": [],
                "categories": [{"id": c, "name": f"category_{c}"} for c in (NOVEL, *BASE)]}
    for number, (name, category, count) in enumerate(videos, 1):
        folder, masks = Path(root, "JPEGImages", name), []
        folder.mkdir(parents=True)
        for t, (frame, mask) in enumerate(frames_of(min(count, DISTINCT), size, seed=number)):
            cv2.imwrite(str(folder / f"{t:05}.jpg"), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            masks.append({"size": list(size), "counts": encoded["counts"].decode()})
        for t in range(DISTINCT, count):
            os.link(folder / f"{distinct_frame(t):05}.jpg", folder / f"{t:05}.jpg")
        document["videos"].append({"id": number, "height": size[0], "width": size[1],
                                   "file_names": [f"{name}/{t:05}.jpg" for t in range(count)]})
        document["annotations"].append({"id": number, "video_id": number, "category_id": category,
                                        "segmentations": [masks[distinct_frame(t)] for t in range(count)]})
    Path(root, "train.json").write_text(json.dumps(document))


def one_test(length, shots):
    """What write_videos needs for one episode of fold 1: the query, K videos for its supports, and a base class."""
    return [("query", NOVEL, length), *((f"support_{k}", NOVEL, 1) for k in range(shots)), ("base", BASE[0], 1)]


def one_training(per_category, length):
    """The same for training on fold 1: four base classes, as a batch has, and a novel one."""
    return [(f"video_{c}_{k}", c, length) for c in BASE for k in range(per_category)] + [("novel", NOVEL, 1)]


def moving_masks(frames, size, slip=2):
    """Truth, and a prediction that lags behind and has ragged edges: (frames, H, W) bool twice"""
    truth = np.stack([mask for _, mask in frames_of(frames + slip, size)])
    ragged = np.random.default_rng(0).random(truth[slip:].shape) < 0.002
    return truth[:-slip] ^ ragged, truth[slip:]
