"""tools/check_dataset.py davis and ytvos: what is clean passes, and every damage is found beside the others."""
import json

import numpy as np
import pytest
from PIL import Image
from vos_material import write_davis, write_ytvos

from tools import check_dataset, prepare_data


def found(kind, root, *flags, code=1):
    report = root.parent / "report.json"
    assert check_dataset.main([kind, str(root), "--report", str(report), "--workers", "1", *flags]) == code
    content = json.loads(report.read_text())
    return {problem["kind"]: problem["examples"] for problem in content["problems"]}, content


def test_clean_data_pass_with_their_counts(tmp_path):
    write_davis(tmp_path / "davis")
    _, content = found("davis", tmp_path / "davis", "--deep", code=0)
    assert content["lists"] == [{"list": "val.txt", "videos": 2, "masks": 16, "frames": 16, "objects": 4}]
    assert content["counts"] == [{"count": "videos of val.txt", "here": 2, "published": 30}]
    write_ytvos(tmp_path / "valid")
    _, content = found("ytvos", tmp_path / "valid", "--deep", code=0)
    assert content["lists"] == [{"list": "meta.json", "videos": 2, "masks": 4, "frames": 16, "objects": 4}]
    assert prepare_data.main(["check", "ytvos", str(tmp_path / "valid")]) == 0


def test_every_damage_is_found(tmp_path):
    root = tmp_path / "davis"
    write_davis(root, names=("none", "empty", "alone", "cut", "small", "colours", "good"))
    images, masks = (root / name / "480p" for name in ("JPEGImages", "Annotations"))
    (images / "none").rename(images / "other")
    for file in (images / "empty").iterdir():
        file.unlink()
    (images / "alone" / "00003.jpg").unlink()
    (images / "cut" / "00002.jpg").write_bytes((images / "cut" / "00002.jpg").read_bytes()[:200])
    Image.open(masks / "small" / "00001.png").resize((20, 10)).save(masks / "small" / "00001.png")
    noise = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    Image.fromarray(noise).save(masks / "colours" / "00004.png")
    problems, content = found("davis", root, "--deep")
    assert [len(problems[kind]) for kind in ("missing_folder", "missing_file", "bad_file")] == [2, 1, 3]
    assert "video none" in problems["missing_folder"][0] and "no frame" in problems["missing_folder"][1]
    assert "00003.png: this frame does not exist" in problems["missing_file"][0]
    text = " ".join(problems["bad_file"])
    assert "cut/00002.jpg" in text and "10 x 20 pixels" in text and "colours" in text and "good" not in text


def test_objects_that_no_mask_shows_are_named(tmp_path):
    root = tmp_path / "train"
    write_ytvos(root, given_only=False)
    meta = json.loads((root / "meta.json").read_text())
    meta["videos"]["a1"]["objects"]["7"] = {"category": "fox", "frames": []}
    (root / "meta.json").write_text(json.dumps(meta))
    problems, _ = found("ytvos", root, "--deep", code=0)
    assert problems["empty_annotation"] == ["video a1, object 7: no mask shows it"]


@pytest.mark.parametrize("name, place", [
    ("DAVIS/JPEGImages/480p/bear/00000.jpg", "JPEGImages/480p/bear/00000.jpg"),
    ("DAVIS/ImageSets/2017/val.txt", "ImageSets/2017/val.txt"), ("DAVIS/JPEGImages/1080p/bear/00000.jpg", None)])
def test_archives_of_davis_go_into_place(name, place):
    assert prepare_data.SOURCES["davis"].destination(name) == place
    assert prepare_data.SOURCES["ytvos"].destination("train/Annotations/0a/00005.png") == "Annotations/0a/00005.png"
