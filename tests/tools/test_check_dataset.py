"""tools/check_dataset.py: every kind of damage is found, by name, beside all others; what is clean can be loaded."""
import copy
import json
import os
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from material import ROOT, SHARED
from PIL import Image
from pycocotools import mask as mask_utils

from dataloaders.datasets.coco20i import Coco20iIndex
from dataloaders.datasets.minivspw import MiniVSPWIndex, write_list
from dataloaders.datasets.ytvis import YouTubeVISIndex
from tools import check_dataset
from tools.dataset_check import files
from tools.dataset_check.findings import KINDS

ROWS, COLS, FRAMES = 64, 80, 3

needs_mini = pytest.mark.skipif(not (SHARED / "data/mini_ytvis").is_dir(),
                                reason="needs the mini data sets in ../shared/data")


def compressed(mask):
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def box(rows=ROWS, cols=COLS):
    mask = np.zeros((rows, cols), bool)
    mask[5:60, 3:70] = True
    return mask


def picture(path, rows=ROWS, cols=COLS):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (rows, cols, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.GaussianBlur(noise, (5, 5), 2))


def ytvis_content(videos=4):
    """Two classes of fold 1 and 2, each in every video."""
    masks = [compressed(box()), None, {"size": [ROWS, COLS], "counts": [10, 5, ROWS * COLS - 15]}]
    return {
        "videos": [{"id": v, "height": ROWS, "width": COLS, "length": FRAMES,
                    "file_names": [f"v{v}/{t:05d}.jpg" for t in range(FRAMES)]} for v in range(1, videos + 1)],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "giant_panda"}],
        "annotations": [{"id": 10 * v + c, "video_id": v, "category_id": c, "segmentations": copy.deepcopy(masks)}
                        for v in range(1, videos + 1) for c in (1, 2)]}


@pytest.fixture
def ytvis(tmp_path):
    """A clean data set, and its content to be damaged: `save` writes it."""
    data = ytvis_content()
    for video in data["videos"]:
        for file in video["file_names"]:
            picture(tmp_path / "JPEGImages" / file)
    return save(tmp_path, data), data


def save(root, data, name="train.json"):
    (root / name).write_text(data if isinstance(data, str) else json.dumps(data))
    return root


def check(dataset, root, *options, out=None):
    """Command line  ->  exit code, report"""
    file = (out or root) / "report.json"
    file.unlink(missing_ok=True)
    code = check_dataset.main([dataset, str(root), "--shots", "3", "--workers", "1", "--report", str(file), *options])
    return code, json.loads(file.read_text())


def kinds(report, severity="error"):
    return {problem["kind"]: problem["count"] for problem in report["problems"] if problem["severity"] == severity}


def only(report, kind):
    return next(problem["examples"] for problem in report["problems"] if problem["kind"] == kind)


# -- YouTube-VIS

def test_clean_data_pass_with_their_counts(ytvis, capsys):
    root, _ = ytvis
    code, report = check("ytvis", root, "--deep")
    assert code == 0 and report["status"] == "clean" and not kinds(report)
    assert {row["count"]: (row["here"], row["published"]) for row in report["counts"]} == {
        "videos": (4, 2238), "objects": (8, 3774), "categories": (2, 40)}
    assert report["classes"][0] == {
        "fold": 1, "id": 1, "class": "person", "videos": 4, "frames": 8, "objects": 4}
    assert [(fold["test classes"], fold["published classes"], fold["frames"]) for fold in report["folds"]] == [
        (1, 10, 8), (1, 10, 8), (0, 10, 0), (0, 10, 0)]
    assert kinds(report, "warning") == {"published_counts": 3, "empty_fold": 2}, "a subset is no error"
    assert "0 errors, 5 warnings" in capsys.readouterr().out
    assert check("ytvis", root, "--strict")[0] == 1


def video(position, **changes):
    return lambda data: data["videos"][position].update(changes)


def annotation(position, **changes):
    return lambda data: data["annotations"][position].update(changes)


