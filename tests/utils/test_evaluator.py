"""evaluate: fake methods and fake videos; clips, order, overlap, resolutions, interruptions, continuing a test."""
import gc
import json
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from material import FakeIndex, result_line, small_config

from dataloaders.episode import Clip, SupportSet, Video
from dataloaders.fewshot.streaming import EpisodeStream, TestEpisodes
from models.method import Prediction
from utils.config import load_config
from utils.evaluation import measuring
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import boundary_f, jaccard, vc_windows
from utils.evaluation.results import describe_test, open_results, warn_of_other_config


def fake_video(number, frames=8, truth=None, original=None, clip_length=3, runs=(3,)):
    """A video with one object and a reference per run; truth (T, H, W): of its own choice, or random"""
    if truth is None:
        truth = torch.rand(frames, 24, 32, generator=torch.Generator().manual_seed(number)) > 0.6
    name, files = f"v{number}", [f"v{number}/{t}.jpg" for t in range(len(truth))]
    facts = {"class_id": number % 2, "class": f"c{number % 2}", "video": name, "frames": files}
    references = [SupportSet(None, None, key=(run, number % 2, name), facts=[{"run": run} | facts]) for run in runs]
    video = Video(id=f"c/{name}", frames=files, original_size=(48, 64), references=references)
    video.truth = truth
    originals = [None] * len(truth) if original is None else [part[None] for part in original.split(clip_length)]
    video.clips = iter([Clip(torch.zeros(len(part), 3, *part.shape[1:]), part[None], its_original)
                        for part, its_original in zip(truth.split(clip_length), originals, strict=False)])
    return video


class Fake:
    """A Segmenter for evaluate: segment(clip)  ->  its prediction, or its margins"""

    def __init__(self, segment):
        self.segment = segment

    def prepare(self, clip):
        return clip.images

    def __call__(self, prepared, clip):
        assert prepared is clip.images
        found = self.segment(clip)
        return Prediction(found) if isinstance(found, torch.Tensor) else found


def perfect(reference):
    """Sure of everything; predicted IoUs rise over the video, and frames are remembered from the fourth on."""
    position, ious = 0, torch.linspace(0, 1, len(reference.facts[0]["frames"]))

    def segment(clip):
        nonlocal position
        frames = slice(position, position + clip.masks.shape[1])
        position = frames.stop
        said = {"pred_iou": ious[frames], "remembered": torch.arange(len(ious))[frames] > 2}
        return Prediction(clip.masks.float() * 2 - 1, said)
    return Fake(segment)


def noisy(reference):
    """Every fifth pixel is wrong."""
    generator = torch.Generator().manual_seed(9)
    return Fake(lambda clip: (clip.masks ^ (torch.rand(clip.masks.shape, generator=generator) < 0.2)).float() - 0.5)


def noisy_masks(video):
    """What `noisy` segments of the whole video: (T, H, W) bool array"""
    wrong = torch.rand(video.truth.shape, generator=torch.Generator().manual_seed(9)) < 0.2
    return (video.truth ^ wrong).numpy()


def rounded(values):
    return [None if np.isnan(x) else round(float(x), 6) for x in values]


def names(lines):
    return [line["video"] for line in lines]


@pytest.fixture
def cfg():
    return load_config()


def ignore(line):
    pass


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_lines_equal_the_metrics_and_keep_the_order(cfg, workers):
    videos, written = [fake_video(n, frames=5 + n) for n in range(7)], []
    results = evaluate(noisy, videos, cfg, written.append, {"fold": 2}, workers=workers)
    assert results == written and names(written) == [f"v{n}" for n in range(7)]
    for video, line in zip(videos, written, strict=True):
        pred, gt = noisy_masks(video), video.truth.numpy()
        np.testing.assert_allclose(line["j"], jaccard(pred, gt), atol=1e-6)
        np.testing.assert_allclose(line["f"], boundary_f(pred, gt), atol=1e-6)
        np.testing.assert_allclose(line["vc"], vc_windows(pred, gt), atol=1e-6)
        assert line.items() >= (video.references[0].facts[0] | {"fold": 2, "vc_variant": "vipmt"}).items()
        assert line["true_iou"] == line["j"] and line["seconds"] >= 0 and line["data_seconds"] >= 0
        assert "pred_iou" not in line and "remembered" not in line       # this method says nothing of them


