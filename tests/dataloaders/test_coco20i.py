"""Coco20iIndex: masks against pycocotools, the classes that are left out, and an error with a name for bad data."""
import json
from functools import partial

import cv2
import numpy as np
import pytest
from material import SHARED, changed, rle_of, run_lengths
from material import box as material_box
from pycocotools.coco import COCO
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from dataloaders import build_index
from dataloaders.datasets.coco20i import MINIVSPW_OVERLAP, YTVIS_OVERLAP, Coco20iIndex
from dataloaders.fewshot import train_batches
from dataloaders.images import MAX_PIXELS
from utils.config import load_config

MINI = SHARED / "data" / "mini_coco"
ROWS, COLS = 90, 120
CATEGORIES = {1: "person", 16: "bird", 13: "stop sign", 52: "banana", 74: "mouse", 44: "bottle", 62: "chair"}

box = partial(material_box, size=(ROWS, COLS))


def content():
    """Five images; polygons, both kinds of run lengths, two instances of one class, a crowd and a small object."""
    def annotation(number, image, category, segmentation, crowd=0):
        return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation,
                "iscrowd": crowd, "bbox": [0, 0, 1, 1], "area": 1}
    return {
        "images": [{"id": number, "file_name": f"{number:03d}.jpg", "height": ROWS, "width": COLS}
                   for number in (7, 3, 9, 4, 5)],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
        "annotations": [
            annotation(1, 7, 13, [[10, 10, 70.5, 12.25, 80, 60, 15, 75]]),
            annotation(2, 7, 13, [[60, 30, 110, 30, 110, 80], [2, 2, 9, 2, 9, 9, 2, 9]]),
            annotation(3, 7, 1, rle_of(box(5, 5, 80, 60))),
            annotation(4, 3, 13, run_lengths(box(0, 0, 60, 60))),
            annotation(5, 3, 52, rle_of(box(10, 10, 80, 80))),
            annotation(6, 9, 52, rle_of(box(10, 10, 80, 80))),
            annotation(7, 9, 52, run_lengths(box(0, 0, 90, 120)), crowd=1),
            annotation(8, 4, 52, rle_of(box(10, 10, 50, 60))),             # 2000 pixels
            annotation(9, 4, 52, rle_of(box(40, 10, 60, 60))),             # 500 more and 500 of the same
            annotation(10, 5, 13, rle_of(box(0, 0, 20, 100))),             # 2000 pixels alone: too small
            annotation(11, 5, 44, rle_of(box(0, 0, 60, 100))),
            annotation(12, 5, 74, rle_of(box(20, 0, 60, 100))),
            annotation(13, 5, 62, rle_of(box(20, 0, 60, 100))),
        ],
    }


def write(root, data=None, images=True):
    root.mkdir(parents=True, exist_ok=True)
    (root / "instances.json").write_text(json.dumps(data or content()))
    (root / "images").mkdir(exist_ok=True)
    for number in (7, 3, 9, 4, 5) if images else ():
        noise = np.random.default_rng(number).integers(0, 256, (ROWS, COLS, 3), np.uint8)
        cv2.imwrite(str(root / "images" / f"{number:03d}.jpg"), noise)
    return root


def index_of(root, **settings):
    return Coco20iIndex(root, "instances.json", **settings)


def unions_by_pycocotools(path):
    """{(image, class): mask} of all that is no crowd"""
    coco, unions = COCO(str(path)), {}
    for record in coco.loadAnns(coco.getAnnIds(iscrowd=None)):
        key = record["image_id"], record["category_id"]
        if coco.getAnnIds(imgIds=key[0], catIds=key[1], iscrowd=1):
            continue
        unions[key] = unions.get(key, False) | (coco.annToMask(record) > 0)
    return unions


# What is there

