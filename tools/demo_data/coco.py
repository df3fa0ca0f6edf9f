"""The demo data set in COCO's layout: still images with several objects, for training IoUNet on images.

Out: <root>/train2017/*.jpg, <root>/val2017/*.jpg and annotations/instances_*2017.json.
COCO classes that the video data shows look here like its categories, so that it matters whether they are left out; all
others have shapes and textures of their own.
"""
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle

from tools.demo_data import minivspw, scene
from tools.demo_data.folder import begin, draw_all, finish, video_size, write_frames
from tools.demo_data.scene import Category, render_video
from tools.demo_data.ytvis import MIN_VISIBLE

VERSION = 1                    # raised whenever the same parameters give other bytes
SPLITS = ("val2017", "train2017")      # the order in which their annotations are written
HELD_OUT = 1                   # of every six images of a category this one is in val2017
ZOOM = 1.5                     # drawn as large as the videos, stored larger: COCO-20i wants 2048 pixels of a class
CROWDS = 0.3                   # of the images with two objects of a class annotate these as a crowd

# Real ids, names and supercategories. In the data like YouTube-VIS the ids are those of scene.CATEGORIES.
YTVIS_LIKE = {1: (1, "person", "person"), 2: (3, "car", "vehicle"), 7: (7, "train", "vehicle"),
              8: (9, "boat", "vehicle"), 9: (17, "cat", "animal"), 10: (18, "dog", "animal"),
              15: (19, "horse", "animal"), 16: (22, "elephant", "animal")}
MINIVSPW_LIKE = {91: (62, "chair", "furniture"), 111: (84, "book", "indoor")}
OTHERS = ((28, "umbrella", "accessory"), (38, "kite", "sports"), (52, "banana", "food"), (53, "apple", "food"),
          (59, "pizza", "food"), (60, "donut", "food"), (61, "cake", "food"), (73, "laptop", "electronic"),
          (74, "mouse", "electronic"), (85, "clock", "indoor"), (87, "scissors", "indoor"),
          (88, "teddy bear", "indoor"))
NEW_LOOKS = [(shape, texture) for shape in ("triangle", "crescent", "clover", "block")
             for texture in ("zigzag", "meshed", "ringed")]


def _classes():
    """[(Category with COCO's id, name, supercategory)], by id"""
    looks = [(*coco, c.shape, c.texture) for like, categories in
             ((YTVIS_LIKE, scene.CATEGORIES), (MINIVSPW_LIKE, minivspw.CATEGORIES))
             for c in categories for coco in [like.get(c.id)] if coco]
    looks += [(*coco, *look) for coco, look in zip(OTHERS, NEW_LOOKS, strict=True)]
    return [(Category(number, shape, texture), name, above) for number, name, above, shape, texture in sorted(looks)]


CLASSES = _classes()
CATEGORIES = tuple(category for category, _, _ in CLASSES)


def write_demo_coco(root, seed=0, images_per_category=30, size=(144, 240), jobs=1, progress=iter):
    """Write the data set below `root`  ->  False where the same one is there already.

    images_per_category: of which each is the subject; one of six is in val2017. size: rows and columns of most images.
    """
    root = Path(root)
    parameters = {"layout": "coco", "version": VERSION, "seed": seed, "per_category": images_per_category,
                  "size": list(size)}
    files = {split: root / f"annotations/instances_{split}.json" for split in SPLITS}
    if not begin(root, parameters, files[SPLITS[-1]].relative_to(root)):
        return False
    documents = {split: _empty_document(seed) for split in SPLITS}
    drawn = draw_all(partial(_draw_image, root, seed, size), images_per_category * len(CATEGORIES), jobs, progress)
    for split, image, annotations in drawn:
        documents[split]["images"].append(image)
        documents[split]["annotations"] += annotations
    for split, file in files.items():
        finish(file, documents[split])
    return True


def _empty_document(seed):
    return {
        "info": {"description": f"synthetic demo data, still images, seed {seed}", "version": str(VERSION)},
        "licenses": [{"id": 1, "name": "synthetic: no rights reserved", "url": ""}],
        "images": [], "annotations": [],
        "categories": [{"supercategory": above, "id": c.id, "name": name} for c, name, above in CLASSES]}


def _draw_image(root, seed, size, index):
    """Write image `index`, which has its own generator  ->  its split, its entry of the JSON, its objects'"""
    rng = np.random.default_rng([seed, index])
    split, number = SPLITS[index // len(CATEGORIES) % 6 != HELD_OUT], index + 1
    rows, cols = video_size(index, size)
    drawn = (round(rows / ZOOM), round(cols / ZOOM))
    images, labels, seen = render_video(CATEGORIES[index % len(CATEGORIES)], 1, drawn, rng, CATEGORIES)
    image = cv2.resize(images[0], (cols, rows), interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(labels[0], (cols, rows), interpolation=cv2.INTER_NEAREST)
    write_frames(root / split, [f"{number:012d}.jpg"], image[None])
    masks = [(category, labels == label) for label, category in enumerate(seen, start=1)]
    crowd = len(seen) > 1 and seen[0] == seen[1] and rng.random() < CROWDS
    if crowd:                                             # the targets come first
        masks[:2] = [(seen[0], masks[0][1] | masks[1][1])]
    about = {"license": 1, "file_name": f"{number:012d}.jpg", "coco_url": "", "height": rows, "width": cols,
             "date_captured": "", "flickr_url": "", "id": number}
    return split, about, [{"id": 10 * number + n, "image_id": number, "category_id": category.id,
                           **annotate(mask, crowd and n == 0)}
                          for n, (category, mask) in enumerate(masks) if mask.sum() >= MIN_VISIBLE]


def annotate(mask, crowd):
    """(H, W) bool, whether it is a crowd  ->  segmentation, area, bbox and iscrowd as COCO has them

    Polygons, one per piece; masks with holes and crowds are run lengths, the latter uncompressed.
    """
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    outlines = None if crowd else polygons(mask)
    if crowd:
        edges = np.flatnonzero(np.diff(mask.ravel(order="F").astype(np.int8), prepend=0))
        counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
        segmentation = {"size": list(mask.shape), "counts": counts}
    else:
        segmentation = outlines or {"size": list(mask.shape), "counts": code["counts"].decode("ascii")}
    return {"segmentation": segmentation, "area": int(rle.area(code)), "bbox": rle.toBbox(code).tolist(),
            "iscrowd": int(crowd)}


def polygons(mask):
    """(H, W) bool  ->  [[x, y, x, y, ...] per piece], a quarter of a pixel within its pixels; None if it has a hole

    Doubled in size every pixel has an outline of its own, of which the corners are this far inside.
    """
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    outlines, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (tree[0, :, 3] >= 0).any():
        return None
    return [((outline.reshape(-1) + 0.5) / 2).tolist() for outline in outlines]