# What is changed in train.json -> what is found, and how often. The rules are the reader's (see test_ytvis.py);
# here: each kind is told, beside all others, and what --write-clean leaves loads.
DAMAGED_ANNOTATIONS = {
    "no object": (lambda data: data["videos"].append("v9"), {"bad_record": 1}),
    "no file names": (video(0, file_names=[]), {"bad_record": 1, "unknown_video": 2}),
    "id beyond 64 bits": (annotation(0, id=10 ** 40), {"bad_record": 1}),
    "name twice": (lambda data: data["categories"].append({"id": 7, "name": "person"}), {"duplicate_name": 1}),
    "video twice": (lambda data: data["videos"].append(copy.deepcopy(data["videos"][0])), {"duplicate_id": 1}),
    "folder of another": (video(1, file_names=[f"v1/{t}.jpg" for t in range(FRAMES)]),
                          {"shared_folder": 1, "unknown_video": 2}),
    "name too long": (video(0, file_names=["v1/" + "x" * 500, "v1/00001.jpg", "v1/00002.jpg"]), {"bad_file": 1}),
    "other size": (video(0, height=ROWS + 1), {"bad_file": 3, "bad_segmentation": 4}),
    "unknown video": (annotation(0, video_id=99), {"unknown_video": 1}),
    "unknown category": (annotation(0, category_id=99), {"unknown_category": 1}),
    "RLE cut": (lambda data: data["annotations"][3]["segmentations"][0].update(counts="0"), {"bad_segmentation": 1}),
}


@pytest.mark.parametrize("case", DAMAGED_ANNOTATIONS)
def test_damaged_annotations_are_found_and_can_be_left_out(ytvis, tmp_path, case):
    root, data = ytvis
    change, expected = DAMAGED_ANNOTATIONS[case]
    change(data)
    save(root, data)
    code, report = check("ytvis", root, "--few-videos", "repeat", "--write-clean", str(tmp_path / "clean.json"))
    assert code == 1 and expected.items() <= kinds(report).items()
    assert set(kinds(report)) == set(expected)
    clean = json.loads((tmp_path / "clean.json").read_text())
    assert clean.keys() == data.keys() and all(record in data[name] for name in data for record in clean[name])
    code, report = check("ytvis", root, "--few-videos", "repeat", "--annotations", "clean.json")
    assert code == 0, report["problems"]
    assert YouTubeVISIndex(root, "clean.json").class_ids == [1, 2]


@pytest.mark.parametrize("case, expected", {
    "area 0": (lambda data: data["annotations"][3]["segmentations"][2].update(counts=[ROWS * COLS]),
               {"empty_mask": 1}),
    "nothing anywhere": (annotation(0, segmentations=[None] * 3), {"empty_annotation": 1}),
    "name": (lambda data: data["categories"][0].update(name="dog"), {"category_name": 1}),
    "category unused": (lambda data: data["categories"].append({"id": 3, "name": "lizard"}), {"unused_category": 1}),
    "video unused": (lambda data: data["annotations"].__delitem__(slice(0, 2)), {"unannotated_video": 1}),
}.items())
def test_what_a_run_survives_is_a_warning(ytvis, case, expected):
    root, data = ytvis
    change, expected = expected
    change(data)
    code, report = check("ytvis", save(root, data), "--few-videos", "repeat")
    assert code == 0 and expected.items() <= kinds(report, "warning").items()
    YouTubeVISIndex(root)


@pytest.mark.parametrize("text", ["", "[]", '{"videos": []}'])
def test_annotations_that_are_none_end_with_2(tmp_path, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        check_dataset.main(["ytvis", str(save(tmp_path, text))])
    assert stopped.value.code == 2 and "train.json" in capsys.readouterr().err


def test_missing_annotations_end_with_2(tmp_path, capsys):
    for dataset in check_dataset.CHECKS:
        with pytest.raises(SystemExit) as stopped:
            check_dataset.main([dataset, str(tmp_path)])
        assert stopped.value.code == 2 and str(tmp_path) in capsys.readouterr().err


def test_empty_lists_are_found(tmp_path):
    code, report = check("ytvis", save(tmp_path, {"videos": [], "categories": [], "annotations": []}))
    assert code == 1 and kinds(report) == {"empty_list": 3, "no_class": 1, "missing_folder": 1}


# -- files

def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def cut_and_ended(path):
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2] + b"\xff\xd9")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def tag(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, "JPEG", exif=exif)


