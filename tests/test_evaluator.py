"""evaluate: fake methods and fake videos; order, overlap, resolutions, interruptions, and continuing a test."""
import json
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils.config import load_config
from utils.evaluator import describe_test, evaluate, open_results
from utils.metrics import boundary_f, jaccard, vc_windows


@dataclass
class Said:
    margins: torch.Tensor
    ious: torch.Tensor | None
    remembered: torch.Tensor


def fake_episode(number, frames=8, size=(24, 32), original=None):
    generator = torch.Generator().manual_seed(number)
    masks = torch.rand(frames, *size, generator=generator) > 0.6
    return SimpleNamespace(
        query_masks=masks, query_images=torch.zeros(frames, 3, *size), class_id=number % 2, class_name=f"c{number % 2}",
        video=f"v{number}", frames=[f"v{number}/{t}.jpg" for t in range(frames)], support_frames=["s/0.jpg"],
        original_size=(48, 64), original_masks=original, run=3, supports_share_video=False, id=f"c/v{number}")


def perfect(episode):
    frames = len(episode.query_masks)
    return Said(episode.query_masks.float() * 2 - 1, torch.linspace(0, 1, frames), torch.arange(frames) > 2)


def noisy(episode):
    wrong = torch.rand(episode.query_masks.shape, generator=torch.Generator().manual_seed(9)) < 0.2
    return Said((episode.query_masks ^ wrong).float() - 0.5, None, torch.zeros(len(wrong), dtype=torch.bool))


@pytest.fixture
def cfg():
    return load_config()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_lines_equal_the_metrics_and_keep_the_order(cfg, workers):
    episodes, written = [fake_episode(n, frames=5 + n) for n in range(7)], []
    results = evaluate(noisy, episodes, cfg, 2, written.append, workers=workers)
    assert results == written and [line["video"] for line in written] == [f"v{n}" for n in range(7)]
    for episode, line in zip(episodes, written, strict=True):
        pred, gt = (noisy(episode).margins > 0).numpy(), episode.query_masks.numpy()
        np.testing.assert_allclose(line["j"], jaccard(pred, gt), atol=1e-6)
        np.testing.assert_allclose(line["f"], boundary_f(pred, gt), atol=1e-6)
        np.testing.assert_allclose(line["vc"], vc_windows(pred, gt), atol=1e-6)
        assert (line["fold"], line["run"], line["class"]) == (2, 3, episode.class_name)
        assert line["pred_iou"] is None and line["true_iou"] == line["j"] and line["seconds"] >= 0
        assert line["frames"] == episode.frames and line["vc_variant"] == "vipmt"


def test_lines_are_json_with_six_digits(cfg):
    cfg.metrics.vc = "vspw"
    [line] = evaluate(perfect, [fake_episode(0)], cfg, 1, lambda _: None, workers=0)
    text = json.dumps(line, allow_nan=False)
    assert json.loads(text) == line
    assert line["pred_iou"] == [0.0, 0.142857, 0.285714, 0.428571, 0.571429, 0.714286, 0.857143, 1.0]
    assert line["remembered"] == [False] * 3 + [True] * 5


def test_windows_without_constant_truth_become_null(cfg):
    cfg.metrics.vc = "vspw"
    episode = fake_episode(0, frames=8, size=(2, 2))
    episode.query_masks = (torch.arange(8) % 2 == 0)[:, None, None].expand(8, 2, 2)
    [line] = evaluate(perfect, [episode], cfg, 1, lambda _: None)
    assert line["vc"] == [None] and json.dumps(line, allow_nan=False)


def test_each_line_is_handed_on_before_the_last_video_is_segmented(cfg):
    written = []

    def segment(episode):
        if episode.video == "v9":
            assert len(written) >= 10 - 1 - 2 * 2
        return perfect(episode)

    evaluate(segment, [fake_episode(n) for n in range(10)], cfg, 1, written.append, workers=2)
    assert len(written) == 10


