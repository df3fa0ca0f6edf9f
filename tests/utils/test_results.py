"""The one reader of results.jsonl: known keys once each, whatever is wrong is named with its line."""
import json

import pytest

from utils.evaluation.results import open_results, per_frame, read_results
from utils.records import read_json_lines


def result(video="v1", name="cat", run=0, j=(0.5, 0.7), **more):
    """A line of results.jsonl, complete"""
    return {"fold": 1, "run": run, "class_id": 1, "class": name, "video": video, "j": list(j), "f": [0.4] * len(j),
            "vc": [0.9], "vc_variant": "vipmt", "vc_window": 7, "frames": [f"{video}/{i}.jpg" for i in range(len(j))],
            "pred_iou": [0.6] * len(j), "remembered": [True] + [False] * (len(j) - 1), "seconds": 0.5} | more


def written(folder, *lines, torn=""):
    path = folder / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    return path


def test_lines_come_as_they_were_written_with_what_their_method_added(tmp_path):
    lines = [result("a", scale=[1, 2], note="x"), result("b", pred_iou=None, vc=[None])]
    assert read_results(written(tmp_path, *lines, torn='{"run": 0, "vid')) == lines
    assert list(per_frame(lines[0])) == ["pred_iou", "remembered", "scale"] and list(per_frame(lines[1])) == [
        "remembered"]
    with pytest.raises(FileNotFoundError, match="appears with the first line"):
        read_results(tmp_path / "none.jsonl")


def test_second_and_foreign_lines_are_no_part_of_a_test_and_kept_beside_it(tmp_path, caplog):
    """The same in the first reading of a continued test and in its table; readers without the data know second ones."""
    lines = [result("a"), result("z"), result("a", j=(0.1, 0.1)), result("a", run=1), result("b"), result("b")]
    path = written(tmp_path, *lines)
    (tmp_path / "test.json").write_text(json.dumps({"sha256": None, "fold": 1, "episodes": None, "config": {}}))
    assert len(read_results(path)) == 4 and "1 of 5" in caplog.text and "line 3 (a second result" in caplog.text
    header = {"checkpoint": None, "sha256": None, "fold": 1, "episodes": None, "config": {}, "data": None}
    writer, done = open_results(tmp_path, header, [(0, 1, "b"), (0, 1, "a"), (1, 1, "a")])
    writer.close()
    assert done == read_results(path) == [lines[4], lines[0], lines[3]]
    assert "line 2 (no result of this test: run 0, class 1, video 'z')" in caplog.text
    assert read_json_lines(tmp_path / "results.left_out.jsonl") == [lines[1], lines[2]]


@pytest.mark.parametrize("change", [{"fold": 2}, {"vc_window": 9}, {"vc_variant": "tti"}, {"average": "frame"}])
def test_lines_of_several_tests_are_never_averaged(tmp_path, change):
    with pytest.raises(ValueError, match=f"its lines are of several tests .{next(iter(change))}: "):
        read_results(written(tmp_path, result("a"), result("b") | change))


@pytest.mark.parametrize(("change", "message"), [
    ({"j": []}, "j"), ({"j": [0.5, 2.0]}, "j[1]"), ({"f": [0.1]}, "1 values of f for 2 of j"), ({"class": 3}, "class"),
    ({"run": "0"}, "run"), ({"vc": ["x"]}, "vc[0]"), ({"vc_window": 0}, "vc_window"), ({"video": ""}, "video"),
    ({"frames": ["x"]}, "1 values of frames"), ({"seconds": -1}, "seconds"), ({"run": True}, "run")])
def test_a_line_that_is_no_result_is_named(tmp_path, change, message):
    path = written(tmp_path, result(), result("b") | change)
    with pytest.raises(ValueError) as caught:
        read_results(path)
    assert f"{path}, line 2: no result of a test: " in str(caught.value) and message in str(caught.value)
    assert "Delete the line" in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "", '{"run": 0}', '{"j": NaN}', "[" * 100_000, "\x00", '{"j": [1e999]}',
                                  '{"video": "\\ud800"}'])
def test_text_that_is_no_result_is_named(tmp_path, text):
    path = tmp_path / "results.jsonl"
    path.write_text(f"{json.dumps(result())}\n{text}\n")
    with pytest.raises(ValueError, match="line 2: no result"):
        read_results(path)