def link_out(path):
    target = path.parents[2].parent / f"{path.parents[2].name}.jpg"
    path.rename(target)
    path.symlink_to(target)


def link_to_itself(path):
    path.unlink()
    path.symlink_to(path)


# what happens to one image -> the kind found by a look, by decoding
DAMAGED_FILES = {
    "missing": (Path.unlink, "missing_file", "missing_file"),
    "no bytes": (lambda path: path.write_bytes(b""), "bad_file", "bad_file"),
    "cut": (cut, "bad_file", "bad_file"),
    "no image": (lambda path: path.write_bytes(b"no image\xff\xd9"), "bad_file", "bad_file"),
    "another kind": (lambda path: Image.open(path).save(path, "WEBP"), "bad_file", "bad_file"),
    "huge file": (lambda path: os.truncate(path, 2 ** 40), "bad_file", "bad_file"),
    "other size": (lambda path: picture(path, ROWS, COLS + 1), "bad_file", "bad_file"),
    "pipe": (pipe, "missing_file", "missing_file"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "missing_file", "missing_file"),
    "link out": (link_out, "bad_file", "bad_file"),
    "endless link": (link_to_itself, "missing_file", "missing_file"),
    "cut, but ended": (cut_and_ended, None, "corrupt_file"),
    "long trailer": (lambda path: path.write_bytes(path.read_bytes() + b"SEFH" * 999), None, None),
    "turned by a tag": (tag, None, None),
}


def test_all_damaged_files_are_found_at_once(tmp_path):
    data = ytvis_content(videos=6)
    names = [file for video in data["videos"] for file in video["file_names"]]
    for file in names:
        picture(tmp_path / "root" / "JPEGImages" / file)
    damaged = dict(zip(names, DAMAGED_FILES, strict=False))
    for file, case in damaged.items():
        DAMAGED_FILES[case][0](tmp_path / "root" / "JPEGImages" / file)
    save(tmp_path / "root", data)
    for column, options in ((1, ()), (2, ("--deep",))):
        fixes = tmp_path / "fix.txt"
        code, report = check("ytvis", tmp_path / "root", *options, "--fix-list", str(fixes), out=tmp_path)
        told = {example.split(": ")[0].split("JPEGImages/")[1]: problem["kind"] for problem in report["problems"]
                for example in problem["examples"] if "JPEGImages/" in example}
        assert code == 1
        assert told == {file: found[column] for file, case in damaged.items()
                        if (found := DAMAGED_FILES[case])[column]}
        lines = [line.split("\t") for line in fixes.read_text().splitlines()[1:]]
        assert {line[1] for line in lines if line[0] == "download"} == {f"JPEGImages/{file}" for file in told}


def test_an_unused_video_of_absurd_size_is_an_error_for_both(ytvis):
    root, data = ytvis
    data["videos"].append({"id": 99, "height": 6000, "width": 8000, "file_names": ["v99/00000.jpg"]})
    save(root, data)
    code, report = check("ytvis", root)
    assert code == 1 and kinds(report) == {"bad_record": 1}
    with pytest.raises(ValueError, match="6000 x 8000, more than"):
        YouTubeVISIndex(root)


def crash(tasks):
    if any("00001" in task.name for task in tasks):
        os._exit(1)
    return real_decode(tasks)


real_decode = files._decode_all


@pytest.mark.skipif(sys.platform != "linux", reason="needs processes that inherit the damage")
def test_a_file_that_ends_the_decoder_does_not_end_the_check(ytvis, monkeypatch):
    root, _ = ytvis
    monkeypatch.setattr("tools.dataset_check.files._decode_all", crash)
    code, report = check("ytvis", root, "--deep")
    assert code == 1 and kinds(report) == {"decoder_crash": 4}


