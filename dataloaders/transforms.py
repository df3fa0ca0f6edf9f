"""Transforms: what the network sees. Letterbox and augmentation, the same for all frames of a sequence.

In: lists of uint8 RGB frames (H0, W0, 3) and bool masks (H0, W0), sizes may differ from frame to frame (supports come
from different videos). Out: images (T, 3, H, W) float32, RGB in [0, 1], and masks (T, H, W) bool, both letterboxed.
"""
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

CROP = 0.10                      # at most this share is cut from each side
SCALE = (0.95, 1.05)
MAX_SHEAR = {"paper": 0.0, "released": 10.0}       # degrees
MAX_ROTATION = {"paper": 0.0, "released": 15.0}    # degrees
CONTRAST = (0.97, 1.03)
OFFSET = 5.0                     # on the 0-255 scale


def letterbox_area(original_size, size):
    """Where a frame lies in the input: centred, aspect kept, sizes and borders rounded down, as released.

    original_size and size (rows, columns)  ->  (rows, columns, top, left)
    """
    (rows0, cols0), (height, width) = original_size, size
    factor = min(height / rows0, width / cols0)
    rows, cols = max(int(rows0 * factor), 1), max(int(cols0 * factor), 1)
    return rows, cols, (height - rows) // 2, (width - cols) // 2


def resize_mask(mask, rows, cols, mode):
    """(H0, W0) bool -> (rows, cols) bool.

    `released` is the official code's slip: bilinear, then truncated to integers, so that a pixel is foreground only if
    all pixels it is interpolated from are; objects lose their borders and thin parts vanish. See data.mask_resize.
    """
    if mode == "nearest":
        return cv2.resize(mask.astype(np.uint8), (cols, rows), interpolation=cv2.INTER_NEAREST).astype(bool)
    return cv2.resize(mask.astype(np.float32), (cols, rows), interpolation=cv2.INTER_LINEAR) >= 1


def undo_letterbox(maps, original_size):
    """Margins at input size back to the video's own size, bilinear on the area the frame occupies.

    maps (T, H, W) float, original_size (H0, W0)  ->  (T, H0, W0)
    """
    rows, cols, top, left = letterbox_area(original_size, maps.shape[-2:])
    valid = maps[:, None, top:top + rows, left:left + cols]
    return F.interpolate(valid, size=tuple(original_size), mode="bilinear", align_corners=False)[:, 0]


class TestTransform:
    """The letterbox and nothing else: black borders, as released."""
    __test__ = False             # not a pytest class

    def __init__(self, size, mask_resize):
        self.size, self.mask_resize = tuple(size), _one_of("data.mask_resize", mask_resize, ("nearest", "released"))

    def __call__(self, frames, masks):
        """lists of (H0, W0, 3) uint8 and (H0, W0) bool  ->  (T, 3, H, W) float32, (T, H, W) bool"""
        return _to_input([self.resize(*pair) for pair in zip(frames, masks, strict=True)], self.size)

    def resize(self, frame, mask):
        """One frame and its mask  ->  (3, rows, cols) float32, (rows, cols) bool, their size within the letterbox"""
        rows, cols, _, _ = letterbox_area(frame.shape[:2], self.size)
        # In float32: OpenCV would round 8-bit images, and the released input is not rounded.
        image = cv2.resize(frame.astype(np.float32), (cols, rows), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
        return torch.from_numpy(image), torch.from_numpy(resize_mask(mask, rows, cols, self.mask_resize))


class TrainTransform:
    """The letterbox after one random draw per sequence (Section 5.1).

    augmentation
        paper     random crop (0-10 % off each side, stretched back), random resize (0.95-1.05 about the centre), mirror
                  (p = 0.5) and the released jitter: contrast 0.97-1.03, offset +-5 on the 0-255 scale, not clipped.
                  The paper names the three operations without ranges; these are the released ones.
        released  the same with shear (+-10 degrees) and rotation (+-15 degrees) in addition.
        none      letterbox only.
    first_frame_augmented: False leaves the first frame of a sequence in its place (mirror and jitter still apply).
    portrait: `transpose` swaps rows and columns of frames that are higher than wide.

    Crop, random resize and the letterbox's own scaling are one `resized_crop` of the original. Rotation, shear and then
    also the random resize are one `affine` at the size within the letterbox, about the same centre: the official code
    turns the original, nine times as many pixels for 720p. Imgaug's pixels and random stream are not reproduced.
    """

    def __init__(self, size, mask_resize, augmentation, first_frame_augmented, portrait):
        self.letterbox = TestTransform(size, mask_resize)
        self.augmentation = _one_of("data.augmentation", augmentation, ("paper", "released", "none"))
        self.portrait = _one_of("data.portrait", portrait, ("letterbox", "transpose"))
        self.first_frame_augmented = first_frame_augmented

    def __call__(self, frames, masks, rng):
        """lists of (H0, W0, 3) uint8 and (H0, W0) bool, Generator  ->  (T, 3, H, W) float32, (T, H, W) bool"""
        if self.augmentation == "none":
            return self.clean(frames, masks)
        draw = draw_augmentation(rng, self.augmentation)
        pairs = list(self._upright(frames, masks))
        out = [] if self.first_frame_augmented else [finish(*self.letterbox.resize(*pairs.pop(0)), draw)]
        for _, group in groupby(pairs, key=lambda pair: pair[1].shape):
            images, masks = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*group, strict=True))
            images, masks = self._warp(images.permute(0, 3, 1, 2), masks, draw)
            out += zip(*finish(images, masks, draw), strict=True)
        return _to_input(out, self.letterbox.size)

    def clean(self, frames, masks):
        """The same frames without augmentation."""
        return _to_input([self.letterbox.resize(*pair) for pair in self._upright(frames, masks)], self.letterbox.size)

    def _upright(self, frames, masks):
        for frame, mask in zip(frames, masks, strict=True):
            if self.portrait == "transpose" and frame.shape[0] > frame.shape[1]:
                frame, mask = np.ascontiguousarray(frame.transpose(1, 0, 2)), np.ascontiguousarray(mask.T)
            yield frame, mask

    def _warp(self, images, masks, draw):
        """(T, 3, H0, W0) uint8, (T, H0, W0) bool  ->  both augmented, at their size within the letterbox"""
        area = letterbox_area(masks.shape[-2:], self.letterbox.size)[:2]
        window = crop_window(draw, masks.shape[-2:], draw.scale if self.augmentation == "paper" else 1.0)
        images = vision.resized_crop(images, *window, area, antialias=False)     # plain bilinear, as the letterbox
        masks = crop_masks(masks, window, area, self.letterbox.mask_resize)
        if self.augmentation == "released":
            motion = draw.rotation, [0, 0], draw.scale, [draw.shear, 0.0]
            images = vision.affine(images.float(), *motion, interpolation=InterpolationMode.BILINEAR)
            masks = vision.affine(masks, *motion)          # nearest: only the resizing may erode them
        return images, masks.bool()


