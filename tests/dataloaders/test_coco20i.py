"""Coco20iIndex: masks against pycocotools, the classes that are left out, and an error with a name for bad data."""
import copy
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from dataloaders import build_index
from dataloaders.datasets.coco20i import MINIVSPW_OVERLAP, REMOVED, YTVIS_OVERLAP, Coco20iIndex
from dataloaders.fewshot import train_batches
from dataloaders.images import MAX_PIXELS
from utils.config import load_config

MINI = Path(__file__).resolve().parents[3] / "shared" / "data" / "mini_coco"
ROWS, COLS = 90, 120
CATEGORIES = {1: "person", 16: "bird", 13: "stop sign", 52: "banana", 74: "mouse", 44: "bottle", 62: "chair"}

# All 80 categories of COCO, in its order.
COCO_NAMES = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop
sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy
bear, hair drier, toothbrush"""


def box(top, left, bottom, right):
    mask = np.zeros((ROWS, COLS), bool)
    mask[top:bottom, left:right] = True
    return mask


def compressed(mask):
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def run_lengths(mask):
    edges = np.flatnonzero(np.diff(mask.T.reshape(-1).astype(int))) + 1
    counts = np.diff([0, *edges.tolist(), mask.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if mask[0, 0] else counts}


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
            annotation(3, 7, 1, compressed(box(5, 5, 80, 60))),
            annotation(4, 3, 13, run_lengths(box(0, 0, 60, 60))),
            annotation(5, 3, 52, compressed(box(10, 10, 80, 80))),
            annotation(6, 9, 52, compressed(box(10, 10, 80, 80))),
            annotation(7, 9, 52, run_lengths(box(0, 0, 90, 120)), crowd=1),
            annotation(8, 4, 52, compressed(box(10, 10, 50, 60))),             # 2000 pixels
            annotation(9, 4, 52, compressed(box(40, 10, 60, 60))),             # 500 more and 500 of the same
            annotation(10, 5, 13, compressed(box(0, 0, 20, 100))),             # 2000 pixels alone: too small
            annotation(11, 5, 44, compressed(box(0, 0, 60, 100))),
            annotation(12, 5, 74, compressed(box(20, 0, 60, 100))),
            annotation(13, 5, 62, compressed(box(20, 0, 60, 100))),
        ],
    }


def write(root, data=None, images=True):
    root.mkdir(parents=True, exist_ok=True)
    (root / "instances.json").write_text(data if isinstance(data, str) else json.dumps(data or content()))
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

@pytest.mark.parametrize("cached", [False, True])
def test_masks_equal_pycocotools_and_small_or_crowded_ones_are_left_out(tmp_path, cached):
    write(tmp_path)
    for _ in range(1 + cached):
        index = index_of(tmp_path, video_data="none", cache_dir=tmp_path / "cache" if cached else None)
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
    stored = cv2.cvtColor(cv2.imread(str(tmp_path / "images" / "007.jpg")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(index.read_image(7, 0), stored)


def test_images_lie_in_the_folder_of_their_split(tmp_path):
    write(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "instances.json").rename(tmp_path / "annotations" / "instances_val2017.json")
    (tmp_path / "images").rename(tmp_path / "val2017")
    index = Coco20iIndex(tmp_path, "annotations/instances_val2017.json")
    assert index.read_image(3, 0).shape == (ROWS, COLS, 3)


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
    names = {name.strip() for name in COCO_NAMES.replace("\n", " ").split(",")}
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

def broken(change):
    data = copy.deepcopy(content())
    change(data)
    return data


def setting(*path, value):
    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value
    return change


POLYGONS, MASK = ("annotations", 0, "segmentation"), ("annotations", 4, "segmentation")


@pytest.mark.parametrize("change, message", [
    (setting("images", value=[]), "images: the list is empty"),
    (setting("annotations", 0, "image_id", value=99), "annotation 1: no usable image has the image_id 99"),
    (setting("annotations", 0, "image_id", value=[1]), "annotation number 0 .id 1.: image_id is a list, expected"),
    (setting("annotations", 0, "image_id", value="1"), "image_id is text, expected an integer"),
    (setting("annotations", 0, "category_id", value=99), "annotation 1: no usable category has the category_id 99"),
    (setting(*POLYGONS, value=[]), "annotation 1, image 7: a box without a mask"),
    (setting(*POLYGONS, value=[[1, 2, 3, 4]]), "annotation 1, image 7: a polygon is no list of at least three points"),
    (setting(*POLYGONS, value=[[1, 2, 3, 4, 5, float("nan")]]), "NaN and Infinity are not JSON"),
    (setting(*POLYGONS, value=[[1, 2, 3, 4, 5, 10 ** 400]]), r"segmentation\[0\]\[5\]: number out of range"),
    (setting(*POLYGONS, value=["abc"]), r"segmentation\[0\] is text, expected a list"),
    (setting(*POLYGONS, value=None), "segmentation is null, expected"),
    (setting(*POLYGONS, value=[[0, 0, 120, 0, 120, 90] * 20_000]), "outlines of more than 1048576 pixels"),
    (setting("annotations", 3, "segmentation", "counts", value=[5, 5]), "annotation 4, .* counts sum up to 10"),
    (setting(*MASK, "counts", value="0"), "annotation 5, image 3: RLE: its string does not fill"),
    (setting(*MASK, "size", value=[9, 9]), "annotation 5, image 3: RLE of size"),
    (setting("annotations", 1, "id", value=1), "annotation 1: its id occurs twice"),
    (setting("annotations", 1, "id", value=2 ** 63), "annotation number 1.*: id: expected an integer <="),
    (setting("images", 0, "id", value="x"), "image number 0: id is text, expected an integer"),
    (setting("images", 0, "height", value=10 ** 9), "image number 0 .id 7.: height: expected an integer <= 65535"),
    (lambda d: d["images"][0].update(height=60_000, width=60_000), f"more than {MAX_PIXELS} pixels"),
    (setting("images", 0, "file_name", value="../../secret.jpg"), "file name '../../secret.jpg' is not a name below"),
    (setting("images", 0, "file_name", value="..\\secret.jpg"), "the file name '../secret.jpg' is not a name below"),
    (setting("images", 0, "file_name", value="/etc/secret.jpg"), "is not a name below the images"),
    (setting("images", 0, "file_name", value="a\ud800.jpg"), "no valid JSON"),
    (setting("images", 0, "file_name", value="003.jpg"), "image 3: image 7 has the file '003.jpg', too"),
    (setting("categories", 0, "id", value=-2 ** 70), "category number 0"),
    (setting("categories", 0, "name", value="banana"), "category 52: category 1 is called 'banana', too"),
])
def test_bad_annotations_stop_with_their_place(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"instances\.json: .*{message}[\s\S]*\n  Download") as error:
        index_of(write(tmp_path, broken(change), images=False))
    assert len(str(error.value)) < 500


def test_file_names_of_windows_are_read(tmp_path):
    root = write(tmp_path, broken(setting("images", 0, "file_name", value="below\\007.jpg")))
    (root / "images" / "below").mkdir()
    (root / "images" / "007.jpg").rename(root / "images" / "below" / "007.jpg")
    assert index_of(root).read_image(7, 0).shape == (ROWS, COLS, 3)


def test_far_away_polygons_end_at_the_image(tmp_path):
    square = [-1e12, -1e12, 1e12, -1e12, 1e12, 1e12, -1e12, 1e12]
    data = broken(setting("annotations", 0, "segmentation", value=[square]))
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


def test_bad_images_are_named(tmp_path):
    index = index_of(write(tmp_path))
    file = tmp_path / "images" / "007.jpg"
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="007.jpg is truncated"):
        index.read_image(7, 0)
    cv2.imwrite(str(file), np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(ValueError, match="007.jpg has 5 x 6 pixels, but .*instances.json has 90 x 120"):
        index.read_image(7, 0)


def test_a_link_out_of_the_image_folder_is_refused(tmp_path):
    index = index_of(write(tmp_path / "data"))
    outside = tmp_path / "outside.jpg"
    (tmp_path / "data" / "images" / "007.jpg").rename(outside)
    (tmp_path / "data" / "images" / "007.jpg").symlink_to(outside)
    with pytest.raises(ValueError, match="is a link that leads out of"):
        index.read_image(7, 0)


def test_another_file_is_not_read_from_the_cache(tmp_path):
    first = index_of(write(tmp_path), cache_dir=tmp_path / "cache")
    data = broken(setting("annotations", 0, "category_id", value=74))
    second = index_of(write(tmp_path, data), cache_dir=tmp_path / "cache")
    assert 7 not in first.videos(74) and 7 in second.videos(74)
    assert REMOVED["none"] == frozenset()