def test_names_reach_the_terminal_without_control_characters(ytvis, capsys):
    root, data = ytvis
    data["videos"][0]["file_names"][0] = "v1/\x1b[2J\n.jpg"
    data["videos"][1]["file_names"][0] = "v2/\x1b[2J\n.jpg"
    fixes = root / "fix.txt"
    check("ytvis", save(root, data), "--fix-list", str(fixes))
    assert "\x1b" not in capsys.readouterr().out + fixes.read_text()
    assert all(line.count("\t") == 2 for line in fixes.read_text().splitlines()[1:])


# -- classes

def test_small_classes_are_errors_unless_supports_may_share_videos(ytvis):
    root, data = ytvis
    del data["annotations"][0]
    save(root, data)
    code, report = check("ytvis", root)
    assert code == 1 and only(report, "few_videos") == ["person (id 1, fold 1): 3 usable videos, 3 shots need 4"]
    code, report = check("ytvis", root, "--few-videos", "repeat")
    assert code == 0 and kinds(report, "warning")["few_videos_shared"] == 1


# -- output

def test_nothing_of_the_data_set_is_written_over(ytvis, capsys):
    root, _ = ytvis
    before = (root / "train.json").read_bytes()
    for option, name in ((option, name) for option in ("--write-clean", "--report", "--fix-list")
                         for name in ("train.json", "JPEGImages/v1/00000.jpg")):
        with pytest.raises(SystemExit) as stopped:
            check_dataset.main(["ytvis", str(root), option, str(root / name)])
        assert stopped.value.code == 2 and "Nothing was changed" in capsys.readouterr().err
    assert (root / "train.json").read_bytes() == before


def test_output_without_a_folder_is_refused_before_the_check(ytvis, capsys):
    root, _ = ytvis
    with pytest.raises(SystemExit) as stopped:
        check_dataset.main(["ytvis", str(root), "--report", str(root / "none" / "report.json")])
    assert stopped.value.code == 2 and "no file can be written there" in capsys.readouterr().err


def test_interrupted_check_tells_what_it_found(ytvis, monkeypatch, capsys):
    root, data = ytvis
    data["annotations"][0]["video_id"] = 99

    def interrupted(*args):
        raise KeyboardInterrupt
    monkeypatch.setattr("tools.dataset_check.ytvis.check_images", interrupted)
    code, report = check("ytvis", save(root, data))
    assert code == 130 and report["status"] == "interrupted" and kinds(report)["unknown_video"] == 1


def test_command_line_ends_with_the_code(ytvis, monkeypatch, capsys):
    root, data = ytvis
    (root / "JPEGImages" / "v1" / "00000.jpg").unlink()
    monkeypatch.setattr(sys, "argv", ["check_dataset.py", "ytvis", str(root)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "tools" / "check_dataset.py"), run_name="__main__")
    assert stopped.value.code == 1 and "ERROR missing_file: 1" in capsys.readouterr().out


def test_every_kind_is_found_somewhere():
    places = [*(ROOT / "tools/dataset_check").glob("*.py"), *(ROOT / "dataloaders").rglob("*.py")]
    sources = "".join(path.read_text() for path in places)
    assert not [kind for kind in KINDS if sources.count(f'"{kind}"') < 2 and not kind.startswith("unknown_")]


# -- COCO

@pytest.fixture
def coco(tmp_path):
    """Banana and person, of which the latter is left out beside video data."""
    polygon = [[5, 5, 70, 5, 70, 60, 5, 60]]
    data = {"images": [{"id": i, "file_name": f"{i}.jpg", "height": ROWS, "width": COLS} for i in range(1, 6)],
            "categories": [{"id": 1, "name": "person"}, {"id": 52, "name": "banana"}],
            "annotations": [{"id": 10 * i + c, "image_id": i, "category_id": c, "segmentation": segmentation}
                            for i in range(1, 6) for c, segmentation in ((1, compressed(box())), (52, polygon))]}
    for image in data["images"]:
        picture(tmp_path / "images" / image["file_name"])
    return save(tmp_path, data, "instances.json"), data


