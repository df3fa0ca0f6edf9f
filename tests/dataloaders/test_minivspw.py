"""MiniVSPW: lists by the rule and as published, what the index offers, frames without the object, every bad file."""
import functools
import graphlib
import itertools
import json
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import test as test_script
import train
from dataloaders import build_index
from dataloaders.datasets.folds import minivspw_classes, split_classes
from dataloaders.datasets.minivspw import MiniVSPWIndex, read_list, write_list
from dataloaders.datasets.minivspw_lists import NAMES, compare, contradictions, make_lists, write_lists
from dataloaders.datasets.vspw_masks import count_labels, read_labels
from dataloaders.fewshot import test_videos, train_batches, validation_videos
from models.method import Prediction
from tools import make_minivspw_lists, prepare_data
from tools.make_minivspw_lists import check_lists
from utils.config import load_config
from utils.evaluation.evaluate import evaluate
from utils.evaluation.tables import paper_table
from utils.records import read_json_lines

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PUBLISHED, MINI = SHARED / "minivspw_lists", SHARED / "mini_vspw"
ROWS, COLS = 24, 32
CAR, BUS, DOG, HORSE, PERSON, BICYCLE = 49, 50, 63, 64, 61, 52

needs_lists = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the public lists in ../shared/data")
needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason="needs the mini data set in ../shared/data/mini_vspw")


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


def copied(root, tmp_path):
    """A copy that a test may damage."""
    for file in root.rglob("*"):
        if file.is_file():
            target = tmp_path / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture
def damaged(vspw, tmp_path):
    return copied(vspw, tmp_path)


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


@needs_lists
def test_published_lists_contain_each_other_as_the_rule_demands():
    """Frames that show a class of one list are in every list with that class; no masks are needed to see that."""
    frames = {name: {(video, n) for video, numbers in listed(name).items() for n in numbers}
              for name in ("test_0", "test_1", "test_2", "test_3", "val_0", "val_1", "val_2", "val_3")}
    assert frames["val_2"] == frames["val_3"], "their classes are the same"
    assert frames["val_0"] <= frames["val_2"] | frames["test_1"], "truck, of test_1, is the only other class"
    assert frames["val_1"] <= frames["val_2"] | frames["test_0"], "book, of test_0, is the only other class"
    assert frames["val_2"] <= frames["val_0"] | frames["val_1"]
    trained = set(listed("train_2"))
    assert not any(video in trained for shown in frames.values() for video, _ in shown)


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
def test_published_training_list_is_of_another_split():
    """All classes of test_0 and test_1 train fold 3: of the same videos every frame of these would be in train_2."""
    trained, lists = set(minivspw_classes(3, "train")), published()
    assert trained.issuperset(minivspw_classes(1, "test")) and trained.issuperset(minivspw_classes(2, "test"))
    assert not any(video in lists["train_2"] for name in lists if name != "train_2" for video in lists[name])


def label_for(name, others):
    """A class that puts a frame into the list `name`, given all lists that it is in."""
    if name == "test_0":
        return 111 if "val_1" in others else 57          # book, also of val_1; airplane
    if name == "test_1":
        return 51 if "val_0" in others else 62           # truck, also of val_0; cat
    if name in ("test_2", "test_3"):
        return {"test_2": HORSE, "test_3": 93}[name]
    both = {"val_0", "val_1"} <= others
    return 113 if both else 47 if "val_0" in others else 41         # val_2 and val_3: blackboard, tent, billboard


def write_masks_of(root, lists, videos, split):
    """Masks from which the rule must make the lists again; beside them frames and classes that just miss it."""
    published = {name: {(v, n) for v, numbers in shown.items() for n in numbers} for name, shown in lists.items()}
    for video in videos:
        numbers = sorted({n for shown in lists.values() for n in shown.get(video, ())})
        for n in sorted({*numbers, *range(numbers[0] - 1, numbers[-1] + 2)} - {-1}):
            member = {name for name in lists if (video, n) in published[name]}
            shown = {label_for(name, member) if split == "val" else BUS for name in member
                     if not (name in ("val_0", "val_1") and "val_2" not in member)}
            decoys = {c for name in lists if name not in member for c in minivspw_classes(int(name[-1]) + 1, name[:-2])}
            painting = {f"l{c}": 101 for c in sorted(shown)} | {f"l{c}": 100 for c in sorted(decoys - shown)[:3]}
            write_mask(root / "data" / video / "mask" / f"{n:08d}.png", painted(**painting))


