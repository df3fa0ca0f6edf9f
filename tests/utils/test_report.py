"""The report of a run: its numbers are the run's, whatever a folder holds ends in a page or in one clear error."""
import base64
import io
import json
import re
import sys
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from material import TINY, Parsed, command
from PIL import Image
from test_results import result

import test as test_script
import train
from dataloaders.datasets.folds import MINIVSPW_CLASSES, YTVIS_CLASSES, minivspw_classes, split_classes
from tools import report as report_command
from utils.config import load_config
from utils.evaluation.tables import class_table, paper_tables
from utils.pictures.film import Film
from utils.pictures.images import keep_supports
from utils.records import describe_run, read_json_lines
from utils.report import charts
from utils.report.films import chosen, film_folders, film_of, supports_of
from utils.report.read import read_parts
from utils.report.write import refresh_report, write_report

LOSSES = {"final": 2.0, "ccds": 0.5}


def write_test(folder, lines, config=("config/demo/ytvis.yaml",), finished=True, settings=()):
    describe_run(load_config(config, settings), folder)
    (folder / "test.json").write_text(json.dumps({"fold": 1, "checkpoint": "last.pth", "sha256": "0"}))
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        class_table(lines).write(folder)
    return folder


def write_training(folder, lines, settings=(), config="config/demo/ytvis.yaml"):
    describe_run(load_config([config], settings), folder)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def steps(count, epochs=1, losses=LOSSES):
    return [{"step": i + 1, "epoch": i * epochs // count, "losses": losses, "iou": 0.25, "samples_per_s": 4.0}
            for i in range(count)]


def page_of(folder, **options):
    """The page, after it was found to need nothing but itself and to close every tag"""
    text = write_report(folder, **options).read_text(encoding="utf-8")
    page = Parsed(text)
    assert "script" not in page.tags and all(link.startswith("#") for link in page.links)
    assert not re.search(r'(?:src|href)="(?!data:|#)', text) and "default-src 'none'" in text
    assert {link[1:] for link in page.links} <= set(page.ids) and len(page.ids) == len(set(page.ids))
    return text


def plain(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


# -- what the page says ---------------------------------------------------------------------------------------------

def test_scores_of_a_test_are_means_taken_by_hand(tmp_path):
    lines = [result("a", "cat", 0, (0.5, 0.7)), result("b", "dog", 0, (0.2,)),
             result("a", "cat", 1, (0.8, 0.8)), result("b", "dog", 1, (0.4,))]
    text = plain(page_of(write_test(tmp_path, lines)))
    runs = [100 * mean([0.6, 0.2]), 100 * mean([0.8, 0.4])]
    assert f"{mean(runs):.1f} ± {stdev(runs):.1f} J " in text
    assert "Test, fold 1: complete, 4 results: 2 videos, 2 runs." in text
    assert "2.0 s for 6 frames, 3.0 frames per second" in text
    taken, left = mean([0.5, 0.2, 0.8, 0.4]), mean([0.7, 0.8])
    assert f"True in 4 of 6 frames, 66.7 %. Mean J of those: {taken:.3f}, of the others: {left:.3f}" in text
    error = mean(abs(0.6 - x) for x in (0.5, 0.7, 0.2, 0.8, 0.8, 0.4))
    assert f"Mean distance of predicted from true IoU {error:.3f}" in text


def test_supports_of_the_query_s_own_video_are_no_secret(tmp_path):
    lines = [result("a", supports_share_video=True), result("b"), result("c", supports_share_video=False)]
    assert '<p class="warning">In 1 of 3 results a support is of the query' in page_of(write_test(tmp_path, lines))


def test_a_test_is_complete_only_once_its_table_is_that_of_all_its_lines(tmp_path):
    lines = [result("a"), result("b")]
    assert "unfinished" in page_of(write_test(tmp_path, lines, finished=False))
    class_table(lines[:1]).write(tmp_path)
    assert "unfinished" in page_of(tmp_path)
    class_table(lines).write(tmp_path)
    assert "unfinished" not in page_of(tmp_path)


def test_lines_of_processes_that_are_not_collected_yet_count_once(tmp_path):
    write_test(tmp_path, [result("a")], finished=False)
    (tmp_path / "results.rank1.jsonl").write_text(f"{json.dumps(result('a'))}\n{json.dumps(result('b'))}\n")
    assert "2 results: 2 videos" in page_of(tmp_path)


def test_training_shows_where_it_stands_its_losses_and_its_time(tmp_path):
    lines = steps(8, epochs=2) + [{"step": 8, "epoch": 2, "validation": {"j": 0.31, "f": 0.2, "vc": 0.5}}]
    lines += [{"step": 5, "spike": 9.0, "typical": 1.5, "episodes": ["x"]}]
    write_training(tmp_path, lines, ["train.epochs=3", "train.batch_size=2"])
    text = plain(page_of(tmp_path))
    assert "Training: not at its end , logged up to step 8, in epoch 2 of 3" in text
    assert "2.5 loss, last 5 %" in text and "31.0 best validation J" in text
    assert "1 spikes of the loss, the largest: step 5 (6.0 times)" in text
    assert "500 ms (mean of the logged steps)" in text and "about 4.0 s" in text         # 8 steps of 2 / 4.0 seconds
    assert "Loss final" in text and "Loss ccds" in text and "Sum of losses" in text and "Validation" in text


def test_iounet_training_has_its_one_loss(tmp_path):
    write_training(tmp_path, steps(4, losses={"iou_net": 0.7}), config="config/demo/iounet_video.yaml")
    text = plain(page_of(tmp_path))
    assert "Loss iou_net" in text and "Sum of losses" not in text and "model.method vipmt iounet" in text


def test_config_in_brief_is_what_differs_from_the_defaults(tmp_path):
    write_training(tmp_path, [], ["train.lr=0.25"], config="config/vipmt/ytvis.yaml")
    text = plain(page_of(tmp_path))
    assert "train.lr 0.0005 0.25" in text and "model.dim" not in text
    describe_run(load_config(), tmp_path)
    assert "Nothing: all values are the defaults." in page_of(tmp_path)


def test_a_config_of_another_version_is_a_note_and_no_error(tmp_path):
    write_training(tmp_path, steps(3))
    (tmp_path / "config.yaml").write_text("name: <old>\ngone: 3\n")
    assert "unknown key &#39;gone&#39;" in page_of(tmp_path)


def test_training_its_test_and_other_folds_share_a_page(tmp_path):
    write_training(tmp_path / "fold1", steps(3))
    write_test(tmp_path / "fold1" / "test", [result("a", j=(0.5,))])
    write_test(tmp_path / "fold2" / "test", [result("b", "dog", j=(0.7,), fold=2)])
    text = plain(page_of(tmp_path))
    assert "demo, folds 1, 2: training and test" in text and "fold 1 50.0 40.0 90.0" in text
    assert "fold 2 70.0 40.0 90.0" in text and "cat 1 50.0 40.0 90.0" in text and "dog 1 70.0 40.0 90.0" in text
    assert [part.fold for part in read_parts(tmp_path)] == [1, 1, 2]
    other = tmp_path / "several"
    for fold in (1, 2):
        write_test(other / "test" / f"fold{fold}", [result(fold=fold)])
    assert [part.fold for part in read_parts(other)] == [1, 2]


def test_scores_stand_beside_what_needs_no_training(tmp_path):
    """Of the same videos, with the test or beside it; of others it says nothing"""
    write_test(tmp_path / "test", [result("a", j=(0.5,)), result("b", j=(0.7,))])
    near = tmp_path / "references"
    near.mkdir()
    for name, videos in (("untrained", "ab"), ("support_prototype", "ac")):
        (near / f"{name}.jsonl").write_text("".join(json.dumps(result(one, j=(0.1,))) + "\n" for one in videos))
    text = plain(page_of(tmp_path / "test"))
    assert "untrained 10.0 40.0 90.0 this test, fold 1 60.0 40.0 90.0" in text and "support prototype" not in text


def test_right_and_wrong_supports_stand_side_by_side(tmp_path):
    more = {"j_swapped": [0.25], "overlap": [0.5], "shows_both": [True]}
    text = plain(page_of(write_test(tmp_path, [result(j=(0.75,), **more)])))
    assert "Right and wrong supports" in text and "cat, both shown 75.0 25.0 50.0 0.50" in text


def test_supports_of_the_first_run_stand_below_its_videos(tmp_path):
    """As test.py keeps them, a row of pictures per video; no name leads out of the folder"""
    first, second = (SimpleNamespace(images=torch.rand(2, 3, 20, 30), masks=torch.ones(2, 40, 60, dtype=torch.bool),
                                     facts=[{"run": run}], folder=(f"run{run}", "cat", "a")) for run in (0, 1))
    followed = SimpleNamespace(facts=[{"run": 0}], folder=("a",))
    video = SimpleNamespace(references=[first, second])
    for reference in (first, second, followed):
        keep_supports(tmp_path / "supports", video, reference)
    kept = tmp_path / "supports" / "run0" / "cat" / "a.jpg"
    assert [path for path in tmp_path.rglob("*.jpg")] == [kept] and Image.open(kept).size == (240, 80)
    assert supports_of(result("a"), tmp_path).startswith("data:image/jpeg;base64,")
    assert supports_of(result("../a"), tmp_path) is None and supports_of(result("b"), tmp_path) is None
    assert '<img class="supports"' in page_of(write_test(tmp_path, [result("a")]))


# -- beside the paper -----------------------------------------------------------------------------------------------

def fold_results(videos, runs=1):
    names = [YTVIS_CLASSES[number] for number in split_classes(YTVIS_CLASSES, 1)[1]]
    return [result(f"v{i}", names[i % 10], run, (0.5,)) for run in range(runs) for i in range(videos)]


def test_the_papers_numbers_stand_beside_its_own_classes_only(tmp_path):
    text = plain(page_of(write_test(tmp_path / "a", fold_results(100, 5), config=["config/vipmt/ytvis.yaml"])))
    assert "VIPMT (paper, ytvis) 50.6 70.9 68.8 66.5 64.2" in text and "this run 50.0 ± 0.0" in text
    assert "Not the paper" not in text
    settings = ["data.shots=1", "test.protocol=I"]
    text = plain(page_of(write_test(tmp_path / "b", fold_results(100), ["config/vipmt/ytvis.yaml"], False, settings)))
    for departure in ("unfinished", "test.runs 1, the paper 5", "data.shots 1, the paper 5", "test.protocol I, the"):
        assert departure in text.partition("Not the paper")[2]
    text = plain(page_of(write_test(tmp_path / "c", [result()])))
    assert "the classes tested here are not the test classes of fold 1" in text and "(paper" not in text


def test_the_classes_of_the_papers_folds_are_those_of_the_loaders():
    for fold in (1, 2, 3, 4):
        ids = split_classes(YTVIS_CLASSES, fold)[1], minivspw_classes(fold, "test")
        assert [paper_tables()[table].folds[fold - 1]["classes"] for table in ("1", "2")] == [
            [names[i] for i in some] for names, some in zip((YTVIS_CLASSES, MINIVSPW_CLASSES), ids, strict=True)]


def test_small_data_with_the_papers_class_names_is_not_the_papers(tmp_path):
    text = page_of(write_test(tmp_path, fold_results(50), config=["config/vipmt/ytvis.yaml"]))
    assert "fold 1 has 50 videos here" in text and "(paper" not in text


# -- films ----------------------------------------------------------------------------------------------------------

def test_best_median_and_worst_are_those_of_the_first_run():
    j = [0.9, 0.1, 0.5, 0.3, 0.7, 0.8, 0.2]
    lines = [result(f"v{i}", run=1, j=(x,)) for i, x in enumerate(j)] + [result("other", run=2, j=(1.0,))]
    order, names = chosen(lines)
    assert [line["j"][0] for line in order] == sorted(j, reverse=True)
    shown = {order[i]["j"][0]: name for i, name in names.items()}
    assert shown == {0.9: "best", 0.8: "best", 0.7: "median", 0.5: "median", 0.2: "worst", 0.1: "worst"}
    assert list(chosen(lines[:1])[1].values()) == ["best"] and len(chosen(lines[:2])[1]) == 2


def test_a_kept_film_is_on_the_page_byte_for_byte_and_loops(tmp_path):
    folder = write_test(tmp_path / "test", [result("a", j=(0.5, 0.5))])
    with Film(tmp_path / "overlays" / "run0" / "cat" / "a") as film:        # beside test/, as make demo keeps them
        film.add(np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), np.uint8))
    text = page_of(folder)
    uri = re.search(r'<(?:video|img) src="data:[\w/]+;base64,([^"]+)"([^>]*)>', text)
    assert base64.b64decode(uri[1]) == film.path.read_bytes()
    assert film.path.suffix == ".gif" or "loop" in uri[2] and "autoplay" in uri[2] and "controls" in uri[2]
    elsewhere = write_test(tmp_path / "elsewhere", [result("a", j=(0.5, 0.5))])
    assert "No films: test.py keeps them" in page_of(elsewhere)
    assert "No films" not in page_of(elsewhere, films=tmp_path / "overlays")


