"""benchmark.py at tiny sizes: the rows it promises, finite numbers, and a reference that computes the same."""
import json
import math

import numpy as np
import pytest
import torch

from dataloaders import build_index
from tools.workshop import benchmark
from tools.workshop.benchmarking import metrics as benchmark_metrics
from tools.workshop.benchmarking.data import (
    DISTINCT,
    NOVEL,
    Video,
    distinct_frame,
    frames_of,
    moving_masks,
    one_test,
    one_training,
    write_videos,
)
from tools.workshop.benchmarking.floor import Layout, Record
from tools.workshop.benchmarking.index import disc_counts, write_large_annotations
from tools.workshop.benchmarking.setup import Bench, ratio
from utils.config import load_config
from utils.evaluation.metrics import boundary_f, jaccard, vc_windows

SIZE = [72, 120]
SHARED = {"config": ["config/demo/ytvis.yaml"], "overrides": ["backbone.trained=false"], "device": "cpu",
          "checkpoint": None, "allocator": "shipped"}
BOTH = {"modes": ["ours", "reference"]}


def run(job, **settings):
    return benchmark.run_job(job, SHARED | settings)


def finite(row, *names):
    assert all(math.isfinite(row[name]) and row[name] > 0 for name in names), row


# -- jobs -------------------------------------------------------------------------------------------------------------

def test_network_times_both_modes_on_the_same_frames():
    row, = run("network", size=SIZE, frames=7, shots=2, precision="fp32", cap=60, warm_up=1, **BOTH)
    finite(row, "ours_fps", "reference_fps", "ratio", "ours_later_clip_s", "reference_later_clip_s", "later_clip_ratio")
    assert row["ours_frames"] == row["reference_frames"] == 7
    assert row["pixels_differ"] < 0.001 and 0 < row["object_share"] < 1


def test_network_stops_at_the_time_limit_and_says_how_far_it_came():
    row, = run("network", size=SIZE, frames=20, shots=1, precision="fp32", cap=0, warm_up=0, modes=["ours"])
    assert row["ours_frames"] == 0 and row["reference_fps"] is None and row["ratio"] is None
    assert row["ours_fps"] == 0 and row["object_share"] is None


def test_end_to_end_runs_the_evaluation_loop():
    row, = run("end_to_end", size=SIZE, frames=8, shots=2, precision="fp32", repeats=1, recorded=[90, 160], **BOTH)
    finite(row, "ours_fps", "reference_fps", "ratio")
    assert (row["note"] is None) == benchmark_metrics.has_skimage()


def test_parts_add_up_to_the_network():
    rows = {row["part"]: row for row in run(
        "parts", size=SIZE, shots=2, precision="fp32", clips=1, recorded=[90, 160])}
    assert {"backbone", "prior", "layers", "similarity maps", "IoUNet", "network", "other", "metrics",
            "decoding"} == set(rows)
    for mode in ("ours_ms", "reference_ms"):
        finite({part: row[mode] for part, row in rows.items()}, *rows)
        inside = sum(rows[part][mode] for part in set(rows) - {"network", "metrics", "decoding"})
        assert inside == pytest.approx(rows["network"][mode])


def test_precision_compares_with_float32():
    rows = {row["precision"]: row for row in run(
        "precision", size=SIZE, shots=1, frames=6, warm_up=1, compiled=False)}
    assert rows["fp32"]["pixels_differ"] == rows["fp32"]["j_difference"] == 0 and rows["fp32"]["ratio"] == 1
    finite(rows["bf16"], "fps", "ratio")


def test_memory_reports_the_peak_of_a_mode():
    for mode in ("ours", "reference"):
        row, = run("memory", mode=mode, size=SIZE, shots=1, frames=4, cap=60)
        finite(row, "peak_mib")
        assert row["frames"] == 4


@pytest.mark.parametrize("mode", ["ours", "reference"])
def test_train_steps_and_reads_its_data(mode):
    row, = run("train", mode=mode, batch=2, precision="fp32", repeats=1, recorded=[90, 160])
    finite(row, "step_s", "data_s", "samples_per_s", "samples_per_s_with_data", "peak_mib")
    assert row["samples_per_s_with_data"] < row["samples_per_s"]


