"""train.py, test.py and segment.py with a method that follows masks: no folds, several objects, submissions."""
import csv
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from vos_material import LATE, SIZE, write_coco, write_davis, write_ytvos

import segment
import test as test_script
import train
from segment import Segmenter
from utils.checkpoint import load_checkpoint
from utils.config import load_config
from utils.pictures.overlay import palette, save_palette_mask
from utils.records import read_json_lines
from utils.report.write import write_report

METHOD = ["model.method=tests.shape_method"]
COPIED = ["model.method=first_mask"]


@pytest.fixture(scope="module")
def davis(tmp_path_factory):
    root = tmp_path_factory.mktemp("davis")
    return root, write_davis(root)


@pytest.fixture
def call(monkeypatch, no_pages, capsys):
    def start(script, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments)])
        script.main()
        return capsys.readouterr()
    return start


def settings(root, *more):
    return [f"data.root={root}", "data.workers=0", "data.size=[32, 48]", "data.clip_length=3", *more]


def training(root):
    return [*METHOD, *settings(root), f"sources.davis={root}", "sources.davis_list=ImageSets/2017/val.txt",
            "sources.ytvos_weight=0", "data.min_frames=4", "data.samples=8", "train.batch_size=4", "train.epochs=2",
            "train.lr=0.1", "train.log_every=1", "validate.every=2", "validate.episodes=1"]


def png(path):
    image = Image.open(path)
    assert image.mode == "P" and image.getpalette()[:30] == palette()[:10].ravel().tolist()
    return np.array(image)


def test_a_training_resumes_exactly_and_its_checkpoint_follows_what_it_learned(call, davis, tmp_path):
    root, labels = davis
    call(train, "--output", tmp_path / "whole", *training(root))
    call(train, "--output", tmp_path / "parts", *training(root), "train.epochs=1")
    call(train, "--output", tmp_path / "parts", "--resume", *training(root))
    logs = [[{k: v for k, v in line.items() if k not in ("samples_per_s", "data_s")}
             for line in read_json_lines(tmp_path / name / "log.jsonl")] for name in ("whole", "parts")]
    assert logs[0] == logs[1] and any("validation" in line for line in logs[0])
    call(test_script, "--checkpoint", tmp_path / "whole/last.pth", "--output", tmp_path / "test", *METHOD,
         *settings(root), "--save-overlays", tmp_path / "films")
    lines = read_json_lines(tmp_path / "test" / "results.jsonl")
    assert [(line["class_id"], line["video"], len(line["j"])) for line in lines] == [
        (1, "one", 6), (2, "one", 6 - LATE), (1, "two", 6), (2, "two", 6 - LATE)]
    assert min(x for line in lines for x in line["j"]) > 0.8             # flat colours are an easy task
    assert [len(line["certainty"]) for line in lines] == [6, 3, 6, 3] and "fold" not in lines[0]
    assert (tmp_path / "films" / "one.mp4").is_file()
    page = write_report(tmp_path / "test", films=tmp_path / "films").read_text(encoding="utf-8")
    assert all(name in page for name in ("one 2</t", " 2 in one"))                # a row and a film per object
    for t in range(8):
        found = png(tmp_path / "test/Annotations/one" / f"{t:05d}.png")
        assert (found != labels["one"][t]).mean() < 0.05
    with open(tmp_path / "test/per-sequence_results-val.csv", newline="") as file:
        assert [row["Sequence"] for row in csv.DictReader(file)] == ["one_1", "one_2", "two_1", "two_2"]


def test_a_fold_is_refused_and_a_method_without_training_needs_no_checkpoint(call, davis, tmp_path):
    root, labels = davis
    with pytest.raises(ValueError, match="--fold 1: this method's task has no folds; leave it out"):
        call(test_script, "--fold", 1, *COPIED, *settings(root))
    with pytest.raises(ValueError, match="first_mask trains nothing"):
        call(train, "--output", tmp_path / "none", *COPIED, *settings(root))
    call(test_script, "--output", tmp_path / "a", *COPIED, *settings(root))
    lines = read_json_lines(tmp_path / "a" / "results.jsonl")
    first = labels["one"]
    expected = [((m == 1) & (first[0] == 1)).sum() / ((m == 1) | (first[0] == 1)).sum() for m in first[1:7]]
    assert lines[0]["j"] == pytest.approx(expected, abs=1e-6)             # but where object 2 has begun
    assert lines[1]["frames"][0] == f"one/{LATE + 1:05d}"


