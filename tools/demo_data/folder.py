"""A folder of demo data: the same bytes for the same parameters, whatever the number of processes; whole or absent."""
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2

RECORD = "demo.json"           # the parameters, the first file that is written
MIN_SIZE = 48                  # rows and columns
JPEG_QUALITY = 92


def begin(root, parameters, last):
    """Check the parameters, make the folder and put them into it  ->  False where exactly this data set is complete.

    last: the file or folder that is written last, by `finish` or os.replace: where it is, the data set is complete.
    ValueError: parameters without sense, or a folder that holds anything else; then nothing is written.
    """
    check_parameters(parameters)
    root = Path(root)
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        check_is_the_same(root, parameters)
        if (root / last).exists():
            return False
    root.mkdir(parents=True, exist_ok=True)
    (root / RECORD).write_text(json.dumps(parameters, indent=1) + "\n")
    return True


def check_parameters(parameters):
    size, (fewest, most) = parameters["size"], parameters.get("frames", (1, 1))
    wrong = [f"{name} {value}" for name, value in parameters.items()
             if name == "seed" and value < 0 or name in ("supports", "per_category") and value < 1]
    if wrong or min(size) < MIN_SIZE or not 1 <= fewest <= most:
        what = ", ".join(wrong) or f"size {size}, frames {fewest} to {most}"
        raise ValueError(f"demo data: {what}: the seed must be 0 or more, rows and columns {MIN_SIZE} or more (e.g. "
                         "96 160), all else 1 or more (frames: the fewest and the most, e.g. 12 16).")


def check_is_the_same(root, parameters):
    try:
        found = json.loads((root / RECORD).read_text())
    except (OSError, ValueError) as error:
        found = f"something else ({type(error).__name__})"
    if found != parameters:
        raise ValueError(f"demo data: {root} is there with other parameters.\n  there: {found}\n  asked: {parameters}\n"
                         "  Nothing was changed. Name another folder, or remove this one first.")


def finish(path, document):
    """The JSON file that completes a data set, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document))
    os.replace(part, path)


def draw_all(draw, count, jobs, progress):
    """draw(0), ..., draw(count - 1), in this order, computed by `jobs` processes; progress wraps range(count)."""
    if jobs == 1:
        yield from map(draw, progress(range(count)))
        return
    pool = ProcessPoolExecutor(jobs)
    try:
        for _, drawn in zip(progress(range(count)), pool.map(draw, range(count), chunksize=2), strict=True):
            yield drawn
    finally:
        pool.shutdown(cancel_futures=True)


def video_size(index, size):
    """Rows and columns of one video: every 13th is upright, every 13th 5/4 as high.

    13 and the numbers of categories have no common factor, so that each category gets its share.
    """
    rows, cols = size
    return {5: (cols, rows), 11: (rows * 5 // 4, cols)}.get(index % 13, (rows, cols))


def write_frames(folder, names, images):
    """images (T, H, W, 3) RGB as JPEG, or masks (T, H, W) as PNG, by the ending of their names below the folder"""
    (folder / names[0]).parent.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        path = str(folder / name)
        image = image[..., ::-1] if image.ndim == 3 else image                  # OpenCV wants BGR
        if not cv2.imwrite(path, image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if image.ndim == 3 else []):
            raise OSError(f"demo data: cannot write {path}. Is the disk full, or the folder read-only?")