def test_only_films_below_the_folder_are_read(tmp_path):
    """Neither by a link, nor by another kind of file under the name of a film."""
    secret, films = tmp_path / "secret.webm", tmp_path / "overlays"
    secret.write_bytes(b"\x1a\x45\xdf\xa3 secret")
    (films / "run0" / "cat").mkdir(parents=True)
    (films / "run0" / "cat" / "a.webm").symlink_to(secret)
    kept = film_folders(tmp_path)
    assert film_of(result("a"), kept) == (None, "no film was kept")
    assert film_of(result("../../../secret"), kept)[0] is None
    (films / "run0" / "cat" / "b.webm").write_bytes(b"root:x:0:0")
    assert film_of(result("b"), kept) == (None, "b.webm is no webm film")
    with open(films / "run0" / "cat" / "c.webm", "wb") as file:
        file.truncate(9 * 2 ** 20)
    assert film_of(result("c"), kept) == (None, "c.webm has 9 MiB, too much for this page")


# -- what a method says of every frame -----------------------------------------------------------------------------

def test_whatever_a_method_says_of_every_frame_is_shown_by_its_name(tmp_path):
    lines = [result("a", j=(0.1, 0.2), scale=[3.0, None], pred_iou=None), result("b", j=(0.4, 0.6), scale=[5, 4])]
    del lines[1]["pred_iou"], lines[1]["remembered"], lines[0]["remembered"]
    page = page_of(write_test(tmp_path, lines))
    assert "3 frames, mean 4, from 3 to 5. Rank correlation with J: 0.50" in plain(page)       # J 0.1, 0.4, 0.6
    assert "<h3><code>scale</code></h3>" in page and "J 15.0, F 40.0, 2 frames, scale 3" in page
    assert 'id="iou"' not in page and "remembered" not in page


