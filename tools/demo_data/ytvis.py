"""The demo data set: synthetic videos in YouTube-VIS 2019 layout, so that everything runs without a download.

In: a folder, a seed, sizes. Out: <root>/JPEGImages/<video>/<frame>.jpg and <root>/train.json, as the real data set has
them, and <root>/demo.json with the parameters. What the videos show is in `scene.py`; the layouts of VSPW and COCO
are in `minivspw.py` and `demo_coco.py`.
"""
import json
import os
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle

from tools.demo_data.scene import CATEGORIES, render_video

VERSION = 2                    # raised whenever the same parameters give other bytes
RECORD, ANNOTATIONS = "demo.json", "train.json"
MIN_VISIBLE = 16               # pixels; of which less is seen, that counts as absent in the frame
MIN_SIZE = 48                  # rows and columns
JPEG_QUALITY = 92


def write_demo_data(root, seed=0, videos_per_category=12, size=(96, 160), frames=(12, 16), progress=iter,
                    categories=CATEGORIES):
    """Write the data set below `root`, unless the same one is there, and return a summary dict.

    size: rows and columns of most videos; every 13th is upright and every 13th is 5/4 as high.
    frames: fewest and most frames of a video. progress: wraps the iteration over the videos, for example tqdm.
    summary: written (False: the same data set was there, untouched), root, videos, frames, annotations, categories,
        absent (pairs of object and frame without a mask), fewest_videos (of any category, as target or distractor).

    The parameters decide every byte. train.json comes last and at once: where it exists, the data set is complete.
    Raises ValueError for parameters without sense, and for a folder that holds anything else.
    """
    root = Path(root)
    parameters = {"version": VERSION, "seed": seed, "videos_per_category": videos_per_category,
                  "size": list(size), "frames": list(frames)}
    if categories != CATEGORIES:
        parameters["categories"] = [c.name for c in categories]
    check_parameters(seed, videos_per_category, size, frames)
    if is_complete(root, parameters, ANNOTATIONS):
        return _summary(root, json.loads((root / ANNOTATIONS).read_text()), written=False)
    write_record(root, parameters)
    document = _empty_document(seed, categories)
    for index in progress(range(videos_per_category * len(categories))):
        _add_video(root, document, index, parameters, categories)
    part = root / (ANNOTATIONS + ".part")
    part.write_text(json.dumps(document))
    os.replace(part, root / ANNOTATIONS)
    return _summary(root, document, written=True)


