"""evaluate: fake methods and fake videos; clips, order, overlap, resolutions, interruptions, continuing a test."""
import gc
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_index import FakeIndex

from dataloaders.episode import Clip
from dataloaders.fewshot.streaming import EpisodeStream, TestEpisodes
from utils.config import load_config
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import boundary_f, jaccard, vc_windows
from utils.evaluation.results import describe_test, open_results, warn_of_other_config


@dataclass
class Said:
    margins: torch.Tensor
    ious: torch.Tensor | None
    remembered: torch.Tensor


def fake_episode(number, frames=8, size=(24, 32), original=None, clip_length=3):
    masks = torch.rand(frames, *size, generator=torch.Generator().manual_seed(number)) > 0.6
    return with_clips(SimpleNamespace(
        class_id=number % 2, class_name=f"c{number % 2}", video=f"v{number}", masks=masks, original_masks=original,
        frames=[f"v{number}/{t}.jpg" for t in range(frames)], support_frames=["s/0.jpg"], original_size=(48, 64), run=3,
        supports_share_video=False, id=f"c/v{number}"), clip_length)


def with_clips(episode, length):
    original = episode.original_masks
    originals = [None] * len(episode.masks) if original is None else original.split(length)
    images = torch.zeros(len(episode.masks), 3, *episode.masks.shape[1:]).split(length)
    episode.clips = map(Clip, images, episode.masks.split(length), originals)
    episode.runs = [episode]
    return episode


def perfect(episode):
    """Sure of everything; predicted IoUs rise over the video, and frames are remembered from the fourth on."""
    ious, position = torch.linspace(0, 1, len(episode.frames)), 0

    def segment(clip):
        nonlocal position
        position += len(clip.masks)
        frames = slice(position - len(clip.masks), position)
        return Said(clip.masks.float() * 2 - 1, ious[frames], torch.arange(len(ious))[frames] > 2)
    return segment


def noisy(episode):
    """Every fifth pixel is wrong."""
    generator = torch.Generator().manual_seed(9)

    def segment(clip):
        wrong = torch.rand(clip.masks.shape, generator=generator) < 0.2
        return Said((clip.masks ^ wrong).float() - 0.5, None, torch.zeros(len(wrong), dtype=torch.bool))
    return segment


def noisy_masks(episode):
    """What `noisy` segments of the whole video: (T, H, W) bool array"""
    wrong = torch.rand(episode.masks.shape, generator=torch.Generator().manual_seed(9)) < 0.2
    return (episode.masks ^ wrong).numpy()


def rounded(values):
    return [None if np.isnan(x) else round(float(x), 6) for x in values]


@pytest.fixture
def cfg():
    return load_config()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_lines_equal_the_metrics_and_keep_the_order(cfg, workers):
    episodes, written = [fake_episode(n, frames=5 + n) for n in range(7)], []
    results = evaluate(noisy, episodes, cfg, 2, written.append, workers=workers)
    assert results == written and [line["video"] for line in written] == [f"v{n}" for n in range(7)]
    for episode, line in zip(episodes, written, strict=True):
        pred, gt = noisy_masks(episode), episode.masks.numpy()
        np.testing.assert_allclose(line["j"], jaccard(pred, gt), atol=1e-6)
        np.testing.assert_allclose(line["f"], boundary_f(pred, gt), atol=1e-6)
        np.testing.assert_allclose(line["vc"], vc_windows(pred, gt), atol=1e-6)
        assert (line["fold"], line["run"], line["class"]) == (2, 3, episode.class_name)
        assert line["pred_iou"] is None and line["true_iou"] == line["j"]
        assert line["seconds"] >= 0 and line["data_seconds"] >= 0
        assert line["frames"] == episode.frames and line["vc_variant"] == "vipmt"


@pytest.mark.parametrize("variant", ["vipmt", "tti", "vspw"])
@pytest.mark.parametrize("clip_length", [1, 2, 5, 8, 20])
def test_clips_give_the_numbers_of_the_whole_video(cfg, variant, clip_length):
    """Videos shorter than VC's window, of just its length, with one frame in the last clip, and of one clip."""
    cfg.metrics.vc = variant
    for frames in (1, 6, 7, 8, 11, 16):
        episode = fake_episode(1, frames, clip_length=clip_length)
        episode.masks[:, 4:20, 4:28] = True             # what windows have in common
        episode.masks[8:10, :, :] = False               # but not all of them
        with_clips(episode, clip_length)
        [line] = evaluate(noisy, [episode], cfg, 1, lambda _: None, workers=2)
        pred, gt = noisy_masks(episode), episode.masks.numpy()
        assert line["vc"] == rounded(vc_windows(pred, gt, 7, variant))
        assert len(line["vc"]) == max(frames - 7 + (variant == "vipmt"), 0)
        assert line["j"] == rounded(jaccard(pred, gt)) and line["f"] == rounded(boundary_f(pred, gt))
        assert len(line["remembered"]) == frames


