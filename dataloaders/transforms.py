"""Transforms: what the network sees. Letterbox, normalisation and augmentation, the same for all frames of a sequence.

In: lists of uint8 RGB frames (H0, W0, 3) and bool masks (H0, W0), sizes may differ from frame to frame (supports come
from different videos). Out: images (T, 3, H, W) float32, normalised, and masks (T, H, W) bool, both letterboxed.
"""
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as vision

MEAN = (0.485, 0.456, 0.406)     # ImageNet, for images in [0, 1]
STD = (0.229, 0.224, 0.225)

CROP = 0.10                      # at most this share is cut from each side
SCALE = (0.95, 1.05)
MAX_SHEAR = {"paper": 0.0, "released": 10.0}       # degrees
MAX_ROTATION = {"paper": 0.0, "released": 15.0}    # degrees
CONTRAST = (0.97, 1.03)
OFFSET = 5.0                     # on the 0-255 scale


def letterbox_area(original_size, size):
    """Where a frame lies in the input: centred, aspect kept, sizes and borders rounded down (SPEC 4).

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
    """The letterbox and nothing else: black borders before the normalisation, as released."""
    __test__ = False             # not a pytest class

    def __init__(self, size, mask_resize):
        self.size, self.mask_resize = tuple(size), _one_of("data.mask_resize", mask_resize, ("nearest", "released"))

    def __call__(self, frames, masks):
        """lists of (H0, W0, 3) uint8 and (H0, W0) bool  ->  (T, 3, H, W) float32, (T, H, W) bool"""
        return _to_input([self.resize(*pair) for pair in zip(frames, masks, strict=True)], self.size)

    def resize(self, frame, mask):
        """One frame and its mask at the size they will have within the letterbox."""
        rows, cols, _, _ = letterbox_area(frame.shape[:2], self.size)
        # In float32: OpenCV would round 8-bit images, and the released input is not rounded.
        image = cv2.resize(frame.astype(np.float32), (cols, rows), interpolation=cv2.INTER_LINEAR)
        return image, resize_mask(mask, rows, cols, self.mask_resize)


class TrainTransform:
    """The letterbox after one random draw per sequence (Section 5.1; SPEC 4).

    augmentation
        paper     random crop (0-10 % off each side, independently, stretched back to the frame), random resize
                  (0.95-1.05 about the centre), mirror (p = 0.5), and the released photometric jitter: contrast
                  0.97-1.03 and an offset of +-5 on the 0-255 scale, not clipped. The paper names the three
                  operations without ranges; these are the released ones.
        released  the same with shear (+-10 degrees) and rotation (+-15 degrees) in addition.
        none      letterbox only.
    first_frame_augmented: False leaves the first frame of a sequence in its place (mirror and jitter still apply).
    portrait: `transpose` swaps rows and columns of frames that are higher than wide.

    Crop, resize, shear, rotation and the letterbox's own scaling are one matrix at the original resolution and one
    interpolation per frame, in OpenCV: torchvision's affine takes 70 times as long on 720p frames. The official code's
    imgaug interpolates three times; its pixels are not reproduced, nor could its random stream be.
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
        pairs = []
        for t, (frame, mask) in enumerate(self._upright(frames, masks)):
            still = t == 0 and not self.first_frame_augmented
            image, mask = self.letterbox.resize(frame, mask) if still else self._warp(frame, mask, draw)
            image = image * np.float32(draw.contrast) + np.float32(draw.offset)
            pairs.append((image[:, ::-1], mask[:, ::-1]) if draw.mirror else (image, mask))
        return _to_input(pairs, self.letterbox.size)

    def clean(self, frames, masks):
        """The same frames without augmentation."""
        pairs = [self.letterbox.resize(*pair) for pair in self._upright(frames, masks)]
        return _to_input(pairs, self.letterbox.size)

    def _upright(self, frames, masks):
        for frame, mask in zip(frames, masks, strict=True):
            if self.portrait == "transpose" and frame.shape[0] > frame.shape[1]:
                frame, mask = np.ascontiguousarray(frame.transpose(1, 0, 2)), np.ascontiguousarray(mask.T)
            yield frame, mask

    def _warp(self, frame, mask, draw):
        """One frame and its mask, augmented, at the size they will have within the letterbox."""
        rows, cols, _, _ = letterbox_area(frame.shape[:2], self.letterbox.size)
        matrix = augmentation_matrix(draw, frame.shape[:2], (rows, cols))
        image = cv2.warpAffine(frame, matrix, (cols, rows), flags=cv2.INTER_LINEAR)
        if self.letterbox.mask_resize == "nearest":
            warped = cv2.warpAffine(mask.astype(np.uint8), matrix, (cols, rows), flags=cv2.INTER_NEAREST)
            return image, warped.astype(bool)
        warped = cv2.warpAffine(mask.astype(np.float32), matrix, (cols, rows), flags=cv2.INTER_LINEAR)
        return image, warped >= 1 - 1e-4          # the weights of a warp sum up to 1 only within rounding


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


def augmentation_matrix(draw, original_size, size):
    """Pixels of a frame of original_size -> pixels of the augmented frame of size; both (rows, columns).

    Returns (2, 3) float64 acting on (x, y). Composed between pixel corners, where scaling keeps the frame's border.
    """
    (rows0, cols0), (rows, cols) = original_size, size
    top, bottom, left, right = draw.crop
    angle, shear = np.deg2rad(draw.rotation), np.tan(np.deg2rad(draw.shear))
    crop = _scaling(1 / (1 - left - right), 1 / (1 - top - bottom)) @ _shift(-left * cols0, -top * rows0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    slant = np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]])
    affine = _shift(cols0 / 2, rows0 / 2) @ turn @ slant @ _scaling(draw.scale, draw.scale) \
        @ _shift(-cols0 / 2, -rows0 / 2)
    letterbox = _scaling(cols / cols0, rows / rows0)
    return (_shift(-0.5, -0.5) @ letterbox @ affine @ crop @ _shift(0.5, 0.5))[:2]


def _shift(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _scaling(x, y):
    return np.diag([x, y, 1.0])


def _to_input(pairs, size):
    """[(image (rows, cols, 3), mask (rows, cols))] in their letterbox, black around, normalised, as tensors."""
    images = np.zeros((len(pairs), *size, 3), np.float32)
    masks = np.zeros((len(pairs), *size), bool)
    for t, (image, mask) in enumerate(pairs):
        rows, cols = mask.shape
        top, left = (size[0] - rows) // 2, (size[1] - cols) // 2
        images[t, top:top + rows, left:left + cols] = image
        masks[t, top:top + rows, left:left + cols] = mask
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    scale = [[255 * value for value in values] for values in (MEAN, STD)]
    return vision.normalize(images, *scale, inplace=True), torch.from_numpy(masks)


def _one_of(key, value, options):
    if value not in options:
        raise ValueError(f"{key}: unknown value {value!r}.\n  Choose one of: {', '.join(options)}")
    return value
