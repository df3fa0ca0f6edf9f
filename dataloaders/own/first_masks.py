"""What a person gives of the objects that are to be followed: masks of some frames, or boxes in the first one.

In: an index PNG, a folder of them named after their frames, boxes. Out: for every clip the masks that are given in it.
"""
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from dataloaders.datasets.palette import from_numbers, read_numbers
from dataloaders.episode import Clip
from dataloaders.mask_values import CUT, MaskValues

log = logging.getLogger(__name__)

FIRST = None                 # a frame's number: the first one that is segmented, whatever its number is
HOW = ("Give --init-mask first.png, a PNG in which every object has its number (0 is background); a folder with such "
       "PNGs named after the frames they belong to (00000.png, 00012.png); or --init-box x,y,w,h")


@dataclass
class Given:
    """masks: {number of a frame, or FIRST: labels (H, W) uint8}; boxes: (x, y, w, h) in the first frame, of the objects
    1, 2, ...; names: {number of a frame: what an error calls its mask}"""
    masks: dict = field(default_factory=dict)
    boxes: list = field(default_factory=list)
    names: dict = field(default_factory=dict)

    @property
    def object_ids(self):
        if self.boxes:
            return list(range(1, len(self.boxes) + 1))
        return sorted(set().union(*(np.unique(labels).tolist() for labels in self.masks.values())) - {0})

    def check(self, total=None):
        """ValueError where nothing is marked, or for a frame that a video of `total` frames has not"""
        if not self.object_ids:
            names = ", ".join(map(str, self.names.values())) or "set_masks"
            raise ValueError(f"{names}: no object is marked.\n  {HOW}")
        for frame in self.masks:
            if frame is not FIRST and (frame < 0 or total is not None and frame >= total):
                raise ValueError(f"{self.names[frame]}: a mask for frame {frame}, but the video has "
                                 f"{total if total is not None else 'no such'} frames, counted from 0")

    def clips(self, clips):
        """Frames of clips  ->  pairs (Frames, Clip), whose images have the frames' size; ValueError at the end where a
        frame with a mask was not among them"""
        seen = set()
        for frames in clips:
            given = self.of_clip(frames, not seen)
            images = torch.from_numpy(np.stack([f.image for f in frames])).permute(0, 3, 1, 2).float().div_(255)
            yield frames, Clip(images, given=given)
            seen |= {f.index for f in frames}
        for frame in set(self.masks) - seen - {FIRST}:
            raise ValueError(f"{self.names[frame]}: a mask for frame {frame}, which was not among the {len(seen)} "
                             "frames that were segmented.\n  Frames are counted from 0; --every, --start and --end "
                             "leave some out")

    def of_clip(self, frames, is_first):
        """Frames of a clip, whether it begins the video  ->  (O, T, H, W) bool, empty where nothing is given"""
        size = frames[0].image.shape[:2]
        given = np.zeros((len(self.object_ids), len(frames), *size), bool)
        for t, frame in enumerate(frames):
            if frame.image.shape[:2] != size:
                raise ValueError(f"frame {frame.index} has {frame.image.shape[:2]} rows and columns, those before it "
                                 f"{size}.\n  Give a video whose frames have one size")
            for key in (frame.index, *([FIRST] if is_first and t == 0 else [])):
                if key in self.masks:
                    given[:, t] |= self.labels(key, frame) == np.array(self.object_ids, np.uint8)[:, None, None]
        if is_first:
            for o, box in enumerate(self.boxes):
                given[o, 0] = filled(box, size)
        return torch.from_numpy(given)

    def labels(self, key, frame):
        labels, size = self.masks[key], frame.image.shape[:2]
        if labels.shape != size:
            raise ValueError(f"{self.names[key]}: a mask of {labels.shape[0]} x {labels.shape[1]} pixels for frame "
                             f"{frame.index}, which has {size[0]} x {size[1]}.\n  Save it at the size of the frame, "
                             "upright as players show it")
        return labels