def test_a_window_of_one_frame_needs_nothing_carried_over(cfg):
    cfg.metrics.vc_window = 1
    episode = fake_episode(1, 7)
    [line] = evaluate(noisy, [episode], cfg, 1, lambda _: None)
    assert line["vc"] == rounded(vc_windows(noisy_masks(episode), episode.masks.numpy(), 1)) and len(line["vc"]) == 7


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
    episode.masks = (torch.arange(8) % 2 == 0)[:, None, None].expand(8, 2, 2)
    [line] = evaluate(perfect, [with_clips(episode, 3)], cfg, 1, lambda _: None)
    assert line["vc"] == [None] and json.dumps(line, allow_nan=False)


def test_each_line_is_handed_on_before_the_last_video_is_segmented(cfg):
    """All but those whose clips may be in work: two for each thread."""
    written = []

    def start(episode):
        if episode.video == "v9":
            assert len(written) >= 10 - 1 - 2 * 2
        return perfect(episode)

    evaluate(start, [fake_episode(n, frames=2) for n in range(10)], cfg, 1, written.append, workers=2)
    assert len(written) == 10


def test_metrics_run_beside_the_network(cfg, monkeypatch):
    network, seen = threading.get_ident(), set()

    def slow(pred, gt):
        seen.add(threading.get_ident())
        time.sleep(0.01)
        return np.ones(len(pred))

    monkeypatch.setattr("utils.evaluation.measuring.jaccard", slow)
    evaluate(perfect, [fake_episode(n) for n in range(4)], cfg, 1, lambda _: None, workers=2)
    assert seen and network not in seen


def test_slow_metrics_hold_the_network_up_before_masks_pile_up(cfg, monkeypatch):
    segmented, measured = [], []

    def slow(pred, gt):
        time.sleep(0.002)
        measured.append(len(pred))
        return np.ones(len(pred))

    def start(episode):
        def segment(clip):
            assert len(segmented) - len(measured) <= 2 * 2         # two clips for each of two threads
            segmented.append(clip)
            return Said(clip.masks.float() - 0.5, None, torch.zeros(len(clip.masks)))
        return segment

    monkeypatch.setattr("utils.evaluation.measuring.jaccard", slow)
    evaluate(start, [fake_episode(0, frames=60)], cfg, 1, lambda _: None, workers=2)
    assert len(segmented) == len(measured) == 20


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("resolution", ["input", "original"])
def test_a_long_video_keeps_a_few_clips_alive(cfg, workers, resolution):
    """400 frames, 80 clips: those the loader holds, the one at hand, the one before it, and nothing else."""
    cfg.data.update(size=[24, 32], shots=2)
    cfg.test.resolution = resolution
    episodes = TestEpisodes(FakeIndex({1: 3}, length=400), [1], cfg, run=0)
    living = []

    def start(episode):
        def segment(clip):
            living.append(sum(type(x) is Clip for x in gc.get_objects()))
            return Said(clip.masks.float() - 0.5, None, torch.zeros(len(clip.masks)))
        return segment

    def restore(margins, size):
        return torch.nn.functional.interpolate(margins[:, None], size)[:, 0]

    gc.freeze()                 # what was there before is not looked through 80 times
    [line] = evaluate(start, EpisodeStream(episodes, [1], workers), cfg, 1, lambda _: None, restore)
    gc.unfreeze()
    assert len(line["j"]) == 400 and len(living) == 80
    assert max(living) <= 2 + 2 * workers


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["start", "middle", "data"])
def test_interruption_loses_no_finished_video(cfg, workers, kind, place):
    written, recorded = [], []

    def torn(clips):
        yield next(clips)
        raise kind("out of memory")

    def start(episode):
        if episode.video == "v5" and place == "start":
            raise kind("out of memory")
        clips = iter(range(9))

        def segment(clip):
            if episode.video == "v5" and place == "middle" and next(clips) == 1:
                raise kind("out of memory")
            return Said(clip.masks.float() - 0.5, None, torch.zeros(len(clip.masks)))
        return segment

    @contextmanager
    def record(episode):
        yield lambda clip, masks: None
        recorded.append(episode.video)

    episodes = [fake_episode(n) for n in range(9)]
    if place == "data":
        episodes[5].clips = torn(episodes[5].clips)
    with pytest.raises(kind, match="out of memory"):
        evaluate(start, episodes, cfg, 1, written.append, record=record, workers=workers)
    assert [line["video"] for line in written] == recorded == [f"v{n}" for n in range(5)]


