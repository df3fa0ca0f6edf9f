"""Tables from result lines alone, checked against means taken by hand."""
import csv
import io
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from utils.evaluation import tables
from utils.evaluation.tables import PAPER, PAPER_ABLATIONS, class_table, fold_table, paper_table, summary


def line(name, run, j, f, vc, variant="vipmt"):
    return {"class": name, "run": run, "video": "v", "j": j, "f": f, "vc": vc, "vc_variant": variant, "vc_window": 7}


ONE_FOLD = [line("cat", 0, [0.5, 0.7], [0.4, 0.4], [0.9]), line("dog", 0, [0.2], [0.1], [0.5]),
            line("cat", 1, [0.8, 0.8], [0.5, 0.5], [0.7]), line("dog", 1, [0.4], [0.3], [0.5])]


def test_class_table_gives_mean_and_spread_over_runs():
    table = class_table(ONE_FOLD)
    assert table.header == ["class", "videos", "J", "F", "VC7"]
    spread = 100 * statistics.stdev([0.6, 0.8])
    assert table.rows[0][:2] == ["cat", "1"] and table.rows[0][2] == pytest.approx((70.0, spread))
    assert table.rows[-1][0] == "mean" and table.rows[-1][2][0] == pytest.approx(50.0)
    assert table.rows[-1][2][1] == pytest.approx(100 * statistics.stdev([0.4, 0.6]))


def test_single_run_shows_no_spread():
    text = class_table(ONE_FOLD[:2]).markdown()
    assert "±" not in text and "| cat | 1 | 60.0 | 40.0 | 90.0 |" in text


def test_class_without_lines_counts_zero_if_it_is_named():
    assert class_table(ONE_FOLD[:2], classes=["cat", "dog", "owl"]).rows[-1][2][0] == pytest.approx(100 * 0.8 / 3)


def test_cells_that_were_not_run_stay_empty():
    table = paper_table({1: ONE_FOLD, 3: ONE_FOLD[:2]})
    paper, ours = table.rows
    assert paper[1:6] == [(50.6, None), (70.9, None), (68.8, None), (66.5, None), (64.2, None)]
    assert ours[2] is None and ours[4] is None and ours[5] is None and ours[-1] is None
    assert ours[1][0] == pytest.approx(50.0) and ours[3] == (pytest.approx(40.0), None)
    assert "|  |" in table.markdown()


def test_mean_over_folds_is_taken_run_by_run():
    lines = {fold: [line("cat", run, [0.1 * fold + 0.01 * run], [0.5], [0.5]) for run in range(3)]
             for fold in (1, 2, 3, 4)}
    expected = [100 * (0.25 + 0.01 * run) for run in range(3)]
    assert paper_table(lines).rows[1][5] == pytest.approx((statistics.mean(expected), statistics.stdev(expected)))
    assert fold_table(lines).rows[-1][1] == pytest.approx((statistics.mean(expected), statistics.stdev(expected)))
    lines[2] = lines[2][:2]
    assert paper_table(lines).rows[1][5] is None, "folds with different numbers of runs have no common mean"


def test_paper_means_are_those_of_its_folds():
    for dataset in PAPER.values():
        for numbers in dataset.values():
            for metric in ("j", "f"):
                if numbers[metric]:
                    *folds, given = numbers[metric]
                    assert abs(statistics.mean(folds) - given) <= 0.1, numbers


def test_paper_tables_agree_with_each_other():
    vipmt = PAPER["ytvis"]["VIPMT"]
    assert PAPER_ABLATIONS["components"]["VIPMT"] == (vipmt["j"][-1], vipmt["f"][-1], vipmt["vc"])
    assert PAPER_ABLATIONS["communication"]["bidirectional"] == PAPER_ABLATIONS["components"]["+C+F"]
    assert PAPER_ABLATIONS["iou_threshold"][(0.8, "w/ SSM")] == PAPER_ABLATIONS["components"]["+C+F+M"]
    for variant in ("w/o SSM", "w/ SSM"):
        assert PAPER_ABLATIONS["iou_threshold"][(0.5, variant)] == PAPER_ABLATIONS["iou_net_data"][("image", variant)]


def test_other_vc_variants_are_named_in_the_column():
    assert class_table([line("cat", 0, [0.5], [0.5], [0.5], "tti")]).header[-1] == "VC7 (tti)"


def test_csv_has_spreads_in_their_own_columns():
    rows = list(csv.DictReader(io.StringIO(class_table([*ONE_FOLD, line("a, b", 0, [1], [1], [])]).csv())))
    assert rows[0]["class"] == "cat" and rows[0]["J"] == "70.0" and rows[0]["J std"] == "14.1"
    assert rows[2]["class"] == "a, b" and rows[2]["J std"] == ""


def test_latex_escapes_names_and_closes_rows():
    text = class_table([line("giant_panda", 0, [0.5], [0.5], [0.5])]).latex()
    assert r"giant\_panda & 1 & 50.0 & 50.0 & 50.0 \\" in text and text.count(r"\\") == 3
    assert r"70.0 $\pm$ 14.1" in class_table(ONE_FOLD).latex()


def test_tables_are_written_in_three_forms(tmp_path):
    table = fold_table({1: ONE_FOLD})
    assert table.write(tmp_path) == (tmp_path / "table.md").read_text() == table.markdown()
    assert {p.name for p in tmp_path.iterdir()} == {"table.md", "table.csv", "table.tex"}


def test_summary_is_one_line():
    assert summary(ONE_FOLD) == "J 50.0 ± 14.1, F 32.5 ± 10.6, VC7 65.0 ± 7.1 (2 runs)"
    assert summary([]) == "J none, F none, VC7 none (0 runs)"


def test_tables_need_no_torch():
    code = "import sys\nimport utils.evaluation.tables\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(tables.__file__).parents[2], check=True)
