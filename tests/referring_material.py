"""A small data set in the layouts of Mini-Ref-YouTube-VOS and Mini-Ref-SAIL-VOS: two squares that move."""
import json

import numpy as np
from PIL import Image

from utils.pictures.overlay import save_palette_mask

SIZE = (36, 64)
CLASSES = ("cat", "dog", "bus", "car", "bird")       # fold 1 tests cat and bird
COLOURS = {1: (204, 26, 26), 2: (26, 204, 26)}
SENTENCES = [("The RED  square on the left", 1), ("the green square on the right", 2), ("red one", 1)]


def squares(frame):
    """Labels of a frame: object 1 goes right at the left, object 2 goes up at the right and is gone in frame 3"""
    labels = np.zeros(SIZE, np.uint8)
    labels[8:20, 4 + frame:16 + frame] = 1
    if frame != 3:
        labels[20 - frame:30 - frame, 44:56] = 2
    return labels


def picture(frame, noise):
    labels = squares(frame)
    image = noise.integers(90, 110, (*SIZE, 3), np.uint8)
    for number, colour in COLOURS.items():
        image[labels == number] = colour
    return image


def write_ref(root, videos=3, frames=7, sail=False, classes=CLASSES):
    """`videos` of each class, the last one with `frames` frames, the others with one less each  ->  root"""
    below, ending = ("", "bmp") if sail else ("train/", "png")
    images, masks = "Images" if sail else "train/JPEGImages", f"{below}Annotations"
    sentences, things, noise = {}, {}, np.random.default_rng(0)
    for name in classes:
        for k in range(videos):
            video, stems = f"{name}{k}", [f"{5 * t:05d}" for t in range(frames - videos + k + 1)]
            for t, stem in enumerate(stems):
                path = root / images / video / f"{stem}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture(t, noise)).save(path)
                labels = squares(t)
                save_palette_mask(root / masks / video / f"{stem}.png", 255 * (labels == 1) if sail else labels)
            shown = [SENTENCES[0]] if sail else SENTENCES
            sentences[video] = {"frames": stems[::-1], "expressions": {
                str(n): {"exp": text, "obj_id": str(number)} for n, (text, number) in enumerate(shown)}}
            things[video] = {"objects": {str(n): {"category": name, "frames": stems} for n in (1, 2)}}
    write_json(root, sail, sentences, things)
    if not sail:
        (root / "categories.json").write_text(json.dumps(classes))
    return root


def write_json(root, sail, sentences, things):
    files = [root / name for name in (("meta_expressions.json", "meta.json") if sail else
                                      ("meta_expressions/train/meta_expressions.json", "train/meta.json"))]
    for file, content in zip(files, (sentences, things), strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"videos": content}))


def change(root, sentences=None, things=None):
    """Edits of the two files' videos, by functions that change them"""
    for name, edit in (("meta_expressions/train/meta_expressions.json", sentences), ("train/meta.json", things)):
        if edit:
            content = json.loads((root / name).read_text())
            edit(content["videos"])
            (root / name).write_text(json.dumps(content))
