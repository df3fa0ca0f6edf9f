"""Demo data in the layouts of VSPW and COCO: what is written, its lists and folds, what IoUNet's images leave out."""
import json
import sys
from collections import Counter
from functools import partial

import cv2
import numpy as np
import pytest
from material import tree
from pycocotools import mask as rle
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from dataloaders import build_index, get_task
from dataloaders.datasets.coco20i import REMOVED, Coco20iIndex
from dataloaders.datasets.folds import MINIVSPW_CLASSES, minivspw_classes
from dataloaders.datasets.minivspw import MiniVSPWIndex, read_list
from tools import make_demo_data
from tools.demo_data import coco as demo_coco
from tools.demo_data import minivspw as demo_minivspw
from tools.demo_data import scene as demo_scene
from tools.demo_data.clip import write_demo_clip
from tools.demo_data.coco import write_demo_coco
from tools.demo_data.minivspw import VALIDATED, with_void, write_demo_minivspw
from tools.demo_data.scene import OUTLINES, SURFACES, render_video
from tools.demo_data.ytvis import MIN_VISIBLE, write_demo_data
from utils.config import load_config

VIDEOS = {"seed": 1, "videos_per_category": 2, "size": (48, 80), "frames": (4, 5)}
IMAGES = {"seed": 1, "images_per_category": 4, "size": (144, 192)}
WRITERS = {"ytvis": (partial(write_demo_data, **VIDEOS), "train.json"),
           "minivspw": (partial(write_demo_minivspw, **VIDEOS), "minivspw_lists"),
           "coco": (partial(write_demo_coco, **IMAGES), "annotations/instances_train2017.json"),
           "clip": (partial(write_demo_clip, supports=4, size=(48, 80), frames=(4, 4)), "clip.json")}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Layout -> the folder of a small data set, written once"""
    roots = {}

    def folder(layout):
        if layout not in roots:
            roots[layout] = tmp_path_factory.mktemp(layout) / "demo"
            assert WRITERS[layout][0](roots[layout])
        return roots[layout]
    return folder


@pytest.fixture
def vspw(written):
    return written("minivspw")


@pytest.fixture
def coco(written):
    """A small data set like COCO: its folder and documents."""
    root = written("coco")
    return root, {s: json.loads((root / f"annotations/instances_{s}.json").read_text()) for s in demo_coco.SPLITS}


def looks(categories):
    return {(c.shape, c.texture) for c in categories}


# -- every layout

@pytest.mark.parametrize("layout", WRITERS)
def test_interrupted_run_is_completed_to_the_same_bytes(layout, written, tmp_path):
    def stop_early(items):
        yield from list(items)[:3]
        raise KeyboardInterrupt
    write, last = WRITERS[layout]
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, progress=stop_early)
    assert not (tmp_path / last).exists() and len(list(tmp_path.rglob("*.jpg"))) >= 3
    write(tmp_path)
    root = written(layout)
    assert tree(tmp_path) == tree(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not write(root) and before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.parametrize("layout, other", [("ytvis", "minivspw"), ("minivspw", "coco"), ("coco", "clip"),
                                           ("clip", "ytvis")])
def test_folder_with_anything_else_is_refused_and_untouched(layout, other, written, tmp_path):
    write = WRITERS[layout][0]
    (tmp_path / "train.json").write_text("precious")
    for root, asked in ((written(layout), {"seed": 2}), (written(other), {}), (tmp_path, {})):
        before = tree(root)
        with pytest.raises(ValueError, match="Name another folder"):
            write(root, **asked)
        assert tree(root) == before


@pytest.mark.parametrize("layout, wrong", [
    ("ytvis", {"seed": -1}), ("ytvis", {"frames": (5, 4)}), ("minivspw", {"videos_per_category": 0}),
    ("coco", {"size": (20, 80)}), ("clip", {"supports": 0})])
def test_parameters_without_sense_are_refused_before_anything_is_written(layout, wrong, tmp_path):
    with pytest.raises(ValueError, match="demo data: " + next(iter(wrong)).partition("_")[2]):
        WRITERS[layout][0](tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["make_demo_data.py", *map(str, arguments)])
    make_demo_data.main()


def test_tool_writes_every_layout(tmp_path, monkeypatch, capsys):
    small = ("--videos", 1, "--size", 48, 48)
    for layout, last in (("ytvis", "train.json"), ("minivspw", "minivspw_lists/train_0.txt"), ("coco", "train2017")):
        frames = () if layout == "coco" else ("--frames", 1, 1)
        run_tool(monkeypatch, "--layout", layout, "--output", tmp_path / layout, *small, *frames)
        assert f"{tmp_path / layout}: written" in capsys.readouterr().out and (tmp_path / layout / last).exists()
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, "--layout", "coco", "--output", tmp_path / "d", "--frames", 1, 1)


# -- like MiniVSPW

def test_minivspw_has_all_its_classes_and_every_fold_needs_both_cues():
    assert {c.id for c in demo_minivspw.CATEGORIES} == set(MINIVSPW_CLASSES)
    assert len(looks(demo_minivspw.CATEGORIES)) == 25
    for fold in (1, 2, 3, 4):
        sides = {side: [c for c in demo_minivspw.CATEGORIES if c.id in minivspw_classes(fold, side)]
                 for side in ("train", "test")}
        for cue in ("shape", "texture"):
            novel, base = ([getattr(c, cue) for c in sides[side]] for side in ("test", "train"))
            assert len(set(novel)) == 5 and set(novel) <= set(base)


def test_minivspw_frames_and_masks_belong_together(vspw):
    images, masks = sorted(vspw.glob("data/*/origin/*.jpg")), sorted(vspw.glob("data/*/mask/*.png"))
    assert len(images) == len(masks) and len(list((vspw / "data").iterdir())) == 50
    for image, mask in list(zip(images, masks, strict=True))[::7]:
        assert image.stem == mask.stem and len(mask.stem) == 8 and image.parts[-3] == mask.parts[-3]
        labels = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        assert labels.shape == cv2.imread(str(image)).shape[:2] and labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {0, demo_minivspw.VOID, *MINIVSPW_CLASSES}


def test_minivspw_masks_are_the_visible_pixels_of_the_scene(vspw):
    """One video drawn again by hand: the classes' pixels as rendered; void only where there was none."""
    rng = np.random.default_rng([VIDEOS["seed"], 4])
    length = int(rng.integers(4, 6))
    book = demo_minivspw.CATEGORIES[4]
    assert book.name == "dotted_cross" and MINIVSPW_CLASSES[book.id] == "book"
    fold_1 = [c for c in demo_minivspw.CATEGORIES if c.id in minivspw_classes(1, "test")]
    pool = fold_1 if rng.random() < 0.5 else demo_minivspw.CATEGORIES
    _, labels, seen = render_video(book, length, (48, 80), rng, pool, demo_minivspw.LEAVING)
    for file, drawn in zip(sorted((vspw / "data/4_demo/mask").iterdir()), labels, strict=True):
        written = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        for class_id in {c.id for c in seen}:
            rendered = np.isin(drawn, [i for i, c in enumerate(seen, start=1) if c.id == class_id])
            np.testing.assert_array_equal(written == class_id, rendered)
        assert not drawn[written == demo_minivspw.VOID].any() and (written == demo_minivspw.VOID).any()


