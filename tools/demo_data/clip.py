"""The demo's own "your video": a support folder and a clip of a category that fold 1 of the demo never trains on.

In: a folder, a seed. Out: <root>/support/*.jpg with their masks *.png, <root>/video.webm (or what the film writer can),
twice as large as the videos of the demo data, <root>/truth/*.png, and <root>/clip.json with what it shows.
"""
import json
import os
from pathlib import Path

import cv2
import numpy as np

from tools.demo_data.scene import CATEGORIES, render_video
from tools.demo_data.ytvis import check_parameters, is_complete, write_frames, write_record

VERSION = 1                    # raised whenever the same parameters give other pictures
ABOUT = "clip.json"
CATEGORY = CATEGORIES[4]       # id 5: tested in fold 1, trained on in the others
ENLARGED = 2                   # textures have their size in pixels: the clip is drawn as small as the training videos


def write_demo_clip(root, open_film, seed=0, supports=2, size=(96, 160), frames=(48, 48), progress=iter):
    """Write the clip below `root`, unless the same one is there  ->  what clip.json says, with written, root, supports

    open_film(path)  ->  context manager with add(frames (T, H, W, 3) uint8) and path: utils.pictures.film.Film
    supports: images in the support folder; size: rows and columns in which all is drawn; frames: as in `demo.py`

    Raises ValueError for parameters without sense, and for a folder that holds anything else.
    """
    root = Path(root)
    parameters = {"layout": "clip", "version": VERSION, "seed": seed, "supports": supports, "size": list(size),
                  "frames": list(frames)}
    check_parameters(seed, supports, size, frames)
    written = not is_complete(root, parameters, ABOUT)
    if written:
        write_record(root, parameters)
        for number in progress(range(supports)):
            _write_support(root / "support", seed, number, size)
        about = _write_clip(root, open_film, seed, size, frames)
        part = root / (ABOUT + ".part")
        part.write_text(json.dumps(about, indent=1) + "\n")
        os.replace(part, root / ABOUT)
    return json.loads((root / ABOUT).read_text()) | {"written": written, "root": str(root), "supports": supports}


def _draw(seed, number, frames, size):
    """Video `number` of a stream that the demo data do not share  ->  images (T, H, W, 3), masks (T, H, W) bool"""
    rng = np.random.default_rng([seed, 5, number])
    images, labels, shown = render_video(CATEGORY, frames, size, rng, leaving=0.0)
    return images, np.isin(labels, [n for n, category in enumerate(shown, 1) if category == CATEGORY])


def _write_support(folder, seed, number, size):
    """The frame of a video of its own in which most of the object is seen."""
    images, masks = _draw(seed, number + 1, 12, size)
    best = int(masks.sum(axis=(1, 2)).argmax())
    write_frames(folder, [f"{number}.jpg", f"{number}.png"], [images[best], masks[best] * np.uint8(255)])


def _write_clip(root, open_film, seed, size, frames):
    length = int(np.random.default_rng([seed, 5]).integers(frames[0], frames[1] + 1))
    images, masks = _draw(seed, 0, length, size)
    rows, cols = (ENLARGED * n for n in size)
    with open_film(root / "video") as film:
        for t, (image, mask) in enumerate(zip(images, masks, strict=True)):
            film.add(cv2.resize(image, (cols, rows), interpolation=cv2.INTER_CUBIC)[None])
            large = cv2.resize(mask.astype(np.uint8), (cols, rows), interpolation=cv2.INTER_NEAREST)
            write_frames(root / "truth", [f"{t:05d}.png"], [large * np.uint8(255)])
    return {"category": CATEGORY.name, "video": film.path.name, "frames": length, "size": [rows, cols]}
