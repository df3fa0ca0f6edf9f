"""tools/report.py: its numbers are the run's, whatever a folder holds ends in a page or in one clear error."""
import base64
import json
import logging
import re
import sys
from statistics import mean, stdev

import cv2
import numpy as np
import pytest
from test_explain import Parsed
from test_train import TINY, command

import test as test_script
import train
from dataloaders.datasets.folds import YTVIS_CLASSES, split_classes
from tools import report
from utils.config import load_config
from utils.evaluation.tables import class_table
from utils.records import JsonLines, describe_run, read_json_lines
from utils.pictures.film import Film
from utils.pictures.overlay import save_palette_mask
from utils.report import charts as report_charts
from utils.report.films import Kept, chosen, film_of, kept_by
from utils.report.read import read_parts
from utils.training import log as events

LOSSES = {"final": 2.0, "ccds": 0.5}


def result(video="v1", name="cat", run=0, j=(0.5, 0.7), **more):
    """A line of results.jsonl, complete"""
    return {"fold": 1, "run": run, "class_id": 1, "class": name, "video": video, "j": list(j), "f": [0.4] * len(j),
            "vc": [0.9], "vc_variant": "vipmt", "vc_window": 7, "frames": [f"{video}/{i}.jpg" for i in range(len(j))],
            "pred_iou": [0.6] * len(j), "remembered": [True] + [False] * (len(j) - 1), "seconds": 0.5} | more


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
    text = report.write_report(folder, **options).read_text(encoding="utf-8")
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
    assert "Test of fold 1: complete, 4 results: 2 videos, 2 runs." in text
    assert "2.0 s for 6 frames, 3.0 frames per second" in text
    assert "4 of 6 frames entered memory, 66.7 %" in text
    taken, left = mean([0.5, 0.2, 0.8, 0.4]), mean([0.7, 0.8])
    assert f"Mean true IoU of those that did: {taken:.3f}, of the others: {left:.3f}" in text
    error = mean(abs(0.6 - x) for x in (0.5, 0.7, 0.2, 0.8, 0.8, 0.4))
    assert f"Mean distance of predicted from true IoU {error:.3f}" in text


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
    assert "not at its end , logged up to step 8, in epoch 2 of 3" in text
    assert "2.5 loss, last 5 %" in text and "25.0 training IoU" in text and "31.0 best validation J" in text
    assert "1 spikes of the loss, the largest: step 5 (6.0 times)" in text
    assert "500 ms (mean of the logged steps)" in text and "about 4.0 s" in text         # 8 steps of 2 / 4.0 seconds
    assert "Loss final" in text and "Loss ccds" in text and "Sum of losses" in text and "Validation" in text


def test_iounet_training_has_its_one_loss(tmp_path):
    write_training(tmp_path, steps(4, losses={"iou_net": 0.7}), config="config/demo/iounet_video.yaml")
    text = plain(page_of(tmp_path))
    assert "Loss iou_net" in text and "Sum of losses" not in text and "model.method vipmt iounet" in text


def test_config_in_brief_is_what_differs_from_the_main_config(tmp_path):
    write_training(tmp_path, [], ["train.lr=0.25"], config="config/vipmt/ytvis.yaml")
    text = plain(page_of(tmp_path))
    assert "train.lr 0.0005 0.25" in text and "model.dim" not in text
    describe_run(load_config(), tmp_path)
    assert "Nothing: it is the main config." in page_of(tmp_path)


def test_a_config_of_another_version_is_a_note_and_no_error(tmp_path):
    write_training(tmp_path, steps(3))
    (tmp_path / "config.yaml").write_text("name: <old>\ngone: 3\n")
    assert "unknown key &#x27;gone&#x27;" in page_of(tmp_path)


def test_training_its_test_and_other_folds_share_a_page(tmp_path):
    write_training(tmp_path / "fold1", steps(3))
    write_test(tmp_path / "fold1" / "test", [result("a", j=(0.5,))])
    write_test(tmp_path / "fold2" / "test", [result("b", "dog", j=(0.7,), fold=2)])
    text = plain(page_of(tmp_path))
    assert "demo, folds 1, 2: training and test" in text and "fold 1 50.0 40.0 90.0" in text
    assert "fold 2 70.0 40.0 90.0" in text and [part.fold for part in read_parts(tmp_path)] == [1, 1, 2]
    other = tmp_path / "several"
    for fold in (1, 2):
        write_test(other / "test" / f"fold{fold}", [result(fold=fold)])
    assert [part.fold for part in read_parts(other)] == [1, 2]