def test_void_is_a_seam_outside_of_objects():
    mask = np.zeros((7, 9), np.uint8)
    mask[2:4, 3:6] = 61
    seam = with_void(mask)
    assert (seam == 61).sum() == 6 and (seam == 255).sum() == 4 * 5 - 6 and not seam[5:].any()


def test_minivspw_lists_follow_the_rule(vspw):
    root = vspw
    splits = {split: (root / f"{split}.txt").read_text().split() for split in ("train", "val")}
    assert not set(splits["train"]) & set(splits["val"]) and len(splits["train"] + splits["val"]) == 50
    for name, side, split, fold in (("train_1", "train", "train", 2), ("val_0", "val", "val", 1),
                                    ("test_3", "test", "val", 4)):
        expected = {}
        for video in splits[split]:
            for file in sorted((root / "data" / video / "mask").iterdir()):
                labels, pixels = np.unique(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), return_counts=True)
                if set(labels[pixels > 100]) & set(minivspw_classes(fold, side)):
                    expected.setdefault(video, []).append(int(file.stem))
        assert expected and read_list(root / "minivspw_lists" / f"{name}.txt") == expected


def test_by_default_every_class_has_three_test_videos_of_its_own():
    """Two supports and a query; distractors only add to them. A category's videos are numbered from 0."""
    tested = [n for n in range(8) if n in VALIDATED]
    assert len(tested) == 3 and 1 in tested and 0 not in tested, "two videos per category serve both sides"


