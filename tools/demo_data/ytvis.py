"""The demo data set: synthetic videos in YouTube-VIS 2019 layout, so that everything runs without a download.

Out: <root>/JPEGImages/<video>/<frame>.jpg and <root>/train.json, as the real data set has them, and <root>/demo.json
with the parameters. What the videos show is in `scene.py`; the layouts of VSPW and COCO are in `minivspw.py` and
`coco.py`.
"""
from functools import partial
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

from tools.demo_data.folder import begin, draw_all, finish, video_size, write_frames
from tools.demo_data.scene import CATEGORIES, ENCODER_CATEGORIES, render_video

VERSION = 2                    # raised whenever the same parameters give other bytes
ANNOTATIONS = "train.json"
MIN_VISIBLE = 16               # pixels; of which less is seen, that counts as absent in the frame
TURNING = {"turning": 0.5, "leaving": 0.4}      # of the layout in which memory should help


def write_demo_data(root, seed=0, videos_per_category=12, size=(96, 160), frames=(12, 16), categories=CATEGORIES,
                    jobs=1, progress=iter, **scene):
    """Write the data set below `root`  ->  False where the same one is there already.

    size: rows and columns of most videos, see video_size; frames: fewest and most of a video; jobs: processes;
    progress: wraps the iteration over the videos, for example tqdm; scene: what else render_video takes.
    """
    root = Path(root)
    parameters = {"version": VERSION, "seed": seed, "per_category": videos_per_category, "size": list(size),
                  "frames": list(frames), "categories": [category.name for category in categories], **scene}
    if not begin(root, parameters, ANNOTATIONS):
        return False
    document = {
        "info": {"description": f"synthetic demo data for few-shot video object segmentation, seed {seed}",
                 "version": str(VERSION)},
        "licenses": [{"id": 1, "name": "synthetic: no rights reserved", "url": ""}],
        "videos": [],
        "categories": [{"id": c.id, "name": c.name, "supercategory": c.shape} for c in categories],
        "annotations": []}
    draw = partial(_draw_video, root, seed, size, frames, categories, scene)
    for video, objects in draw_all(draw, videos_per_category * len(categories), jobs, progress):
        document["videos"].append(video)
        for one in objects:
            document["annotations"].append({"id": len(document["annotations"]) + 1, **one})
    finish(root / ANNOTATIONS, document)
    return True


write_encoder_data = partial(write_demo_data, categories=ENCODER_CATEGORIES)
write_turning_data = partial(write_demo_data, frames=(28, 36), **TURNING)


def _draw_video(root, seed, size, frames, categories, scene, index):
    """Write the frames of video `index`  ->  its entry of train.json, those of its objects without their ids

    Each video has its own generator: it does not depend on how many there are, nor on who draws it.
    """
    rng = np.random.default_rng([seed, index])
    rows, cols = video_size(index, size)
    length = int(rng.integers(frames[0], frames[1] + 1))
    images, labels, seen = render_video(categories[index % len(categories)], length, (rows, cols), rng, categories,
                                        **scene)
    names = [f"demo_{index:04d}/{t:05d}.jpg" for t in range(length)]
    write_frames(root / "JPEGImages", names, images)
    about = {"width": cols, "height": rows, "length": length}
    video = {"id": index + 1, "file_names": names, **about, "license": 1, "date_captured": "", "flickr_url": "",
             "coco_url": ""}
    tracks = [_track(labels == label) for label in range(1, len(seen) + 1)]
    return video, [{"video_id": index + 1, "category_id": category.id, **track, "iscrowd": 0, **about}
                   for category, track in zip(seen, tracks, strict=True)
                   if any(track["segmentations"])]        # an object that is never seen is not annotated


def _track(masks):
    """masks (T, H, W) bool of one object  ->  its segmentations, bboxes and areas, None where it is absent"""
    coded = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    found = [(area, box, {"size": code["size"], "counts": code["counts"].decode("ascii")})
             if area >= MIN_VISIBLE else (None, None, None)
             for code, area, box in zip(coded, rle.area(coded).tolist(), rle.toBbox(coded).tolist(), strict=True)]
    areas, boxes, codes = map(list, zip(*found, strict=True))
    return {"segmentations": codes, "bboxes": boxes, "areas": areas}
