"""Tables from result lines alone, checked against means taken by hand; the papers' numbers against the papers' text."""
import csv
import io
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from utils.evaluation import tables
from utils.evaluation.tables import (
    class_table,
    comparison,
    difference,
    fold_table,
    measured,
    paper_table,
    paper_tables,
    printed,
    summary,
)

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT.parent / "shared" / "papers" / "vipmt.txt"


def line(name, run, j, f, vc, variant="vipmt"):
    return {"class": name, "run": run, "video": "v", "j": j, "f": f, "vc": vc, "vc_variant": variant, "vc_window": 7}


ONE_FOLD = [line("cat", 0, [0.5, 0.7], [0.4, 0.4], [0.9]), line("dog", 0, [0.2], [0.1], [0.5]),
            line("cat", 1, [0.8, 0.8], [0.5, 0.5], [0.7]), line("dog", 1, [0.4], [0.3], [0.5])]


def test_class_table_gives_mean_and_spread_over_runs():
    table = class_table(ONE_FOLD)
    assert table.header == ["class", "videos", "J", "F", "VC7", "windows"]
    spread = 100 * statistics.stdev([0.6, 0.8])
    assert table.rows[0][:2] == ["cat", "1"] and table.rows[0][2] == pytest.approx((70.0, spread))
    assert table.rows[-1][0] == "mean" and table.rows[-1][2][0] == pytest.approx(50.0)
    assert table.rows[-1][2][1] == pytest.approx(100 * statistics.stdev([0.4, 0.6]))


def test_single_run_shows_no_spread():
    text = class_table(ONE_FOLD[:2]).markdown()
    assert "±" not in text and "| cat | 1 | 60.0 | 40.0 | 90.0 | 1 |" in text


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


def test_spread_over_several_trainings_is_that_of_their_means():
    trainings = [{1: [line("cat", run, [level + run / 100], [0.3], [0.5]) for run in (0, 1)]}
                 for level in (0.5, 0.6, 0.8)]
    cell = measured(trainings, ["J mean"], (1,))["J mean"]
    means = [100 * level for level in (0.505, 0.605, 0.805)]
    assert cell == pytest.approx((statistics.mean(means), statistics.stdev(means)))
    assert measured([*trainings, {}], ["J mean"], (1,)) == {"J mean": None}, "a training is missing"


def test_data_without_a_paper_has_no_line_of_it():
    assert [row[0] for row in paper_table({1: ONE_FOLD}, "coco20i", "mine").rows] == ["mine"]


def test_difference_is_ours_minus_the_papers():
    ours = measured([{1: ONE_FOLD}], ["J mean", "F mean", "VC7 mean"], (1,)) | {"VC7 mean": None}
    assert difference(ours, {"J mean": 47.5, "F mean": None, "VC7 mean": 60.0}) == {"J mean": "+2.5"}


# -- the papers' numbers

def test_paper_means_are_those_of_its_folds():
    for table in (table for table in paper_tables().values() if table.dataset):
        for row in table.rows.values():
            for metric in ("J", "F"):
                folds = [row[f"{metric} {fold}"] for fold in (1, 2, 3, 4)]
                if None not in folds:
                    assert abs(statistics.mean(folds) - row[f"{metric} mean"]) <= 0.1, row


def test_paper_tables_agree_with_each_other():
    one, two, three, four, five, six, seven = (table.rows for table in paper_tables().values())
    means = {column: one["VIPMT"][column] for column in ("J mean", "F mean", "VC7 mean")}
    assert four["VIPMT (+CCDS)"] == three["VIPMT on YouTube-VIS"] == means
    assert three["VIPMT on MiniVSPW"].items() <= two["VIPMT"].items()
    assert five["Bidirectional"] == four["+C+F"] and seven["0.8, w/ SSM"] == four["+C+F+M"]
    assert all(seven[f"0.5, {maps}"] == six[f"Image, {maps}"] for maps in ("w/o SSM", "w/ SSM"))