def test_some_listed_frames_do_not_show_the_class(vspw):
    index = MiniVSPWIndex(vspw)
    absent = 0
    for fold in (1, 2, 3, 4):
        of_fold, tested = index.side(fold, "test")
        for class_id in tested:
            for video in of_fold.videos(class_id):
                shown = [of_fold.read_mask(video, t, class_id).any() for t in of_fold.scored_frames(video, class_id)]
                absent += shown.count(False)
    assert absent > 0


def test_minivspw_config_trains_and_tests_on_it(vspw):
    cfg = load_config(["config/demo/minivspw.yaml"], [f"data.root={vspw}", "data.size=[32, 48]", "data.clips=1",
                                                      "data.few_videos=repeat", "data.samples_per_class=2"])
    task, index = get_task("fewshot"), build_index(cfg)
    batch = next(iter(task.train_batches(cfg, index, 1, epoch=0)))
    assert len(set(batch.class_ids)) == 8 and set(batch.class_ids) <= set(minivspw_classes(1, "train"))
    tested = {one.facts[0]["class_id"] for video in task.test_videos(cfg, index, 1) for one in video.references}
    assert tested == set(minivspw_classes(1, "test"))


# -- like COCO

def test_coco_ids_and_names_are_the_real_ones(coco):
    published = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    for document in coco[1].values():
        assert len(document["categories"]) == 22
        assert all(published[c["id"]] == c["name"] for c in document["categories"])


def test_coco_images_and_keys_are_those_of_coco(coco):
    root, documents = coco
    for split, document in documents.items():
        assert set(document) == {"info", "licenses", "images", "annotations", "categories"}
        assert {image["file_name"] for image in document["images"]} == {p.name for p in (root / split).iterdir()}
        for image in document["images"][::5]:
            assert image["file_name"] == f"{image['id']:012d}.jpg"
            assert cv2.imread(str(root / split / image["file_name"])).shape[:2] == (image["height"], image["width"])
        assert all(set(a) == {"id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd"}
                   for a in document["annotations"])
        assert len({a["id"] for a in document["annotations"]}) == len(document["annotations"])
        assert max(Counter(a["image_id"] for a in document["annotations"]).values()) >= 3
    counts = [len(document["images"]) for document in documents.values()]
    assert counts == [22, 66]


def decoded(annotation, rows, cols):
    code = annotation["segmentation"]
    if isinstance(code, list):
        code = rle.merge(rle.frPyObjects(code, rows, cols))
    elif isinstance(code["counts"], list):
        code = rle.frPyObjects(code, rows, cols)
    return rle.decode(code) > 0


