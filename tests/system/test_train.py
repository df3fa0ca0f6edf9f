"""train.py as a user runs it, on a small synthetic data set: it learns, stops, continues and complains."""
import json
import math
import os
import shutil
import signal

import pytest
import torch
from material import DEMO, TINY, command, results_of, same_weights

import test as test_script
import train
from models import get_method
from tools.workshop import replay_step
from utils.checkpoint import load_checkpoint
from utils.config import apply_overrides, load_config, user_errors
from utils.records import read_json_lines
from utils.training import step as optimising

SHORT = ["data.samples_per_class=1", "train.epochs=1"]       # three steps

pytestmark = pytest.mark.usefixtures("no_pages")


@pytest.fixture
def run(monkeypatch, demo_root, tmp_path):
    """run(name, *arguments): train.py on fold 1 into tmp_path/name  ->  that folder"""
    def start(name, *arguments):
        output = tmp_path / name
        command(monkeypatch, train, "--fold", 1, "--output", output, f"data.root={demo_root}", *TINY, *arguments)
        return output
    return start


@pytest.fixture
def at_call(monkeypatch):
    """at_call(place, name, n, do): `do` runs before the n-th call of a function  ->  the list of calls so far"""
    def patch(place, name, n, do):
        honest, calls = getattr(place, name), []

        def counted(*arguments):
            calls.append(arguments)
            if len(calls) == n:
                do()
            return honest(*arguments)
        monkeypatch.setattr(place, name, counted)
        return calls
    return patch


def weights(folder, name="last"):
    return load_checkpoint(folder / f"{name}.pth")["model"]


def progress(folder):
    return load_checkpoint(folder / "last.pth")["progress"]


def untrained(*settings):
    """Weights as they are before the first step"""
    torch.manual_seed(42)
    return get_method("vipmt").build(load_config([DEMO], [*TINY, *settings])).state_dict()


def interrupt():
    raise KeyboardInterrupt


# Stopping and continuing: the weights are those of demo_run, which nobody stopped

