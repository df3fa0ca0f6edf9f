"""A small data set in the layouts of DAVIS and YouTube-VOS: squares that move, the second one comes later."""
import json
import shutil

import cv2
import numpy as np

from utils.pictures.overlay import save_palette_mask

SIZE = (40, 56)
LATE = 3                     # frame in which object 2 appears


def squares(frame, numbers=(1, 2), late=LATE):
    """Labels of a frame: object 1 is a square of 12 pixels that goes right by 2 a frame, object 2 one of 10, goes up"""
    labels = np.zeros(SIZE, np.uint8)
    labels[6:18, 4 + 2 * frame:16 + 2 * frame] = numbers[0]
    if frame >= late:
        labels[28 - frame:38 - frame, 20:30] = numbers[1]
    return labels


def write_video(root, name, frames=8, stems=None, given_only=False, subfolder="480p", **options):
    """Frames and masks of one video  ->  its labels (T, H, W); given_only: masks only where an object appears"""
    stems = stems or [f"{t:05d}" for t in range(frames)]
    rng, found, known = np.random.default_rng(len(name)), [], set()
    for t, stem in enumerate(stems):
        labels = squares(t, **options)
        image = rng.integers(90, 110, (*SIZE, 3), np.uint8)
        image[labels == 1] = (200, 30, 30)
        image[labels == 2] = (30, 200, 30)
        path = root / "JPEGImages" / subfolder / name / f"{stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
        new = set(np.unique(labels).tolist()) - {0} - known
        known |= new
        if new or not given_only:
            shown = np.where(np.isin(labels, list(new)), labels, 0) if given_only else labels
            save_palette_mask(root / "Annotations" / subfolder / name / f"{stem}.png", shown)
        found.append(labels)
    return np.stack(found)


def write_davis(root, names=("one", "two"), frames=8, **options):
    """->  {name: labels (T, H, W)}; the list is ImageSets/2017/val.txt"""
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("".join(f"{name}\n" for name in names))
    return {name: write_video(root, name, frames, **options) for name in names}


def write_ytvos(root, names=("a1", "b2"), frames=8, given_only=True, asked=None):
    """->  {name: labels (T, H, W)}; frames in steps of five; asked: their positions that meta.json lists, None: all"""
    stems, found, videos = [f"{5 * t:05d}" for t in range(frames)], {}, {}
    for name in names:
        found[name] = write_video(root, name, frames, stems, given_only, subfolder="")
        listed = stems if asked is None else [stems[t] for t in asked]
        videos[name] = {"objects": {str(k): {"category": kind, "frames": listed}
                                    for k, kind in ((1, "fox"), (2, "hat"))}}
    (root / "meta.json").write_text(json.dumps({"videos": videos}))
    return found


def write_coco(folder, picture):
    """COCO with one picture: object 1 of frame 4 of a video, and a crowd; the list is i.json"""
    (folder / "images").mkdir(parents=True)
    shutil.copy(picture, folder / "images" / "4.jpg")
    (folder / "i.json").write_text(json.dumps({
        "images": [{"id": 4, "file_name": "4.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 1, "segmentation": [[12, 6, 24, 6, 24, 18, 12, 18]]},
                        {"id": 2, "image_id": 4, "category_id": 1, "iscrowd": 1,
                         "segmentation": {"size": [*SIZE], "counts": [0, SIZE[0] * SIZE[1]]}}]}))
