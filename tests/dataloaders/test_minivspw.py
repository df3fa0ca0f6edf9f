"""MiniVSPW: lists by the rule and as published, what the index offers, frames without the object, every bad file."""
import functools
import itertools
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from material import SHARED

from dataloaders import build_index
from dataloaders.datasets.folds import minivspw_classes, split_classes
from dataloaders.datasets.minivspw import MiniVSPWIndex, read_list, write_list
from dataloaders.datasets.minivspw_lists import NAMES, compare, contradictions, make_lists, write_lists
from dataloaders.datasets.vspw_masks import count_labels
from dataloaders.fewshot import test_videos, train_batches, validation_videos
from models.method import Prediction
from tools import make_minivspw_lists, prepare_data
from utils.config import load_config
from utils.evaluation.evaluate import evaluate
from utils.evaluation.tables import paper_table

PUBLISHED, MINI = SHARED / "data" / "minivspw_lists", SHARED / "data" / "mini_vspw"
ROWS, COLS = 24, 32
CAR, BUS, DOG, HORSE, PERSON, BICYCLE = 49, 50, 63, 64, 61, 52

needs_lists = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the public lists in ../shared/data")


def painted(**labels):
    """A mask (ROWS, COLS) uint8: label `l<id>` on so many pixels, one after the other from the top."""
    mask = np.zeros(ROWS * COLS, np.uint8)
    first = 0
    for name, pixels in labels.items():
        mask[first:first + pixels] = int(name[1:])
        first += pixels
    return mask.reshape(ROWS, COLS)


def write_mask(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)


def write_video(root, name, masks, first=3):
    """Frames from number `first` on: their masks, and grey images with the frame's position as value."""
    for t, mask in enumerate(masks):
        write_mask(root / "data" / name / "mask" / f"{first + t:08d}.png", mask)
        write_mask(root / "data" / name / "origin" / f"{first + t:08d}.jpg", np.full((*mask.shape, 3), 8 * t, np.uint8))


def write_splits(root, **splits):
    for split, names in splits.items():
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


SPLIT = {"train": [f"t{n}" for n in (2, 0, 1, 3)], "val": [f"v{n}" for n in (1, 0, 2)]}


@pytest.fixture(scope="module")
def vspw(tmp_path_factory):
    """A small VSPW. Fold 2 tests car and bus; its lists are made by the rule. v0 shows the bus in frames 2 and 3 only.

    Training videos show dogs and persons, and cars too, which fold 2 must not see in training.
    """
    root = tmp_path_factory.mktemp("vspw")
    for n in range(4):
        write_video(root, f"t{n}", [painted(l63=150, l61=150, l49=150, l255=20)] * 18)
    write_video(root, "v0", [painted(l49=200)] * 2 + [painted(l49=101, l50=100)] * 2 + [painted(l49=100, l61=300)])
    write_video(root, "v1", [painted(l50=300, l63=110)] * 3)
    write_video(root, "v2", [painted(l50=150, l49=5)] * 8)
    write_splits(root, **SPLIT)
    write_lists(make_lists(root), root / "minivspw_lists")
    return root