def test_a_test_that_was_interrupted_measures_each_object_once(call, davis, tmp_path):
    root, _ = davis
    command = ["--output", tmp_path / "a", *COPIED, *settings(root)]
    call(test_script, *command)
    file = tmp_path / "a" / "results.jsonl"
    whole = file.read_text().splitlines()
    file.write_text("".join(f"{line}\n" for line in whole[:3]))           # object 2 of the second video is missing
    call(test_script, *command)
    assert [line["video"] + str(line["class_id"]) for line in read_json_lines(file)] == ["one1", "one2", "two1", "two2"]


def test_a_submission_holds_the_frames_asked_for_and_is_continued(call, tmp_path):
    write_ytvos(tmp_path / "valid", asked=[0, 2, 4])
    command = ["--output", tmp_path / "a", *COPIED, *settings(tmp_path / "valid"), "data.dataset=ytvos",
               "data.annotations=meta.json", "test.submission=zip"]
    call(test_script, *command)
    place, names = tmp_path / "a" / "Annotations", ["00000.png", "00010.png", "00020.png"]
    assert sorted(p.name for p in (place / "a1").iterdir()) == names
    assert set(np.unique(png(place / "a1" / "00020.png"))) == {0, 1, 2}
    with zipfile.ZipFile(tmp_path / "a" / "submission.zip") as file:
        assert {f"Annotations/{v}/{n}" for v in ("a1", "b2") for n in names} <= set(file.namelist())
    (place / "b2" / "00010.png").unlink()
    mark = save_palette_mask(place / "a1" / "00000.png", np.full(SIZE, 7))           # a1 is complete: left alone
    call(test_script, *command)
    assert mark is None and png(place / "a1" / "00000.png")[0, 0] == 7 and (place / "b2" / "00010.png").is_file()


def segmented(call, davis, output, *arguments):
    root, _ = davis
    call(segment, "--method", "first_mask", "--video", root / "JPEGImages/480p/one", "--output", output, "--device",
         "cpu", *arguments)
    return [png(p) for p in sorted((output / "masks").iterdir())]


def test_segment_follows_a_mask_a_folder_of_masks_and_boxes(call, davis, tmp_path):
    root, labels = davis
    annotations = root / "Annotations/480p/one"
    masks = segmented(call, davis, tmp_path / "a", "--init-mask", annotations / "00000.png")
    assert len(masks) == 8 and all(np.array_equal(mask, labels["one"][0]) for mask in masks)
    save_palette_mask(tmp_path / "m" / "00000.png", labels["one"][0])
    save_palette_mask(tmp_path / "m" / "00005.png", np.where(labels["one"][5] == 2, 2, 0))
    masks = segmented(call, davis, tmp_path / "b", "--init-mask", tmp_path / "m")
    assert np.array_equal(masks[6] == 2, labels["one"][5] == 2) and not (masks[4] == 2).any()
    with open(tmp_path / "b" / "frames.csv", newline="") as file:
        assert [int(row["area"]) for row in csv.DictReader(file)] == [144] * 5 + [int((m > 0).sum()) for m in masks[5:]]
    masks = segmented(call, davis, tmp_path / "c", "--init-box", "4,6,12,12", "--init-box", "30,2,5,5", "--no-film")
    assert (masks[3] == 1).sum() == 144 and (masks[3] == 2).sum() == 25 and (tmp_path / "a" / "overlay.mp4").exists()


def test_segment_says_what_is_wrong_with_a_start(call, davis, tmp_path):
    root, labels = davis
    save_palette_mask(tmp_path / "m" / "00099.png", labels["one"][0])
    save_palette_mask(tmp_path / "small.png", labels["one"][0][:-2])
    save_palette_mask(tmp_path / "odd" / "1.png", labels["one"][1])
    for arguments, words in (
            (["--init-mask", tmp_path / "m"], "a mask for frame 99, but the video has 8 frames"),
            (["--init-mask", tmp_path / "small.png"], "a mask of 38 x 56 pixels for frame 0, which has 40 x 56"),
            (["--init-mask", tmp_path / "odd", "--every", "2"], "was not among the 4 frames that were segmented"),
            (["--init-box", "60,0,5,5"], "lies outside the frame"), ([], "Give one of --support FOLDER"),
            (["--init-box", "1,1,5,5", "--init-mask", tmp_path / "small.png"], "Give one of")):
        with pytest.raises(ValueError, match=words):
            segmented(call, davis, tmp_path / "out", *arguments)