@pytest.mark.parametrize("variant", ["vipmt", "tti", "vspw"])
@pytest.mark.parametrize("clip_length", [1, 2, 5, 8, 20])
def test_clips_give_the_numbers_of_the_whole_video(cfg, variant, clip_length):
    """Videos shorter than VC's window, of just its length, with one frame in the last clip, and of one clip."""
    cfg.metrics.vc = variant
    for frames in (1, 6, 7, 8, 11, 16):
        truth = torch.rand(frames, 24, 32, generator=torch.Generator().manual_seed(1)) > 0.6
        truth[:, 4:20, 4:28] = True                     # what windows have in common
        truth[8:10] = False                             # but not all of them
        video = fake_video(1, truth=truth, clip_length=clip_length)
        [line] = evaluate(noisy, [video], cfg, ignore, workers=2)
        pred, gt = noisy_masks(video), truth.numpy()
        assert line["vc"] == rounded(vc_windows(pred, gt, 7, variant))
        assert len(line["vc"]) == max(frames - 7 + (variant == "vipmt"), 0)
        assert line["vc_possible"] == sum(variant == "vspw" or gt[t:t + 7].all(axis=0).any()
                                          for t in range(len(line["vc"])))
        assert line["j"] == rounded(jaccard(pred, gt)) and line["f"] == rounded(boundary_f(pred, gt))
    cfg.metrics.vc_window, video = 1, fake_video(1, 7)          # a window of one frame: nothing is carried over
    [line] = evaluate(noisy, [video], cfg, ignore)
    assert line["vc"] == rounded(vc_windows(noisy_masks(video), video.truth.numpy(), 1, variant))


def test_lines_are_json_with_six_digits_and_what_the_method_says(cfg):
    cfg.metrics.vc = "vspw"
    [line] = evaluate(perfect, [fake_video(0)], cfg, ignore, workers=0)
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    assert line["pred_iou"] == [0.0, 0.142857, 0.285714, 0.428571, 0.571429, 0.714286, 0.857143, 1.0]
    assert line["remembered"] == [False] * 3 + [True] * 5
    truth = (torch.arange(8) % 2 == 0)[:, None, None].expand(8, 2, 2)
    [line] = evaluate(perfect, [fake_video(0, truth=truth)], cfg, ignore)       # windows without constant truth
    assert line["vc"] == [None] and json.dumps(line, allow_nan=False)


def test_each_line_is_handed_on_before_the_last_video_is_segmented(cfg):
    """All but those whose clips may be in work: two for each thread."""
    written = []

    def start(reference):
        if reference.facts[0]["video"] == "v9":
            assert len(written) >= 10 - 1 - 2 * 2
        return perfect(reference)

    evaluate(start, [fake_video(n, frames=2) for n in range(10)], cfg, written.append, workers=2)
    assert len(written) == 10


def test_metrics_run_beside_the_network(cfg, monkeypatch):
    seen = set()
    monkeypatch.setattr(measuring, "jaccard", lambda pred, gt: seen.add(threading.get_ident()) or np.ones(len(pred)))
    evaluate(perfect, [fake_video(n) for n in range(4)], cfg, ignore, workers=2)
    assert seen and threading.get_ident() not in seen