def test_reliability_is_the_true_iou_of_tenths_that_are_predicted_alike(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(charts, "curves", lambda series, what, *_, **__: drawn.update({what: series}) or "")
    lines = [result(str(n), j=(0.1 * n, 0.1 * n), pred_iou=[0.05 * n + 0.3, 0.05 * n + 0.3]) for n in range(10)]
    page_of(write_test(tmp_path, lines))
    curve, right = drawn["mean true IoU of what is predicted alike"].values()
    assert np.allclose(curve, [(0.05 * n + 0.3, 0.1 * n) for n in range(10)]) and right == [(0, 0), (1, 1)]


def test_a_method_that_says_nothing_of_frames_gets_a_page(tmp_path):
    line = result()
    for key in ("pred_iou", "remembered", "frames", "seconds"):
        del line[key]
    page = page_of(write_test(tmp_path, [line]))
    assert 'id="frames"' not in page and 'id="iou"' not in page and "60.0 J" in plain(page)


# -- charts ---------------------------------------------------------------------------------------------------------

def test_colours_are_seen_on_both_papers():
    """Contrast of WCAG 2 for graphics: 3 to 1 at least."""
    def luminance(colour):
        parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return np.dot([0.2126, 0.7152, 0.0722], linear)
    papers = re.findall(r"--paper: (#\w{6})", (Path(charts.__file__).with_name("base.css")).read_text())
    assert len(papers) == 2
    for paper in papers:
        for colour in charts.COLOURS:
            dark, light = sorted(map(luminance, (paper, colour)))
            assert (light + 0.05) / (dark + 0.05) >= 3, (paper, colour)


def test_names_in_a_chart_are_no_markup():
    svg = charts.strips([("<script>", [50.0])], 'what"<b>')
    assert "&lt;script&gt;" in svg and "<script" not in svg and 'aria-label="what&#34;&lt;b&gt;"' in svg


def test_marks_stand_where_the_ticks_say():
    """Taken from the SVG: every frame is one point, between the numbers of both axes."""
    x, y = np.array([0.0, 0.2, 1.0]), np.array([1.0, 0.4, 0.0])
    svg = charts.cloud(x, y, "xy", "points")
    column, row = ({words: float(place) for place, words in re.findall(pattern, svg)} for pattern in (
        r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">([\d.]+)</text>',
        r'<text x="[\d.]+" y="([\d.]+)" text-anchor="end">([\d.]+)</text>'))
    dots = [tuple(map(float, dot)) for dot in re.findall(r"M([\d.]+) ([\d.]+)h0", svg)]
    expected = [(column[f"{a:g}"], row[f"{b:g}"] - 4) for a, b in zip(x, y, strict=True)]       # words hang 4 lower
    assert np.allclose(dots, expected, atol=0.11)


def test_what_is_counted_has_whole_numbers_on_its_axis():
    counted = charts.curves({"overflows": [(1, 0), (3, 1)]}, "")
    numbers = {float(text) for text in re.findall(r">([\d.]+)</text>", counted)}
    assert numbers == {1, 2, 3, 0} and "0.5" in charts.curves({"loss": [(1, 0.0), (3, 1.1)]}, "")
    assert re.findall(r'"middle">([\d.]+)<', charts.strips([("a", [0.1, 0.2, 0.3])], "")) == ["0", "1", "2"]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.3, 1.02), (3, 3.0001), (-1e30, 1e30), (0, 7e-12), (0, 60)])