@dataclass(frozen=True)
class Augmentation:
    """One draw, in shares of a frame's size, so that it applies to frames of any size."""
    crop: tuple        # shares cut from the top, bottom, left, right
    scale: float
    shear: float       # degrees
    rotation: float    # degrees
    mirror: bool
    contrast: float
    offset: float      # on the 0-255 scale


def draw_augmentation(rng, recipe):
    """NumPy generator, paper | released  ->  Augmentation. Both recipes consume the same numbers of the stream."""
    return Augmentation(
        crop=tuple(rng.uniform(0, CROP, 4)), scale=rng.uniform(*SCALE),
        shear=rng.uniform(-1, 1) * MAX_SHEAR[recipe], rotation=rng.uniform(-1, 1) * MAX_ROTATION[recipe],
        mirror=bool(rng.random() < 0.5), contrast=rng.uniform(*CONTRAST), offset=rng.uniform(-OFFSET, OFFSET))


def crop_window(draw, original_size, scale):
    """What fills the frame after crop and resize, in whole pixels: (rows, columns)  ->  (top, left, rows, columns)"""
    top, bottom, left, right = draw.crop
    first, last = np.array([top, left]), 1 - np.array([bottom, right])
    centre, half = (first + last) / 2, (last - first) / 2 / scale
    # With scale < 1 the window may reach beyond the frame, where `resized_crop` pads with black.
    first, last = (np.rint((centre + side * half) * original_size).astype(int) for side in (-1, 1))
    return *first.tolist(), *(last - first).tolist()


def crop_masks(masks, window, area, mode):
    """`resize_mask` on a window: (T, H0, W0) bool  ->  (T, rows, cols) uint8"""
    if mode == "nearest":      # exact: the centre of the output pixel, where bilinear samples the image
        return vision.resized_crop(masks.view(torch.uint8), *window, area, InterpolationMode.NEAREST_EXACT)
    soft = [vision.resized_crop(mask[None].float(), *window, area, antialias=False) for mask in masks]
    return (torch.cat(soft) >= 1 - 1e-4).byte()          # the four weights sum up to 1 only within rounding


def finish(images, masks, draw):
    """Jitter, not clipped, and mirror: images (..., 3, rows, cols), masks (..., rows, cols)  ->  the same shapes"""
    images = images * draw.contrast + draw.offset
    return [vision.horizontal_flip(x) for x in (images, masks)] if draw.mirror else [images, masks]


def _to_input(pairs, size):
    """[(image (3, rows, cols), mask (rows, cols))] in their letterbox, black around; RGB in [0, 1]."""
    images = torch.zeros(len(pairs), 3, *size)
    masks = torch.zeros(len(pairs), *size, dtype=torch.bool)
    for t, (image, mask) in enumerate(pairs):
        rows, cols = mask.shape
        top, left = (size[0] - rows) // 2, (size[1] - cols) // 2
        images[t, :, top:top + rows, left:left + cols] = image
        masks[t, top:top + rows, left:left + cols] = mask
    return images.div_(255), masks


def _one_of(key, value, options):
    if value not in options:
        raise ValueError(f"{key}: unknown value {value!r}.\n  Choose one of: {', '.join(options)}")
    return value
