"""tools/check_dataset.py referring: what is clean passes, and every damage is found beside the others."""
import json

import numpy as np
import pytest
from PIL import Image
from referring_material import CLASSES, change, write_ref

from tools import check_dataset
from utils.pictures.overlay import save_palette_mask


@pytest.fixture
def root(tmp_path):
    return write_ref(tmp_path / "Mini-Ref-YouTube-VOS", videos=2, classes=CLASSES[:2])


def found(root, *flags, code=1):
    report = root.parent / "report.json"
    assert check_dataset.main(["referring", str(root), "--report", str(report), "--workers", "1", *flags]) == code
    return json.loads(report.read_text())


def test_clean_data_pass_with_their_counts(root):
    content = found(root.parent, "--deep", code=0)
    assert content["errors"] == 0 and content["counts"][0] == {"count": "videos", "here": 4, "published": 1668}
    assert [(row["fold"], row["class"], row["sentences"]) for row in content["classes"]] == [
        (1, "cat", 6), (2, "dog", 6)]


def test_the_synthetic_data_are_recognised(tmp_path):
    write_ref(tmp_path / "Mini-Ref-SAIL-VOS", videos=2, sail=True, classes=("dog", "car", "person"))
    content = found(tmp_path, "--deep", code=0)
    assert content["counts"][1] == {"count": "categories", "here": 3, "published": 3}


def test_every_damage_is_found(root):
    images, masks = root / "train/JPEGImages", root / "train/Annotations"
    (images / "cat0/00000.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    (masks / "cat1/00005.png").unlink()
    Image.open(masks / "cat1/00000.png").crop((0, 0, 9, 9)).save(masks / "cat1/00000.png")
    change(root, sentences=lambda videos: videos["dog0"]["expressions"]["0"].update(exp=""))
    for path in (masks / "dog1").iterdir():
        save_palette_mask(path, (np.array(Image.open(path)) == 1) * 1)
    content = found(root, "--deep")
    told = {problem["kind"]: problem["examples"] for problem in content["problems"]}
    assert "video 'dog0', sentence 0: it is empty" in told["bad_record"][0]
    assert "class" not in str(told.get("few_videos")) and "dog (id 2): 1 videos" in told["few_videos"][0]
    assert told["missing_file"] == ["video cat1, frame 00005, train/Annotations/cat1/00005.png"]
    assert any("cat0/00000.png" in text for text in told["bad_file"])
    assert any("its mask has 9 x 9 pixels" in text for text in told["bad_file"])
    assert told["empty_annotation"] == ["video dog1, object 2: no mask shows it"]