@pytest.mark.skipif(not PAPER.is_file(), reason=f"needs the paper's text, {PAPER.name}")
def test_numbers_stand_in_the_papers_text_row_by_row():
    """Every line of the paper's tables is taken once, and nothing else stands in the file; w/o and w/ SSM share one."""
    text = [line for line in PAPER.read_text().splitlines() if "\t" in line]
    numbers_of = {line: tuple(re.findall(r"(?<![\d.])\d\d\.\d(?!\d)", line)) for line in text}
    ours = []
    for table in paper_tables().values():
        rows = iter(table.rows.items())
        for label, row in rows:
            numbers = tuple(str(x) for x in row.values() if x is not None)
            if "w/o SSM" in label:
                numbers += tuple(map(str, next(rows)[1].values()))
            first = re.split(r" on |, | \(", label)[0]
            assert any(first in line and found == numbers for line, found in numbers_of.items()), label
            ours.append(numbers)
    assert Counter(ours) == Counter(numbers_of[line] for line in text if len(numbers_of[line]) >= 3)


def test_headers_and_documents_repeat_no_other_number():
    """J, F and mVC7 of the paper that stand in a config's header or a document are a row of the file."""
    known = {tuple(str(row[column]) for column in ("J mean", "F mean", "VC7 mean"))
             for table in paper_tables().values() for row in table.rows.values()}
    pattern = re.compile(r"J (\d\d\.\d), F (\d\d\.\d), mVC7 (\d\d\.\d) \(means of four folds in the paper\)")
    found = {path: pattern.findall(path.read_text()) for folder in ("config", "docs") for path in
             (ROOT / folder).rglob("*") if path.suffix in (".yaml", ".md")}
    assert sum(map(len, found.values())) >= 5
    for path, triples in found.items():
        assert set(triples) <= known, path


# -- forms

def test_shared_supports_mark_every_table_and_the_windows_that_cannot_score_are_counted():
    """data.few_videos=repeat takes supports from the query's own video; VC counts 0 where the truth has no pixel."""
    lines = [ONE_FOLD[0] | {"vc": [0.9, 0.0], "vc_possible": 1}, ONE_FOLD[1] | {"supports_share_video": True}]
    table, mark = class_table(lines), "(supports share videos in 1 of {} results)"
    assert [row[0] for row in table.rows] == ["cat", f"dog {mark.format(1)}", f"mean {mark.format(2)}"]
    assert [row[-1] for row in table.rows] == ["1 of 2", "1", "2 of 3"] and mark.format(1) in table.csv()
    assert mark.format(2) in summary(lines) and mark.format(2) in fold_table({1: lines}).latex()
    assert mark.format(2) in paper_table({1: lines}).markdown() and "share" not in paper_table({1: ONE_FOLD}).csv()


def test_other_vc_variants_are_named_in_the_column():
    assert class_table([line("cat", 0, [0.5], [0.5], [0.5], "tti")]).header[-2] == "VC7 (tti)"
    other = [line("cat", 0, [0.5], [0.5], [0.5], "tti")]
    assert comparison(["J 1", "VC7 mean"], [], other).header == ["", "J 1", "mVC7 (tti)"]


def test_csv_has_spreads_in_their_own_columns():
    rows = list(csv.DictReader(io.StringIO(class_table([*ONE_FOLD, line("a, b", 0, [1], [1], [])]).csv())))
    assert rows[0]["class"] == "cat" and rows[0]["J"] == "70.0" and rows[0]["J std"] == "14.1"
    assert rows[2]["class"] == "a, b" and rows[2]["J std"] == ""


def test_latex_escapes_names_and_closes_rows():
    text = class_table([line("giant_panda", 0, [0.5], [0.5], [0.5])]).latex()
    assert r"giant\_panda & 1 & 50.0 & 50.0 & 50.0 & 1 \\" in text and text.count(r"\\") == 3
    assert r"70.0 $\pm$ 14.1" in class_table(ONE_FOLD).latex()


def test_tables_are_written_in_three_forms(tmp_path):
    table = fold_table({1: ONE_FOLD})
    assert table.write(tmp_path) == (tmp_path / "table.md").read_text() == table.markdown()
    assert {p.name for p in tmp_path.iterdir()} == {"table.md", "table.csv", "table.tex"}


def test_summary_is_one_line():
    assert summary(ONE_FOLD) == "J 50.0 ± 14.1, F 32.5 ± 10.6, VC7 65.0 ± 7.1 (2 runs)"
    assert summary([]) == "J none, F none, VC7 none (0 runs)"


def test_a_cell_that_the_paper_leaves_empty_is_empty():
    row = paper_tables()["1"].rows["TTI"]
    assert printed(row)["F 1"] is None and printed(row)["J 1"] == (47.2, None)


def test_tables_need_no_torch():
    code = "import sys\nimport utils.evaluation.tables\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(tables.__file__).parents[2], check=True)
