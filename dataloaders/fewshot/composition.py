"""Composition: two objects of different classes in one clip, so that what stands out no longer says what is asked for.

In: frames that show a target, with its masks. Out: the same number and size of frames that show a partner from another
class as well, and the target's masks. One of the two videos is the host; the other's object is laid into it with its
own mask and motion: one scale, place and order of occlusion for the whole clip, edges soft. It is copy-paste (Ghiasi et
al., CVPR 2021), kept consistent over time. Off by default: data.compose, test.compose.
"""
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dataloaders.datasets.coco20i import Coco20iIndex

SIZE = (0.6, 1.6)        # of the laid object against the host's, roots of their areas
SMALLEST, LARGEST = 0.15, 0.9        # of the laid object in shares of the frame: root of its area, its box
VISIBLE = 0.5            # share of either object that should be seen in the first frame, or another place is tried
TRIES = 8
MARGIN = 0.1             # share of the frame along its border that the middle of the laid object keeps out of
EDGE = 1.0               # standard deviation of the edge's blur, pixels
SWAY = (0.04, 0.12)      # amplitude of a still's path, share of the frame


@dataclass(frozen=True)
class Layout:
    """How an object lies in the host's frames.

    target_laid: the target is the laid object, its partner's video the host; in_front: the laid object hides the host's
    middle, place (x, y): of the laid object in its first frame, and where that point goes, pixels; sway: amplitude and
    phase of a still's path
    """
    target_laid: bool
    in_front: bool
    scale: float
    middle: np.ndarray
    place: np.ndarray
    sway: np.ndarray

    def matrix(self, laid, shape, offset):
        """The similarity (2, 3) that lays a frame with the mask `laid` into a host of (H, W), `offset` frames later.

        The object moves as in its own video, a still along a smooth path; its middle stays within the frame.
        """
        rows, cols = np.nonzero(laid)
        now = np.array([cols.mean(), rows.mean()]) if len(rows) else self.middle
        path = self.sway[0] * (np.sin(self.sway[1] + offset / 4) - np.sin(self.sway[1]))
        wanted = self.place + self.scale * (now - self.middle) + path
        size = np.array(shape[::-1])
        shift = wanted.clip(MARGIN * size, (1 - MARGIN) * size) - self.scale * now
        return np.array([[self.scale, 0, shift[0]], [0, self.scale, shift[1]]])


@dataclass(frozen=True)
class Composition:
    """What one clip is composed of. index, class_id, video: the partner's; frames: positions that show it; start: the
    one of them that meets the target's frame `first`."""
    index: object
    class_id: int
    video: int
    frames: np.ndarray
    start: int
    first: int
    layout: Layout

    @property
    def class_name(self):
        return self.index.class_name(self.class_id)

    def partner_frame(self, frame):
        """The target's frame  ->  the partner's: on to its end and back again"""
        return pendulum(self.frames, self.start + frame - self.first)

    def __call__(self, image, mask, frame):
        """The target's image (H, W, 3) uint8, mask (H, W) bool and position  ->  composed image and target's mask"""
        return self.both(image, mask, frame)[:2]

    def both(self, image, mask, frame):
        """The same  ->  composed image, target's mask, partner's mask"""
        there = self.partner_frame(frame)
        read = self.index.read_image(self.video, there), self.index.read_mask(self.video, there, self.class_id)
        if self.layout.target_laid:
            image, partner, target = lay((image, mask), fit(*read, mask.shape), self.layout, frame - self.first)
            return image, target, partner
        return lay(read, (image, mask), self.layout, frame - self.first)


def composed(images, masks, frames, compositions):
    """Lists of images and masks, [(video id, frame)], one Composition or None for each  ->  both lists, composed"""
    pairs = [with_partner(image, mask, frame) if with_partner else (image, mask) for image, mask, (_, frame),
             with_partner in zip(images, masks, frames, compositions, strict=True)]
    return [image for image, _ in pairs], [mask for _, mask in pairs]


def pendulum(frames, step):
    """Element number `step` of a sequence that is run through to its end, back to its start, and so on."""
    turn = step % max(2 * len(frames) - 2, 1)
    return int(frames[min(turn, 2 * len(frames) - 2 - turn)])


def lay(laid, host, layout, offset):
    """(image, mask) of the laid object and of the host  ->  image, what is seen of the host's object and of the laid"""
    (laid_image, laid_mask), (image, mask) = laid, host
    matrix = layout.matrix(laid_mask, mask.shape, offset)
    alpha = warp(soft(laid_mask), matrix, mask.shape)
    alpha = alpha if layout.in_front else alpha * (1 - soft(mask))
    mixed = image + alpha[..., None] * (warp(laid_image, matrix, mask.shape) - image.astype(np.float32))
    return mixed.round().astype(np.uint8), mask & (alpha <= 0.5), alpha > 0.5