def test_ticks_are_few_round_numbers_within_the_axis(low, high):
    found = charts.ticks(low, high)
    assert 2 <= len(found) <= 7 and low - 1e-5 * (high - low) <= found[0] < found[-1] <= high + 1e-5 * (high - low)
    assert np.log10(np.diff(found)) % 1 == pytest.approx(np.log10(found[1] - found[0]) % 1, abs=1e-3)


def test_flat_curves_and_frames_without_a_value_are_drawn():
    assert "nan" not in charts.curves({"lr": [(1, 0.0), (2, 0.0)]}, "flat") + charts.histogram({"x": np.ones(3)}, "one")
    svg = charts.strips([("a", [1.0, np.nan]), ("b", [0.0])], "strips")
    file = io.BytesIO(base64.b64decode(re.search(r'href="data:image/png;base64,([^"]*)"', svg)[1]))
    pixels = np.asarray(Image.open(file))
    assert pixels[..., 3].tolist() == [[255, 0], [255, 0]]
    assert pixels[0, 0, :3].tolist() == charts.VIRIDIS[255].tolist()
    assert pixels[1, 0, :3].tolist() == charts.VIRIDIS[0].tolist()


def test_long_curves_become_means_of_neighbours():
    values = np.random.default_rng(0).random(1001)
    thin = charts.thin(list(enumerate(values.tolist())), most=300)
    groups = [values[i:i + 4] for i in range(0, 1001, 4)]
    assert len(thin) == 251 and [y for _, y in thin] == pytest.approx([group.mean() for group in groups])


