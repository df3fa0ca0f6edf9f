"""benchmark.py at tiny sizes: the rows it promises, finite numbers, and a reference that computes the same."""
import json
import math

import numpy as np
import pytest
import torch

from dataloaders import build_index
from tools.workshop import benchmark
from tools.workshop.benchmarking import metrics as released
from tools.workshop.benchmarking.bench import Bench
from tools.workshop.benchmarking.data import (
    DISTINCT,
    NOVEL,
    Video,
    distinct_frame,
    moving_masks,
    one_test,
    write_videos,
)
from tools.workshop.benchmarking.floor import Replay, count_flops
from tools.workshop.benchmarking.index import disc_counts, write_large_annotations
from utils.config import load_config
from utils.evaluation.metrics import boundary_f, jaccard, vc_windows

SIZE = [72, 120]
SETTINGS = {"config": ["config/demo/ytvis.yaml"], "overrides": ["backbone.trained=false"], "device": "cpu",
            "checkpoint": None, "allocator": "shipped", "quick": True, "frames": 6, "repeats": 1, "cap": 60,
            "precision": "fp32"}


def run(job, **settings):
    rows, included = benchmark.run_job(job, SETTINGS | settings)
    assert included.endswith(".") and "settings" not in included
    return rows


def finite(row, *names):
    assert all(math.isfinite(row[name]) and row[name] > 0 for name in names), row


# -- jobs -------------------------------------------------------------------------------------------------------------

def test_network_times_both_modes_on_the_same_frames():
    row, = run("network", frames=5)
    finite(row, "ours_fps", "reference_fps", "ratio", "ours_later_clip_s", "reference_later_clip_s", "later_clip_ratio")
    assert row["ours_frames"] == row["reference_frames"] == 5
    assert row["pixels_differ"] < 0.001 and 0.02 < row["object_share"] < 0.6       # part of the image is object


def test_network_stops_at_the_time_limit_and_says_how_far_it_came():
    row, = run("network", cap=0)
    assert row["ours_frames"] == 0 == row["ours_fps"] and row["later_clip_ratio"] is row["object_share"] is None


def test_end_to_end_runs_the_evaluation_loop():
    row, = run("end_to_end")
    finite(row, "ours_fps", "reference_fps", "ratio")
    assert (row["note"] is None) == released.has_skimage()


def test_parts_add_up_to_the_network():
    rows = {row["part"]: row for row in run("parts")}
    assert {"backbone", "prior", "layers", "similarity maps", "IoUNet", "network", "other", "metrics",
            "decoding"} == set(rows)
    for mode in ("ours_ms", "reference_ms"):
        finite({part: row[mode] for part, row in rows.items()}, *rows)
        inside = sum(rows[part][mode] for part in set(rows) - {"network", "metrics", "decoding"})
        assert inside == pytest.approx(rows["network"][mode])


def test_precision_compares_with_float32():
    rows = {row["precision"]: row for row in run("precision")}
    assert rows["fp32"]["pixels_differ"] == rows["fp32"]["j_difference"] == 0 and rows["fp32"]["ratio"] == 1
    finite(rows["bf16"], "fps", "ratio")


@pytest.mark.parametrize("mode", ["ours", "reference"])
def test_memory_and_training_report_the_peak_of_a_mode(mode):
    row, = run("memory", mode=mode)
    finite(row, "peak_mib")
    assert row["frames"] == 6
    row, = run("train", mode=mode)
    finite(row, "step_s", "data_s", "samples_per_s", "samples_per_s_with_data", "peak_mib")
    assert row["samples_per_s_with_data"] < row["samples_per_s"]


def test_rows_of_several_processes_are_compared():
    peaks = benchmark.compared([{"mode": "ours", "peak_mib": 100.0}, {"mode": "ours", "peak_mib": 110.0}])
    assert "growth_percent" not in peaks[0] and peaks[1]["growth_percent"] == pytest.approx(10)
    assert benchmark.compared([{"what": "afresh", "peak_mib": 9.0}]) == [{"what": "afresh", "peak_mib": 9.0}]
    steps = benchmark.compared([{"mode": "reference", "step_s": 6.0, "peak_mib": 10.0},
                                {"mode": "ours", "step_s": 2.0, "peak_mib": 5.0}])
    assert steps[1]["ratio"] == 3 and steps[1]["peak_share"] == 0.5


def test_metrics_leave_the_released_boundary_empty_without_scikit_image(monkeypatch):
    monkeypatch.setattr(released, "binary_dilation", None)
    for row in run("metrics"):
        finite(row, "ours_ms")
        assert (row.get("reference_ms") is None) == (" F" in row["what"]) == (row["note"] is not None)


def test_floor_counts_what_the_clip_computes():
    row, = run("floor")
    finite(row, "clip_s", "gflop", "gflop_per_s", "replay_s", "clip_over_arithmetic", "clip_over_replay")
    assert row["distinct"] <= row["calls"]


# -- the command ------------------------------------------------------------------------------------------------------

