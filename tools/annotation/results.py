"""What segment.py has left of a film, for the page of annotate.py: which frames look worst, masks to be corrected.

In: the folder of a result. Out: numbers of frames in the order in which they should be looked at, masks, films.
"""
import csv
from pathlib import Path

import numpy as np

from dataloaders.images import read_mask
from utils.pictures.overlay import save_palette_mask
from utils.pictures.result_folder import CORRECTED

FILMS = ("overlay.mp4", "overlay.webm")


class Result:
    """folder: --output of segment.py; rows: those of its frames.csv by number of the frame."""

    def __init__(self, folder):
        self.folder = Path(folder)
        with open(self.folder / "frames.csv", newline="", encoding="utf-8") as file:
            self.rows = {int(row["frame"]): row for row in csv.DictReader(file)}

    def mask(self, number):
        """(H, W) bool: as drawn by hand, else as found"""
        paths = [self.folder / name / f"{number:05d}.png" for name in (CORRECTED, "masks")]
        return read_mask(next(path for path in paths if path.is_file())) > 0

    def found(self, number):
        return read_mask(self.folder / "masks" / f"{number:05d}.png") > 0

    @property
    def corrected(self):
        """Numbers of the frames whose masks were drawn by hand and are not in the result yet"""
        numbers = [int(path.stem) for path in sorted(Path(self.folder, CORRECTED).glob("*.png"))]
        return [n for n in numbers if not np.array_equal(self.mask(n), self.found(n))]

    def correct(self, number, mask):
        save_palette_mask(self.folder / CORRECTED / f"{number:05d}.png", mask)

    def worst(self):
        """-> [(sentence, number)], the least predicted IoU first; without one, where the area jumps most

        Frames drawn by hand come last.
        """
        numbers, areas = list(self.rows), np.array([float(row["area"]) for row in self.rows.values()])
        before = np.concatenate([areas[:1], areas[:-1]])
        jumps = (areas - before) / np.maximum(np.maximum(areas, before), 1)
        listed = []
        for number, jump in zip(numbers, jumps.tolist(), strict=True):
            row = self.rows[number]
            iou = row["predicted_iou"]
            by_hand = bool(row.get(CORRECTED))
            said = "by hand" if by_hand else f"IoU {float(iou):.2f}" if iou else f"area {jump:+.0%}"
            listed.append((by_hand, float(iou) if iou else -abs(jump), number, f"frame {number}: {said}"))
        return [(text, number) for *_, number, text in sorted(listed)]

    def changed(self, other, count):
        """Numbers of the frames whose masks differ most from those of another Result, at most `count`"""
        share = {n: (self.found(n) ^ other.found(n)).mean() for n in self.rows if n in other.rows}
        return sorted(n for n in sorted(share, key=lambda n: -share[n])[:count] if share[n])

    @property
    def film(self):
        """Its path, or None"""
        return next((f for f in (self.folder / name for name in FILMS) if f.is_file()), None)