# -- what a folder may hold -----------------------------------------------------------------------------------------

def test_text_from_files_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    write_test(tmp_path, [result(f'{evil}"onload="x', evil)], finished=False)
    record = json.loads((tmp_path / "run.json").read_text())
    record |= {"name": evil, "command": ["python", "test.py", evil], "git": {"commit": evil}, "hardware": {"cpu": evil}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    write_training(tmp_path / "fold1", [{"step": 1, "losses": {evil: 1.0}}])
    text = page_of(tmp_path)
    assert "<script" not in text and 'onload="' not in text and text.count("&lt;script&gt;") > 5


def test_a_wrong_line_is_named(tmp_path):
    write_test(tmp_path, [result()])
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write(json.dumps(result("b", vc_window=5)) + "\n")
    with pytest.raises(ValueError, match="its lines are of several tests"):
        write_report(tmp_path)
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match="results.jsonl, line 3: no result of a test"):
        write_report(tmp_path)


@pytest.mark.parametrize("line", [{"losses": LOSSES}, {"step": "1"}, {"step": 1, "losses": {"a": "b"}},
                                  {"step": 1, "losses": {"a": float("inf")}}, {"step": 1, "validation": [1]}])
def test_a_wrong_line_of_the_log_is_named(tmp_path, line):
    write_training(tmp_path, [line])
    with pytest.raises(ValueError, match="log.jsonl, line 1: "):
        write_report(tmp_path)
    (tmp_path / "log.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(ValueError, match="log.jsonl"):
        write_report(tmp_path)


def test_folders_that_hold_little_or_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run here(.|\n)*Name the output folder"):
        write_report(tmp_path)
    describe_run(load_config(), tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="Below it there is one: .*mine"):
        write_report(tmp_path)
    assert "nothing logged yet" in page_of(tmp_path / "mine")
    assert "no video is done yet" in page_of(write_test(tmp_path / "test", [], finished=False))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "log.jsonl").write_text(json.dumps(steps(1)[0]) + '\n{"step": 2, "los')
    text = page_of(tmp_path / "bare")
    assert "logged up to step 1" in text and "There is no config.yaml" in text
    (tmp_path / "bare" / "run.json").write_text("[1]")
    with pytest.raises(ValueError, match="run.json: expected an object"):
        write_report(tmp_path / "bare")


