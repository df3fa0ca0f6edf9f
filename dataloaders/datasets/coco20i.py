"""Coco20iIndex: still images with instance masks, for training IoUNet on images (Section 4.3, Table 6).

In: COCO's instances_*.json and its images. Out: an index in which each image is a video of one frame, so that an
episode of one-frame clips is K supports and a query image of the same class.
"""
from pathlib import Path, PurePosixPath

import numpy as np

from dataloaders.datasets.coco_json import load_tables
from dataloaders.datasets.tables import TableIndex

MIN_AREA = 2 * 32 * 32       # pixels of a class in an image, as the usual lists of COCO-20i have it

# COCO classes that the video data shows (Section 5.3), by name. COCO's mouse is a computer mouse and stays.
YTVIS_OVERLAP = frozenset((
    "person", "bicycle", "car", "motorcycle", "airplane", "train", "truck", "boat", "cat", "dog", "horse", "cow",
    "elephant", "bear", "zebra", "giraffe", "skis", "snowboard", "skateboard", "surfboard", "tennis racket", "bird"))
MINIVSPW_OVERLAP = YTVIS_OVERLAP | frozenset((
    "bottle", "cup", "wine glass", "book", "bus", "chair", "bench", "dining table", "potted plant", "vase", "couch",
    "tv"))
REMOVED = {"none": frozenset(), "ytvis": YTVIS_OVERLAP, "minivspw": MINIVSPW_OVERLAP}


class Coco20iIndex(TableIndex):
    """COCO and whatever has its format.

    root: a folder with the annotation file; images lie in root/train2017 for instances_train2017.json, else in
    root/images. video_data: whose classes are left out, a key of REMOVED. min_area: pixels; smaller ones are not used.

    All instances of a class in an image are one mask. Where some of them are annotated as a crowd, that mask would be
    coarse with them and incomplete without: such an image does not serve this class.
    """

    def __init__(self, root, annotations="annotations/instances_train2017.json", cache_dir=None, video_data="ytvis",
                 min_area=MIN_AREA):
        path = Path(root, annotations)
        if not path.is_file():
            raise FileNotFoundError(
                f"COCO annotations: no {annotations} in {root} (data.root, data.annotations).\n"
                f"  Set data.root to the folder with train2017/ and annotations/instances_train2017.json of "
                f"cocodataset.org, and data.annotations to the file below it.")
        images = image_folder(Path(root), path)
        tables = load_tables(path, cache_dir, min_area)
        removed = [name in REMOVED[video_data] for name in tables["category_name"].tolist()]
        super().__init__(path, images, tables, ~np.isin(tables["annotation_category"], tables["category_id"][removed]))
        if not self._annotations:
            raise ValueError(f"{path}: no class is left: all are among those of the video data, or too small.\n"
                             f"  data.dataset: coco keeps every class; objects need {min_area} pixels.")

    def side(self, fold, side):
        """All classes: stills are for IoUNet, one for all folds (Section 5.3), and none of them is a test class."""
        return self, self.class_ids

    def video_name(self, video_id):
        """Name of the image without its ending."""
        return str(PurePosixPath(self.file_name(video_id, 0)).with_suffix(""))


def image_folder(root, path):
    """Where the images of an annotation file lie"""
    split = root / path.stem.removeprefix("instances_")
    folder = split if split.is_dir() else root / "images"
    if not folder.is_dir():
        raise FileNotFoundError(f"COCO images: neither {split} nor {folder} is a folder (data.root).\n"
                                f"  Unpack the images of {path.name} to one of them.")
    return folder
