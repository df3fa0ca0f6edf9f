"""What the network sees in the referring task: clips at sizes of their own, unpadded, with boxes and sentences.

Flip, crop and sizes are drawn once per clip, the photometric distortion once per frame, as released. Boxes are the
first and last column and row of an object (x, y, x, y), inclusive.
"""
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as vision

from dataloaders.transforms import TestTransform, undo_letterbox

BRIGHTNESS, CONTRAST, SATURATION, HUE = 32.0, (0.5, 1.5), (0.5, 1.5), 18.0       # 0 to 255, factors, degrees
CHANNELS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@dataclass(frozen=True)
class Shot:
    """Frames of a clip on their way: images (T, 3, H, W) uint8, masks (T, H, W) bool, boxes (T, 4) float32, text"""
    images: torch.Tensor
    masks: torch.Tensor
    boxes: torch.Tensor
    text: str

    @property
    def size(self):
        return tuple(self.masks.shape[-2:])

    @property
    def valid(self):
        """(T,) bool: the box is wider and higher than 0"""
        return (self.boxes[:, 2:] > self.boxes[:, :2]).all(dim=1)

    def checked(self):
        """The same; boxes that are not valid become 0 (as released: they are divided by 1000 and rounded down)"""
        return replace(self, boxes=torch.where(self.valid[:, None], self.boxes, self.boxes // 1000))


def boxes_of(masks, released=False):
    """(T, H, W) bool  ->  (T, 4) float32, zeros where a mask is empty

    released: x is cut at the height and y at the width, so that boxes at the right of a landscape frame are lost
    """
    across, down = masks.any(dim=1), masks.any(dim=2)
    boxes = torch.stack([f(side.int()) for f in (_first, _last) for side in (across, down)], dim=1).float()
    boxes = boxes * across.any(dim=1)[:, None]
    return boxes.minimum(torch.tensor(masks.shape[-2:] * 2)) if released else boxes


def _first(side):
    return side.argmax(dim=1)


def _last(side):
    return side.shape[1] - 1 - side.flip(1).argmax(dim=1)


def mirrored(shot, released=False, words=True):
    """Left is right. words: in the sentence, too, wherever these letters stand; released: boxes one pixel off"""
    width = shot.size[1] - (not released)
    x0, y0, x1, y1 = shot.boxes.unbind(dim=1)
    text = shot.text.replace("left", "\0").replace("right", "left").replace("\0", "right") if words else shot.text
    return Shot(shot.images.flip(-1), shot.masks.flip(-1), torch.stack([width - x1, y0, width - x0, y1], dim=1), text)


def size_of(original, short, longest=None):
    """(rows, columns), short side, bound of the long one or None  ->  (rows, columns), the long side rounded down"""
    low, high = min(original), max(original)
    if longest is not None and high / low * short > longest:
        short = round(longest * low / high)
    return tuple(short if side == low else int(short * high / low) for side in original)


def resized(shot, size):
    """At (rows, columns): images bilinear with antialiasing, in 8 bits as Pillow does it; masks nearest"""
    factors = [new / old for new, old in zip(size, shot.size, strict=True)][::-1] * 2
    return replace(shot, images=resize_images(shot.images, size), boxes=shot.boxes * torch.tensor(factors),
                   masks=F.interpolate(shot.masks[:, None].float(), size, mode="nearest")[:, 0] > 0.5)


def resize_images(images, size):
    """(T, 3, H, W) uint8  ->  (T, 3, *size) uint8"""
    return vision.resize(images, list(size), antialias=True)


def cropped(shot, top, left, rows, cols):
    """A window of it; boxes are shifted and cut at its borders"""
    boxes = (shot.boxes - torch.tensor([left, top] * 2)).clamp(min=0).minimum(torch.tensor([cols, rows] * 2))
    window = slice(top, top + rows), slice(left, left + cols)
    return replace(shot, images=shot.images[..., *window], masks=shot.masks[..., *window], boxes=boxes)


@dataclass(frozen=True)
class Distortion:
    """None: left as it is. contrast_last: behind saturation and hue, else before"""
    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    channels: tuple | None = None
    contrast_last: bool = False


def draw_distortion(rng):
    """NumPy generator  ->  Distortion; each part with probability one half"""
    def perhaps(draw):
        return draw() if rng.random() < 0.5 else None

    return Distortion(perhaps(lambda: rng.uniform(-BRIGHTNESS, BRIGHTNESS)), perhaps(lambda: rng.uniform(*CONTRAST)),
                      perhaps(lambda: rng.uniform(*SATURATION)), perhaps(lambda: rng.uniform(-HUE, HUE)),
                      perhaps(lambda: CHANNELS[rng.integers(len(CHANNELS))]), bool(rng.random() < 0.5))


def distorted(image, draw):
    """(H, W, 3) uint8 RGB  ->  float32, not cut to 0 to 255. Hue and saturation read RGB as BGR, as released."""
    image = image.astype(np.float32)
    contrast = 1.0 if draw.contrast is None else draw.contrast
    image = (image + (draw.brightness or 0.0)) * (1.0 if draw.contrast_last else contrast)
    if draw.saturation is not None or draw.hue is not None:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0] + (draw.hue or 0.0)) % 360
        hsv[..., 1] *= 1.0 if draw.saturation is None else draw.saturation
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    image = image * contrast if draw.contrast_last else image
    return image[..., draw.channels] if draw.channels else image