def read_first_masks(path):
    """--init-mask: a PNG for the first frame, or a folder of PNGs named after their frames  ->  Given"""
    path = Path(path)
    if path.is_file():
        return given_numbers({FIRST: read_numbers(path)}, {FIRST: path})
    if not path.is_dir():
        raise FileNotFoundError(f"--init-mask: no file or folder {path}.\n  {HOW}")
    files = sorted(p for p in path.iterdir() if p.suffix.lower() == ".png" and not p.name.startswith("."))
    if not files:
        raise ValueError(f"--init-mask: {path} has no PNG.\n  {HOW}")
    masks, names = {}, {}
    for file in files:
        number = int(file.stem) if re.fullmatch(r"[0-9]{1,9}", file.stem) else None
        if number is None or number in masks:
            raise ValueError(f"{file}: expected the number of a frame, counted from 0, as its name" +
                             (f"; {names[number]} has the same" if number is not None else "") + ".\n  For frame 12: "
                             "00012.png")
        masks[number], names[number] = read_numbers(file), file
    return given_numbers(masks, names)


def given_numbers(masks, names):
    """{frame: numbers (H, W)}, {frame: what errors call them}  ->  Given; a soft edge is no object of its own"""
    values = MaskValues(next(iter(names.values()), ""))
    for key, mask in masks.items():
        values.add(mask, names[key])
    if half := values.half():
        log.warning("%s: %s", values.name, CUT)
        masks = {key: mask > half for key, mask in masks.items()}
    else:
        values.refuse_bands()
    return Given({key: from_numbers(mask, names[key]) for key, mask in masks.items()}, names=names)


def given_masks(masks):
    """{number of a frame: (H, W) numbers of objects, or bool}, arrays or tensors  ->  Given"""
    found, names = {}, {number: f"set_masks, frame {number}" for number in masks}
    for number, mask in masks.items():
        mask = mask.detach().cpu().numpy() if hasattr(mask, "detach") else np.asarray(mask)
        if mask.ndim != 2 or mask.dtype.kind not in "biu" or mask.size == 0 or mask.min() < 0:
            raise ValueError(f"{names[number]}: expected numbers of objects (H, W), integers from 0 on or bool, got "
                             f"{mask.dtype} of shape {mask.shape}")
        if not isinstance(number, int | np.integer):
            raise ValueError(f"set_masks: expected the number of a frame, counted from 0, got {number!r}")
        found[int(number)] = mask.astype(np.int64)
    return given_numbers(found, names)


def given_boxes(boxes):
    """[(x, y, w, h)] or ["x,y,w,h"], pixels of the first frame  ->  Given, the objects 1, 2, ..."""
    found = []
    for box in boxes:
        parts = box.split(",") if isinstance(box, str) else list(box)
        try:
            x, y, w, h = map(float, parts)
            if not (np.isfinite([x, y, w, h]).all() and w >= 1 and h >= 1):
                raise ValueError
        except ValueError:
            raise ValueError(f"--init-box {str(box)[:60]}: expected x,y,w,h in pixels of the first frame: left, top, "
                             "width, height, the last two at least 1, e.g. 120,40,64,80") from None
        found.append((x, y, w, h))
    if len(found) > 254:
        raise ValueError(f"--init-box: {len(found)} boxes; a palette has room for the objects 1 to 254")
    return Given(boxes=found, names={FIRST: "--init-box"})


def filled(box, size):
    """(x, y, w, h), (rows, columns)  ->  (rows, columns) bool; each number is truncated, as the release of LWL does"""
    x, y, w, h = (int(value) for value in box)
    mask = np.zeros(size, bool)
    mask[max(y, 0):max(y + h, 0), max(x, 0):max(x + w, 0)] = True
    if not mask.any():
        raise ValueError(f"--init-box {','.join(f'{value:g}' for value in box)}: lies outside the frame, which has "
                         f"{size[1]} x {size[0]} pixels (columns x rows).\n  Give left, top, width, height")
    if x < 0 or y < 0 or x + w > size[1] or y + h > size[0]:
        log.warning("--init-box %s: cut at the border of the frame", ",".join(f"{value:g}" for value in box))
    return mask