# -- beside the paper -----------------------------------------------------------------------------------------------

def fold_results(videos, runs=1):
    names = [YTVIS_CLASSES[number] for number in split_classes(YTVIS_CLASSES, 1)[1]]
    return [result(f"v{i}", names[i % 10], run, (0.5,)) for run in range(runs) for i in range(videos)]


def test_the_papers_numbers_stand_beside_its_own_classes_only(tmp_path):
    text = plain(page_of(write_test(tmp_path / "a", fold_results(100, 5), config=["config/vipmt/ytvis.yaml"])))
    assert "VIPMT (paper, ytvis) 50.6 70.9 68.8 66.5 64.2" in text and "this run 50.0 ± 0.0" in text
    assert "Not the paper's protocol" not in text and "&#x27;" not in text.replace("paper&#x27;s", "")
    settings = ["data.shots=1", "test.protocol=I"]
    text = plain(page_of(write_test(tmp_path / "b", fold_results(100), ["config/vipmt/ytvis.yaml"], False, settings)))
    for departure in ("unfinished", "1 run, the paper has 5", "data.shots 1, the paper 5", "test.protocol I, the"):
        assert departure in text.partition("Not the paper")[2]
    text = plain(page_of(write_test(tmp_path / "c", [result()])))
    assert "the 1 classes tested here are not the 10 test classes of fold 1" in text and "(paper" not in text


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


@pytest.mark.parametrize("at_input_size", [True, False])
def test_of_kept_masks_a_film_over_the_frames_is_made(tmp_path, at_input_size):
    """The masks are red in it, at the place where they are set."""
    size = (72, 120) if at_input_size else (144, 240)
    config = load_config(["config/demo/ytvis.yaml"], [f"data.root={tmp_path}"])
    (tmp_path / "JPEGImages" / "a").mkdir(parents=True)
    mask = np.zeros(size, bool)
    mask[size[0] // 2:, :size[1] // 2] = True
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"JPEGImages/a/{i}.jpg"), np.full((144, 240, 3), 120, np.uint8))
        save_palette_mask(tmp_path / f"masks/run0/cat/a/{i}.png", mask)
    (mime, uri), why = film_of(result("a"), Kept([], [tmp_path / "masks"]), config)
    file = tmp_path / f"film.{mime.partition('/')[2]}"
    file.write_bytes(base64.b64decode(uri.partition(",")[2]))
    frames = film_frames(file)
    assert len(frames) == 2 and frames[0].shape == (*size, 3) and not why
    redness = frames[0][..., 2] - frames[0][..., 0]
    assert redness[mask].mean() > 40 > 10 > abs(redness[~mask]).mean()
    (tmp_path / "JPEGImages/a/1.jpg").unlink()
    assert film_of(result("a"), Kept([], [tmp_path / "masks"]), config) == (None, "image of frame 1.jpg is missing")


def test_only_films_below_the_folder_are_read(tmp_path):
    """Neither by a link, nor by another kind of file under the name of a film."""
    secret, films = tmp_path / "secret.webm", tmp_path / "overlays"
    secret.write_bytes(b"\x1a\x45\xdf\xa3 secret")
    (films / "run0" / "cat").mkdir(parents=True)
    (films / "run0" / "cat" / "a.webm").symlink_to(secret)
    kept = kept_by(tmp_path)
    assert film_of(result("a"), kept, None) == (None, "no film and no masks were kept")
    assert film_of(result("../../../secret"), kept, None)[0] is None
    (films / "run0" / "cat" / "b.webm").write_bytes(b"root:x:0:0")
    assert film_of(result("b"), kept, None) == (None, "b.webm is no webm film")
    with open(films / "run0" / "cat" / "c.webm", "wb") as file:
        file.truncate(9 * 2 ** 20)
    assert film_of(result("c"), kept, None) == (None, "c.webm has 9 MiB, too much for this page")