def test_coco_masks_are_the_visible_pixels_of_the_scene(coco):
    forms = Counter()
    for document in coco[1].values():
        for image in document["images"]:
            size = (image["height"], image["width"])
            rng = np.random.default_rng([IMAGES["seed"], image["id"] - 1])
            subject = demo_coco.CATEGORIES[(image["id"] - 1) % 22]
            drawn = tuple(round(n / demo_coco.ZOOM) for n in size)
            _, labels, seen = render_video(subject, 1, drawn, rng, demo_coco.CATEGORIES)
            labels = cv2.resize(labels[0], size[::-1], interpolation=cv2.INTER_NEAREST)
            expected = Counter((c.id, (labels == i).tobytes()) for i, c in enumerate(seen, start=1)
                               if (labels == i).sum() >= MIN_VISIBLE)
            annotations = [a for a in document["annotations"] if a["image_id"] == image["id"]]
            if any(a["iscrowd"] for a in annotations):
                expected = Counter({(subject.id, np.isin(labels, (1, 2)).tobytes()): 1} | {
                    (c.id, (labels == i).tobytes()): 1 for i, c in enumerate(seen[2:], start=3)
                    if (labels == i).sum() >= MIN_VISIBLE})
            assert Counter((a["category_id"], decoded(a, *size).tobytes()) for a in annotations) == expected
            for a in annotations:
                rows, cols = np.nonzero(decoded(a, *size))
                assert a["area"] == len(rows)
                assert a["bbox"] == [cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1]
            forms.update((type(a["segmentation"]).__name__, a["iscrowd"]) for a in annotations)
    assert forms["list", 0] > 100 and forms["dict", 0] > 10 and forms["dict", 1] > 0, "polygons, holes, crowds"


VIDEO_DATA = {"ytvis": demo_scene.CATEGORIES, "minivspw": demo_minivspw.CATEGORIES}


@pytest.mark.parametrize("video_data", VIDEO_DATA)
def test_leaving_out_overlapping_classes_leaves_out_what_the_videos_show(video_data, coco):
    """... and without that IoUNet would meet it: the removed classes look like the videos' categories."""
    index = Coco20iIndex(coco[0], video_data=video_data)
    kept = [c for c in demo_coco.CATEGORIES if c.id in index.class_ids]
    assert not looks(kept) & looks(VIDEO_DATA[video_data]) and len(kept) >= 12
    names = {c.id: name for c, name, _ in demo_coco.CLASSES}
    removed = [c for c in demo_coco.CATEGORIES if c not in kept]
    assert removed and looks(removed) <= looks(VIDEO_DATA["ytvis"]) | looks(VIDEO_DATA["minivspw"])
    assert all(names[c.id] in REMOVED[video_data] for c in removed)
    assert "mouse" in {names[c.id] for c in kept}, "COCO's mouse is a computer mouse"


def test_iounet_learns_from_its_images(coco):
    cfg = load_config(["config/demo/iounet_coco20i.yaml"], [
        f"data.root={coco[0]}", "data.size=[32, 48]", "data.few_videos=repeat", "data.samples_per_class=1"])
    batch = next(iter(get_task("fewshot").train_batches(cfg, build_index(cfg), 1, epoch=0)))
    assert len(set(batch.class_ids)) == cfg.train.batch_size == 14, "one image of each class that is left"
    assert batch.query_masks.shape[1] == 1 and batch.query_masks.flatten(1).any(1).all()


def test_new_shapes_and_textures_are_new():
    """Those of COCO's other classes; on these the demo's encoder learns, which so has seen no look of any video."""
    assert len(OUTLINES) == 9 and len(SURFACES) == 8 and set(demo_scene.HUES) == set(SURFACES)
    videos = looks(demo_scene.CATEGORIES) | looks(demo_minivspw.CATEGORIES)
    for new in (demo_coco.NEW_LOOKS, looks(demo_scene.ENCODER_CATEGORIES)):
        assert not {s for s, _ in new} & {s for s, _ in videos} and not {t for _, t in new} & {t for _, t in videos}
    encoder = demo_scene.ENCODER_CATEGORIES
    assert len({c.name for c in encoder}) == len(encoder) == 12 * 6, "each look in every hue"
