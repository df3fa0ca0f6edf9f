"""The demo data set in the layout of VSPW_480p, with the lists of MiniVSPW: longer absences, masks of label ids.

In: a folder, a seed, sizes. Out: <root>/data/<video>/origin/*.jpg and mask/*.png, train.txt and val.txt, and
minivspw_lists/, made from the masks by the rule of the published ones. What the videos show is in `scene.py`.
"""
import os
from pathlib import Path

import cv2
import numpy as np

from dataloaders.datasets.folds import FOLDS, MINIVSPW_TEST, MINIVSPW_VAL, minivspw_classes
from dataloaders.datasets.minivspw import MIN_PIXELS, read_list
from dataloaders.datasets.minivspw_lists import find_masks, make_lists, write_lists
from dataloaders.datasets.vspw_masks import count_labels
from tools.demo_data.scene import SHAPES, TEXTURES, Category, render_video
from tools.demo_data.ytvis import check_parameters, is_complete, video_size, write_frames, write_record

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


def write_demo_minivspw(root, seed=0, videos_per_category=8, size=(96, 160), frames=(12, 16), progress=iter):
    """Write the data set below `root`, unless the same one is there, and return a summary dict.

    Parameters as in demo.write_demo_data, but for the 25 categories; three of eight videos are in val.txt.
    summary: written, root, videos, frames, categories, listed (entries of all lists), and of the classes that a fold
        trains on or tests: fewest_train, fewest_test (videos of any, in which it can be a support).

    The parameters decide every byte. The lists come last and at once: where they are, the data set is complete.
    """
    root = Path(root)
    parameters = {"layout": "minivspw", "version": VERSION, "seed": seed, "videos_per_category": videos_per_category,
                  "size": list(size), "frames": list(frames)}
    check_parameters(seed, videos_per_category, size, frames)
    if is_complete(root, parameters, LISTS):
        return _summary(root, written=False)
    write_record(root, parameters)
    names = {"train": [], "val": []}
    for index in progress(range(videos_per_category * len(CATEGORIES))):
        split = "val" if index // len(CATEGORIES) % 8 in VALIDATED else "train"
        names[split].append(_add_video(root, index, parameters))
    for split, videos in names.items():
        (root / f"{split}.txt").write_text("".join(f"{video}\n" for video in videos))
    part = root / f"{LISTS}.part"
    write_lists(make_lists(root), part)
    os.replace(part, root / LISTS)
    return _summary(root, written=True)


def _add_video(root, index, parameters):
    """Draw video `index` and write its frames and masks; as in demo.py it has its own generator  ->  its name"""
    rng = np.random.default_rng([parameters["seed"], index])
    low, high = parameters["frames"]
    category, length = CATEGORIES[index % len(CATEGORIES)], int(rng.integers(low, high + 1))
    relatives = next([c for c in CATEGORIES if c.id in group] for group in GROUPS if category.id in group)
    pool = relatives if rng.random() < 0.5 else CATEGORIES      # tested together: lists hold frames without a class
    size = video_size(index, parameters["size"])
    images, labels, seen = render_video(category, length, size, rng, pool, LEAVING)
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


def _summary(root, written):
    videos = {split: _shown(root, split) for split in ("train", "val")}
    lists = [read_list(path) for path in sorted((root / LISTS).glob("*.txt"))]
    trained, tested = ({c for fold in range(1, FOLDS + 1) for c in minivspw_classes(fold, side)}
                       for side in ("train", "test"))
    return {
        "written": written, "root": str(root), "videos": len(list((root / "data").iterdir())),
        "frames": len(list(root.glob("data/*/mask/*.png"))), "categories": len(CATEGORIES),
        "listed": sum(len(numbers) for shown in lists for numbers in shown.values()),
        "fewest_train": min(videos["train"][c] for c in trained), "fewest_test": min(videos["val"][c] for c in tested)}


def _shown(root, split):
    """Label id  ->  how many videos of train.txt or val.txt can give a support of it"""
    masks = find_masks(root, split)
    areas = count_labels([file for files in masks.values() for file in files])
    owner = np.repeat(np.arange(len(masks)), [len(files) for files in masks.values()])
    return {c.id: len(set(owner[areas.showing(c.id, MIN_PIXELS)].tolist())) for c in CATEGORIES}
