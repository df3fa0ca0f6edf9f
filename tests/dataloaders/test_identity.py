"""Which data a run reads: the same wherever it lies, other where an annotation, a mask or a sampled image is other."""
import shutil

import cv2
import pytest
from vos_material import write_davis, write_ytvos

from dataloaders.datasets.coco20i import Coco20iIndex
from dataloaders.datasets.davis import DavisIndex
from dataloaders.datasets.minivspw import MiniVSPWIndex
from dataloaders.datasets.ytvis import YouTubeVISIndex
from dataloaders.datasets.ytvos import YouTubeVosIndex
from dataloaders.identity import data_identity
from tools.demo_data.coco import write_demo_coco
from tools.demo_data.minivspw import write_demo_minivspw
from tools.demo_data.ytvis import write_demo_data
from utils.records import changed_data

VIDEOS = {"videos_per_category": 1, "size": (48, 80), "frames": (2, 2)}
# what writes it, its index; a file that counts wholly and one that is sampled, the only ones of the kind
LAYOUTS = {
    "ytvis": (lambda root: write_demo_data(root, **VIDEOS), YouTubeVISIndex, "train.json", "JPEGImages/*/*.jpg"),
    "minivspw": (lambda root: write_demo_minivspw(root, **VIDEOS), MiniVSPWIndex, "minivspw_lists/train_2.txt",
                 "data/*/mask/*.png"),
    "coco": (lambda root: write_demo_coco(root, images_per_category=1, size=(72, 96)),
             lambda root: Coco20iIndex(root, video_data="none", min_area=1), "annotations/instances_train2017.json",
             "train2017/*.jpg"),
    "davis": (write_davis, lambda root: DavisIndex(root, "ImageSets/2017/val.txt"), "Annotations/480p/two/00000.png",
              "Annotations/480p/*/*5.png"),
    "ytvos": (write_ytvos, lambda root: YouTubeVosIndex(root, "meta.json"), "Annotations/b2/00000.png",
              "JPEGImages/*/*.jpg")}


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request, tmp_path_factory):
    LAYOUTS[request.param][0](root := tmp_path_factory.mktemp(request.param) / "data")
    return request.param, root


def identity(layout, root):
    return data_identity(layout, [LAYOUTS[layout][1](root)])


def test_data_may_move_and_nothing_of_it_may_change(written, tmp_path):
    layout, root = written
    before = identity(layout, root)
    shutil.copytree(root, moved := tmp_path / "elsewhere")
    assert changed_data(before, identity(layout, moved)) == [] and len(before["sample"].split()) >= 16
    for image in moved.glob(LAYOUTS[layout][3]):
        cv2.imwrite(str(image), cv2.imread(str(image), cv2.IMREAD_UNCHANGED) // 2)
    words, = changed_data(before, identity(layout, moved))
    assert "sampled images and masks have another content" in words
    with open(moved / LAYOUTS[layout][2], "ab") as file:
        file.write(b"\n")
    words, = changed_data(before, identity(layout, moved))
    assert words.startswith("the annotations ") and words.endswith(" had")


def test_files_that_are_missing_or_lead_out_are_unknown(tmp_path):
    LAYOUTS["ytvis"][0](tmp_path / "data")
    before, images = identity("ytvis", tmp_path / "data"), sorted((tmp_path / "data").rglob("*.jpg"))
    images[0].unlink()
    shutil.move(images[1], tmp_path / "outside.jpg")
    images[1].symlink_to(tmp_path / "outside.jpg")
    after = identity("ytvis", tmp_path / "data")
    assert after["sample"].split()[:2] == ["-", "-"] and after["sample"][4:] in before["sample"]
    assert changed_data(before, after) == [] and changed_data(None, after) == []