# -- charts ---------------------------------------------------------------------------------------------------------

def test_every_frame_is_one_point_and_every_remembered_frame_one_cell(tmp_path):
    lines = [result("a", j=(0.1, 0.2, 0.3)), result("b", j=(0.4, 0.5))]
    text = page_of(write_test(tmp_path, lines))
    spots = {name: path.count("M") for name, path in re.findall(r'class="spots (\w+)" d="([^"]*)"', text)}
    assert spots == {"taken": 2, "left": 3}
    assert text.count('class="taken"') == 2 and text.count('class="empty"') == 2


def test_points_lie_where_their_values_are():
    text = report_charts.points([1.0], [0.0], [False])
    x, y = re.search(r'class="spots left" d="M([\d.]+) ([\d.]+)h0"', text).groups()
    assert (float(x), float(y)) == (report_charts.LEFT, report_charts.TOP)         # top left: said 1, is 0


def test_long_curves_become_means_of_neighbours():
    values = np.random.default_rng(0).random(1001)
    thin = report_charts.thin(list(enumerate(values.tolist())), most=300)
    groups = [values[i:i + 4] for i in range(0, 1001, 4)]
    assert len(thin) == 251 and [y for _, y in thin] == pytest.approx([group.mean() for group in groups])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0), (5, 900), (-3, 7), (1e-9, 4e-9), (2, 2), (0, 0.3),
                                           (0, 1e12)])
def test_ticks_cover_what_is_drawn_and_are_few(low, high):
    ticks = report_charts.nice_ticks(low, high)
    assert ticks[0] <= low + 1e-9 and ticks[-1] >= high - 1e-9 and 1 <= len(ticks) <= 8
    assert len(ticks) == len(set(ticks)) and ticks == sorted(ticks)


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


@pytest.mark.parametrize(("change", "message"), [
    ({"j": [0.5, float("nan")]}, "j: expected"), ({"j": []}, "j: expected"), ({"f": [0.1]}, "f: expected"),
    ({"j": [10 ** 400, 0]}, "j: expected"), ({"video": "../a"}, "video: expected a name"),
    ({"class": "/etc"}, "class: expected a name"), ({"class": 3}, "class: expected a name"),
    ({"run": "0"}, "run: expected an integer"), ({"fold": 9}, "fold, vc_window: found 9"),
    ({"vc": ["x"]}, "vc: expected"), ({"vc_variant": "new"}, "vc_variant: found"),
    ({"pred_iou": [0.5]}, "pred_iou: expected one value per frame"), ({"remembered": [1, 0]}, "remembered: expected"),
    ({"frames": ["../x", "y"]}, "frames: expected"), ({"seconds": -1}, "seconds: expected"), (None, "no object")])
def test_a_wrong_line_is_named(tmp_path, change, message):
    write_test(tmp_path, [result()])
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write(json.dumps(change and result("b") | change) + "\n")
    with pytest.raises(ValueError, match=rf"results.jsonl, line 2: {re.escape(message)}(.|\n)*Delete the line"):
        report.write_report(tmp_path)


@pytest.mark.parametrize("line", [{"losses": LOSSES}, {"step": "1"}, {"step": 1, "losses": {"a": "b"}},
                                  {"step": 1, "losses": {"a": float("inf")}}, {"step": 1, "validation": [1]}])
def test_a_wrong_line_of_the_log_is_named(tmp_path, line):
    write_training(tmp_path, [line])
    with pytest.raises(ValueError, match="log.jsonl, line 1: "):
        report.write_report(tmp_path)
    (tmp_path / "log.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(ValueError, match="log.jsonl"):
        report.write_report(tmp_path)


def test_folders_that_hold_little_or_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run here(.|\n)*Name the output folder"):
        report.write_report(tmp_path)
    describe_run(load_config(), tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="Below it there is one: .*mine"):
        report.write_report(tmp_path)
    assert "nothing logged yet" in page_of(tmp_path / "mine")
    assert "no video is done yet" in page_of(write_test(tmp_path / "test", [], finished=False))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "log.jsonl").write_text(json.dumps(steps(1)[0]) + '\n{"step": 2, "los')
    text = page_of(tmp_path / "bare")
    assert "logged up to step 1" in text and "There is no config.yaml" in text
    (tmp_path / "bare" / "run.json").write_text("[1]")
    with pytest.raises(ValueError, match="run.json: expected an object"):
        report.write_report(tmp_path / "bare")


