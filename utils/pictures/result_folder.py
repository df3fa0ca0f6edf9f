"""What segment.py leaves of a video: masks, a table and a film. Each frame is on the disk before the next one comes."""
import csv
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.pictures.caption import caption
from utils.pictures.film import Film
from utils.pictures.overlay import overlay, overlay_objects, palette, save_palette_mask

COLUMNS = ("frame", "time", "predicted_iou", "remembered", "area")
CORRECTED = "corrected"      # a further column, and the folder of masks that a person has drawn


class ResultFolder:
    """`with ResultFolder(output, fps) as results: results.add(...)` for every frame; the film gets its name at the end.

    The film shows each frame at its time, the last one for 1 / fps seconds. soft: also probabilities as grey PNGs;
    max_side: longest side of the film, None or 0: the frames'; with_film: False leaves the film out. An earlier result
    in the same folder is removed first. more: further columns of the table, which predictions bring by name; trust:
    the predicted IoU below which the film marks a frame as not trusted, None: none. Below each frame of the film stands
    what is known of it (caption.py).
    """

    def __init__(self, output, fps, soft=False, max_side=None, with_film=True, more=(), trust=None):
        self.output, self.soft, self.max_side, self.trust = Path(output), soft, max_side, trust
        remove_earlier(self.output)
        for name in ("masks", "soft") if soft else ("masks",):
            (self.output / name).mkdir(parents=True, exist_ok=True)
        self.film, self.film_size, self.begin = Film(self.output / "overlay", fps) if with_film else None, None, None
        (self.output / "frames.csv").unlink(missing_ok=True)               # a link is not written through
        self.table = open(self.output / "frames.csv", "x", newline="", encoding="utf-8", errors="backslashreplace")
        self.rows = csv.writer(self.table, lineterminator="\n")
        self.more, self.absent = tuple(more), 0
        self.rows.writerow(COLUMNS + self.more)
        self.table.flush()
        self.size, self.frames, self.iou_features, self.remembered, self.sum_of_ious = None, 0, 0, 0, 0.0

    def add(self, frame, prediction):
        """frame: index, time, image (H, W, 3) uint8; prediction: mask (H, W) bool or numbers of objects,
        probability, iou, remembered, and more {column: value}"""
        name, mask = f"{frame.index:05d}.png", prediction.mask
        absent = [f"not here {key.removesuffix('present')}".strip() for key, value in prediction.more.items()
                  if key.endswith("present") and not value]
        for folder in ("masks", CORRECTED) if prediction.more.get(CORRECTED) else ("masks",):
            save_palette_mask(self.output / folder / name, mask)
        if self.soft:
            grey = (prediction.probability * 255).round().astype(np.uint8)
            Image.fromarray(grey).save(self.output / "soft" / name)
        if self.film:
            self.film_size = self.film_size or scaled(mask.shape, self.max_side)
            self.begin = frame.time if self.begin is None else self.begin
            draw = overlay if mask.dtype == bool else overlay_objects
            image, small = fit(frame.image, mask, self.film_size)
            picture = np.concatenate([draw(image, small), self.caption(frame, prediction, small, absent)])
            self.film.add(picture[None], [frame.time - self.begin])
        iou = "" if prediction.iou is None else f"{prediction.iou:.4f}"
        self.rows.writerow([frame.index, f"{frame.time:.3f}", iou, int(prediction.remembered), int((mask > 0).sum()),
                            *map(prediction.more.get, self.more)])
        self.table.flush()
        self._count(prediction, mask.shape)
        self.absent += bool(absent)

    def caption(self, frame, prediction, mask, absent):
        """mask: as large as the film; absent: sentences  ->  (rows, columns, 3) uint8, what stands below the picture"""
        doubted = self.trust is not None and prediction.iou is not None and prediction.iou < self.trust
        said = [f"frame {frame.index}", f"{frame.time:.2f} s"]
        said += [] if prediction.iou is None else [f"predicted IoU {prediction.iou:.2f}"]
        said += ["not trusted"] * doubted + ["by hand"] * bool(prediction.more.get(CORRECTED)) + absent
        names = [name.removesuffix(" area") for name in self.more if name.endswith(" area")]
        there = np.bincount(mask.ravel(), minlength=256)[1:].nonzero()[0] + 1 if mask.dtype != bool else []
        legend = enumerate(names, start=1) if names and "objects" not in self.more else ((n, str(n)) for n in there)
        legend = [(name, palette()[number]) for number, name in legend]
        return caption(mask.shape[1], "   ".join(said), None if mask.dtype == bool else legend, doubted)

    def _count(self, prediction, size):
        self.size, self.frames = self.size or size, self.frames + 1
        self.remembered += prediction.remembered
        self.iou_features += prediction.iou is not None
        self.sum_of_ious += prediction.iou or 0.0

    def counts(self):
        """What the summary says of the frames; size: rows and columns of the first; film: its name, once it is there"""
        return {"frames": self.frames, "size": self.size and list(self.size), "remembered": self.remembered,
                "mean_predicted_iou": round(self.sum_of_ious / self.iou_features, 4) if self.iou_features else None,
                "absent": self.absent if any(name.endswith("present") for name in self.more) else None,
                "film": self.film.path.name if self.film and self.film.path.is_file() else None}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.table.close()
        if self.film:
            self.film.__exit__(*error)


def remove_earlier(output):
    """What an earlier call wrote here, as its own frames.csv lists it; nothing else is touched."""
    table = output / "frames.csv"
    if not table.is_file():
        return
    with open(table, newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        if tuple(next(rows, ()))[:len(COLUMNS)] != COLUMNS:
            raise ValueError(f"{table} was not written by segment.py.\n  Name another --output, or move it away")
        numbers = [int(row[0]) for row in rows if row and row[0].isdecimal()]
    stale = [output / folder / f"{number:05d}.png" for number in numbers for folder in ("masks", "soft", CORRECTED)]
    films = [output / f"overlay{suffix}" for suffix in (".mp4", ".webm", ".gif")]
    named = [output / name for name in ("summary.json", "tracks.json", "tracks_coco.json")]
    for file in [*stale, *films, *named, table]:
        file.unlink(missing_ok=True)


def scaled(size, max_side):
    """(rows, columns) of a frame  ->  those of the film, the longer one at most max_side"""
    if not max_side or max(size) <= max_side:
        return tuple(size)
    return tuple(max(round(n * max_side / max(size)), 1) for n in size)


def fit(image, mask, size):
    """A frame and its mask at the film's size; of another shape, as folders may hold some, within black borders"""
    if mask.shape == size:
        return image, mask
    factor = min(size[0] / mask.shape[0], size[1] / mask.shape[1])
    rows, cols = (min(max(round(n * factor), 1), most) for n, most in zip(mask.shape, size, strict=True))
    top, left = (size[0] - rows) // 2, (size[1] - cols) // 2
    fitted, small = np.zeros((*size, 3), np.uint8), np.zeros(size, mask.dtype)
    place = slice(top, top + rows), slice(left, left + cols)
    fitted[place] = cv2.resize(image, (cols, rows), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    small[place] = cv2.resize(mask.astype(np.uint8), (cols, rows), interpolation=cv2.INTER_NEAREST)
    return fitted, small
