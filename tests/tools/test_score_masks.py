"""Masks from elsewhere are measured as test.py measures its own."""
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from material import DEMO, command, results_of
from PIL import Image

import test as test_script
from dataloaders import build_index
from tools import compare_runs, episodes, score_masks
from utils.checkpoint import save_checkpoint
from utils.config import load_config

SMALL = ["data.size=[48,80]", "data.shots=1", "data.few_videos=repeat", "data.workers=0", "test.runs=1"]
SCORES = ("run", "class", "video", "frames", "support_frames", "j", "f", "vc")


@pytest.mark.parametrize("resolution", ["input", "original"])
def test_its_numbers_are_those_of_test_py(monkeypatch, demo_root, tmp_path, no_pages, capsys, resolution):
    from models import get_method
    settings = [f"data.root={demo_root}", *SMALL, f"test.resolution={resolution}"]
    own = [*settings, "model.method=tests.colour_method"]
    model = get_method("tests.colour_method").build(load_config([], own))
    model.bias.data.fill_(0.05)          # whatever is near the object's colour
    save_checkpoint(tmp_path / "last.pth", {"model": model.state_dict(), "fold": 1})
    command(monkeypatch, test_script, "--fold", 1, "--device", "cpu", "--checkpoint", tmp_path / "last.pth", "--output",
            tmp_path / "test", "--save-masks", tmp_path / "masks", *own, config=())
    command(monkeypatch, episodes, "--from-results", tmp_path / "test" / "results.jsonl", "--output",
            tmp_path / "episodes.json", *settings, config=())
    command(monkeypatch, score_masks, "--episodes", tmp_path / "episodes.json", "--masks", tmp_path / "masks",
            "--output", tmp_path / "again", *settings, config=())
    lines, again = ([{key: line[key] for key in SCORES} for line in results_of(tmp_path / name)]
                    for name in ("test", "again"))
    assert again == lines and 0 < np.mean([j for line in lines for j in line["j"]]) < 1
    assert (tmp_path / "again" / "table.md").read_text() == (tmp_path / "test" / "table.md").read_text()
    monkeypatch.setattr(sys, "argv", ["compare_runs", str(tmp_path / "test"), str(tmp_path / "again")])
    with pytest.raises(SystemExit):
        compare_runs.main(compare_runs.parse_arguments())
    assert "test: the same" in capsys.readouterr().out


@pytest.fixture
def listed(monkeypatch, demo_root, tmp_path):
    """A list of two episodes, their true masks as another program might write them, and how they are measured"""
    settings = [f"data.root={demo_root}", *SMALL]
    command(monkeypatch, episodes, "--fold", 1, "--output", tmp_path / "episodes.json", *settings)
    content = json.loads((tmp_path / "episodes.json").read_text())
    content["episodes"] = content["episodes"][:2]
    (tmp_path / "episodes.json").write_text(json.dumps(content))
    index = build_index(load_config([DEMO], settings)).side(1, "test")[0]
    for one in content["episodes"]:
        video = next(v for v in index.videos(one["class_id"]) if index.video_name(v) == one["video"])
        names = {index.file_name(video, t): t for t in range(index.length(video))}
        folder = tmp_path / "masks" / f"run{one['run']}" / one["class"] / one["video"]
        folder.mkdir(parents=True)
        for name in one["frames"]:
            mask = index.read_mask(video, names[name], one["class_id"])
            cv2.imwrite(str(folder / f"{Path(name).stem}.png"), mask * np.uint8(255))
    return tmp_path, ["--episodes", tmp_path / "episodes.json", "--masks", tmp_path / "masks", "--output",
                      tmp_path / "again", *settings]


def test_masks_of_the_videos_own_size_are_brought_to_the_networks(monkeypatch, listed):
    folder, arguments = listed
    command(monkeypatch, score_masks, *arguments)
    assert len(results_of(folder / "again")) == 2
    assert all(min(line["j"]) == 1 and min(line["f"]) == 1 for line in results_of(folder / "again"))


def test_a_mask_that_is_missing_or_of_another_size_is_named(monkeypatch, listed):
    folder, arguments = listed
    path = next((folder / "masks").rglob("*.png"))
    Image.new("L", (7, 5)).save(path)
    with pytest.raises(ValueError, match=r"shape \(5, 7\); expected .* 48 x 80"):
        command(monkeypatch, score_masks, *arguments)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="Every frame of every episode needs one"):
        command(monkeypatch, score_masks, *arguments)