def soft(mask):
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), EDGE)


def warp(x, matrix, shape):
    return cv2.warpAffine(x, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
                          if x.ndim == 3 else cv2.BORDER_CONSTANT)


def fit(image, mask, shape):
    """A frame and its mask, scaled and cut in the middle so that they fill (rows, columns)."""
    factor = max(shape[0] / mask.shape[0], shape[1] / mask.shape[1])
    shift = [(wanted - factor * has) / 2 + (factor - 1) / 2 for wanted, has in zip(shape, mask.shape, strict=True)]
    matrix = np.array([[factor, 0, shift[1]], [0, factor, shift[0]]])
    return warp(image, matrix, shape), warp(mask.astype(np.float32), matrix, shape) > 0.5


class Composer:
    """Draws the composition of a clip.

    share: of the clips that are composed; videos: {class id: ids of the videos that partners come from}; stills: COCO
    annotations whose objects are laid beside them, or none
    """

    def __init__(self, share, index, videos, stills="none"):
        self.share, self.index, self.videos = share, index, videos
        self.stills = None if stills == "none" else Coco20iIndex(Path(stills).parent, Path(stills).name,
                                                                 video_data="none")
        novel = {index.class_name(c) for c in index.class_ids} - {index.class_name(c) for c in videos}
        self.still_classes = [c for c in self.stills.class_ids if self.stills.class_name(c) not in novel
                              ] if self.stills else []

    def draw(self, class_id, video, frame, rng):
        """For a clip of `class_id` in `video`, whose first frame this is  ->  Composition or None"""
        if rng.random() >= self.share:
            return None
        choices = self._choices(class_id, video)
        mask = self.index.read_mask(video, frame, class_id)
        if not choices or not mask.any():
            return None
        index, other, videos = choices[rng.integers(len(choices))]
        partner = videos[rng.integers(len(videos))]
        frames = index.frames(partner, other)
        if not len(frames):
            return None
        start = int(rng.integers(len(frames)))
        there = index.read_mask(partner, frames[start], other)
        layout = draw_layout(mask, there, len(frames) == 1, index is self.index and bool(rng.random() < 0.5), rng)
        return Composition(index, other, partner, frames, start, frame, layout)

    def _choices(self, class_id, video):
        """[(index, other class, its videos)]: never videos that show class_id too; if there are any, only classes that
        the target's own video does not show."""
        own = set(self.index.videos(class_id))
        others = {c: [v for v in videos if v not in own] for c, videos in self.videos.items() if c != class_id}
        apart = [c for c in others if others[c] and video not in self.index.videos(c)]
        return ([(self.index, c, others[c]) for c in apart or others if others[c]]
                + [(self.stills, c, self.stills.videos(c)) for c in self.still_classes])


def draw_layout(target, partner, still, target_laid, rng):
    """Masks of the first frames of both  ->  Layout: the first of some places at which enough of both is seen, else the
    best of them."""
    if target_laid:
        host, laid = fit(np.zeros((*partner.shape, 3), np.uint8), partner, target.shape)[1], target
    else:
        host, laid = target, partner
    (rows, cols), size = np.nonzero(laid), np.array(host.shape)
    wanted = max(np.sqrt(host.sum()) * np.exp(rng.uniform(*np.log(SIZE))), SMALLEST * np.sqrt(host.size))
    scale = float(min(wanted / np.sqrt(laid.sum()), *(LARGEST * size / (np.ptp(rows) + 1, np.ptp(cols) + 1))))
    middle, in_front = np.array([cols.mean(), rows.mean()]), bool(rng.random() < 0.5)
    sway = np.stack([rng.uniform(*SWAY, 2) * size[::-1] * still, rng.uniform(0, 2 * np.pi, 2)])
    places = rng.uniform(MARGIN, 1 - MARGIN, (TRIES, 2)) * size[::-1]
    layouts = [Layout(target_laid, in_front, scale, middle, place, sway) for place in places]
    seen = [smaller_share(host, laid, layout) for layout in layouts]
    return layouts[next((i for i, share in enumerate(seen) if share >= VISIBLE), int(np.argmax(seen)))]


def smaller_share(host, laid, layout):
    """The share that is seen of the host's object or of the laid one, the smaller; masks of their first frames."""
    alpha = warp(laid.astype(np.float32), layout.matrix(laid, host.shape, 0), host.shape) > 0.5
    shared = (alpha & host).sum()
    of_laid = (alpha.sum() - (0 if layout.in_front else shared)) / max(laid.sum() * layout.scale ** 2, 1)
    return min(of_laid, 1 - shared * layout.in_front / max(host.sum(), 1))