@pytest.mark.parametrize("record", [{"command": 3, "git": [], "hardware": "x", "data": None, "earlier": [1]},
                                    {"command": [], "hardware": {"gpus": 1}, "versions": []}])
def test_a_strange_record_makes_a_page(tmp_path, record):
    write_test(tmp_path, [result(pred_iou=None, remembered=None, frames=None)])
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert "complete, 1 results" in page_of(tmp_path)


def test_a_missing_folder_of_films_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path), "--films", str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError, match="--films .*none: no such folder"):
        report_command.parse_arguments()


# -- from within a run ----------------------------------------------------------------------------------------------

def test_train_and_test_write_their_reports(tmp_path, monkeypatch, demo_root, caplog):
    settings = [f"data.root={demo_root}", *TINY, "train.epochs=1", "data.clips=2", "train.lr=0.0"]
    folder = tmp_path / "fold1"
    command(monkeypatch, train, "--fold", 1, "--output", folder, *settings, "validate.classes=base_holdout",
            "validate.every=1", "validate.holdout=0.2", "validate.episodes=1")
    assert "Validation" in (folder / "report.html").read_text()
    line = read_json_lines(folder / "log.jsonl")[0]
    assert line["lr"] == 0
    command(monkeypatch, test_script, "--fold", 1, "--checkpoint", folder / "last.pth", "--output", folder / "test",
            "--save-overlays", tmp_path / "films", *settings)
    for page in (folder / "test" / "report.html", folder / "report.html"):
        text = page.read_text()
        assert "Test, fold 1: complete" in text and "No films" not in text and 'src="data:' in text


def test_a_report_that_fails_is_one_warning(tmp_path, caplog):
    (tmp_path / "results.jsonl").write_text("[]\n")
    refresh_report(tmp_path)
    assert len(caplog.records) == 1 and "no report of" in caplog.text and not (tmp_path / "report.html").exists()