def test_slow_metrics_hold_the_network_up_before_masks_pile_up(cfg, monkeypatch):
    """Metrics that are not done before the network waits for them."""
    segmented, measured, waits, honest = [], [], threading.Event(), measuring.wait

    def slow(pred, gt):
        assert waits.wait(60)
        measured.append(len(pred))
        return np.ones(len(pred))

    def segment(clip):
        if len(segmented) - len(measured) > 2 * 2:         # two clips for each of two threads
            waits.set()
            raise AssertionError("masks pile up")
        segmented.append(clip)
        return clip.masks.float() - 0.5

    monkeypatch.setattr(measuring, "jaccard", slow)
    monkeypatch.setattr(measuring, "wait", lambda futures: waits.set() or honest(futures))
    evaluate(lambda reference: Fake(segment), [fake_video(0, frames=60)], cfg, ignore, workers=2)
    assert len(segmented) == len(measured) == 20


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("resolution", ["input", "original"])
def test_a_long_video_keeps_a_few_clips_alive(workers, resolution):
    """400 frames, 80 clips: those the loader holds, the one at hand, the one before it, and nothing else."""
    cfg, living = small_config(shots=2), []
    cfg.test.resolution = resolution
    episodes = TestEpisodes(FakeIndex({1: 3}, length=400), [1], cfg, run=0)

    def segment(clip):
        living.append(sum(type(x) is Clip for x in gc.get_objects()))
        return clip.masks.float() - 0.5

    def restore(margins, size):
        return torch.nn.functional.interpolate(margins[:, None], size)[:, 0]

    gc.freeze()                 # what was there before is not looked through 80 times
    [line] = evaluate(lambda reference: Fake(segment), EpisodeStream(episodes, [1], workers), cfg, ignore,
                      restore=restore)
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

    def start(reference):
        broken = reference.facts[0]["video"] == "v5"
        if broken and place == "start":
            raise kind("out of memory")
        clips = iter(range(9))

        def segment(clip):
            if broken and place == "middle" and next(clips) == 1:
                raise kind("out of memory")
            return clip.masks.float() - 0.5
        return Fake(segment)

    @contextmanager
    def record(video, reference):
        yield lambda clip, masks: None
        recorded.append(reference.facts[0]["video"])

    videos = [fake_video(n) for n in range(9)]
    if place == "data":
        videos[5].clips = torn(videos[5].clips)
    with pytest.raises(kind, match="out of memory"):
        evaluate(start, videos, cfg, written.append, record=record, workers=workers)
    assert names(written) == recorded == [f"v{n}" for n in range(5)]


@pytest.mark.parametrize("workers", [0, 2])
def test_error_in_a_metric_goes_up(cfg, workers):
    with pytest.raises(ValueError, match="of one size"):
        evaluate(lambda reference: Fake(lambda clip: torch.zeros(1, 3, 5, 5)), [fake_video(0)], cfg, ignore,
                 workers=workers)


def test_original_resolution_measures_restored_margins(cfg):
    cfg.test.resolution = "original"
    truth = torch.rand(8, 48, 64, generator=torch.Generator().manual_seed(1)) > 0.5
    shown, restored = [], iter(truth.split(3))

    def restore(margins, size):
        assert margins.shape[1:] == (24, 32) and size == (48, 64)
        return next(restored).float() - 0.5

    @contextmanager
    def record(video, reference):
        yield lambda clip, masks: shown.append((clip, masks))

    [line] = evaluate(perfect, [fake_video(0, original=truth)], cfg, ignore, restore=restore, record=record)
    assert line["j"] == [1.0] * 8 and [masks.shape[:2] for _, masks in shown] == [(1, 3), (1, 3), (1, 2)]
    assert all((clip.original_masks.numpy() == masks).all() for clip, masks in shown)
    with pytest.raises(ValueError, match="restore"):
        evaluate(perfect, [fake_video(0, original=truth)], cfg, ignore)


def test_no_videos_give_no_lines_and_a_video_iterated_over_before_is_noticed(cfg):
    assert evaluate(perfect, iter(()), cfg, ignore) == []
    video = fake_video(0)
    next(video.clips)
    with pytest.raises(AssertionError, match="8 frames, but 5 in its clips"):
        evaluate(perfect, [video], cfg, ignore)


def test_runs_over_one_video_give_a_line_each_in_their_order(cfg, monkeypatch):
    started, written, prepared, honest = [], [], [], Fake.prepare
    monkeypatch.setattr(Fake, "prepare", lambda fake, clip: prepared.append(clip) or honest(fake, clip))

    def start(reference):
        started.append(reference.key[0])
        return (perfect if reference.key[0] == 3 else noisy)(reference)

    @contextmanager
    def record(video, reference):
        yield lambda clip, masks: written.append((reference.key[0], masks.shape[1]))
    lines = evaluate(start, [fake_video(0, runs=(3, 4))], cfg, ignore, record=record)
    assert started == [3, 4] == [line["run"] for line in lines] and len(prepared) == 3        # each clip once
    assert written == [(3, 3), (4, 3), (3, 3), (4, 3), (3, 2), (4, 2)]
    alone, = evaluate(noisy, [fake_video(0, runs=(4,))], cfg, ignore)
    times = {"seconds": 0, "data_seconds": 0}
    assert lines[1] | times == alone | times and lines[0]["j"] == [1.0] * 8 and lines[1]["j"][0] < 0.9