def test_masks_equal_pycocotools_and_small_or_crowded_ones_are_left_out(tmp_path):
    index = index_of(write(tmp_path), video_data="none")
    expected = {key: mask for key, mask in unions_by_pycocotools(tmp_path / "instances.json").items()
                if mask.sum() >= 2048}
    assert {(image, c) for c in index.class_ids for image in index.videos(c)} == set(expected)
    assert (4, 52) in expected and (5, 13) not in expected and (9, 52) not in expected
    for (image, class_id), mask in expected.items():
        assert np.array_equal(index.read_mask(image, 0, class_id), mask)
        assert index.frames(image, class_id).tolist() == [0] and index.length(image) == 1


def test_images_are_videos_of_one_frame_in_file_order(tmp_path):
    index = index_of(write(tmp_path))
    assert index.class_ids == [13, 44, 52, 62, 74] and index.class_name(13) == "stop sign"
    assert index.videos(13) == [7, 3] and index.videos(1) == []
    assert index.file_name(7, 0) == "007.jpg" and index.video_name(7) == "007" and index.size(7) == (ROWS, COLS)


@pytest.mark.skipif(not MINI.is_dir(), reason="needs the mini stills in ../shared/data/mini_coco")
def test_real_stills_equal_pycocotools():
    index = index_of(MINI, video_data="none", min_area=1)
    expected = unions_by_pycocotools(MINI / "instances.json")
    assert {(image, c) for c in index.class_ids for image in index.videos(c)} == set(expected)
    for (image, class_id), mask in expected.items():
        assert np.array_equal(index.read_mask(image, 0, class_id), mask)
        assert index.read_image(image, 0).shape[:2] == mask.shape
    left = index_of(MINI)
    assert [left.class_name(c) for c in left.class_ids] == ["eiffel_tower"]          # horse and elephant overlap


# Classes of the video data

def test_removed_names_are_cocos_own_and_as_many_as_specified():
    names = set(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]) - {"__background__", "N/A"}
    assert len(names) == 80 and YTVIS_OVERLAP < MINIVSPW_OVERLAP < names
    assert len(YTVIS_OVERLAP) == 22 and len(MINIVSPW_OVERLAP) == 34 and "mouse" not in MINIVSPW_OVERLAP


@pytest.mark.parametrize("dataset, left", [
    ("coco", set(CATEGORIES) - {16}), ("coco20i", {13, 52, 74, 44, 62}), ("coco20i_minivspw", {13, 52, 74})])
def test_overlapping_classes_are_removed(tmp_path, dataset, left):
    settings = [f"data.dataset={dataset}", f"data.root={write(tmp_path)}", "data.annotations=instances.json"]
    cfg = load_config([], settings)
    assert set(build_index(cfg).class_ids) == left                   # no image shows 16


def test_a_data_set_without_other_classes_is_an_error(tmp_path):
    data = content()
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] == 1]
    with pytest.raises(ValueError, match="no class is left.*\n.*data.dataset"):
        index_of(write(tmp_path, data))


def test_every_fold_trains_on_all_classes_and_supports_are_other_images(tmp_path):
    """One IoUNet serves all folds (Section 5.3)."""
    cfg = load_config(["config/vipmt/iounet_coco20i.yaml"], [
        f"data.root={write(tmp_path)}", "data.annotations=instances.json", "data.dataset=coco", "data.shots=1",
        "train.batch_size=2", "data.samples_per_class=2", "data.few_videos=repeat", "data.workers=0",
        "data.size=[48, 64]"])
    index, seen = build_index(cfg), {}
    for fold in (1, 2, 3, 4):
        batches = list(train_batches(cfg, index, fold, epoch=0))
        seen[fold] = {c for batch in batches for c in batch.class_ids}
        assert batches[0].query_images.shape == (2, 1, 3, 48, 64) and batches[0].support_masks.shape == (2, 1, 48, 64)
    assert seen[1] == seen[2] == seen[3] == seen[4] == set(index.class_ids)