@pytest.mark.parametrize("workers", [0, 2])
def test_resume_equals_uninterrupted_run(run, demo_run, at_call, workers):
    """Stopped in the middle of the second epoch, a step after the last checkpoint; dropout is on, and so are workers,
    which the uninterrupted run has none of."""
    settings = [f"data.workers={workers}", "checkpoint.every_steps=4"]
    at_call(train, "optimise", 10, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("broken", *settings)
    resumed = run("broken", *settings, "--resume")
    first, second = (load_checkpoint(f / "last.pth") for f in (demo_run, resumed))
    assert same_weights(first["model"], second["model"]) and first["progress"] == second["progress"]
    assert all(torch.equal(first["optimizer"]["state"][i]["exp_avg"], second["optimizer"]["state"][i]["exp_avg"])
               for i in first["optimizer"]["state"])
    logs = [[(x["step"], x["losses"]) for x in read_json_lines(f / "log.jsonl")] for f in (demo_run, resumed)]
    assert logs[0] == logs[1] and len(logs[0]) == 12      # 12 classes x 2 samples / 4, two epochs; none twice


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_ends_with_its_own_status(run, demo_run, at_call, tmp_path, number):
    calls = at_call(train, "optimise", 8, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stopped:
        run("broken")
    assert stopped.value.code == 75 and len(calls) == 9        # the wish is seen before the next step and agreed in it
    assert progress(tmp_path / "broken")["global_step"] == 9
    assert same_weights(weights(demo_run), weights(run("broken", "--resume")))


def test_a_second_interrupt_stops_at_once(run, monkeypatch):
    def twice(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still running")
    monkeypatch.setattr(train, "optimise", twice)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")


def test_a_damaged_last_checkpoint_costs_only_the_steps_since_the_one_before(run, demo_run, caplog):
    folder = run("broken", "checkpoint.every_steps=4", "train.epochs=1")
    file = folder / "last.pth"
    file.write_bytes(file.read_bytes()[:5000])
    assert same_weights(weights(demo_run), weights(run("broken", "--resume")))
    assert "damaged" in caplog.text


def test_an_existing_run_is_not_overwritten_nor_resumed_with_other_settings(monkeypatch, demo_root, demo_run):
    def again(*arguments):
        command(monkeypatch, train, "--fold", 1, "--output", demo_run, f"data.root={demo_root}", *TINY, *arguments)
    before = (demo_run / "last.pth").read_bytes()
    with pytest.raises(ValueError, match="holds a run already.*\n.*--resume"):
        again()
    with pytest.raises(ValueError, match="train.lr = 0.002, now it is 0.1"):
        again("train.lr=0.1", "--resume")
    with pytest.raises(ValueError, match="holds a training.\n"):
        command(monkeypatch, test_script, "--fold", 1, "--output", demo_run, f"data.root={demo_root}", *TINY,
                "--checkpoint", demo_run / "last.pth")
    assert (demo_run / "last.pth").read_bytes() == before
    assert "train.py" in json.loads((demo_run / "run.json").read_text())["command"]


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_a_run_that_came_to_no_checkpoint_starts_anew_and_its_log_too(run, tmp_path, caplog, flags):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 1, "losses": {"final": 9.0}}\n{"step": 2}\n')
    lines = read_json_lines(run("run", *SHORT, *flags) / "log.jsonl")
    assert [line["step"] for line in lines if "losses" in line] == [1, 2, 3] and "came to no checkpoint" in caplog.text
    for file in (tmp_path / "run").glob("last*.pth"):
        file.rename(tmp_path / "run" / "best.pth")
    with pytest.raises(ValueError, match="holds a run already"):
        run("run", *SHORT, *flags)


# Validation

VALIDATED = [*SHORT, "validate.classes=base_holdout", "validate.every=1", "validate.holdout=0.2", "validate.episodes=3"]


def validations(folder):
    return [line for line in read_json_lines(folder / "log.jsonl") if "validation" in line]


@pytest.mark.parametrize("memory", ["predicted", "ground_truth"])
def test_validation_on_held_out_base_videos_keeps_the_best(run, memory):
    folder = run("validated", *VALIDATED, f"validate.memory={memory}")
    line, = validations(folder)
    assert line["videos"] == 3 and set(line["validation"]) == {"j", "f", "vc"}
    assert same_weights(weights(folder, "best"), weights(folder))


def test_a_run_stopped_in_its_validation_validates_after_all(run, at_call, tmp_path):
    whole, folder = run("whole", *VALIDATED), tmp_path / "broken"
    at_call(train, "evaluate", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        run("broken", *VALIDATED)
    assert progress(folder)["validation_due"] and not (folder / "best.pth").exists()
    run("broken", *VALIDATED, "--resume")
    assert same_weights(weights(whole, "best"), weights(folder, "best"))
    assert validations(whole) == validations(folder) and len(validations(folder)) == 1


# Numbers that are not finite

def test_non_finite_loss_names_loss_step_and_episodes_and_keeps_the_checkpoint(run, monkeypatch, tmp_path):
    honest, calls = optimising.fetch, []

    def spoiled(*arguments):
        values, agreed = honest(*arguments)
        calls.append(1)
        if len(calls) == 4:
            values["losses"]["ccds"] = float("nan")
        return values, agreed
    monkeypatch.setattr(optimising, "fetch", spoiled)
    message = r"(?s)loss 'ccds' is nan at step 4; episodes: \w+/\S+, [^.]*\.\n.*replay_step.*train\.lr"
    with pytest.raises(FloatingPointError, match=message):
        run("nan", *SHORT, "train.epochs=2")
    assert progress(tmp_path / "nan")["global_step"] == 3      # the end of the first epoch
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "nan").values())
    kept = load_checkpoint(tmp_path / "nan" / "nonfinite_step4.pth")
    assert kept["step"] == 4 and len(kept["batch"]["ids"]) == 4
    assert same_weights(kept["model"], weights(tmp_path / "nan"))      # weights before the step, not after it


def test_a_saved_step_is_repeated_with_the_same_losses_and_names_the_module(run, monkeypatch, tmp_path):
    """Weights in the last layer whose sum is infinite; the repetition has the losses of the step, clip by clip."""
    seen, honest = [], optimising.fetch
    monkeypatch.setattr(optimising, "fetch", lambda units, *rest: seen.append(units) or honest(units, *rest))
    original = train.in_parallel

    def broken(step, device):
        with torch.no_grad():
            step.model.final_reduce.weight[0] = 3e38
        return original(step, device)
    monkeypatch.setattr(train, "in_parallel", broken)
    with pytest.raises(FloatingPointError, match="replay_step"):
        run("nan")
    content = replay_step.read_step(tmp_path / "nan" / "nonfinite_step1.pth")
    clips, norms, found = replay_step.replay(content, apply_overrides(content["config"]), torch.device("cpu"))
    assert found["first"] == "final_reduce (Conv2d)"
    for repeated, (losses, _) in zip(clips, seen[0], strict=True):
        for name, value in losses.items():
            assert repeated[name] == float(value) or math.isnan(repeated[name]) and math.isnan(value), name
    assert "final_reduce (Conv2d)" in replay_step.report(clips, norms, found, content["batch"]["ids"])


# What is trained

def test_training_changes_what_it_should_and_logs_it(demo_run):
    record = json.loads((demo_run / "run.json").read_text())
    assert record["seed"] == 42 and (demo_run / "config.yaml").is_file()
    assert (demo_run / "report.html").is_file()
    line = read_json_lines(demo_run / "log.jsonl")[-1]
    assert set(line["losses"]) == {"final", "initial", "aux_query", "aux_support", "cross_entropy", "ccds", "iou_net"}
    assert 0 <= line["iou"] <= 1 and line["samples_per_s"] > 0 and line["data_s"] >= 0
    before = untrained()
    moved = {k for k, v in weights(demo_run).items() if not torch.equal(v, before[k])}
    assert {"prototype", "level_embed", "iou_net.fc2.weight", "backbone.body.layer1.shortcut.weight"} <= moved


def test_backward_per_clip_and_at_once_train_alike_and_leave_a_frozen_backbone_as_it_is(run):
    settings = [*SHORT, "backbone.trained=false", "model.dropout=0.0", "model.feature_dropout=0.0"]
    a = weights(run("a", *settings, "train.backward=per_clip"))
    b = weights(run("b", *settings, "train.backward=once"))
    apart = {k: float((a[k] - b[k]).abs().mean()) for k in a}
    assert max(apart.values()) < 1e-3, apart       # a tenth of what three steps of Adam move
    before = untrained(*settings)
    names = [k for k in before if k.startswith("backbone.")]
    assert names and all(torch.equal(before[k], a[k]) for k in names)


def test_flags_of_the_released_readme_work(monkeypatch, demo_root, tmp_path):
    command(monkeypatch, train, "--group", 2, "--batch_size", 3, "--output", tmp_path / "r", f"data.root={demo_root}",
            *TINY, *SHORT)
    state = load_checkpoint(tmp_path / "r" / "last.pth")
    assert state["fold"] == 2 and state["config"]["train"]["batch_size"] == 3


def test_a_run_continues_with_its_own_data_only(run, monkeypatch, demo_root, tmp_path):
    """Training and test, after annotations or images at the same place became others; the same data may move."""
    places = [shutil.copytree(demo_root, tmp_path / name) for name in ("data", "moved")]
    run("run", *SHORT, f"data.root={places[0]}")
    run("run", *SHORT, f"data.root={places[1]}", "--resume", "train.epochs=2")

    def tested(root, runs=1):
        command(monkeypatch, test_script, "--fold", 1, f"data.root={root}", *TINY, "--runs", runs, "--checkpoint",
                tmp_path / "run" / "last.pth", "--output", tmp_path / "test")
    tested(places[0])
    tested(places[1], runs=2)
    for image in places[1].rglob("*.jpg"):
        image.write_bytes(image.read_bytes() + b"more")
    with pytest.raises(ValueError, match="last.pth was trained with other data: 128 of 128 sampled images and masks"):
        run("run", *SHORT, f"data.root={places[1]}", "--resume", "train.epochs=3")
    with pytest.raises(ValueError, match="results.jsonl belongs to another test: 128 of 128 sampled images and masks"):
        tested(places[1], runs=3)


# Its test

def test_trained_model_is_tested_and_the_other_folds_are_refused(monkeypatch, demo_root, demo_run, tmp_path):
    arguments = [f"data.root={demo_root}", *TINY, "--checkpoint", demo_run / "last.pth", "--output", tmp_path,
                 "--runs", 2]
    command(monkeypatch, test_script, "--fold", 1, *arguments)
    lines = read_json_lines(tmp_path / "results.jsonl")
    assert {line["run"] for line in lines} == {0, 1} and len({line["class"] for line in lines}) == 4
    assert all(len(line["j"]) == len(line["frames"]) == len(line["pred_iou"]) for line in lines)
    with pytest.raises(ValueError, match="fold"):
        command(monkeypatch, test_script, "--fold", 2, *arguments)


def test_composed_clips_are_tested_with_supports_of_a_wrong_category_too(monkeypatch, demo_root, demo_run, tmp_path):
    command(monkeypatch, test_script, "--fold", 1, f"data.root={demo_root}", *TINY, "--checkpoint",
            demo_run / "last.pth", "--output", tmp_path, "--runs", 1, "test.compose=1.0", "test.swap_supports=true")
    lines = results_of(tmp_path)
    assert all(line["swapped_class"] == line["composed_with"] != line["class"] for line in lines)
    assert all(len(line["j"]) == len(line["j_swapped"]) == len(line["overlap"]) for line in lines)
    table = (tmp_path / "listening.md").read_text()
    assert "mean, both shown" in table and "overlap" in table


def test_a_broken_image_stops_the_test_and_the_same_command_continues(monkeypatch, demo_root, demo_run, tmp_path):
    """Two workers read ahead; videos before the broken one are kept, no line or film is lost, double or torn."""
    data = tmp_path / "data"
    shutil.copytree(demo_root, data)

    def tested(name):
        where = tmp_path / name
        command(monkeypatch, test_script, "--fold", 1, f"data.root={data}", *TINY, "data.workers=2", "--runs", 1,
                "test.resolution=original", "--checkpoint", demo_run / "last.pth", "--output", where,
                "--save-masks", where / "masks", "--save-overlays", where / "films")
        files = [p for p in where.rglob("*") if p.suffix in (".png", ".webm", ".mp4", ".gif") and p.parent != where]
        return results_of(where), {p.relative_to(where) for p in files}

    lines, files = tested("whole")
    assert len(files) == len(lines) + sum(len(line["frames"]) for line in lines)
    used = {frame for line in lines[:4] for frame in (*line["frames"], *line["support_frames"])}
    late = next(n for n, line in enumerate(lines[4:], 4) if line["frames"][5] not in used)
    image = data / "JPEGImages" / lines[late]["frames"][5]
    healthy = image.read_bytes()
    image.write_bytes(healthy[:100])
    with pytest.raises(ValueError, match="is truncated"):
        tested("broken")
    before = read_json_lines(tmp_path / "broken" / "results.jsonl")
    assert 4 <= len(before) <= late and not list((tmp_path / "broken" / "films").rglob(".*"))
    image.write_bytes(healthy)
    assert tested("broken") == (lines, files)


@pytest.mark.parametrize("mistake, message", [
    (["data.rot=x"], "did you mean 'root'"), (["train.lr=fast"], "a number"), (["data.root=nowhere"], "no train.json"),
    (["backbone.name=resnet50", "backbone.weights=nowhere.pth", "backbone.trained=false"], "nowhere.pth"),
])
def test_a_mistake_is_one_message_and_no_traceback(run, capsys, mistake, message):
    with pytest.raises(SystemExit) as stopped, user_errors():
        run("wrong", *mistake)
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and message in printed and "Traceback" not in printed