@pytest.fixture
def damaged(vspw, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(vspw, tmp_path, dirs_exist_ok=True)


def config(root, *overrides):
    return load_config(["config/vipmt/minivspw.yaml"], [
        f"data.root={root}", "data.size=[32, 48]", "data.workers=0", "data.few_videos=repeat", "data.shots=2",
        "data.samples_per_class=1", "train.batch_size=2", "test.runs=1", *overrides])


# -- the rule

def test_a_frame_is_listed_from_101_pixels_of_one_class_on(vspw):
    lists = make_lists(vspw)
    assert lists["test_1"] == {"v1": [3, 4, 5], "v0": [3, 4, 5, 6], "v2": list(range(3, 11))}, "v0's car ends with 100"
    assert lists["test_2"] == {"v1": [3, 4, 5], "v0": [7]}, "dog and person"
    assert lists["test_0"] == lists["test_3"] == {}


def test_two_classes_together_list_no_frame(tmp_path):
    write_video(tmp_path, "v", [painted(l49=100, l50=100)])
    write_splits(tmp_path, train=[], val=["v"])
    assert make_lists(tmp_path)["test_1"] == {}


def test_lists_keep_the_order_of_the_split_and_its_side(vspw):
    lists = make_lists(vspw)
    assert list(lists["train_1"]) == SPLIT["train"] and list(lists["test_1"]) == SPLIT["val"]
    assert lists["train_1"]["t0"] == list(range(3, 21))
    assert not any(set(lists[f"train_{k}"]) & set(lists[f"test_{k}"]) for k in range(4))


def test_other_lists_are_never_replaced(vspw, tmp_path):
    write_list(tmp_path / "test_1.txt", {"v1": [3]})
    with pytest.raises(ValueError, match="test_1.txt exists and names other frames.\n  Nothing was changed"):
        write_lists(make_lists(vspw), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["test_1.txt"]
    write_lists(make_lists(vspw), vspw / "minivspw_lists")


@pytest.mark.parametrize("break_it, message", [
    (lambda root: (root / "val.txt").unlink(), "no val.txt in"),
    (lambda root: write_splits(root, val=["v0", "../x"]), "one folder name per line"),
    (lambda root: write_splits(root, val=["v0", "v0"]), "each once"),
    (lambda root: write_splits(root, val=["v0", "gone"]), "video gone of val.txt has no masks"),
    (lambda root: write_mask(root / "data/v0/mask/7.png", painted()), "has the mask 7.png"),
])
def test_incomplete_vspw_is_named(damaged, break_it, message):
    break_it(damaged)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        make_lists(damaged)


def test_differences_of_two_lists_are_told():
    assert compare({"a": [1, 2]}, {"a": [1, 2]}) == ""
    assert compare({"a": [1, 2]}, {"a": [2, 3]}) == "1 frames missing (a/00000003); 1 frames too many (a/00000001)"
    assert compare({"a": [1], "b": [1]}, {"b": [1], "a": [1]}) == "the order of the videos"


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["make_minivspw_lists.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        make_minivspw_lists.main()
    return end.value.code


def test_tool_writes_and_compares(vspw, tmp_path, monkeypatch, capsys):
    assert run_tool(monkeypatch, vspw, "--output", tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 12
    (tmp_path / "test_3.txt").unlink()
    assert run_tool(monkeypatch, vspw, "--check", tmp_path) == 0
    text = capsys.readouterr().out
    assert "test_1: 3 videos, 15 frames" in text and "train_1: the same" in text
    assert "test_3: nothing to compare with" in text
    write_list(tmp_path / "test_1.txt", {"v1": [3, 4, 5, 6]})
    assert "differ" in run_tool(monkeypatch, vspw, "--check", tmp_path)
    assert "none of train_0" in run_tool(monkeypatch, vspw, "--check", vspw)
    assert run_tool(monkeypatch, vspw) == 2, "neither --output nor --check"
    assert run_tool(monkeypatch, "--output", tmp_path / "new") == 2, "no masks to make lists from"


def test_lists_are_checked_without_masks(vspw, tmp_path, capsys):
    write_lists(make_lists(vspw), tmp_path)
    assert prepare_data.main(["check", "minivspw", str(tmp_path)]) == 0
    assert "0 contradictions" in capsys.readouterr().out
    write_list(tmp_path / "val_0.txt", {"v2": [99]})
    assert prepare_data.main(["check", "minivspw", str(tmp_path)]) == 1
    assert "v2/00000099: in val_0, but" in capsys.readouterr().out


def test_contradiction_is_what_no_set_of_shown_classes_explains():
    """Against trying all of them: three lists over four classes, every membership of a frame."""
    classes = {"test_0": (1, 2), "test_1": (2, 3), "val_0": (3, 4)}
    possible = {frozenset(name for name, own in classes.items() if set(own) & set(shown))
                for count in range(5) for shown in itertools.combinations((1, 2, 3, 4), count)}
    for count in range(4):
        for names in itertools.combinations(classes, count):
            lists = {name: {"v": [7]} if name in names else {} for name in classes}
            assert (not contradictions(lists, classes)) == (frozenset(names) in possible), names


def test_contradicting_videos_are_told():
    a, b = ({"x": [1], "y": [1]}, {"y": [1], "x": [1]})
    told, = contradictions({"test_2": a, "test_3": b})
    assert told.startswith("no order of the videos suits all lists: ")
    assert contradictions({"train_2": {"x": [1]}, "test_3": {"x": [2]}}) == ["x: in training lists and in others"]


# -- the published lists

def listed(name):
    return read_list(PUBLISHED / f"{name}.txt")


@needs_lists
def test_published_lists_are_read_and_written_byte_by_byte(tmp_path):
    files = sorted(PUBLISHED.glob("*.txt"))
    assert len(files) == 9
    for file in files:
        write_list(tmp_path / "again.txt", read_list(file))
        assert (tmp_path / "again.txt").read_bytes() == file.read_bytes()


@functools.cache
def published():
    return {name: listed(name) for name in NAMES if (PUBLISHED / f"{name}.txt").is_file()}


@needs_lists
def test_published_lists_do_not_contradict_the_rule():
    assert len(published()) == 9 and contradictions(published()) == []


@needs_lists
@pytest.mark.parametrize("name, taken, instead", [
    ("val_0", 51, 41), ("val_0", 47, 111), ("val_1", 111, 47), ("val_1", 41, 51), ("val_2", 47, 51),
    ("val_2", 41, 111)])
def test_published_validation_lists_need_their_odd_classes(name, taken, instead):
    """Folds 1 and 2 validate truck and book, not billboard and tent: with these the lists could not be as they are."""
    lists = {n: videos for n, videos in published().items() if n != "train_2"}
    classes = {n: minivspw_classes(int(n[-1]) + 1, n[:-2]) for n in lists}
    classes[name] = tuple({*classes[name], instead} - {taken})
    assert taken not in classes[name] and len(classes[name]) == 5
    assert len(contradictions(lists, classes)) > 100


@needs_lists
def test_classes_are_those_of_the_published_files():
    for file in PUBLISHED.glob("class_*.json"):
        side, fold = file.stem.split("_")[1:]
        assert tuple(sorted(map(int, json.loads(file.read_text())))) == minivspw_classes(int(fold) + 1, side), file.name


# -- what the index offers

def test_index_of_a_fold_has_two_sides(vspw):
    index = MiniVSPWIndex(vspw).of_fold(2)
    assert index.side(2, "train")[1] == [PERSON, DOG] and index.side(2, "test")[1] == [CAR, BUS]
    assert index.class_ids == [CAR, BUS, PERSON, DOG]
    assert split_classes(index.class_ids, 2, "minivspw") == ([PERSON, DOG], [CAR, BUS])
    assert [index.video_name(v) for v in index.videos(DOG)] == SPLIT["train"], "v1 shows a dog, but is a test video"
    assert [index.video_name(v) for v in index.videos(BUS)] == ["v1", "v0", "v2"], "car in training is not shown"
    assert index.videos(93) == [] == index.videos(7) and index.class_name(BUS) == "bus"


def test_a_few_pixels_make_a_query_and_no_support(vspw):
    index = MiniVSPWIndex(vspw).of_fold(2)
    v0, v2 = (next(v for v in index.videos(CAR) if index.video_name(v) == name) for name in ("v0", "v2"))
    assert index.videos(CAR) == [v0, v2] and index.support_videos(CAR) == [v0], "v2 has five pixels of car per frame"
    assert index.frames(v2, CAR).tolist() == list(range(8)) and index.frames(v0, CAR).tolist() == [0, 1, 2, 3]
    assert v0 in index.videos(BUS) and v0 not in index.support_videos(BUS)
    assert index.frames(v0, BUS).tolist() == [2, 3], "100 pixels"
    assert index.frames(v0, BUS).dtype == np.int64 and index.frames(v0, DOG).tolist() == []


def test_small_frames_are_left_to_the_test(damaged):
    """Of a class with larger frames in the same video, 100 pixels and less are scored, but no support or training."""
    for name in ("t0", "v1"):
        for n, pixels in ((3, 100), (4, 1)):
            path = damaged / "data" / name / "mask" / f"{n:08d}.png"
            write_mask(path, painted(l50=pixels, l63=pixels, l61=300, l49=150))
    index = MiniVSPWIndex(damaged).of_fold(2)
    v1, t0 = index.videos(BUS)[0], index.videos(DOG)[1]
    assert index.frames(v1, BUS).tolist() == [2] and index.scored_frames(v1, BUS).tolist() == [0, 1, 2]
    assert index.frames(t0, DOG).tolist() == list(range(2, 18)) and index.frames(t0, PERSON).tolist() == list(range(18))


def test_training_needs_more_than_a_few_pixels(damaged):
    for file in damaged.glob("data/t0/mask/*"):
        write_mask(file, painted(l63=100, l61=150))
    index = MiniVSPWIndex(damaged).of_fold(2)
    assert [index.video_name(v) for v in index.videos(DOG)] == ["t2", "t1", "t3"]
    assert len(index.videos(PERSON)) == 4


def test_positions_are_those_of_the_list(vspw):
    index = MiniVSPWIndex(vspw).of_fold(2)
    v0 = index.videos(CAR)[0]
    assert index.length(v0) == 4 and index.size(v0) == (ROWS, COLS)
    assert index.scored_frames(v0, BUS).tolist() == [0, 1, 2, 3]
    assert index.file_name(v0, 2) == "v0/origin/00000005.jpg"


def test_images_and_masks_of_a_position_belong_together(vspw):
    index = MiniVSPWIndex(vspw).of_fold(2)
    v0 = index.videos(CAR)[0]
    for frame in range(4):
        assert abs(index.read_image(v0, frame).astype(int) - 8 * frame).max() <= 2
        assert index.read_mask(v0, frame, CAR).sum() == (200, 200, 101, 101)[frame]
        assert index.read_mask(v0, frame, BUS).sum() == (0, 0, 100, 100)[frame]
    assert index.read_image(v0, 0).shape == (ROWS, COLS, 3) and index.read_mask(v0, 0, CAR).dtype == bool


def test_index_without_a_fold_says_what_to_do(vspw):
    index = MiniVSPWIndex(vspw)
    for ask in (lambda: index.class_ids, lambda: index.videos(CAR), lambda: index.length(0)):
        with pytest.raises(ValueError, match="other lists in every fold.\n.*index.of_fold"):
            ask()
    with pytest.raises(ValueError, match="fold 5 does not exist"):
        index.of_fold(5)
    assert index.of_fold(3) is index.of_fold(3) is index.of_fold(3).of_fold(3)


def test_a_test_reads_nothing_of_the_training_side(damaged):
    (damaged / "minivspw_lists" / "train_1.txt").unlink()
    for file in damaged.glob("data/t*/mask/*"):
        file.unlink()
    cfg = config(damaged)
    assert len(list(references_of(cfg))) == 5
    with pytest.raises(FileNotFoundError, match="no list .*train_1.txt .*\n.*python -m tools.make_minivspw_lists"):
        train_batches(cfg, build_index(cfg), 2, epoch=0)


def test_fold_without_a_shown_class_is_refused(vspw):
    with pytest.raises(ValueError, match="test_0.txt: its 0 videos show no test class of fold 1"):
        list(references_of(config(vspw), fold=1))


# -- episodes

def references_of(cfg, fold=2):
    """The facts and the SupportSet of every reference of a test"""
    for video in test_videos(cfg, build_index(cfg), fold):
        for reference in video.references:
            yield reference.facts[0], reference


def test_every_class_and_video_pair_is_tested_with_all_its_listed_frames(vspw):
    pairs = [((facts["class"], facts["video"]), [int(Path(name).stem) for name in facts["frames"]])
             for facts, _ in references_of(config(vspw))]
    frames = {"v0": [3, 4, 5, 6], "v1": [3, 4, 5], "v2": list(range(3, 11))}
    assert dict(pairs) == {(c, v): frames[v] for c, v in [("car", "v0"), ("car", "v2"), ("bus", "v0"), ("bus", "v1"),
                                                          ("bus", "v2")]} and len(pairs) == 5


@pytest.mark.parametrize("protocol", ["I", "II"])
def test_supports_always_show_the_class(vspw, protocol):
    for facts, supports in references_of(config(vspw, f"test.protocol={protocol}", "test.runs=5")):
        assert supports.masks.flatten(1).any(1).all()
        assert {name[:2] for name in facts["support_frames"]} <= {"car": {"v0"}, "bus": {"v1", "v2"}}[facts["class"]]


class SeesNothing:
    """A method that sees no object anywhere."""
    def __init__(self, reference):
        pass

    def prepare(self, clip):
        return None

    def __call__(self, prepared, clip):
        return Prediction(-torch.ones(clip.masks.shape))


def test_frames_without_the_object_are_scored(vspw):
    """Nothing where there is nothing is right, J = F = 1, and counts."""
    cfg = config(vspw)
    lines = evaluate(SeesNothing, test_videos(cfg, build_index(cfg), 2), cfg, lambda line: None)
    bus, = (line for line in lines if line["class"] == "bus" and line["video"] == "v0")
    assert bus["j"] == [1, 1, 0, 0] and bus["f"][:2] == [1, 1]


def test_training_shows_base_classes_in_training_videos(vspw):
    cfg = config(vspw)
    for batch in train_batches(cfg, build_index(cfg), 2, epoch=0):
        assert sorted(batch.class_ids) == [PERSON, DOG] and batch.query_masks.flatten(2).any(2).all()


@pytest.mark.parametrize("classes, videos", [("base_holdout", "t"), ("novel", "v")])
def test_validation_takes_its_videos_from_the_right_list(vspw, classes, videos):
    cfg = config(vspw, f"validate.classes={classes}", "data.shots=1", "validate.holdout=0.3")
    names = [video.references[0].facts[0]["video"] for video in validation_videos(cfg, build_index(cfg), 2)]
    assert names and {name[0] for name in names} == {videos}


def test_results_are_set_beside_table_2():
    line = {"class": "bus", "run": 0, "video": "v", "j": [0.5], "f": [0.25], "vc": [], "vc_variant": "vipmt",
            "vc_window": 7}
    paper, ours = paper_table({fold: [line] for fold in (1, 2, 3, 4)}, "minivspw", "mine").rows
    assert [cell[0] for cell in paper[1:]] == [26.2, 42.2, 31.6, 29.4, 32.4, 30.6, 45.7, 36.3, 34.2, 36.7, 42.1]
    assert paper[0] == "VIPMT (paper, minivspw)" and [cell[0] for cell in ours[1:-1]] == [50.0] * 5 + [25.0] * 5


# -- masks on disk

def test_counts_are_those_of_the_masks(vspw):
    paths = sorted(vspw.glob("data/*/mask/*.png"))
    areas = count_labels(paths)
    for i, path in enumerate(paths):
        labels, pixels = np.unique(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), return_counts=True)
        entries = slice(areas.start[i], areas.start[i + 1])
        assert areas.label[entries].tolist() == labels.tolist() and areas.pixels[entries].tolist() == pixels.tolist()
    assert set(zip(areas.rows, areas.cols, strict=True)) == {(ROWS, COLS)}


@pytest.mark.parametrize("wrong", [np.zeros((ROWS, COLS, 3), np.uint8), np.zeros((ROWS, COLS), np.uint16)])
def test_masks_that_hold_no_label_ids_are_named(damaged, wrong):
    write_mask(damaged / "data/v1/mask/00000004.png", wrong)
    with pytest.raises(ValueError, match="v1/mask/00000004.png is no mask"):
        MiniVSPWIndex(damaged).side(2, "test")


def test_missing_files_are_named(damaged):
    (damaged / "data/v1/mask/00000004.png").unlink()
    with pytest.raises(FileNotFoundError, match="no file .*v1/mask/00000004.png.\n.*data.root"):
        MiniVSPWIndex(damaged, cache_dir=damaged / "cache").side(2, "test")[1]


def test_missing_folders_tell_the_key(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*data .data.root.*\n.*make_minivspw_lists"):
        MiniVSPWIndex(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="no folder .*train.json .data.annotations."):
        MiniVSPWIndex(tmp_path, "train.json")


def test_link_out_of_the_data_folder_is_refused(damaged, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (damaged / "data" / "v1").rename(outside / "v1")
    (damaged / "data" / "v1").symlink_to(outside / "v1")
    with pytest.raises(ValueError, match="is a link that leads out of"):
        MiniVSPWIndex(damaged).side(2, "test")[1]


@pytest.mark.parametrize("text, message", [
    ("v0 v0/mask/3.png\n", "line 1: expected <video>"), ("v0 v1/mask/00000003.png\n", "line 1: expected"),
    ("v0 v0/mask/00000003.png\n\n", "line 2: expected"), (".. ../mask/00000003.png\n", "line 1: expected"),
    ("a/b a/b/mask/00000003.png\n", "line 1: expected"), ("a\0 a\0/mask/00000003.png\n", "line 1: expected"),
    (b"v\xff v\xff/mask/00000003.png\n", "line 1: expected"),
    ("v0 v0/mask/00000004.png\nv0 v0/mask/00000003.png\n", "line 2: frames of a video follow"),
    ("v0 v0/mask/00000003.png\nv0 v0/mask/00000003.png\n", "line 2: .* and once"),
    ("v0 v0/mask/00000003.png\nv1 v1/mask/00000003.png\nv0 v0/mask/00000004.png\n", "line 3: frames of a video"),
])
def test_bad_lines_of_a_list_are_named(tmp_path, text, message):
    (tmp_path / "test_0.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"test_0.txt: {message}"):
        read_list(tmp_path / "test_0.txt")


# -- cache

# -- real data

@pytest.mark.skipif(not MINI.is_dir(), reason="needs the mini data set in ../shared/data/mini_vspw")
def test_lists_of_real_masks_follow_the_rule():
    lists, areas = make_lists(MINI), {}
    for side, split in (("train", "train"), ("test", "val")):
        for fold in (1, 2, 3, 4):
            expected = {}
            for video in (MINI / f"{split}.txt").read_text().split():
                if video not in areas:
                    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                             for path in sorted((MINI / "data" / video / "mask").iterdir())]
                    areas[video] = np.array([np.bincount(mask.ravel(), minlength=256) for mask in masks])
                frames = np.flatnonzero((areas[video][:, minivspw_classes(fold, side)] > 100).any(axis=1)).tolist()
                expected |= {video: frames} if frames else {}
            assert lists[f"{side}_{fold - 1}"] == expected and (expected or fold == 1)