def to_bytes(image, released=False):
    """float  ->  uint8, cut to 0 to 255; released: beyond them values wrap"""
    return image.astype(np.int64).astype(np.uint8) if released else image.clip(0, 255).astype(np.uint8)


class TrainTransform:
    """cfg.data  ->  a function of frames, masks, a sentence and a generator"""

    def __init__(self, data):
        self.data, self.released = data, data.boxes == "released"

    def __call__(self, frames, masks, text, rng):
        """(T, H, W, 3) uint8 array, (T, H, W) bool array, text, NumPy generator  ->  Shot"""
        data, masks = self.data, torch.from_numpy(masks)
        if data.photometric != "none":
            frames = np.stack([to_bytes(distorted(frame, draw_distortion(rng)), data.photometric == "released")
                               for frame in frames])
        shot = Shot(torch.from_numpy(frames).permute(0, 3, 1, 2), masks, boxes_of(masks, self.released), text)
        if rng.random() < data.mirror:
            shot = mirrored(shot, self.released, data.mirror_words)
        if rng.random() < data.crop:
            shot = resized(shot, size_of(shot.size, _one_of(data.crop_from, rng)))
            rows, cols = (int(rng.integers(min(data.crop_sides[0], side), min(data.crop_sides[1], side) + 1))
                          for side in shot.size)
            shot = cropped(shot, *(int(rng.integers(side - part + 1))
                                   for side, part in zip(shot.size, (rows, cols), strict=True)), rows, cols)
        return resized(shot, size_of(shot.size, _one_of(data.sizes, rng), data.longest)).checked()


def _one_of(things, rng):
    return things[rng.integers(len(things))]


def as_floats(images):
    """(T, 3, H, W) uint8  ->  float32 in [0, 1]"""
    return images.float().div_(255)


def soft_masks(masks, size):
    """(..., H, W) bool  ->  (..., *size) bool, as truth is scaled: bilinear, more than one half"""
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    return (F.interpolate(flat, size, mode="bilinear", align_corners=False) > 0.5).view(*masks.shape[:-2], *size)


def restore(maps, original_size):
    """Margins at network size (T, H, W)  ->  at the video's own; as released it is the probability that is scaled

    A tie counts as object there, and is too rare to matter: it is background here.
    """
    probability = maps[:, None].float().sigmoid()
    probability = F.interpolate(probability, tuple(original_size), mode="bilinear", align_corners=False)[:, 0]
    return probability.logit(eps=1e-6)


class ClipTransform:
    """A person's own frames: `short` is the short side of what the network sees, data.test_size.

    Frames of another size than the first one's are letterboxed into that.
    """

    def __init__(self, short):
        self.short = short

    def __call__(self, frames, masks):
        """lists of (H0, W0, 3) uint8 and (H0, W0) bool  ->  (T, 3, H, W) float32, (T, H0, W0) bool"""
        if len({mask.shape for mask in masks}) > 1:
            images, masks = TestTransform(masks[0].shape, "nearest")(frames, masks)
            images = (images * 255).round().to(torch.uint8)
        else:
            images = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
            masks = torch.from_numpy(np.stack(masks))
        return as_floats(resize_images(images, size_of(masks.shape[-2:], self.short))), masks

    def restore(self, maps, original_size):
        """Margins (T, H, W) of frames of one size  ->  at this size"""
        same = tuple(maps.shape[-2:]) == size_of(original_size, self.short)
        return (restore if same else undo_letterbox)(maps, original_size)