@pytest.mark.parametrize("workers", [0, 2])
def test_error_in_a_metric_goes_up(cfg, workers):
    def wrong_size(episode):
        return lambda clip: Said(torch.zeros(3, 5, 5), None, torch.zeros(3))

    with pytest.raises(ValueError, match="of one size"):
        evaluate(wrong_size, [fake_episode(0)], cfg, 1, lambda _: None, workers=workers)


def test_original_resolution_measures_restored_margins(cfg):
    cfg.test.resolution = "original"
    truth = torch.rand(8, 48, 64, generator=torch.Generator().manual_seed(1)) > 0.5
    shown, restored = [], iter(truth.split(3))

    def restore(margins, size):
        assert margins.shape[1:] == (24, 32) and size == (48, 64)
        return next(restored).float() - 0.5

    @contextmanager
    def record(episode):
        yield lambda clip, masks: shown.append((clip, masks))

    [line] = evaluate(perfect, [fake_episode(0, original=truth)], cfg, 1, lambda _: None, restore, record)
    assert line["j"] == [1.0] * 8 and [masks.shape for _, masks in shown] == [(3, 48, 64), (3, 48, 64), (2, 48, 64)]
    assert all((clip.original_masks.numpy() == masks).all() for clip, masks in shown)
    with pytest.raises(ValueError, match="restore"):
        evaluate(perfect, [fake_episode(0, original=truth)], cfg, 1, lambda _: None)


def test_no_episodes_give_no_lines(cfg):
    assert evaluate(perfect, iter(()), cfg, 1, lambda _: None) == []


def test_an_episode_iterated_over_before_is_noticed(cfg):
    episode = fake_episode(0)
    next(episode.clips)
    with pytest.raises(AssertionError, match="8 frames, but 5 in its clips"):
        evaluate(perfect, [episode], cfg, 1, lambda _: None)


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


@pytest.mark.parametrize("own_iou_net, named", [(True, ["model.layers", "iou_net.similarity_maps"]),
                                                (False, ["model.layers"])])
def test_keys_that_change_what_weights_compute_are_named(cfg, caplog, own_iou_net, named):
    """Methods may share weights, dropout rests in tests, and another file's IoUNet has a config of its own."""
    other = load_config([], ["model.layers=3", "model.method=propagation", "model.dropout=0.5", "memory.select=none",
                             "iou_net.similarity_maps=false", "iou_net.dim=8", "train.lr=0.1"])
    warn_of_other_config(cfg, other, "last.pth", own_iou_net)
    assert [record.args[:2] for record in caplog.records] == [("last.pth", key) for key in named]


def test_results_without_a_note_are_not_trusted(cfg, trained, tmp_path):
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="no test.json"):
        open_results(tmp_path, describe_test(trained, cfg, 1))


def test_runs_over_one_video_give_a_line_each_in_their_order(cfg):
    episode, other = fake_episode(0), fake_episode(0)
    other.run, episode.runs = 4, [episode, other]
    started, written = [], []

    def start(run):
        started.append(run.run)
        return (perfect if run.run == 3 else noisy)(run)

    @contextmanager
    def record(run):
        yield lambda clip, masks: written.append((run.run, len(masks)))
    lines = evaluate(start, [episode], cfg, 1, lambda _: None, record=record)
    assert started == [3, 4] and [line["run"] for line in lines] == [3, 4]
    assert written == [(3, 3), (4, 3), (3, 3), (4, 3), (3, 2), (4, 2)]
    alone = evaluate(noisy, [with_clips(other, 3)], cfg, 1, lambda _: None)[0]
    times = ("seconds", "data_seconds")
    assert {k: v for k, v in lines[1].items() if k not in times} == {k: v for k, v in alone.items() if k not in times}
    assert lines[0]["j"] == [1.0] * 8 and lines[1]["j"][0] < 0.9


def test_damaged_note_of_a_test_is_named(tmp_path):
    (tmp_path / "results.jsonl").write_text("{}\n")
    (tmp_path / "test.json").write_text('{"torn')
    with pytest.raises(ValueError, match="test.json: damaged, so nobody knows what results.jsonl was measured with"):
        open_results(tmp_path, {})