@pytest.mark.parametrize("record", [{"command": 3, "git": [], "hardware": "x", "data": None, "earlier": [1]},
                                    {"command": [], "hardware": {"gpus": 1}, "versions": []}])
def test_a_strange_record_makes_a_page(tmp_path, record):
    write_test(tmp_path, [result(pred_iou=None, remembered=None, frames=None)])
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert "predicts no IoU" in page_of(tmp_path)


def test_a_missing_folder_of_films_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path), "--films", str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError, match="--films .*none: no such folder"):
        report.parse_arguments()


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
        assert "Test of fold 1: complete" in text and "No films" not in text and 'src="data:' in text


def test_a_report_that_fails_is_one_warning(tmp_path, caplog):
    (tmp_path / "results.jsonl").write_text("[]\n")
    report.refresh_report(tmp_path)
    assert len(caplog.records) == 1 and "no report of" in caplog.text and not (tmp_path / "report.html").exists()


class Writer:
    """Stands for TensorBoard's SummaryWriter."""
    made = []

    def __init__(self, folder, purge_step=None):
        self.folder, self.purge_step, self.scalars = folder, purge_step, []
        self.made.append(self)

    def add_scalar(self, name, value, step):
        if name == "train/broken":
            raise OSError("disk full")
        self.scalars.append((name, value, step))

    def flush(self):
        pass

    close = flush


@pytest.fixture
def writers(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", type(sys)("fake"))
    sys.modules["torch.utils.tensorboard"].SummaryWriter = Writer
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def test_events_have_loss_terms_rate_and_validation(tmp_path, writers):
    with events.TrainingLog(tmp_path / "log.jsonl") as log:
        log.append({"step": 3, "epoch": 0, "losses": {"a": 1.0, "b": 2.0}, "iou": 0.5, "lr": 0.1, "grad_norm": None})
        log.append({"step": 4, "epoch": 1, "videos": 9, "validation": {"j": 0.7}})
    assert writers[0].scalars == [("loss/a", 1.0, 3), ("loss/b", 2.0, 3), ("loss/sum", 3.0, 3), ("train/iou", 0.5, 3),
                                  ("train/lr", 0.1, 3), ("validation/j", 0.7, 4)]
    with events.TrainingLog(tmp_path / "log.jsonl"):
        pass
    assert writers[0].purge_step is None and writers[1].purge_step == 5       # continued: what comes later is replaced


def test_events_that_fail_leave_the_log_whole(tmp_path, writers, caplog):
    with events.TrainingLog(tmp_path / "log.jsonl") as log:
        log.append({"step": 1, "broken": 1})
        log.append({"step": 2, "lr": 1})
    assert len(read_json_lines(tmp_path / "log.jsonl")) == 2
    assert not writers[0].scalars and caplog.text.count("no more events") == 1


def test_without_tensorboard_or_path_there_are_no_events(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    caplog.set_level(logging.INFO)
    with events.TrainingLog(tmp_path / "log.jsonl") as log, events.TrainingLog(None) as none:
        log.append({"step": 1})
        none.append({"step": 1})
    assert not caplog.records and [file.name for file in tmp_path.iterdir()] == ["log.jsonl"]


def test_tensorboard_reads_the_events(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with events.TrainingLog(tmp_path / "log.jsonl") as log:
        log.append({"step": 3, "losses": {"a": 1.5}})
    found = reader.EventAccumulator(str(tmp_path / events.FOLDER)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss/a")] == [(3, 1.5)]
    assert isinstance(log, JsonLines)


def film_frames(file):
    reader, frames = cv2.VideoCapture(str(file)), []
    while (read := reader.read())[0]:
        frames.append(read[1].astype(int))
    assert frames
    return frames