def test_python_sets_masks_and_has_the_same_loop(davis):
    import torch
    root, labels = davis
    segmenter = Segmenter(torch.nn.Identity(), load_config([], COPIED))
    with pytest.raises(ValueError, match=r"Call set_masks\(masks\) first"):
        next(segmenter(root / "JPEGImages/480p/one"))
    with pytest.raises(ValueError, match="follows masks, not supports"):
        segmenter.set_support([], [])
    segmenter.set_masks({0: labels["one"][0], 3: labels["one"][3]})
    masks = list(segmenter(root / "JPEGImages/480p/one"))
    assert masks[0].dtype == np.uint8 and np.array_equal(masks[7], labels["one"][3])


def test_a_checkpoint_of_another_task_is_refused(davis, tmp_path):
    from utils.checkpoint import save_checkpoint
    from utils.config import to_dict
    save_checkpoint(tmp_path / "last.pth", {"model": {}, "config": to_dict(load_config()), "fold": 1})
    with pytest.raises(ValueError, match="a checkpoint of model.method vipmt, which cannot serve first_mask"):
        Segmenter.from_checkpoint(tmp_path / "last.pth", overrides=COPIED)


def test_random_weights_of_a_method_without_a_checkpoint_follow_from_the_seed():
    keys = ["model.method=matching", "backbone.name=tiny", "backbone.width=8", "backbone.weights=none"]
    first, again, other = (next(Segmenter.from_checkpoint(None, overrides=[*keys, f"seed={seed}"]).model.parameters())
                           for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_our_propagator_follows_several_objects(call, davis, tmp_path):
    """Random features of colours suffice for flat squares; a late object starts from its mask."""
    root, labels = davis
    call(test_script, "--output", tmp_path, "model.method=matching", "backbone.name=tiny", "backbone.width=32",
         "backbone.weights=none", *settings(root))
    assert np.array_equal(png(tmp_path / "Annotations/one/00000.png"), labels["one"][0])
    assert np.array_equal(png(tmp_path / f"Annotations/one/{LATE:05d}.png") == 2, labels["one"][LATE] == 2)
    lines = read_json_lines(tmp_path / "results.jsonl")
    assert len(lines) == 4 and np.mean(lines[0]["j"]) > 0.2      # object 2 is a single position of the features


def test_llb_goes_from_pictures_to_videos_to_masks(call, davis, tmp_path):
    """Stage 1 on COCO, stage 2 on DAVIS from its checkpoint, test.py, segment.py: one step each of a small network."""
    root, labels = davis
    coco = tmp_path / "coco"
    write_coco(coco, root / "JPEGImages/480p/one/00004.jpg")
    small = ["data.workers=0", "data.size=[32,48]", "data.min_frames=4", "data.samples=2", "train.batch_size=2",
             "train.epochs=1", "train.lr_drops=[]", "backbone.name=resnet18", "backbone.weights=none",
             "backbone.bn_eps=1.0e-5", "model.widths=[8,8,8,8]", "model.feature_dim=8", "model.key_dim=8",
             "model.filters=4", "model.label_encoder=cnn", f"data.root={root}"]
    call(train, "--config", "config/llb/stage1.yaml", "--output", tmp_path / "1", *small, f"sources.coco={coco}",
         "sources.coco_list=i.json", "sources.coco_images=images")
    call(train, "--config", "config/llb/stage2.yaml", "--output", tmp_path / "2", *small, "sources.ytvos_weight=0",
         f"sources.davis={root}", "sources.davis_list=ImageSets/2017/val.txt", f"train.start={tmp_path / '1/last.pth'}")
    weights = [load_checkpoint(tmp_path / stage / "last.pth")["model"] for stage in "12"]
    moved = {name.split(".")[0] for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])}
    assert moved >= {"backbone", "matching", "label_encoder", "fusion", "decoder"}
    (tmp_path / "list.txt").write_text("one\n")
    call(test_script, "--config", "config/llb/stage2.yaml", "--checkpoint", tmp_path / "2/last.pth", "--output",
         tmp_path / "test", *small, f"data.annotations={tmp_path / 'list.txt'}", "learner.steps=2")
    assert len(read_json_lines(tmp_path / "test/results.jsonl")) == 2
    call(segment, "--method", "llb", "--checkpoint", tmp_path / "2/last.pth", "--video", root / "JPEGImages/480p/one",
         "--init-mask", root / "Annotations/480p/one/00000.png", "--output", tmp_path / "own", "--device", "cpu",
         "--no-film")
    masks = [png(p) for p in sorted((tmp_path / "own/masks").iterdir())]
    assert len(masks) == 8 and np.array_equal(masks[0], labels["one"][0])