DAMAGED_COCO = {
    "box alone": (annotation(1, segmentation=[]), {"bad_segmentation": 1}),
    "unknown image": (annotation(0, image_id=99), {"unknown_image": 1}),
    "image twice": (lambda data: data["images"].append(copy.deepcopy(data["images"][0])), {"duplicate_id": 1}),
    "file twice": (lambda data: data["images"][1].update(file_name="1.jpg"),
                   {"duplicate_file_name": 1, "unknown_image": 2}),
    "up and out": (lambda data: data["images"][0].update(file_name="../2.jpg"), {"bad_record": 1, "unknown_image": 2}),
    "missing": (lambda data: data["images"][0].update(file_name="9.jpg"), {"missing_file": 1}),
}


@pytest.mark.parametrize("case", DAMAGED_COCO)
def test_damaged_coco_is_found_and_can_be_left_out(coco, tmp_path, case):
    root, data = coco
    change, expected = DAMAGED_COCO[case]
    change(data)
    save(root, data, "instances.json")
    code, report = check("coco", root, "--annotations", "instances.json", "--write-clean", str(tmp_path / "clean.json"))
    assert code == 1 and kinds(report) == expected
    code, report = check("coco", root, "--annotations", "clean.json")
    assert code == 0, report["problems"]
    assert Coco20iIndex(root, "clean.json").class_ids == [52]


def test_overlap_rule_leaves_what_the_index_keeps(coco):
    root, data = coco
    data["annotations"][1]["segmentation"] = [[0, 0, 4, 0, 4, 4]]             # too small
    data["annotations"][3]["iscrowd"] = 1
    code, report = check("coco", save(root, data, "instances.json"), "--annotations", "instances.json", "--deep",
                         "--few-videos", "repeat")
    assert code == 0 and kinds(report, "warning") == {"few_videos_shared": 1}
    for row in report["left for IoUNet"]:
        index = Coco20iIndex(root, "instances.json", video_data=row["video data"])
        pairs = [(c, image) for c in index.class_ids for image in index.videos(c)]
        assert (row["images"], row["classes"], row["masks"]) == (
            len({image for _, image in pairs}), len(index.class_ids), len(pairs))


def test_coco_without_a_class_to_learn_from_is_found(coco):
    root, data = coco
    data["annotations"] = data["annotations"][::2]
    code, report = check("coco", save(root, data, "instances.json"), "--annotations", "instances.json")
    assert code == 1 and kinds(report) == {"no_class": 1}


# -- MiniVSPW

def labelled(*labels):
    """A mask with 120 pixels of each label."""
    mask = np.zeros(ROWS * COLS, np.uint8)
    for place, label in enumerate(labels):
        mask[120 * place:120 * (place + 1)] = label
    return mask.reshape(ROWS, COLS)


CAR, DOG, PERSON = 49, 63, 61


@pytest.fixture
def vspw(tmp_path):
    """Four training and four test videos; fold 2 tests the car, the lists of the other folds are the same."""
    for name in (f"{side}{n}" for side in "tv" for n in range(4)):
        for t in range(2):
            path = tmp_path / "data" / name / "mask" / f"{t:08d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), labelled(DOG, PERSON, CAR, 255))
            picture(tmp_path / "data" / name / "origin" / f"{t:08d}.jpg")
    (tmp_path / "minivspw_lists").mkdir()
    for side, first in (("train", "t"), ("val", "v"), ("test", "v")):
        (tmp_path / f"{side}.txt").write_text("".join(f"{first}{n}\n" for n in range(4)))
        for fold in range(4):
            write_list(tmp_path / "minivspw_lists" / f"{side}_{fold}.txt", {f"{first}{n}": [0, 1] for n in range(4)})
    return tmp_path


def test_clean_vspw_passes_with_what_the_index_sees(vspw):
    code, report = check("vspw", vspw, "--deep")
    assert code == 0 and not kinds(report)
    for fold in range(1, 5):
        index = MiniVSPWIndex(vspw).of_fold(fold)
        rows = [row for row in report["classes"] if row["fold"] == fold and row["videos"]]
        assert {row["id"]: row["videos"] for row in rows} == {c: len(index.videos(c)) for c in index.class_ids}
        assert {row["id"]: row["support frames"] for row in rows} == {
            c: sum(len(index.frames(v, c)) for v in index.support_videos(c)) for c in index.class_ids}
    assert only(report, "against_the_rule"), "fold 1 tests none of the three"
    assert {"count": "test_2 frames", "here": 8, "published": 17660} in report["counts"]


