"""iou_study.py: the command on the demo data with and without a network, and on the lines of a test."""
import json

import cv2
import numpy as np
import pytest
import torch

from models.vipmt import build as build_vipmt
from tools.workshop import iou_study
from tools.workshop.iou_study import of_results, row, study
from utils.checkpoint import save_checkpoint
from utils.config import load_config

TINY = ["data.size=[48, 80]", "data.shots=2", "data.clip_length=2", "data.clips=2", "data.few_videos=repeat",
        "data.workers=0", "backbone.name=tiny", "backbone.width=8", "backbone.weights=none", "model.dim=16",
        "model.heads=2", "model.ffn_dim=16", "model.layers=2", "iou_net.dim=4", "iou_net.hidden=8"]


def test_a_constant_prediction_has_an_empty_correlation():
    true = np.array([0.0, 0.5, 0.6, 1.0])
    cells = [cell.strip() for cell in row("noise", np.full(4, 0.8), true).strip("|").split("|")]
    assert cells == ["noise", "4", "0.375", "0.275", "", "0.525", "0.800"]


def results_file(folder, lines):
    """Lines of a test with the given predicted and true IoUs"""
    path = folder / "results.jsonl"
    path.write_text("".join(json.dumps({
        "run": 0, "class_id": 1, "class": "cat", "video": f"v{number}", "j": line["true_iou"], "f": line["true_iou"],
        "vc": [], "vc_variant": "vipmt", "vc_window": 7, **line}) + "\n" for number, line in enumerate(lines)))
    return path


def test_real_predictions_come_from_the_lines_of_a_test(tmp_path):
    path = results_file(tmp_path, [
        {"pred_iou": [0.5, 0.25], "true_iou": [0.4, 0.3]}, {"pred_iou": None, "true_iou": [1]},
        {"pred_iou": [0.75], "true_iou": [0.9]}])
    predicted, true = of_results(path)
    assert predicted.tolist() == [0.5, 0.25, 0.75] and true.tolist() == [0.4, 0.3, 0.9]
    with pytest.raises(ValueError, match="no video with pred_iou.\n.*memory_prototype"):
        of_results(results_file(tmp_path, [{"pred_iou": None, "true_iou": [1]}]))


@pytest.fixture
def arguments(monkeypatch, tmp_path, demo_root):
    """arguments(*extra)  ->  what the command line gives, and the config"""
    def make(*extra):
        monkeypatch.setattr("sys.argv", ["iou_study.py", "--config", "config/vipmt/iounet_video.yaml", "--fold", "1",
                                         "--batches", "3", "--output", str(tmp_path / "out"), "--device", "cpu",
                                         f"data.root={demo_root}", *TINY, *map(str, extra)])
        args = iou_study.parse_arguments()
        return args, load_config(args.config, args.overrides)
    return make


def is_picture(path):
    image = cv2.imread(str(path))
    return image is not None and image.std() > 10


def test_without_a_checkpoint_only_the_noise_is_shown(arguments, tmp_path):
    assert study(*arguments()) is None
    assert is_picture(tmp_path / "out" / "histogram.png") and is_picture(tmp_path / "out" / "kinds.png")
    assert not (tmp_path / "out" / "study.md").exists()


def test_a_checkpoint_is_measured_on_noise_and_on_a_test(arguments, tmp_path):
    """A jointly trained checkpoint serves; the same command says the same twice."""
    torch.manual_seed(0)
    file = tmp_path / "vipmt.pth"
    save_checkpoint(file, {"model": build_vipmt(load_config([], TINY)).state_dict()})
    results = results_file(tmp_path, [{"pred_iou": [0.5, 0.2, 0.9], "true_iou": [0.4, 0.3, 0.8]}])
    tables = [study(*arguments("--checkpoint", file, "--results", results)) for _ in range(2)]
    lines = tables[0].splitlines()
    assert tables[0] == tables[1] == (tmp_path / "out" / "study.md").read_text().rstrip("\n")
    assert lines[2].startswith("| held-out noise | 48 | 0.")
    assert lines[3].endswith("| 3 | 0.100 | 0.167 | 1.000 | 0.500 | 0.533 |")
    assert is_picture(tmp_path / "out" / "scatter.png")


def test_held_out_noise_is_of_the_folds_test_classes(arguments):
    args, cfg = arguments()
    index = iou_study.build_index(cfg)
    for fold in (1, 3):
        batches = list(iou_study.held_out_batches(cfg, index, fold, 5))
        assert len(batches) == 5 and {(c - 1) % 4 + 1 for batch in batches for c in batch.class_ids} == {fold}


def test_calibration_undoes_a_known_distortion():
    """IoUs that are drawn as the logits say, and then said with other logits."""
    rng = np.random.default_rng(0)
    logits = rng.normal(1, 1.5, 20000)
    true = (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(float)
    said = 1 / (1 + np.exp(-(0.5 * logits - 0.3)))             # logits = 2 said + 0.6
    np.testing.assert_allclose(iou_study.fit_calibration(said, true), [2, 0.6], atol=0.1)


def test_a_checkpoint_is_calibrated_on_base_videos_held_out_or_all(arguments, tmp_path):
    torch.manual_seed(0)
    file, settings = tmp_path / "vipmt.pth", [*TINY, "model.method=vipmt"]
    save_checkpoint(file, {"model": build_vipmt(load_config([], settings)).state_dict()})
    asked = ("--checkpoint", file, "model.method=vipmt", "validate.holdout=0.3")
    frames = {}
    for where, key in (("held_out", "validate.classes=base_holdout"), ("trained", "validate.classes=none")):
        text = study(*arguments("--calibrate", where, *asked, key))
        (before, frames[where]), (after, _) = (map(float, line.split("|")[3:1:-1]) for line in text.splitlines()[2:4])
        assert after <= before and "iou_net.calibration=[" in text
    assert frames["trained"] > frames["held_out"] > 0
    with pytest.raises(ValueError, match="held out"):
        study(*arguments("--calibrate", "held_out", *asked, "validate.classes=none"))
