"""train.py and test.py with a method that reads sentences: folds, runs, sentences swapped, the other data set."""
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from referring_material import SIZE, change, squares, write_ref

import segment
import test as test_script
import train
from segment import Segmenter
from utils.config import load_config
from utils.records import read_json_lines

METHOD = ["model.method=tests.sentence_method", "data.workers=0", "data.test_size=24", "data.sizes=[24, 30]",
          "data.crop_from=[30]", "data.crop_sides=[16, 28]", "data.frames=3", "data.support_frames=2"]
TRAINING = ["data.samples_per_class=2", "train.batch_size=2", "train.epochs=2", "train.lr=0.05", "train.log_every=1",
            "validate.every=1", "validate.episodes=1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ref(tmp_path_factory.mktemp("ref") / "Mini-Ref-YouTube-VOS")


@pytest.fixture
def call(monkeypatch, no_pages, capsys):
    def start(script, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments), *METHOD])
        script.main()
        return capsys.readouterr()
    return start


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "fold1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "refresh_report", lambda *_, **__: None)
        patch.setattr(sys, "argv", ["train.py", "--fold", "1", "--output", str(output), f"data.root={root}", *TRAINING,
                                    *METHOD])
        train.main()
    return output


def test_a_training_resumes_exactly(call, root, trained, tmp_path):
    place = ["--fold", 1, "--output", tmp_path / "parts", f"data.root={root.parent}", *TRAINING]
    call(train, *place, "train.epochs=1")
    call(train, *place, "--resume")
    logs = [[{k: v for k, v in line.items() if k not in ("samples_per_s", "data_s")}
             for line in read_json_lines(folder / "log.jsonl")] for folder in (trained, tmp_path / "parts")]
    assert logs[0] == logs[1] and any("validation" in line for line in logs[0])
    assert len([line for line in logs[0] if "losses" in line]) == 2 * 3          # three base classes, two samples each


def test_every_sentence_is_a_sample_and_swapped_ones_are_counted(call, root, trained, tmp_path):
    printed = call(test_script, "--fold", 1, "--checkpoint", trained / "last.pth", "--output", tmp_path / "t",
                   f"data.root={root}", "test.swap_sentences=true", "--save-masks", tmp_path / "m",
                   "--save-overlays", tmp_path / "films", "test.resolution=original", "test.window=3", "test.runs=2")
    lines = read_json_lines(tmp_path / "t" / "results.jsonl")
    assert len(lines) == 2 * 2 * 2 * 3               # runs, classes, videos but that of the support, sentences
    assert {line["class"] for line in lines} == {"cat", "bird"} and {line["fold"] for line in lines} == {1}
    for run in (0, 1):
        of_run = [line for line in lines if line["run"] == run]
        supports = {line["class"]: line["support_frames"][0].split("/")[0] for line in of_run}
        assert not any(line["video"].startswith(supports[line["class"]]) for line in of_run)
    assert [line["text"] for line in lines[:3]] == ["the red square on the left", "the green square on the right",
                                                    "red one"]
    red = [line for line in lines if line["object"] == 1]
    assert min(np.mean(line["j"]) for line in red) > 0.9 and all(len(line["pixels"]) == 2 for line in lines)
    assert all(line["other_objects"] == [3 - line["object"]] for line in lines)
    assert all(len(line["score"]) == len(line["frames"]) for line in lines)
    table = (tmp_path / "t" / "table.md").read_text().splitlines()
    assert table[0].split(" | ")[3] == "F (0.010)" and "| right object | right sentence |" in table[0]
    assert "overall IoU" in printed.err
    name = lines[0]["video"]
    mask = Image.open(tmp_path / "m/run0/cat" / name / "00000.png")
    assert mask.size == SIZE[::-1] and (tmp_path / "films/run0/cat" / f"{name}.mp4").is_file()