def test_metrics_run_beside_the_network(cfg, monkeypatch):
    network, seen = threading.get_ident(), set()

    def slow(pred, gt):
        seen.add(threading.get_ident())
        time.sleep(0.01)
        return np.ones(len(pred))

    monkeypatch.setattr("utils.evaluator.jaccard", slow)
    evaluate(perfect, [fake_episode(n) for n in range(4)], cfg, 1, lambda _: None, workers=2)
    assert seen and network not in seen


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_interrupted_network_loses_no_finished_video(cfg, workers, kind):
    written = []

    def segment(episode):
        if episode.video == "v5":
            raise kind("out of memory")
        return perfect(episode)

    with pytest.raises(kind, match="out of memory"):
        evaluate(segment, [fake_episode(n) for n in range(9)], cfg, 1, written.append, workers=workers)
    assert [line["video"] for line in written] == [f"v{n}" for n in range(5)]


@pytest.mark.parametrize("workers", [0, 2])
def test_error_in_a_metric_goes_up(cfg, workers):
    def wrong_size(episode):
        return Said(torch.zeros(3, 5, 5), None, torch.zeros(3))

    with pytest.raises(ValueError, match="of one size"):
        evaluate(wrong_size, [fake_episode(0)], cfg, 1, lambda _: None, workers=workers)


def test_original_resolution_measures_restored_margins(cfg):
    cfg.test.resolution = "original"
    truth = torch.rand(8, 48, 64, generator=torch.Generator().manual_seed(1)) > 0.5
    episode = fake_episode(0, original=truth)
    shown = []

    def restore(margins, size):
        assert margins.shape == (8, 24, 32) and size == (48, 64)
        return truth.float() - 0.5

    [line] = evaluate(perfect, [episode], cfg, 1, lambda _: None, restore, on_masks=lambda e, m: shown.append(m))
    assert line["j"] == [1.0] * 8 and shown[0].shape == (8, 48, 64)
    with pytest.raises(ValueError, match="restore"):
        evaluate(perfect, [episode], cfg, 1, lambda _: None)


def test_no_episodes_give_no_lines(cfg):
    assert evaluate(perfect, iter(()), cfg, 1, lambda _: None) == []


# ---- continuing a test

@pytest.fixture
def trained(tmp_path):
    path = tmp_path / "last.pth"
    path.write_bytes(b"weights")
    return path


def test_interrupted_test_continues_and_drops_a_torn_line(cfg, trained, tmp_path):
    header = describe_test(trained, cfg, 1)
    writer, lines = open_results(tmp_path / "out", header)
    assert lines == []
    with writer:
        writer.append({"video": "a"})
    with open(tmp_path / "out" / "results.jsonl", "a") as file:
        file.write('{"video": "b", "j": [0.1')
    writer, lines = open_results(tmp_path / "out", header)
    assert lines == [{"video": "a"}]
    with writer:
        writer.append({"video": "b"})
    assert [json.loads(x) for x in open(tmp_path / "out" / "results.jsonl")] == [{"video": "a"}, {"video": "b"}]


@pytest.mark.parametrize("change, word", [("checkpoint", "another content"), ("fold", "fold 1, not 2"),
                                          ("config", "memory.min_iou was 0.8, is 0.5")])
def test_results_of_another_test_are_never_continued(cfg, trained, tmp_path, change, word):
    writer, _ = open_results(tmp_path / "out", describe_test(trained, cfg, 1))
    with writer:
        writer.append({"video": "a"})
    if change == "checkpoint":
        trained.write_bytes(b"others")
    if change == "config":
        cfg.memory.min_iou = 0.5
    with pytest.raises(ValueError, match=word) as caught:
        open_results(tmp_path / "out", describe_test(trained, cfg, 2 if change == "fold" else 1))
    assert "another --output" in str(caught.value)
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1


def test_changes_without_effect_on_the_numbers_continue(cfg, trained, tmp_path):
    writer, _ = open_results(tmp_path, describe_test(trained, cfg, 1))
    writer.close()
    cfg.test.runs, cfg.data.workers, cfg.train.lr, cfg.name = 1, 0, 0.1, "other"
    writer, _ = open_results(tmp_path, describe_test(trained, cfg, 1))
    writer.close()


def test_results_without_a_note_are_not_trusted(cfg, trained, tmp_path):
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="no test.json"):
        open_results(tmp_path, describe_test(trained, cfg, 1))