def common_order(lists):
    """One order of all videos that every list keeps; CycleError if there is none."""
    before = defaultdict(set)
    for shown in lists.values():
        names = list(shown)
        for earlier, later in zip(names, names[1:], strict=False):
            before[later].add(earlier)
    return list(graphlib.TopologicalSorter(before).static_order())


@needs_lists
@pytest.mark.parametrize("split, every", [("val", 40), ("train", 150)])
def test_rule_makes_the_published_lists_again(tmp_path, split, every):
    """Every 40th video of the public lists, every 150th of the training list: from masks that show what they claim."""
    names = ["train_2"] if split == "train" else [f"{side}_{k}" for side in ("val", "test") for k in range(4)]
    lists = {name: listed(name) for name in names}
    videos = common_order(lists)[::every]
    write_masks_of(tmp_path, lists, videos, split)
    write_splits(tmp_path, train=videos if split == "train" else [], val=videos if split == "val" else [])
    (tmp_path / "published").mkdir()
    for name in names:
        write_list(tmp_path / "published" / f"{name}.txt", {v: lists[name][v] for v in videos if v in lists[name]})
    assert check_lists(make_lists(tmp_path), tmp_path / "published")


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
    with pytest.raises(IndexError, match="v0 has 4 listed frames, none at 4"):
        index.file_name(v0, 4)


def test_images_and_masks_of_a_position_belong_together(vspw):
    index = MiniVSPWIndex(vspw).of_fold(2)
    v0 = index.videos(CAR)[0]
    for frame in range(4):
        assert abs(index.read_image(v0, frame).astype(int) - 8 * frame).max() <= 2
        assert index.read_mask(v0, frame, CAR).sum() == (200, 200, 101, 101)[frame]
        assert index.read_mask(v0, frame, BUS).sum() == (0, 0, 100, 100)[frame]
    assert index.read_image(v0, 0).shape == (ROWS, COLS, 3) and index.read_mask(v0, 0, CAR).dtype == bool


def test_image_is_rgb(damaged):
    red = np.zeros((ROWS, COLS, 3), np.uint8)
    red[..., 2] = 255                                                  # OpenCV writes BGR
    write_mask(damaged / "data/v0/origin/00000003.jpg", red)
    index = MiniVSPWIndex(damaged).of_fold(2)
    read = index.read_image(index.videos(CAR)[0], 0)
    assert read[..., 0].min() > 240 and read[..., 1:].max() < 15


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


def test_workers_change_nothing(vspw):
    cfg, found = config(vspw), []
    for cfg.data.workers in (0, 2):
        found.append([(video.id, video.frames, [one.facts for one in video.references],
                       [clip.images.sum().item() for clip in video.clips])
                      for video in test_videos(cfg, build_index(cfg), 2)])
    assert found[0] == found[1]


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

def test_palette_masks_are_read_as_label_ids(tmp_path):
    mask = painted(l124=100, l65=50, l255=9)
    image = Image.fromarray(mask)
    image.save(tmp_path / "grey.png")
    image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "palette.png")
    assert (tmp_path / "palette.png").read_bytes()[25] == 3
    for name in ("grey.png", "palette.png"):
        np.testing.assert_array_equal(read_labels(tmp_path / name), mask)


def test_counts_are_those_of_the_masks(vspw):
    paths = sorted(vspw.glob("data/*/mask/*.png"))
    areas = count_labels(paths)
    for i, path in enumerate(paths):
        labels, pixels = np.unique(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), return_counts=True)
        entries = slice(areas.start[i], areas.start[i + 1])
        assert areas.label[entries].tolist() == labels.tolist() and areas.pixels[entries].tolist() == pixels.tolist()
    assert set(zip(areas.rows, areas.cols, strict=True)) == {(ROWS, COLS)}