def video_size(index, size):
    """Rows and columns of one video; 13 and the 16 categories have no common factor, so that each gets its share."""
    rows, cols = size
    return {5: (cols, rows), 11: (rows * 5 // 4, cols)}.get(index % 13, (rows, cols))


def check_parameters(seed, per_category, size, frames=(1, 1)):
    """ValueError for parameters without sense, of any of the layouts."""
    if seed < 0 or per_category < 1:
        raise ValueError(f"demo data: seed {seed} and {per_category} videos or images per category: "
                         "the seed must be 0 or more, their number 1 or more.")
    if len(size) != 2 or min(size) < MIN_SIZE:
        raise ValueError(f"demo data: size {list(size)}: give rows and columns, each {MIN_SIZE} or more, e.g. 96 160.")
    if len(frames) != 2 or not 1 <= frames[0] <= frames[1]:
        raise ValueError(f"demo data: frames {list(frames)}: give the fewest and the most of a video, e.g. 12 16.")


def is_complete(root, parameters, last):
    """True: exactly this data set is at `root`. False: nothing is, or an interrupted run of exactly this one.

    last: the file or folder that is written last.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    advice = "Nothing was changed. Name another folder, or remove this one first."
    if not (root / RECORD).is_file():
        raise ValueError(f"demo data: {root} exists and holds something else (it has no {RECORD}).\n  {advice}")
    try:
        found = json.loads((root / RECORD).read_text())
    except ValueError as error:
        raise ValueError(f"demo data: {root / RECORD} is not valid JSON ({error}).\n  {advice}") from None
    if found != parameters:
        raise ValueError(f"demo data: {root} holds a demo data set of other parameters.\n"
                         f"  there: {found}\n  asked: {parameters}\n  {advice}")
    return (root / last).exists()


def write_record(root, parameters):
    """The folder and demo.json in it: the first that is written."""
    root.mkdir(parents=True, exist_ok=True)
    (root / RECORD).write_text(json.dumps(parameters, indent=1) + "\n")


def _empty_document(seed, categories):
    """train.json before its first video; ids and keys as in YouTube-VIS 2019."""
    return {
        "info": {"description": f"synthetic demo data for few-shot video object segmentation, seed {seed}",
                 "version": str(VERSION)},
        "licenses": [{"id": 1, "name": "synthetic: no rights reserved", "url": ""}],
        "videos": [],
        "categories": [{"id": c.id, "name": c.name, "supercategory": c.shape} for c in categories],
        "annotations": [],
    }


def _add_video(root, document, index, parameters, pool):
    """Draw video `index`, write its frames and append it and its objects to the document.

    Each video has its own generator: it does not depend on how many there are.
    """
    rng = np.random.default_rng([parameters["seed"], index])
    low, high = parameters["frames"]
    size = video_size(index, parameters["size"])
    category = pool[index % len(pool)]
    images, labels, categories = render_video(category, int(rng.integers(low, high + 1)), size, rng, pool)
    name = f"demo_{index:04d}"
    names = [f"{name}/{t:05d}.jpg" for t in range(len(images))]
    write_frames(root / "JPEGImages", names, images)
    about = {"width": size[1], "height": size[0], "length": len(images)}
    document["videos"].append({"id": index + 1, "file_names": names, **about, "license": 1, "date_captured": "",
                               "flickr_url": "", "coco_url": ""})
    for label, seen in enumerate(categories, start=1):
        tracks = _tracks(labels == label)
        if any(tracks["segmentations"]):                  # an object that is never seen is not annotated
            document["annotations"].append({"id": len(document["annotations"]) + 1, "video_id": index + 1,
                                            "category_id": seen.id, **tracks, "iscrowd": 0, **about})


def write_frames(folder, names, images):
    """images (T, H, W, 3) RGB as JPEG, or masks (T, H, W) as PNG, by the ending of their names below the folder"""
    (folder / names[0]).parent.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        path = str(folder / name)
        image = image[..., ::-1] if image.ndim == 3 else image                  # OpenCV wants BGR
        if not cv2.imwrite(path, image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if image.ndim == 3 else []):
            raise OSError(f"demo data: cannot write {path}. Is the disk full, or the folder read-only?")


def _tracks(masks):
    """masks (T, H, W) bool of one object  ->  its segmentations, bboxes and areas, None where it is absent"""
    coded = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    areas, boxes = rle.area(coded).tolist(), rle.toBbox(coded).tolist()
    seen = [area >= MIN_VISIBLE for area in areas]
    return {
        "segmentations": [{"size": m["size"], "counts": m["counts"].decode("ascii")} if s else None
                          for m, s in zip(coded, seen, strict=True)],
        "bboxes": [box if s else None for box, s in zip(boxes, seen, strict=True)],
        "areas": [area if s else None for area, s in zip(areas, seen, strict=True)],
    }


def _summary(root, document, written):
    videos = defaultdict(set)
    for annotation in document["annotations"]:
        videos[annotation["category_id"]].add(annotation["video_id"])
    return {
        "written": written, "root": str(root), "videos": len(document["videos"]),
        "frames": sum(v["length"] for v in document["videos"]), "annotations": len(document["annotations"]),
        "categories": len(document["categories"]),
        "absent": sum(a["segmentations"].count(None) for a in document["annotations"]),
        "fewest_videos": min(len(videos[c["id"]]) for c in document["categories"]),
    }