def test_every_object_of_a_reference_has_a_line_of_its_own(cfg):
    """Two objects, the second of which is missed; what the method says of a frame stands in both lines."""
    video = fake_video(0)
    facts, = video.references[0].facts
    video.references[0].facts = [facts | {"object": 1}, facts | {"object": 2}]
    video.clips = iter([Clip(clip.images, clip.masks.repeat(2, 1, 1, 1)) for clip in video.clips])

    def segment(clip):
        margins = clip.masks.float() - 0.5
        margins[1] = -1
        return Prediction(margins, {"scale": torch.arange(margins.shape[1])})
    first, second = evaluate(lambda reference: Fake(segment), [video], cfg, ignore)
    assert (first["object"], second["object"]) == (1, 2) and first["scale"] == second["scale"] == [0, 1, 2] * 2 + [0, 1]
    assert first["j"] == [1.0] * 8 and second["j"] == [0.0] * 8


# ---- continuing a test

@pytest.fixture
def trained(tmp_path):
    path = tmp_path / "last.pth"
    path.write_bytes(b"weights")
    return path


KEYS = [(0, 1, "a"), (0, 1, "b")]


def test_interrupted_test_continues_and_drops_a_torn_line(cfg, trained, tmp_path):
    header = describe_test(trained, cfg, 1)
    writer, lines = open_results(tmp_path / "out", header, KEYS)
    assert lines == []
    with writer:
        writer.append(result_line("a"))
    with open(tmp_path / "out" / "results.jsonl", "a") as file:
        file.write('{"video": "b", "j": [0.1')
    writer, lines = open_results(tmp_path / "out", header, KEYS)
    assert lines == [result_line("a")]
    with writer:
        writer.append(result_line("b"))
    assert [json.loads(x) for x in open(tmp_path / "out" / "results.jsonl")] == [result_line("a"), result_line("b")]


@pytest.mark.parametrize("change, word", [("checkpoint", "another content"), ("fold", "fold 1, not 2"),
                                          ("config", "memory.min_iou was 0.8, is 0.5")])
def test_results_of_another_test_are_never_continued(cfg, trained, tmp_path, change, word):
    writer, _ = open_results(tmp_path / "out", describe_test(trained, cfg, 1), KEYS)
    with writer:
        writer.append(result_line("a"))
    if change == "checkpoint":
        trained.write_bytes(b"others")
    if change == "config":
        cfg.memory.min_iou = 0.5
    with pytest.raises(ValueError, match=word) as caught:
        open_results(tmp_path / "out", describe_test(trained, cfg, 2 if change == "fold" else 1), KEYS)
    assert "another --output" in str(caught.value)
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1


def test_changes_without_effect_on_the_numbers_continue(cfg, trained, tmp_path):
    writer, _ = open_results(tmp_path, describe_test(trained, cfg, 1), KEYS)
    writer.close()
    cfg.test.runs, cfg.data.workers, cfg.train.lr, cfg.name = 1, 0, 0.1, "other"
    writer, _ = open_results(tmp_path, describe_test(trained, cfg, 1), KEYS)
    writer.close()


def test_keys_that_change_what_weights_compute_are_named(cfg, caplog):
    """Methods may share weights, and dropout rests in tests."""
    other = load_config([], ["model.layers=3", "model.method=propagation", "model.dropout=0.5", "memory.select=none",
                             "iou_net.similarity_maps=false", "train.lr=0.1"])
    warn_of_other_config(cfg, other, "last.pth")
    assert {record.args[:2] for record in caplog.records} == {
        ("last.pth", key) for key in ("model.layers", "iou_net.similarity_maps")}


def test_results_without_a_note_or_with_a_damaged_one_are_not_trusted(tmp_path):
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="no test.json"):
        open_results(tmp_path, {}, [])
    (tmp_path / "test.json").write_text('{"torn')
    with pytest.raises(ValueError, match="test.json: damaged, so nobody knows what results.jsonl was measured with"):
        open_results(tmp_path, {}, [])
