"""The contract of a method: one of 80 lines, in a file of its own, goes through every command, known to no other."""
import importlib
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import pytest

from utils.checkpoint import load_checkpoint
from utils.config import user_errors
from utils.records import read_json_lines

METHOD = ["model.method=tests.colour_method", "data.size=[48,80]", "data.shots=2", "data.clip_length=2", "data.clips=1",
          "data.samples_per_class=4", "data.few_videos=repeat", "data.workers=0", "train.batch_size=4", "train.lr=0.05",
          "train.log_every=1", "test.runs=1", "validate.every=1", "validate.episodes=4", "validate.holdout=0.2"]


def call(script, *words, status=0):
    """A command with what it wrote, in this process: another one would import PyTorch anew"""
    module, wrote = importlib.import_module(script), io.StringIO()
    with mock.patch.object(sys, "argv", [script, *map(str, words)]), redirect_stdout(wrote), redirect_stderr(wrote):
        try:
            with user_errors():
                module.main()
            ended = 0
        except SystemExit as end:
            ended = end.code
    assert ended == status, wrote.getvalue()[-3000:]
    return wrote.getvalue()


@pytest.fixture(scope="module")
def runs(demo_root, tmp_path_factory):
    """Trained in one go, and by halves: {name: folder}; the first one is tested as well"""
    folder = tmp_path_factory.mktemp("colour")
    train = ["train", "--fold", 1, "--device", "cpu", *METHOD, f"data.root={demo_root}"]
    call(*train, "--output", folder / "whole", "train.epochs=2")
    call(*train, "--output", folder / "halves", "train.epochs=1")
    call(*train, "--output", folder / "halves", "train.epochs=2", "--resume")
    call("test", "--fold", 1, "--device", "cpu", *METHOD, f"data.root={demo_root}", "--checkpoint",
         folder / "whole" / "last.pth", "--output", folder / "whole" / "test")
    return {"whole": folder / "whole", "halves": folder / "halves"}


def test_it_learns_and_resumes_exactly(runs):
    whole, halves = (load_checkpoint(runs[name] / "last.pth") for name in ("whole", "halves"))
    assert whole["model"] == halves["model"] and whole["model"]["scale"] != 1
    log = [line for line in read_json_lines(runs["whole"] / "log.jsonl") if "losses" in line]
    assert set(log[0]["losses"]) == {"cross_entropy"} and "object" in log[0]
    assert log[-1]["losses"]["cross_entropy"] < log[0]["losses"]["cross_entropy"]
    assert (runs["whole"] / "best.pth").is_file()                        # validated along the way


def test_every_parameter_group_has_its_share_of_the_rate(runs):
    groups = load_checkpoint(runs["whole"] / "last.pth")["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([0.05, 0.5])


def test_its_results_say_what_it_says_of_every_frame(runs):
    lines = read_json_lines(runs["whole"] / "test" / "results.jsonl")
    assert lines and all(len(line["largest_margin"]) == len(line["frames"]) for line in lines)
    assert not any("pred_iou" in line or "remembered" in line for line in lines)
    assert "largest_margin" in (runs["whole"] / "test" / "report.html").read_text()


def test_its_test_continues_with_what_is_missing(runs, demo_root):
    results = runs["whole"] / "test" / "results.jsonl"
    before = results.read_text()
    results.write_text("".join(before.splitlines(keepends=True)[:-1]))
    call("test", "--fold", 1, "--device", "cpu", *METHOD, f"data.root={demo_root}", "--checkpoint",
         runs["whole"] / "last.pth", "--output", runs["whole"] / "test")
    scores = [[{key: line[key] for key in ("video", "j", "f", "vc")} for line in lines] for lines in (
        read_json_lines(results), map(json.loads, before.splitlines()))]
    assert scores[0] == scores[1]


def test_it_segments_a_film(runs, demo_root, tmp_path):
    call("tools.make_demo_data", "--layout", "clip", "--output", tmp_path / "clip")
    film = next((tmp_path / "clip").glob("video.*"))
    text = call("segment", "--support", tmp_path / "clip" / "support", "--video", film, "--end", "6f", "--device",
                "cpu", "--checkpoint", runs["whole"] / "last.pth", "--output", tmp_path / "result")
    assert "6 frames" in text and len(list((tmp_path / "result" / "masks").glob("*.png"))) == 6


def test_weights_that_saw_the_test_classes_are_refused(runs, demo_root, tmp_path):
    text = call("test", "--fold", 2, *METHOD, f"data.root={demo_root}", "--checkpoint", runs["whole"] / "last.pth",
                "--output", tmp_path, status=2)
    assert "trained for fold 1" in text and "Traceback" not in text


def test_a_module_that_is_no_method_is_named(tmp_path):
    text = call("train", "--fold", 1, "model.method=utils.seeds", "--output", tmp_path, status=2)
    assert "utils.seeds has no TASK, Config, build" in text
    assert "no module tests.gone" in call("train", "--fold", 1, "model.method=tests.gone", status=2)