def test_metrics_leave_the_released_boundary_empty_without_scikit_image(monkeypatch):
    monkeypatch.setattr(benchmark_metrics, "binary_dilation", None)
    rows = run("metrics", size=SIZE, frames=8, repeats=1)
    for row in rows:
        finite(row, "ours_ms")
        assert (row["reference_ms"] is None) == (" F" in row["what"]) == (row["note"] is not None)


def test_floor_counts_what_the_clip_computes():
    row, = run("floor", size=SIZE, shots=2, precision="fp32", repeats=1, squares=1)
    finite(row, "clip_s", "gflop", "gflop_per_s", "gbyte", "gbyte_per_s", "replay_s", "clip_over_arithmetic",
           "clip_over_replay")
    assert row["distinct"] <= row["calls"] and row["gbyte"] < row["gbyte_all_operations"]


def test_the_model_is_made_to_call_part_of_the_image_object():
    bench = Bench(SHARED)
    video = bench.video(SIZE, 1, 6)
    segment = bench.segmenter(benchmark.benchmark_jobs.VideoSegmenter, bench.model(), video)
    shares = [float((segment(images).margins > 0).double().mean()) for images, _ in video.clips()]
    assert 0.02 < np.mean(shares) < 0.6


# -- the command ------------------------------------------------------------------------------------------------------

def test_the_command_writes_tables_and_keeps_earlier_ones(tmp_path, capsys):
    arguments = ["--config", "config/demo/ytvis.yaml", "--quick", "--device", "cpu", "--output", str(tmp_path)]
    benchmark.main([*arguments, "--only", "metrics"])
    benchmark.main([*arguments, "--only", "index"])
    document = json.loads((tmp_path / "speed_demo_cpu.json").read_text())
    assert set(document["tables"]) == {"metrics", "index"}
    assert {"processor", "threads", "torch", "bf16"} <= set(document["machine"])
    assert {row["what"] for row in document["tables"]["index"]["rows"]} == {"json.load", "afresh", "from the cache"}
    for table in document["tables"].values():
        assert table["included"] and table["date"]
        for row in table["rows"]:
            assert row["ratio"] is None or math.isfinite(row["ratio"])
    assert "## metrics" in (tmp_path / "speed_demo_cpu.md").read_text()


def test_a_job_that_fails_is_named_and_the_others_are_kept(tmp_path):
    arguments = ["--config", "config/demo/ytvis.yaml", "--quick", "--device", "cpu", "--output", str(tmp_path)]
    with pytest.raises(ValueError, match="(?s)1 jobs failed.*nowhere.pth"):
        benchmark.main([*arguments, "--only", "precision", "--checkpoint", str(tmp_path / "nowhere.pth")])
    assert json.loads((tmp_path / "speed_demo_cpu.json").read_text())["tables"]["precision"]["rows"] == []


def test_unknown_tables_are_refused():
    with pytest.raises(ValueError, match="--only: unknown speed"):
        benchmark.parse_arguments(["--only", "speed"])


def test_a_table_leaves_empty_columns_out_and_empty_cells_empty():
    rows = [{"size": [2, 3], "x": 0.12345, "y": None, "z": None}, {"size": [4, 5], "x": 1234.5, "y": "a", "z": None}]
    assert benchmark.table(rows).splitlines() == [
        "| size | x | y |", "| --- | --- | --- |", "| 2 x 3 | 0.123 |  |", "| 4 x 5 | 1234 | a |"]


def test_a_ratio_needs_both_numbers():
    assert ratio(3.0, 2.0) == 1.5 and ratio(None, 2.0) is None and ratio(3.0, None) is None


# -- reference metrics ------------------------------------------------------------------------------------------------

def test_released_metrics_equal_ours():
    preds, gts = moving_masks(9, SIZE)
    preds[0], gts[1], preds[2], gts[3] = False, False, True, True
    j, f, vc = benchmark_metrics.reference_video_metrics(preds, gts)
    assert j == jaccard(preds, gts).tolist()
    np.testing.assert_allclose(vc, vc_windows(preds, gts), rtol=1e-6)
    np.testing.assert_allclose(f, boundary_f(preds, gts), rtol=1e-12)


@pytest.mark.skipif(not benchmark_metrics.has_skimage(), reason="needs scikit-image")
def test_released_boundary_equals_ours_on_edge_cases():
    empty, full, dot = np.zeros(SIZE, bool), np.ones(SIZE, bool), np.zeros(SIZE, bool)
    dot[-1, -1] = True
    for pred in (empty, full, dot):
        for gt in (empty, full, dot):
            assert benchmark_metrics.reference_boundary_f(pred, gt) == boundary_f(pred, gt)