def test_two_objects_with_sentences_of_their_own_are_laid_into_every_clip(call, trained, tmp_path):
    root = write_ref(tmp_path / "own")
    change(root, lambda videos: [one.update(exp=f"{one['exp']} {name}") for name, video in videos.items()
                                 for one in video["expressions"].values()])
    call(test_script, "--fold", 1, "--checkpoint", trained / "last.pth", "--output", tmp_path / "t",
         f"data.root={root}", "test.compose=1.0", "test.swap_sentences=true", "test.runs=1", "test.window=0")
    lines = read_json_lines(tmp_path / "t" / "results.jsonl")
    assert {tuple(line["of_class"]) for line in lines} == {(True, False), (False, True)}
    assert all("+" in line["video"] and len(line["pixels"]) == 2 for line in lines)
    assert "right category" in (tmp_path / "t" / "table.md").read_text()


def test_sail_vos_is_tested_by_each_model_and_the_leak_is_stated(call, trained, tmp_path):
    write_ref(tmp_path / "mini-SAIL-VOS", sail=True, classes=("dog", "car", "person"), videos=2)
    printed = call(test_script, "--fold", 1, "--checkpoint", trained / "last.pth", "--output", tmp_path / "t",
                   f"data.root={tmp_path}", "data.dataset=ref_sailvos", "test.runs=1", "test.window=0")
    lines = read_json_lines(tmp_path / "t" / "results.jsonl")
    assert [line["class_id"] for line in lines] == [28, 37, 48] and "hardly about new classes" in printed.err


@pytest.fixture
def support(root, tmp_path):
    """Frames of one video with the green square's mask, and its sentence"""
    folder = tmp_path / "support"
    folder.mkdir()
    for t in range(2):
        shutil.copy(root / f"train/JPEGImages/dog0/{5 * t:05d}.png", folder / f"{t}.png")
        Image.fromarray(255 * (squares(t) == 2).astype(np.uint8)).save(folder / f"{t}_mask.png")
    (folder / "sentence.txt").write_text("a green square")
    return folder


def found(call, trained, folder, video, output, *arguments):
    call(segment, "--checkpoint", trained / "last.pth", "--support", folder, "--video", video, "--output", output,
         "--no-film", *arguments)
    return [np.array(Image.open(path)) for path in sorted((output / "masks").iterdir())]


def test_segment_takes_a_sentence(call, root, trained, support, tmp_path):
    video = root / "train/JPEGImages/dog2"
    red = found(call, trained, support, video, tmp_path / "a", "--text", "The  RED one", "test.window=3")
    green = found(call, trained, support, video, tmp_path / "b", "--text", "the other", "test.window=0")
    assert len(red) == len(green) == 7
    for t, masks in enumerate(zip(red, green, strict=True)):
        for number, mask in enumerate(masks, start=1):
            truth = squares(t) == number
            assert mask.shape == SIZE and ((mask > 0) ^ truth).sum() < 0.15 * 144
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["settings"]["text"] == "The  RED one"


def test_segment_asks_for_both_sentences_where_they_are_read(call, root, trained, support, tmp_path):
    video = root / "train/JPEGImages/dog2"
    with pytest.raises(ValueError, match="reads two sentences"):
        found(call, trained, support, video, tmp_path / "a")
    (support / "sentence.txt").unlink()
    with pytest.raises(ValueError, match="--support-text, or sentence.txt"):
        found(call, trained, support, video, tmp_path / "a", "--text", "red")
    few_shot = Segmenter(None, load_config())
    with pytest.raises(ValueError, match="vipmt reads no sentences"):
        few_shot.set_texts("red", "green")


def test_python_takes_frames_and_supports_of_any_size(trained):
    segmenter = Segmenter.from_checkpoint(trained / "last.pth")
    image = np.full((20, 40, 3), 100, np.uint8)
    image[5:15, 5:15] = 26, 204, 26
    larger = np.repeat(np.repeat(image, 2, axis=0), 3, axis=1)
    masks = [one[..., 1] == 204 for one in (image, larger)]
    with pytest.raises(ValueError, match="set_support"):
        next(segmenter.predictions([image]))
    segmenter.set_support([image, larger], masks)
    with pytest.raises(ValueError, match="reads two sentences"):
        next(segmenter.predictions([image]))
    segmenter.set_texts("it", "it")
    for found_mask, mask in zip(segmenter([image, image[:, ::-1].copy()]), [masks[0], masks[0][:, ::-1]], strict=True):
        assert found_mask.shape == mask.shape and (found_mask ^ mask).mean() < 0.08