def test_the_command_writes_tables_and_keeps_earlier_ones(tmp_path):
    """Each job in a process of its own; one that fails is named, and the others are kept."""
    arguments = ["--config", "config/demo/ytvis.yaml", "--quick", "--device", "cpu", "--output", str(tmp_path),
                 "--checkpoint", str(tmp_path / "nowhere.pth"), "--only"]
    with pytest.raises(ValueError, match="(?s)1 jobs failed.*nowhere.pth"):
        benchmark.main([*arguments, "precision", "metrics"])
    benchmark.main([*arguments, "index"])
    document = json.loads((tmp_path / "speed_demo_cpu.json").read_text())
    assert list(document["tables"]) == ["precision", "metrics", "index"]
    assert document["tables"].pop("precision")["rows"] == []
    assert {"processor", "threads", "torch"} <= set(document["machine"])
    assert [row["what"] for row in document["tables"]["index"]["rows"]] == ["json.load", "afresh", "from the cache"]
    for table in document["tables"].values():
        assert table["included"] and table["date"]
    assert "## metrics" in (tmp_path / "speed_demo_cpu.md").read_text()


def test_a_table_leaves_empty_columns_out_and_empty_cells_empty():
    rows = [{"size": "2 x 3", "x": 0.12345, "y": None, "z": None}, {"size": "4 x 5", "x": 1234.5, "y": "a", "z": None}]
    assert benchmark.table(rows).splitlines() == [
        "| size | x | y |", "| --- | --- | --- |", "| 2 x 3 | 0.123 |  |", "| 4 x 5 | 1234 | a |"]


# -- reference metrics ------------------------------------------------------------------------------------------------

def test_released_metrics_equal_ours():
    preds, gts = moving_masks(9, SIZE)
    preds[0], gts[1], preds[2], gts[3] = False, False, True, True
    j, f, vc = released.reference_video_metrics(preds, gts)
    assert j == jaccard(preds, gts).tolist()
    np.testing.assert_allclose(vc, vc_windows(preds, gts), rtol=1e-6)
    np.testing.assert_allclose(f, boundary_f(preds, gts), rtol=1e-12)


@pytest.mark.skipif(not released.has_skimage(), reason="needs scikit-image")
def test_released_boundary_equals_ours_on_edge_cases():
    empty, full, dot = np.zeros(SIZE, bool), np.ones(SIZE, bool), np.zeros(SIZE, bool)
    dot[-1, -1] = True
    for pred in (empty, full, dot):
        for gt in (empty, full, dot):
            assert released.reference_boundary_f(pred, gt) == boundary_f(pred, gt)


# -- generated data ---------------------------------------------------------------------------------------------------

def test_a_long_video_repeats_its_frames_forwards_and_backwards():
    times = [distinct_frame(t) for t in range(3 * DISTINCT)]
    assert set(times) == set(range(DISTINCT)) and times[:DISTINCT] == list(range(DISTINCT))
    assert all(abs(a - b) == 1 for a, b in zip(times, times[1:], strict=False))


def test_the_last_clip_may_be_short_and_the_object_moves():
    video = Video(SIZE, shots=3, clip_length=4, frames=6)
    assert [len(clip.images) for clip in video.clips()] == [4, 2]
    assert video.supports.images.shape == (3, 3, *SIZE) and video.supports.masks.any(dim=(1, 2)).all()
    first = video.clip(0).masks[0]
    assert (first[0] != first[3]).any() and 0.03 < first.double().mean() < 0.3


def test_generated_videos_are_read_by_the_index(tmp_path):
    write_videos(tmp_path, one_test(DISTINCT + 3, 2), (48, 64))
    index = build_index(load_config(["config/demo/ytvis.yaml"], [f"data.root={tmp_path}"]))
    assert len(index.frames(1, NOVEL)) == DISTINCT + 3 and index.videos(NOVEL) == [1, 2, 3]
    assert (index.read_image(1, DISTINCT) == index.read_image(1, DISTINCT - 2)).all()


def test_large_annotations_have_the_asked_size_and_valid_masks(tmp_path):
    write_large_annotations(tmp_path / "train.json", videos=7, frames=24, objects=9, categories=4, size=(90, 160))
    index = build_index(load_config(["config/demo/ytvis.yaml"], [f"data.root={tmp_path}"]))
    assert sum(index.length(video) for video in range(1, 8)) == 24
    class_id = index.class_ids[0]
    video = index.videos(class_id)[0]
    assert index.read_mask(video, int(index.frames(video, class_id)[0]), class_id).any()
    counts = [disc_counts(np.random.default_rng(seed), 90, 160) for seed in range(50)]
    assert all(sum(c) == 90 * 160 and min(c[1:]) > 0 for c in counts)


# -- the floor --------------------------------------------------------------------------------------------------------

def test_products_convolutions_and_attention_are_counted():
    a, b, x, w = torch.randn(5, 7), torch.randn(7, 3), torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    q = torch.randn(1, 2, 6, 8)

    def compute():
        a @ b, a @ b, torch.nn.functional.linear(a, b.T), torch.nn.functional.conv2d(x, w)
        torch.nn.functional.scaled_dot_product_attention(q, q, q), a + 1
    with torch.no_grad():
        flops = count_flops(compute)
        with Replay(2) as replay:
            compute()
    product, convolution, attention = 2 * 5 * 7 * 3, 2 * 2 * 4 * 6 * 6 * 3 * 9, 2 * 2 * (2 * 6 * 6 * 8)
    assert flops == 3 * product + convolution + attention
    assert sorted(replay.calls.values()) == [1, 1, 3]          # linear turns b.T back into b
    replay.seconds = dict.fromkeys(replay.seconds, 0.5)
    assert replay.total() == 2.5


def test_memory_is_full_and_the_same_frames_are_drawn():
    bench = Bench(SETTINGS | {"frames": 90})
    assert bench.cfg.memory.keep >= 90 and bench.cfg.memory.min_iou == 0