# Bad data

POLYGONS, ANNOTATION = "annotations.0.segmentation", "annotations.4"
BAD_ANNOTATIONS = [      # what is common to all annotation files is in test_ytvis.py
    ("images", [], "images: the list is empty"),
    ("annotations.0.image_id", 99, "annotation 1: no usable image has the image_id 99"),
    ("annotations.0.image_id", "7", "image_id is text, expected an integer"),
    ("annotations.0.category_id", 99, "annotation 1: no usable category has the category_id 99"),
    (POLYGONS, [], "annotation 1, image 7: a box without a mask"),
    (POLYGONS, [[1, 2, 3, 4]], "annotation 1, image 7: a polygon is no list of at least three points"),
    (POLYGONS, [[1, 2, 3, 4, 5, float("nan")]], "NaN and Infinity are not JSON"),
    (POLYGONS, [[1, 2, 3, 4, 5, 10 ** 400]], r"segmentation\[0\]\[5\]: number out of range"),
    (POLYGONS, ["abc"], r"segmentation\[0\] is text, expected a list"),
    (POLYGONS, None, "segmentation is null, expected"),
    (POLYGONS, [[0, 0, 120, 0, 120, 90] * 20_000], "outlines of more than 1048576 pixels"),
    ("annotations.3.segmentation.counts", [5, 5], "annotation 4, .* counts sum up to 10"),
    (f"{ANNOTATION}.segmentation.counts", "0", "annotation 5, image 3: RLE: its string does not fill"),
    (f"{ANNOTATION}.segmentation.size", [9, 9], "annotation 5, image 3: RLE of size"),
    (f"{ANNOTATION}.id", 1, "annotation 1: its id occurs twice"),
    ("images.0", lambda image: image | {"height": 60_000, "width": 60_000}, f"more than {MAX_PIXELS} pixels"),
    ("images.0.file_name", "../../secret.jpg", "file name '../../secret.jpg' is not a name below"),
    ("images.0.file_name", "..\\secret.jpg", "the file name '../secret.jpg' is not a name below"),
    ("images.0.file_name", "/etc/secret.jpg", "is not a name below the images"),
    ("images.0.file_name", "003.jpg", "image 3: image 7 has the file '003.jpg', too"),
    ("categories.0.name", "banana", "category 52: category 1 is called 'banana', too"),
]


@pytest.mark.parametrize("case", BAD_ANNOTATIONS, ids=lambda case: case[0])
def test_bad_annotations_stop_with_their_place(tmp_path, case):
    *place, message = case
    with pytest.raises(ValueError, match=rf"instances\.json: .*{message}[\s\S]*\n  Download") as error:
        index_of(write(tmp_path, changed(content(), *place), images=False))
    assert len(str(error.value)) < 500


def test_file_names_of_windows_are_read(tmp_path):
    root = write(tmp_path, changed(content(), "images.0.file_name", "below\\007.jpg"))
    (root / "images" / "below").mkdir()
    (root / "images" / "007.jpg").rename(root / "images" / "below" / "007.jpg")
    assert index_of(root).read_image(7, 0).shape == (ROWS, COLS, 3)


def test_far_away_polygons_end_at_the_image(tmp_path):
    square = [-1e12, -1e12, 1e12, -1e12, 1e12, 1e12, -1e12, 1e12]
    data = changed(content(), POLYGONS, [square])
    assert index_of(write(tmp_path, data)).read_mask(7, 0, 13).all()


def test_missing_things_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no instances.json in .*data.annotations"):
        index_of(tmp_path)
    index = index_of(write(tmp_path, images=False))
    with pytest.raises(FileNotFoundError, match="video 7, frame 0 of .*: no file .*007.jpg"):
        index.read_image(7, 0)
    (tmp_path / "images").rmdir()
    with pytest.raises(FileNotFoundError, match="COCO images: neither"):
        index_of(tmp_path)
