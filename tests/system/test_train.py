"""train.py as a user runs it, on a small synthetic data set: it learns, stops, continues and complains."""
import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

import test as test_script
import train
from tools.workshop import replay_step
from utils.checkpoint import load_checkpoint
from utils.config import apply_overrides, user_errors
from utils.records import read_json_lines
from utils.training import step as optimising

TINY = ["data.size=[48, 80]", "data.shots=2", "data.clip_length=2", "data.clips=3", "data.samples_per_class=2",
        "data.few_videos=repeat", "train.batch_size=4", "train.lr=2.0e-3",
        "backbone.width=8", "model.dim=16", "model.layers=2", "model.heads=2", "model.ffn_dim=16", "model.dropout=0.1",
        "iou_net.dim=4", "iou_net.hidden=8", "train.epochs=2", "train.log_every=1", "memory.min_iou=0.0"]


def command(monkeypatch, script, *arguments):
    line = [f"{script.__name__}.py", "--config", "config/demo/ytvis.yaml", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", line)
    script.main()


@pytest.fixture
def run(monkeypatch, demo_root, tmp_path):
    """run(name, *arguments): train.py on fold 1 into tmp_path/name  ->  that folder"""
    def start(name, *arguments):
        output = tmp_path / name
        command(monkeypatch, train, "--fold", 1, "--output", output, f"data.root={demo_root}", *TINY, *arguments)
        return output
    return start


def weights(folder, name="last"):
    return load_checkpoint(folder / f"{name}.pth")["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_equals_uninterrupted_run(run, monkeypatch, workers):
    """Stopped in the middle of the second epoch, a step after the last checkpoint, also mid-epoch; dropout is on."""
    settings = [f"data.workers={workers}", "checkpoint.every_steps=4"]
    whole = run("whole", *settings)
    honest, calls = train.optimise, []

    def stops(*arguments):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return honest(*arguments)
    monkeypatch.setattr(train, "optimise", stops)
    with pytest.raises(KeyboardInterrupt):
        run("broken", *settings)
    monkeypatch.setattr(train, "optimise", honest)
    resumed = run("broken", *settings, "--resume")
    assert same(weights(whole), weights(resumed))
    first, second = (load_checkpoint(f / "last.pth") for f in (whole, resumed))
    assert first["progress"] == second["progress"]
    assert all(torch.equal(first["optimizer"]["state"][i]["exp_avg"], second["optimizer"]["state"][i]["exp_avg"])
               for i in first["optimizer"]["state"])
    logs = [[(x["step"], x["losses"]) for x in read_json_lines(f / "log.jsonl")] for f in (whole, resumed)]
    assert logs[0] == logs[1] and len(logs[0]) == 12      # 12 classes x 2 samples / 4, two epochs; none twice


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_ends_with_its_own_status(run, monkeypatch, number):
    whole, honest, calls = run("whole"), train.optimise, []

    def warned(*arguments):
        calls.append(1)
        if len(calls) == 8:
            os.kill(os.getpid(), number)
        return honest(*arguments)
    monkeypatch.setattr(train, "optimise", warned)
    with pytest.raises(SystemExit) as stopped:
        run("broken")
    assert stopped.value.code == 75 and len(calls) == 9        # the wish is seen before the next step and agreed in it
    folder = whole.parent / "broken"
    assert load_checkpoint(folder / "last.pth")["progress"]["steps"] == 9
    assert same(weights(whole), weights(run("broken", "--resume")))


def test_a_second_interrupt_stops_at_once(run, monkeypatch):
    def twice(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still running")
    monkeypatch.setattr(train, "optimise", twice)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")


def test_a_run_stopped_in_its_validation_validates_after_all(run, monkeypatch):
    settings = ["validate.classes=base_holdout", "validate.every=1", "validate.holdout=0.2", "validate.episodes=3",
                "train.epochs=1"]
    whole, honest = run("whole", *settings), train.evaluate

    def stopped(start, episodes, *others):
        os.kill(os.getpid(), signal.SIGTERM)
        return honest(start, episodes, *others)
    monkeypatch.setattr(train, "evaluate", stopped)
    with pytest.raises(SystemExit):
        run("broken", *settings)
    folder = whole.parent / "broken"
    assert load_checkpoint(folder / "last.pth")["progress"]["validation_due"] and not (folder / "best.pth").exists()
    monkeypatch.setattr(train, "evaluate", honest)
    run("broken", *settings, "--resume")
    assert same(weights(whole, "best"), weights(folder, "best"))
    assert validations(whole) == validations(folder) and len(validations(folder)) == 1


def validations(folder):
    return [line["validation"] for line in read_json_lines(folder / "log.jsonl") if "validation" in line]


def test_a_damaged_last_checkpoint_costs_only_the_steps_since_the_one_before(run, caplog):
    whole = run("whole", "checkpoint.every_steps=4")
    folder = run("broken", "checkpoint.every_steps=4", "train.epochs=1")
    file = folder / "last.pth"
    file.write_bytes(file.read_bytes()[:5000])
    assert same(weights(whole), weights(run("broken", "checkpoint.every_steps=4", "--resume")))
    assert "damaged" in caplog.text


def test_worker_count_changes_nothing(run):
    assert same(weights(run("none", "data.workers=0", "train.epochs=1")),
                weights(run("two", "data.workers=2", "train.epochs=1")))


def test_non_finite_loss_names_loss_step_and_episodes_and_keeps_the_checkpoint(run, monkeypatch):
    honest, calls = optimising.fetch, []

    def spoiled(*arguments):
        values, agreed = honest(*arguments)
        calls.append(1)
        if len(calls) == 9:
            values["losses"]["ccds"] = float("nan")
        return values, agreed
    monkeypatch.setattr(optimising, "fetch", spoiled)
    message = r"(?s)loss 'ccds' is nan at step 9; episodes: \w+/\S+ \(run 0\), [^.]*\.\n.*replay_step.*train\.lr"
    with pytest.raises(FloatingPointError, match=message):
        run("nan")
    folder = Path(sys.argv[sys.argv.index("--output") + 1])
    state = load_checkpoint(folder / "last.pth")
    assert state["progress"]["steps"] == 6      # the end of the first epoch
    kept = load_checkpoint(folder / "nonfinite_step9.pth")
    assert kept["step"] == 9 and len(kept["batch"]["ids"]) == 4


def test_a_saved_step_is_repeated_with_the_same_losses_and_names_the_module(run, monkeypatch):
    """An infinite weight in the last layer; the losses of the repetition are those of the step, clip by clip."""
    seen, honest = [], optimising.fetch
    monkeypatch.setattr(optimising, "fetch", lambda clips, *rest: seen.append(clips) or honest(clips, *rest))
    original = train.in_parallel

    def broken(step, device):
        with torch.no_grad():
            step.model.final_reduce.weight[0, 0] = torch.inf
        return original(step, device)
    monkeypatch.setattr(train, "in_parallel", broken)
    with pytest.raises(FloatingPointError, match="replay_step"):
        run("nan")
    content = replay_step.read_step(Path(sys.argv[sys.argv.index("--output") + 1]) / "nonfinite_step1.pth")
    clips, norms, found = replay_step.replay(content, apply_overrides(content["config"]), torch.device("cpu"))
    assert found["first"] == "final_reduce (Conv2d)"
    for repeated, (losses, _) in zip(clips, seen[0], strict=True):
        for name, value in losses.items():
            assert repeated[name] == float(value) or math.isnan(repeated[name]) and math.isnan(value), name
    assert "final_reduce (Conv2d)" in replay_step.report(clips, norms, found, content["batch"]["ids"])


def refuse_the_seventh():
    calls = []

    def check(*_):
        calls.append(1)
        if len(calls) == 7:
            raise FloatingPointError
    return check


def test_the_saved_state_is_finite_after_a_loss_that_was_not(run, monkeypatch):
    monkeypatch.setattr(optimising, "check_finite", refuse_the_seventh())
    with pytest.raises(FloatingPointError):
        run("nan")
    state = load_checkpoint(Path(sys.argv[sys.argv.index("--output") + 1]) / "last.pth")
    assert all(torch.isfinite(v).all() for v in state["model"].values())


def test_training_changes_what_it_should_and_logs_it(run):
    folder = run("once", "train.epochs=1")
    config = json.loads((folder / "run.json").read_text())
    assert config["seed"] == 42 and (folder / "config.yaml").is_file() and (folder / "curves.png").stat().st_size > 1000
    line = read_json_lines(folder / "log.jsonl")[-1]
    assert set(line["losses"]) == {"final", "initial", "aux_query", "aux_support", "cross_entropy", "ccds", "iou_net"}
    assert 0 <= line["iou"] <= 1 and line["samples_per_s"] > 0 and line["data_s"] >= 0
    torch.manual_seed(42)
    untrained = train.get_method("vipmt").build(train.load_config(["config/demo/ytvis.yaml"], TINY)).state_dict()
    moved = {k for k, v in weights(folder).items() if not torch.equal(v, untrained[k])}
    assert {"prototype", "level_embed", "iou_net.fc2.weight", "backbone.body.layer1.shortcut.weight"} <= moved


def test_a_frozen_backbone_stays_as_it_is(run):
    folder = run("frozen", "backbone.trained=false", "train.backward=per_clip", "train.epochs=1")
    torch.manual_seed(42)
    cfg = train.load_config(["config/demo/ytvis.yaml"], [*TINY, "backbone.trained=false", "train.backward=per_clip"])
    before = train.get_method("vipmt").build(cfg).state_dict()
    trained = weights(folder)
    names = [k for k in before if k.startswith("backbone.")]
    assert names and all(torch.equal(before[k], trained[k]) for k in names)


def test_backward_per_clip_and_at_once_train_alike(run):
    settings = ["backbone.trained=false", "train.epochs=1", "data.samples_per_class=1", "model.dropout=0.0",
                "model.feature_dropout=0.0"]
    a = weights(run("a", *settings, "train.backward=per_clip"))
    b = weights(run("b", *settings, "train.backward=once"))
    apart = {k: float((a[k] - b[k]).abs().mean()) for k in a}
    assert max(apart.values()) < 1e-3, apart       # a tenth of what three steps of Adam move


@pytest.mark.parametrize("memory", ["predicted", "ground_truth"])
def test_validation_on_held_out_base_videos_keeps_the_best(run, memory):
    folder = run("validated", "validate.classes=base_holdout", "validate.every=1", "validate.holdout=0.2",
                 "validate.episodes=3", "train.epochs=1", f"validate.memory={memory}")
    lines = [x for x in read_json_lines(folder / "log.jsonl") if "validation" in x]
    assert len(lines) == 1 and lines[0]["videos"] == 3 and set(lines[0]["validation"]) == {"j", "f", "vc"}
    assert same(weights(folder, "best"), weights(folder))


def test_an_existing_run_is_not_overwritten(run):
    run("mine", "train.epochs=1")
    with pytest.raises(ValueError, match="holds a run already.*\n.*--resume"):
        run("mine", "train.epochs=1")


def test_resuming_with_other_settings_names_the_key(run):
    run("mine", "train.epochs=1")
    with pytest.raises(ValueError, match="train.lr = 0.002, now it is 0.1"):
        run("mine", "train.epochs=1", "train.lr=0.1", "--resume")


def test_flags_of_the_released_readme_work(monkeypatch, demo_root, tmp_path):
    command(monkeypatch, train, "--group", 2, "--batch_size", 3, "--output", tmp_path / "r", f"data.root={demo_root}",
            *TINY, "train.epochs=1")
    state = load_checkpoint(tmp_path / "r" / "last.pth")
    assert state["fold"] == 2 and state["config"]["train"]["batch_size"] == 3


def test_trained_model_is_tested_and_the_other_folds_are_refused(run, monkeypatch, demo_root, tmp_path):
    folder = run("t", "train.epochs=1")
    arguments = [f"data.root={demo_root}", *TINY, "train.epochs=1", "--checkpoint", folder / "last.pth",
                 "--output", tmp_path / "test", "--runs", 2]
    command(monkeypatch, test_script, "--fold", 1, *arguments)
    lines = read_json_lines(tmp_path / "test" / "results.jsonl")
    assert {line["run"] for line in lines} == {0, 1} and len({line["class"] for line in lines}) == 4
    assert all(len(line["j"]) == len(line["frames"]) == len(line["pred_iou"]) for line in lines)
    with pytest.raises(ValueError, match="fold"):
        command(monkeypatch, test_script, "--fold", 2, *arguments)


def test_a_broken_image_stops_the_test_and_the_same_command_continues(run, monkeypatch, demo_root, tmp_path):
    """Two workers read ahead; videos before the broken one are kept, no line or film is lost, double or torn."""
    folder, data = run("t", "train.epochs=1"), tmp_path / "data"
    shutil.copytree(demo_root, data)
    arguments = ["--fold", 1, f"data.root={data}", *TINY, "train.epochs=1", "data.workers=2", "--runs", 1,
                 "test.resolution=original", "--checkpoint", folder / "last.pth"]

    def tested(name):
        where = tmp_path / name
        command(monkeypatch, test_script, *arguments, "--output", where, "--save-masks", where / "masks",
                "--save-overlays", where / "films")
        lines = [{k: v for k, v in x.items() if "seconds" not in k} for x in read_json_lines(where / "results.jsonl")]
        files = [p for p in where.rglob("*") if p.suffix in (".png", ".webm", ".mp4", ".gif") and p.parent != where]
        return lines, {p.relative_to(where) for p in files}

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
    (["data.rot=x"], "did you mean 'root'"), (["train.lr=5e-4"], "5.0e-4"), (["data.root=nowhere"], "no train.json"),
    (["backbone.name=resnet50", "backbone.weights=nowhere.pth", "backbone.trained=false"], "nowhere.pth"),
])
def test_a_mistake_is_one_message_and_no_traceback(run, capsys, mistake, message):
    with pytest.raises(SystemExit) as stopped, user_errors():
        run("wrong", *mistake)
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and message in printed and "Traceback" not in printed
