"""Coco20iIndex: still images with instance masks, for training IoUNet on images (Section 4.3, Table 6).

In: COCO's instances_*.json and its images. Out: what YouTubeVISIndex offers, each image being a video of one frame, so
that an episode of one-frame clips is K supports and a query image of the same class.
"""
from collections import defaultdict
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from dataloaders.datasets.coco_json import check, load_tables
from dataloaders.datasets.ytvis import YouTubeVISIndex
from dataloaders.images import decode, read_bytes, real_path

MIN_AREA = 2 * 32 * 32       # pixels of a class in an image, as the usual lists of COCO-20i have it

# COCO classes that the video data shows (Section 5.3), by name. COCO's mouse is a computer mouse and stays.
YTVIS_OVERLAP = frozenset((
    "person", "bicycle", "car", "motorcycle", "airplane", "train", "truck", "boat", "cat", "dog", "horse", "cow",
    "elephant", "bear", "zebra", "giraffe", "skis", "snowboard", "skateboard", "surfboard", "tennis racket", "bird"))
MINIVSPW_OVERLAP = YTVIS_OVERLAP | frozenset((
    "bottle", "cup", "wine glass", "book", "bus", "chair", "bench", "dining table", "potted plant", "vase", "couch",
    "tv"))
REMOVED = {"none": frozenset(), "ytvis": YTVIS_OVERLAP, "minivspw": MINIVSPW_OVERLAP}


class Coco20iIndex(YouTubeVISIndex):
    """COCO and whatever has its format.

    root: a folder with the annotation file; images lie in root/train2017 for instances_train2017.json, else in
    root/images. video_data: whose classes are left out, a key of REMOVED. min_area: pixels; smaller ones are not used.

    All instances of a class in an image are one mask. Where some of them are annotated as a crowd, that mask would be
    coarse with them and incomplete without: such an image does not serve this class.
    """

    def __init__(self, root, annotations="annotations/instances_train2017.json", cache_dir=None, video_data="ytvis",
                 min_area=MIN_AREA):
        self.root, self.path = Path(root), Path(root, annotations)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"COCO annotations: no {annotations} in {self.root} (data.root, data.annotations).\n"
                f"  Set data.root to the folder with train2017/ and annotations/instances_train2017.json of "
                f"cocodataset.org, and data.annotations to the file below it.")
        self._images = self._image_folder()
        tables = load_tables(self.path, cache_dir, min_area)
        removed = [name in REMOVED[video_data] for name in tables["category_name"].tolist()]
        kept = ~np.isin(tables["annotation_category"], tables["category_id"][removed])
        self._use(tables, kept)

    def _image_folder(self):
        split = self.root / self.path.stem.removeprefix("instances_")
        folder = split if split.is_dir() else self.root / "images"
        if not folder.is_dir():
            raise FileNotFoundError(f"COCO images: neither {split} nor {folder} is a folder (data.root).\n"
                                    f"  Unpack the images of {self.path.name} to one of them.")
        return real_path(folder)

    def _use(self, tables, kept):
        """The lookups of the base class, over the annotations that are kept."""
        self._tables = tables
        self._row = {image: row for row, image in enumerate(tables["video_id"].tolist())}
        self._names = dict(zip(tables["category_id"].tolist(), tables["category_name"].tolist(), strict=True))
        groups = defaultdict(dict)
        for row in np.flatnonzero(kept).tolist():
            image = int(tables["video_id"][tables["annotation_video"][row]])
            groups[int(tables["annotation_category"][row])][image] = [row]
        self._annotations = dict(groups)
        if not groups:
            raise ValueError(f"{self.path}: no class is left: all are among those of the video data, or too small.\n"
                             f"  data.dataset: coco keeps every class; objects need {MIN_AREA} pixels.")

    def video_name(self, video_id):
        """Name of the image without its ending: its name in results, and in the key of its random draws."""
        return str(PurePosixPath(self.file_name(video_id, 0)).with_suffix(""))

    def read_image(self, video_id, frame):
        """One image: (H, W, 3) uint8, RGB."""
        path = real_path(self._images / self.file_name(video_id, frame))
        check(path.is_relative_to(self._images), self.path, f"image {video_id}: {path} lies outside {self._images}")
        if not path.is_file():
            raise FileNotFoundError(f"COCO image: no {path} (image {video_id} of {self.path}).\n"
                                    f"  Unpack the images to {self._images}")
        image = _decode_image(path)
        check(image is not None, path, "this is no image that OpenCV can read, or a truncated one")
        check(image.shape[:2] == self.size(video_id), path,
              f"{image.shape[0]} x {image.shape[1]} pixels, but {self.path.name} says {self.size(video_id)}")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode_image(path):
    """File  ->  (H, W, 3) uint8, BGR, as stored: COCO's masks do not follow a camera's orientation tag. Or None."""
    data = read_bytes(path)
    if path.suffix.lower() in (".jpg", ".jpeg") and b"\xff\xd9" not in data[-1024:]:
        return None              # OpenCV would fill the missing end with grey
    return decode(data, path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
