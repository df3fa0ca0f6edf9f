"""J, F, recall and decay per object as the DAVIS toolkit computes them, against cases counted by hand."""
import csv

import numpy as np
import pytest

from utils.evaluation.metrics import aggregate, boundary_f
from utils.evaluation.object_table import object_table, overall, papers_of, scores, statistics, write_csv


def line(video, number, j, f, **more):
    return {"class": "object", "class_id": number, "run": 0, "video": video, "j": j, "f": f, "vc": [],
            "vc_variant": "vipmt", "vc_window": 7, "average": "object"} | more


def test_mean_recall_and_decay_of_eight_frames():
    # Ends of the quarters: 1, 2.75, 4.5, 6.25, 8 -> 1, 3, 4 (half to even, and a little more), 6, 8: frames 1 to 3
    # against 6 to 8. Exactly 0.5 is not recalled.
    values = [0.9, 0.8, 0.7, 0.5, 0.5, 0.4, 0.3, 0.2]
    assert statistics(values) == pytest.approx((4.3 / 8, 3 / 8, 0.8 - 0.3))


def test_quarters_share_their_ends_and_short_videos_have_four():
    # Five frames: ends 1, 2, 3, 4, 5, so quarters are 1-2 and 4-5. One frame is its own first and last quarter.
    assert statistics([1.0, 0.6, 0.0, 0.2, 0.0])[2] == pytest.approx(0.8 - 0.1)
    assert statistics([0.7]) == pytest.approx((0.7, 1, 0)) and statistics([0.4, 0.6])[2] == pytest.approx(-0.2)


def toolkit(values):
    """db_statistics, written from its description with a loop: bounds rounded after 1e-10 is added, ends included"""
    n, bounds = len(values), []
    for k in range(5):
        bounds.append(int(round(1 + k * (n - 1) / 4 + 1e-10)) - 1)
    quarters = [values[a:b + 1] for a, b in zip(bounds, bounds[1:], strict=False)]
    mean = [sum(quarter) / len(quarter) for quarter in quarters]
    return sum(values) / n, sum(v > 0.5 for v in values) / n, mean[0] - mean[3]


def test_statistics_equal_a_slow_loop_at_every_length():
    rng = np.random.default_rng(0)
    for n in [*range(1, 40), 104, 300]:
        values = rng.random(n).tolist()
        assert statistics(values) == pytest.approx(toolkit(values))


LINES = [line("a", 1, [1.0, 0.0], [1.0, 1.0]), line("a", 2, [0.5] * 8, [0.5] * 8), line("b", 1, [1.0] * 4, [0.0] * 4)]


def test_every_object_counts_the_same_whatever_its_length():
    assert overall(LINES)["J-Mean"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert overall(LINES)["J&F-Mean"] == pytest.approx((0.75 + 0.5 + 0.5) / 3)
    means = aggregate(LINES)
    assert (means["j"], means["f"]) == pytest.approx((2 / 3, 0.5)) and means["vc"] == 0
    frames = aggregate([one | {"average": "frame"} for one in LINES])
    assert frames["j"] == pytest.approx((1 + 4 + 4) / 14)
    by_class = aggregate([{k: v for k, v in one.items() if k != "average"} | {"class": one["video"]} for one in LINES])
    assert by_class["j"] == pytest.approx(((1 + 4) / 10 + 1) / 2)


def test_csv_files_have_the_form_of_the_toolkit(tmp_path):
    write_csv(LINES, tmp_path, "val")
    with open(tmp_path / "global_results-val.csv", newline="") as file:
        header, values = csv.reader(file)
    assert header == ["J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"]
    assert values == ["0.583", "0.667", "0.500", "0.333", "0.500", "0.333", "0.000"]
    with open(tmp_path / "per-sequence_results-val.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["Sequence", "J&F-Mean", "J-Mean", "F-Mean"] and rows[1] == ["a_1", "0.750", "0.500", "1.000"]
    assert [row[0] for row in rows[1:]] == ["a_1", "a_2", "b_1"]


def test_the_table_has_the_papers_rows_beside_a_whole_test_and_leaves_cells_empty():
    text = object_table(LINES, "ours", papers_of("davis", 61)).markdown()
    assert "| LWL (paper) | 81.6 | 79.1 |  |  | 84.1 |  |  |" in text
    assert "| LLB (paper) | 84.6 | 81.5 |  |  | 87.7 |  |  |" in text
    assert "| ours, 3 objects | 58.3 | 66.7 | 50.0 | 33.3 | 50.0 | 33.3 | 0.0 |" in text and "| a 1 | 75.0 |" in text
    assert papers_of("davis", 17) == [] and papers_of("ytvos", 61) == []
    assert scores(LINES[2])["J-Recall"] == 1


def test_the_tolerance_of_f_is_a_share_of_the_diagonal():
    truth, moved = np.zeros((60, 80), bool), np.zeros((60, 80), bool)
    truth[10:30, 10:30], moved[10:30, 13:33] = True, True
    assert boundary_f(moved, truth, 0.05) == 1 > boundary_f(moved, truth, 0.008)      # 5 pixels, 1 pixel
