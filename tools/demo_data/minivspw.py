"""The demo data set in the layout of VSPW_480p, with the lists of MiniVSPW: longer absences, masks of label ids.

Out: <root>/data/<video>/origin/*.jpg and mask/*.png, train.txt and val.txt, and minivspw_lists/, made from the masks by
the rule of the published ones. What the videos show is in `scene.py`.
"""
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from dataloaders.datasets.folds import MINIVSPW_TEST, MINIVSPW_VAL
from dataloaders.datasets.minivspw_lists import make_lists, write_lists
from tools.demo_data.folder import begin, draw_all, video_size, write_frames
from tools.demo_data.scene import SHAPES, TEXTURES, Category, render_video

VERSION = 1                    # raised whenever the same parameters give other bytes
LISTS = "minivspw_lists"
VOID = 255
VALIDATED = (1, 4, 6)          # of every eight videos of a category: those of val.txt
LEAVING = 0.5                  # of the objects are out of the frame for a while: frames without the class count here
FRAME_STEP = 37                # the first frame of a video has any number: VSPW's do not start with 0

# All 25 classes of MiniVSPW, those without a test included: five shapes x five textures, a Latin square. The classes
# that a fold tests show each shape once and each texture once, which its training shows in other combinations.
GROUPS = (*MINIVSPW_TEST.values(), MINIVSPW_VAL)
CATEGORIES = tuple(Category(label, shape, (*TEXTURES, "dotted")[(s + group) % 5])
                   for group, labels in enumerate(GROUPS)
                   for s, (label, shape) in enumerate(zip(labels, (*SHAPES, "cross"), strict=True)))


def write_demo_minivspw(root, seed=0, videos_per_category=8, size=(96, 160), frames=(12, 16), jobs=1, progress=iter):
    """Write the data set below `root`  ->  False where the same one is there already.

    Parameters as in ytvis.write_demo_data, but for the 25 categories; three of eight videos are in val.txt.
    """
    root = Path(root)
    parameters = {"layout": "minivspw", "version": VERSION, "seed": seed, "per_category": videos_per_category,
                  "size": list(size), "frames": list(frames)}
    if not begin(root, parameters, LISTS):
        return False
    names = {"train": [], "val": []}
    draw = partial(_draw_video, root, seed, size, frames)
    for index, name in enumerate(draw_all(draw, videos_per_category * len(CATEGORIES), jobs, progress)):
        names["val" if index // len(CATEGORIES) % 8 in VALIDATED else "train"].append(name)
    for split, videos in names.items():
        (root / f"{split}.txt").write_text("".join(f"{video}\n" for video in videos))
    part = root / f"{LISTS}.part"
    write_lists(make_lists(root), part)
    os.replace(part, root / LISTS)
    return True


def _draw_video(root, seed, size, frames, index):
    """Write the frames and masks of video `index`; as in ytvis.py it has its own generator  ->  its name"""
    rng = np.random.default_rng([seed, index])
    category, length = CATEGORIES[index % len(CATEGORIES)], int(rng.integers(frames[0], frames[1] + 1))
    relatives = next([c for c in CATEGORIES if c.id in group] for group in GROUPS if category.id in group)
    pool = relatives if rng.random() < 0.5 else CATEGORIES      # tested together: lists hold frames without a class
    images, labels, seen = render_video(category, length, video_size(index, size), rng, pool, LEAVING)
    name, first = f"{index}_demo", FRAME_STEP * index % 1000
    numbers = [f"{first + t:08d}" for t in range(length)]
    masks = np.array([0, *(c.id for c in seen)], np.uint8)[labels]
    write_frames(root / "data", [f"{name}/origin/{n}.jpg" for n in numbers], images)
    write_frames(root / "data", [f"{name}/mask/{n}.png" for n in numbers], np.stack([with_void(m) for m in masks]))
    return name


def with_void(mask):
    """Label ids (H, W) uint8  ->  the same with a seam of void, one pixel wide, outside all objects"""
    near = cv2.dilate((mask > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.where(near & (mask == 0), np.uint8(VOID), mask)