def relabel(path, mask):
    cv2.imwrite(str(path), mask)


def add_line(path, text):
    path.write_text(path.read_text() + text + "\n")


T0, V0 = "data/t0/mask/00000000.png", "data/v0/origin/00000000.jpg"
DAMAGED_VSPW = {
    "mask gone": (lambda root: (root / T0).unlink(), {"missing_file": 1}),
    "mask cut": (lambda root: cut(root / T0), {"bad_file": 1}),
    "mask in colours": (lambda root: relabel(root / T0, np.zeros((ROWS, COLS, 3), np.uint8)), {"bad_file": 1}),
    "unknown label": (lambda root: relabel(root / T0, labelled(DOG, PERSON, CAR, 200)), {"unknown_label": 1}),
    "mask of another size": (lambda root: relabel(root / "data/t0/mask/00000001.png", labelled(CAR)[:-1]),
                             {"bad_file": 1}),
    "image gone": (lambda root: (root / V0).unlink(), {"missing_file": 1}),
    "image of another size": (lambda root: picture(root / V0, ROWS - 1), {"bad_file": 1}),
    "list gone": (lambda root: (root / "minivspw_lists/train_0.txt").unlink(), {"missing_list": 1}),
    "lists gone": (lambda root: (root / "minivspw_lists").rename(root / "other"), {"missing_list": 8}),
    "no line": (lambda root: add_line(root / "minivspw_lists/test_1.txt", "v0"), {"bad_line": 1}),
    "line leaves the root": (lambda root: add_line(root / "minivspw_lists/test_1.txt", ".. ../mask/00000001.png"),
                             {"bad_line": 1}),
    "line of no file": (lambda root: add_line(root / "minivspw_lists/test_1.txt", "v3 v3/mask/00000007.png"),
                        {"missing_file": 2}),
    "line twice": (lambda root: add_line(root / "minivspw_lists/test_1.txt", "v3 v3/mask/00000001.png"),
                   {"duplicate_line": 1}),
    "video torn": (lambda root: add_line(root / "minivspw_lists/test_1.txt", "v0 v0/mask/00000002.png"),
                   {"duplicate_line": 1}),
    "train and test": (lambda root: add_line(root / "minivspw_lists/test_1.txt", "t0 t0/mask/00000001.png"),
                       {"both_sides": 1}),
    "video gone": (lambda root: add_line(root / "train.txt", "t9"), {"missing_video": 1}),
    "mask of another name": (lambda root: relabel(root / "data/t0/mask/7.png", labelled(CAR)), {"missing_video": 1}),
    "split twice": (lambda root: add_line(root / "train.txt", "t0"), {"bad_line": 1}),
    "video linked out": (lambda root: (root / "data/t0").rename(root / "t0")
                         and (root / "data/t0").symlink_to(root / "t0"), {"bad_file": 4}),
}


@pytest.mark.parametrize("case", DAMAGED_VSPW)
def test_damaged_vspw_is_found(vspw, case):
    change, expected = DAMAGED_VSPW[case]
    change(vspw)
    code, report = check("vspw", vspw, "--deep", "--few-videos", "repeat")
    assert code == 1 and kinds(report) == expected


def test_missing_mask_tells_its_lists(vspw):
    (vspw / T0).unlink()
    told = only(check("vspw", vspw)[1], "missing_file")
    assert told == [f"{T0}: train_0.txt and 3 more"]


# -- real data

@needs_mini
@pytest.mark.parametrize("dataset, root, annotations, wrong", [
    ("ytvis", "mini_ytvis/train", "train_merged.json", {}),
    ("coco", "mini_coco", "instances.json", {}),
    ("vspw", "mini_vspw", "none", {"missing_list": 8})])
def test_real_data_are_checked(tmp_path, dataset, root, annotations, wrong):
    options = ("--annotations", annotations, "--few-videos", "repeat")
    code, report = check(dataset, SHARED / "data" / root, *options, out=tmp_path)
    assert code == bool(wrong) and kinds(report) == wrong