BAD_MASKS = {
    "truncated": (lambda b: b[:len(b) // 2], "is truncated .no PNG end marker"),
    "colours": (lambda b: cv2.imencode(".png", np.zeros((ROWS, COLS, 3), np.uint8))[1].tobytes(), "is no mask"),
    "16 bits": (lambda b: cv2.imencode(".png", np.zeros((ROWS, COLS), np.uint16))[1].tobytes(), "is no mask"),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_masks_are_named(damaged, case):
    change, message = BAD_MASKS[case]
    path = damaged / "data/v1/mask/00000004.png"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"v1/mask/00000004.png {message}"):
        MiniVSPWIndex(damaged).side(2, "test")


def test_missing_files_are_named(damaged):
    (damaged / "data/v1/mask/00000004.png").unlink()
    with pytest.raises(FileNotFoundError, match="no file .*v1/mask/00000004.png.\n.*data.root"):
        MiniVSPWIndex(damaged, cache_dir=damaged / "cache").side(2, "test")[1]
    (damaged / "data/t0/origin/00000003.jpg").unlink()
    index = MiniVSPWIndex(damaged).of_fold(2)
    with pytest.raises(FileNotFoundError, match="no file .*t0/origin/00000003.jpg"):
        index.read_image(index.videos(DOG)[1], 0)


def test_missing_folders_tell_the_key(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*data .data.root.*\n.*make_minivspw_lists"):
        MiniVSPWIndex(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="no folder .*train.json .data.annotations."):
        MiniVSPWIndex(tmp_path, "train.json")


def test_image_of_another_size_is_refused(damaged):
    write_mask(damaged / "data/t0/origin/00000003.jpg", np.zeros((COLS, ROWS, 3), np.uint8))
    index = MiniVSPWIndex(damaged).of_fold(2)
    with pytest.raises(ValueError, match="t0/origin/00000003.jpg has 32 x 24 pixels, but .* has 24 x 32"):
        index.read_image(index.videos(DOG)[1], 0)


def test_link_out_of_the_data_folder_is_refused(damaged, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (damaged / "data" / "v1").rename(outside / "v1")
    (damaged / "data" / "v1").symlink_to(outside / "v1")
    with pytest.raises(ValueError, match="is a link that leads out of"):
        MiniVSPWIndex(damaged).side(2, "test")[1]


def test_linked_data_folder_is_fine(damaged):
    (damaged / "data").rename(damaged / "elsewhere")
    (damaged / "data").symlink_to(damaged / "elsewhere")
    assert MiniVSPWIndex(damaged).side(2, "test")[1] == [CAR, BUS]


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

def no_reading(monkeypatch):
    def fail(path):
        raise AssertionError(f"{path} was read although the cache is good")
    monkeypatch.setattr("dataloaders.datasets.vspw_masks.read_labels", fail)


def test_masks_are_read_once(damaged, monkeypatch):
    first = MiniVSPWIndex(damaged, cache_dir=damaged / "cache").of_fold(2)
    shown = {c: [first.frames(v, c).tolist() for v in first.videos(c)] for c in first.class_ids}
    assert {file.suffix for file in (damaged / "cache").iterdir()} == {".npz"}, "no temporary file is left"
    no_reading(monkeypatch)
    second = MiniVSPWIndex(damaged, cache_dir=damaged / "cache").of_fold(2)
    assert shown == {c: [second.frames(v, c).tolist() for v in second.videos(c)] for c in second.class_ids}


def test_changed_mask_replaces_the_cache(damaged):
    assert MiniVSPWIndex(damaged, cache_dir=damaged / "cache").side(2, "test")[1] == [CAR, BUS]
    write_mask(damaged / "data/v1/mask/00000004.png", painted(l62=300))
    assert MiniVSPWIndex(damaged, cache_dir=damaged / "cache").side(2, "test")[1] == [CAR, BUS, 62]
    assert len(list((damaged / "cache").iterdir())) == 1


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:len(b) // 2], lambda b: b"x" * len(b)])
def test_damaged_cache_is_built_again(damaged, caplog, damage):
    MiniVSPWIndex(damaged, cache_dir=damaged / "cache").side(2, "test")[1]
    cache, = (damaged / "cache").iterdir()
    cache.write_bytes(damage(cache.read_bytes()))
    assert MiniVSPWIndex(damaged, cache_dir=damaged / "cache").side(2, "test")[1] == [CAR, BUS]
    assert "damaged" in caplog.text


def test_cache_that_cannot_be_written_is_no_error(damaged, caplog):
    (damaged / "file").write_text("in the way")
    assert MiniVSPWIndex(damaged, cache_dir=damaged / "file" / "c").side(2, "test")[1] == [CAR, BUS]
    assert "could not be written" in caplog.text


# -- real data

@pytest.fixture(scope="module")
def mini_lists(tmp_path_factory):
    """Lists of the mini data set, by the rule; but fold 2's test list names every frame of one video."""
    folder = tmp_path_factory.mktemp("lists")
    lists = make_lists(MINI)
    write_lists(lists, folder)
    write_list(folder / "test_1.txt", lists["test_1"] | {"camvid_0006R0_c": list(range(12))})
    return folder


@functools.cache
def mini_masks(video):
    files = sorted((MINI / "data" / video / "mask").iterdir())
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in files]


def mini_shows(video, label):
    return [int(np.count_nonzero(mask == label)) for mask in mini_masks(video)]


@needs_mini
def test_mini_lists_follow_the_rule(mini_lists):
    for side, split in (("train", "train"), ("test", "val")):
        for fold in (1, 2, 3, 4):
            expected = {}
            for video in (MINI / f"{split}.txt").read_text().split():
                areas = np.array([mini_shows(video, c) for c in minivspw_classes(fold, side)])
                frames = np.flatnonzero((areas > 100).any(axis=0)).tolist()
                expected |= {video: frames} if frames else {}
            if (side, fold) != ("test", 2):
                assert read_list(mini_lists / f"{side}_{fold - 1}.txt") == expected and (expected or fold == 1)


@needs_mini
def test_mini_data_is_trained_on_and_tested(mini_lists, tmp_path, monkeypatch):
    """train.py and test.py as a user runs them; a video without cars in half of its frames is scored in all of them."""
    common = ["--config", "config/demo/ytvis.yaml", "--config", "config/vipmt/minivspw.yaml", "--fold", 2,
              f"data.root={MINI}", f"data.annotations={mini_lists}", "data.few_videos=repeat", "data.size=[48, 64]",
              "data.samples_per_class=1", "train.batch_size=2", "train.epochs=1", "backbone.width=4", "model.dim=8",
              "model.heads=2", "model.ffn_dim=8", "iou_net.dim=4", "iou_net.hidden=4", "test.runs=1",
              "backbone.weights=none", "iou_net.weights=none"]
    for script, arguments in ((train, ["--output", tmp_path]),
                              (test_script, ["--checkpoint", tmp_path / "last.pth", "--output", tmp_path / "test",
                                             "--save-masks", tmp_path / "masks"])):
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, [*common, *arguments])])
        script.main()
    lines = read_json_lines(tmp_path / "test" / "results.jsonl")
    assert {(line["class"], line["video"]) for line in lines} == {
        ("car", "camvid_0006R0_c"), ("car", "davis_car-turn"), ("bus", "davis_bus")} and len(lines) == 3
    assert all(len(line["j"]) == len(line["frames"]) == 12 for line in lines)
    assert mini_shows("camvid_0006R0_c", CAR).count(0) == 6
    assert len(list((tmp_path / "masks" / "run0" / "car" / "camvid_0006R0_c").iterdir())) == 12
    assert "| car | 2 |" in (tmp_path / "test" / "table.md").read_text()
