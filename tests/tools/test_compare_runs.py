"""Two run folders side by side: every difference is named, and nothing else."""
import json
import shutil

import pytest
import torch

from tools import compare_runs
from utils.checkpoint import save_checkpoint
from utils.config import load_config
from utils.records import JsonLines, describe_run


def result(video, j, supports=("a.jpg",)):
    return {"fold": 1, "run": 0, "class_id": 1, "class": "person", "video": video, "support_frames": list(supports),
            "j": [j, j], "f": [j, j], "vc": [1.0], "vc_variant": "vipmt", "vc_window": 7}


@pytest.fixture
def runs(tmp_path):
    """One run with training and test, and a copy of it."""
    first, second = tmp_path / "first", tmp_path / "second"
    describe_run(load_config(), first, {"sha256": "0"})
    with JsonLines(first / "log.jsonl") as log:
        for step in (1, 2):
            log.append({"step": step, "losses": {"final": 1 / step}})
    save_checkpoint(first / "last.pth", {"model": {"w": torch.zeros(2)}})
    write_results(first, result("u", 0.5), result("v", 0.7))
    shutil.copytree(first, second)
    return first, second


def write_results(folder, *lines):
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_copy_is_the_same(runs):
    assert compare_runs.compare(*runs) == {"set-up": [], "training": [], "test": []}


def test_config_code_and_data_are_named(runs):
    describe_run(load_config([], ["train.lr=0.1", "seed=7"]), runs[1], {"sha256": "1"})
    lines = compare_runs.compare(*runs)["set-up"]
    assert "config train.lr: 0.0005 | 0.1" in lines and "config seed: 42 | 7" in lines and "data.sha256: 0 | 1" in lines
    assert len(lines) == 3


def test_the_step_where_losses_part_and_other_weights_are_named(runs):
    with JsonLines(runs[1] / "log.jsonl") as log:
        log.append({"step": 3, "losses": {"final": 0.1}})
    save_checkpoint(runs[1] / "last.pth", {"model": {"w": torch.ones(2)}})
    lines = compare_runs.compare(*runs)["training"]
    assert lines == ["steps: 2 | 3", "sum of losses, last line: 0.5 | 0.1", "weights of last.pth: not the same"]
    (runs[1] / "log.jsonl").write_text((runs[0] / "log.jsonl").read_text().replace("0.5", "0.25"))
    assert "losses differ from step 2 on" in compare_runs.compare(*runs)["training"]


def test_videos_are_compared_one_by_one_where_supports_agree(runs):
    write_results(runs[1], result("u", 0.6), result("v", 0.1, supports=("b.jpg",)))
    lines = compare_runs.compare(*runs)["test"]
    assert "the same video, run and supports: 1 of 2 | 2" in lines
    assert any(line.startswith("J, second minus first: +10.00; better in 1, worse in 0 of 1") for line in lines)


def test_earlier_starts_stay_in_the_record(tmp_path):
    for seed in (1, 2, 3):
        record = describe_run(load_config([], [f"seed={seed}"]), tmp_path)
    assert [start["seed"] for start in record["earlier"]] == [1, 2] and record["seed"] == 3


def test_a_folder_without_a_run_is_named(tmp_path, runs):
    with pytest.raises(FileNotFoundError, match="no run.json"):
        compare_runs.compare(runs[0], tmp_path)


def test_what_a_test_was_made_of_is_named(runs):
    for folder, test in zip(runs, ({"sha256": "a", "episodes": None, "iou_net": None},
                                   {"sha256": "b", "episodes": "c", "iou_net": {"sha256": "d"}}), strict=True):
        (folder / "test.json").write_text(json.dumps(test))
    assert compare_runs.compare(*runs)["set-up"] == [
        "test.sha256: a | b", "test.episodes: None | c", "test.iou_net.sha256: None | d"]


def test_another_fold_is_another_set_up(runs, monkeypatch):
    for folder, fold in zip(runs, (["--fold", "1"], ["--group=3"]), strict=True):
        monkeypatch.setattr("sys.argv", ["train.py", *fold])
        describe_run(load_config(), folder, {"sha256": "0"})
    assert compare_runs.compare(*runs)["set-up"] == ["fold: 1 | 3"]
    for folder, fold in zip(runs, (2, 4), strict=True):
        (folder / "test.json").write_text(json.dumps({"sha256": "a", "fold": fold}))
    assert compare_runs.compare(*runs)["set-up"] == ["fold: 2 | 4"]
