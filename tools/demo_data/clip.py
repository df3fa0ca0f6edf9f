"""The demo's own "your video": a support folder and a clip of a category that fold 1 of the demo never trains on.

Out: <root>/support/*.jpg with their masks *.png, <root>/video.mp4 (or what the film writer can), twice as large as
the videos of the demo data, <root>/truth/*.png, and <root>/clip.json with what it shows.
"""
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from tools.demo_data.folder import begin, finish, write_frames
from tools.demo_data.scene import CATEGORIES, render_video
from utils.pictures.film import Film

VERSION = 1                    # raised whenever the same parameters give other pictures
ABOUT = "clip.json"
CATEGORY = CATEGORIES[4]       # id 5: tested in fold 1, trained on in the others
ENLARGED = 2                   # textures have their size in pixels: the clip is drawn as small as the training videos
open_film = partial(Film, fps=12)


def write_demo_clip(root, open_film=open_film, seed=0, supports=2, size=(96, 160), frames=(48, 48), progress=iter):
    """Write the clip below `root`, unless the same one is there  ->  False where it is

    open_film(path)  ->  context manager with add(frames (T, H, W, 3) uint8) and path: a Film
    supports: images in the support folder; size: rows and columns in which all is drawn; frames: as in `ytvis.py`
    """
    root = Path(root)
    parameters = {"layout": "clip", "version": VERSION, "seed": seed, "supports": supports, "size": list(size),
                  "frames": list(frames)}
    if not begin(root, parameters, ABOUT):
        return False
    for number in progress(range(supports)):              # the frame of a video of its own that shows most of it
        images, masks = _draw(seed, number + 1, 12, size)
        best = int(masks.sum(axis=(1, 2)).argmax())
        pair = images[best], masks[best] * np.uint8(255)
        write_frames(root / "support", [f"{number}.jpg", f"{number}.png"], pair)
    finish(root / ABOUT, _write_film(root, open_film, seed, size, frames))
    return True


def _draw(seed, number, frames, size):
    """Video `number` of a stream that the demo data do not share  ->  images (T, H, W, 3), masks (T, H, W) bool"""
    rng = np.random.default_rng([seed, 5, number])
    images, labels, shown = render_video(CATEGORY, frames, size, rng, leaving=0.0)
    return images, np.isin(labels, [n for n, category in enumerate(shown, 1) if category == CATEGORY])


def _write_film(root, open_film, seed, size, frames):
    length = int(np.random.default_rng([seed, 5]).integers(frames[0], frames[1] + 1))
    images, masks = _draw(seed, 0, length, size)
    rows, cols = (ENLARGED * n for n in size)
    with open_film(root / "video") as film:
        for image in images:
            film.add(cv2.resize(image, (cols, rows), interpolation=cv2.INTER_CUBIC)[None])
    large = np.repeat(np.repeat(masks, ENLARGED, axis=1), ENLARGED, axis=2) * np.uint8(255)
    write_frames(root / "truth", [f"{t:05d}.png" for t in range(length)], large)
    return {"category": CATEGORY.name, "video": film.path.name, "frames": length, "size": [rows, cols]}