# -- generated data ---------------------------------------------------------------------------------------------------

def test_frames_follow_from_the_seed_and_the_object_moves():
    first, again = (list(frames_of(3, (90, 160), seed=1)) for _ in range(2))
    assert all((a[0] == b[0]).all() and (a[1] == b[1]).all() for a, b in zip(first, again, strict=True))
    assert (first[0][1] != first[2][1]).any() and 0.03 < first[0][1].mean() < 0.3


def test_a_long_video_repeats_its_frames_forwards_and_backwards():
    times = [distinct_frame(t) for t in range(3 * DISTINCT)]
    assert set(times) == set(range(DISTINCT)) and times[:DISTINCT] == list(range(DISTINCT))
    assert all(abs(a - b) == 1 for a, b in zip(times, times[1:], strict=False))


def test_the_last_clip_may_be_short():
    video = Video(SIZE, shots=3, clip_length=4, frames=6)
    assert [len(images) for images, _ in video.clips()] == [4, 2]
    assert video.support_images.shape == (3, 3, *SIZE) and video.support_masks.any(dim=(1, 2)).all()


def test_generated_videos_are_read_by_the_index(tmp_path):
    write_videos(tmp_path, one_test(DISTINCT + 3, 2), (48, 64))
    index = build_index(load_config(["config/demo/ytvis.yaml"], [f"data.root={tmp_path}"]))
    assert len(index.frames(1, NOVEL)) == DISTINCT + 3 and index.videos(NOVEL) == [1, 2, 3]
    _, mask = list(frames_of(DISTINCT - 1, (48, 64)))[-1]
    assert (index.read_mask(1, DISTINCT, NOVEL) == mask).all()
    assert (index.read_image(1, DISTINCT) == index.read_image(1, DISTINCT - 2)).all()


def test_a_training_set_has_four_base_classes_and_enough_videos():
    names, categories, lengths = zip(*one_training(3, 7), strict=True)
    assert len(set(names)) == 13 and sorted(categories).count(2) == 3 and max(lengths) == 7


def test_large_annotations_have_the_asked_size_and_valid_masks(tmp_path):
    write_large_annotations(tmp_path / "train.json", videos=7, frames=24, objects=9, categories=4, size=(90, 160))
    index = build_index(load_config(["config/demo/ytvis.yaml"], [f"data.root={tmp_path}"]))
    assert sum(index.length(video) for video in range(1, 8)) == 24
    class_id = index.class_ids[0]
    video = index.videos(class_id)[0]
    assert index.read_mask(video, int(index.frames(video, class_id)[0]), class_id).any()


def test_disc_counts_fill_the_frame():
    rng = np.random.default_rng(0)
    for _ in range(50):
        counts = disc_counts(rng, 90, 160)
        assert sum(counts) == 90 * 160 and min(counts[1:]) > 0


# -- the floor's record -----------------------------------------------------------------------------------------------

def test_record_counts_products_convolutions_and_attention():
    a, b, x, w = torch.randn(5, 7), torch.randn(7, 3), torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    q = torch.randn(1, 2, 6, 8)
    with torch.no_grad(), Record() as record:
        a @ b, a @ b, torch.nn.functional.linear(a, b.T), torch.nn.functional.conv2d(x, w)
        torch.nn.functional.scaled_dot_product_attention(q, q, q), a + 1
    product, convolution, attention = 2 * 5 * 7 * 3, 2 * 2 * 4 * 6 * 6 * 3 * 9, 2 * 2 * (2 * 6 * 6 * 8)
    assert record.flops == 3 * product + convolution + attention
    assert sum(record.calls.values()) == 5 and record.bytes < record.all_bytes


def test_a_layout_makes_a_tensor_of_the_same_shape_and_strides():
    x = torch.randn(4, 1, 6).expand(4, 3, 6).transpose(0, 2)
    made = Layout(x).tensor()
    assert made.shape == x.shape and made.stride() == x.stride() and made.dtype == x.dtype


def test_runs_together_are_compared_with_runs_apart():
    row, = run("runs", size=SIZE, shots=2, runs=2, clips=1)
    assert row["runs"] == 2 and row["together_clip_s"] > 0
    assert row["ratio"] == row["apart_clip_s"] / row["together_clip_s"]
