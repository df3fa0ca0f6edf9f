"""tools/reproduce.py: the right runs are planned, each once; make skips what is done; tables say what was measured."""
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

import test as test_script
import train
from models import get_method
from tools import reproduce
from tools.reproduction.dry_run import checkpoint_bytes
from tools.reproduction.makefile import is_done, stamp, write_makefile
from tools.reproduction.plan import Plan, Step, read_experiments
from utils.checkpoint import save_checkpoint
from utils.config import flatten, load_config, to_dict
from utils.evaluation.tables import paper_tables

A = "config/vipmt/ablation"
EVERY = "1234567"


def plan(numbers, preset="paper", folds=(1,), rows=(), output="out", **options):
    """Plan with all rows of some tables"""
    made = Plan(read_experiments("vipmt", rows), preset, output, folds, **options)
    for number in numbers:
        made.rows(number)
    return made


def after(step, flag):
    return [value for name, value in zip(step.command, step.command[1:], strict=False) if name == flag]


def trainings(made):
    return [step for step in made.steps.values() if step.command[0] == "train.py"]


def of_tests(made):
    return [step for step in made.steps.values() if step.command[0] == "test.py"]


def settings(step):
    """{key: value} that train.py or test.py makes of a step's command, by its own parser"""
    script = train if step.command[0] == "train.py" else test_script
    before, sys.argv = sys.argv, list(step.command)
    try:
        args = script.parse_arguments()
    finally:
        sys.argv = before
    return flatten(to_dict(load_config(args.config, args.overrides)))


# -- plans ----------------------------------------------------------------------------------------------------------

def test_ladder_trains_one_model_per_row_over_the_paper_config():
    steps = trainings(plan("4"))
    base = "config/vipmt/ytvis.yaml"
    assert [after(step, "--config") for step in steps] == [
        [base, f"{A}/ipmt_baseline.yaml"], [base, f"{A}/clip.yaml"], [base, f"{A}/clip_frame.yaml"],
        [base, f"{A}/clip_frame_memory.yaml"], [base]]
    assert all("--resume" in step.command and after(step, "--fold") == ["1"] for step in steps)
    switches = [tuple(settings(step)[key] for key in ("data.clip_length", "model.frame_prototype",
                                                      "model.memory_prototype", "loss.ccds")) for step in steps]
    assert switches == [(1, False, False, "none"), (5, False, False, "none"), (5, True, False, "none"),
                        (5, True, True, "none"), (5, True, True, "paper")]


def test_every_test_takes_the_checkpoint_and_the_files_of_its_training():
    made = plan(EVERY, folds=(1, 3))
    for step in of_tests(made):
        training = made.steps[step.name.rpartition("/")[0]]
        assert training.name in step.needs and after(step, "--fold") == after(training, "--fold")
        assert after(step, "--checkpoint") == [f"{after(training, '--output')[0]}/last.pth"]
        own = after(training, "--config")
        assert after(step, "--config")[:len(own)] == own


@pytest.mark.parametrize("preset", ["paper", "demo"])
def test_trainings_that_several_tables_need_appear_once(preset):
    steps = trainings(plan(EVERY, preset))
    main = [step for step in steps if "iounet" not in step.name]
    stages = 4 * (preset == "paper")                                   # LWL's and LLB's
    assert len(steps) == 15 + stages and len(main) == 11 + stages      # eight models, three of them on MiniVSPW as well
    assert len({after(step, "--output")[0] for step in steps}) == 15 + stages
    assert len(trainings(plan("45"))) == 6, "Table 5 compares with the ladder's own run"


def test_another_method_keeps_to_its_own_config():
    made = plan("12")
    dan = [step for step in made.steps.values() if "/dan/" in step.name]
    assert {x["model.method"] for x in map(settings, dan)} == {"dan"}
    assert {x["data.dataset"] for x in map(settings, dan)} == {"ytvis", "minivspw"}
    assert sorted((x["test.protocol"], x["online.learning"]) for x in (settings(step) for step in of_tests(made)
                  if step.name.startswith("ytvis/dan"))) == [("I", False), ("I", True), ("II", False), ("II", True)]
    assert not any("dan" in step.name and "minivspw" in step.name for step in plan("12", "mini").steps.values())


def test_iounet_table_swaps_five_networks_and_retrains_one():
    made = plan("6", folds=(1, 2))
    found = [(step, settings(step)) for step in of_tests(made)]
    video, image = "out/ytvis/iounet_video{}/fold1/seed42/last.pth", "out/ytvis/iounet_image{}/fold1/seed42/last.pth"
    assert {(x["iou_net.replace"], x["iou_net.similarity_maps"]) for step, x in found if "fold1" in step.name} == {
        ("none", True), ("none", False), (video.format(""), True), (video.format("_without_maps"), False),
        (image.format(""), True), (image.format("_without_maps"), False)}
    assert all(x["memory.min_iou"] == 0.5 for _, x in found)
    judges = [step for step in trainings(made) if "iounet" in step.name]
    assert len(judges) == 2 * 2 + 2, "video: one per fold, image: one for all"
    assert {settings(step)["data.dataset"] for step in judges} == {"ytvis", "coco20i"}
    real = [settings(step)["iou_net.similarity_maps"] for step in trainings(made) if "iounet" not in step.name]
    assert sorted(real) == [False, False, True, True]
    for step, x in found:
        if x["iou_net.replace"] != "none":
            assert str(Path(x["iou_net.replace"]).parent.relative_to("out")) in step.needs


def test_propagators_are_plugs_of_one_training_and_trained_once_themselves(monkeypatch):
    installed = set()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    made = plan("3", folds=(1, 2), seeds=(42, 7))
    found = [settings(step) for step in of_tests(made) if "propagation" in step.name]
    assert {x["propagation.plug"] for x in found} == {"matching", "lwl", "llb"} and len(found) == 3 * 2 * 2 * 2
    assert {x["propagation.weights"] for x in found} == {"none", *(f"out/ytvos/{name}/seed42/last.pth"
                                                                   for name in ("lwl", "llb"))}
    lwl = {step.name: settings(step) for step in trainings(made) if "lwl" in step.name}
    assert {name: x["train.start"] for name, x in lwl.items()} == {
        "ytvos/lwl_stage1/seed42": "none", "ytvos/lwl/seed42": "out/ytvos/lwl_stage1/seed42/last.pth"}
    assert made.left_out["3"] == {f"IPMT{name} on {data}": package for data in ("YouTube-VIS", "MiniVSPW")
                                  for name, package in ((" + SAM 2", "transformers"), ("+XMem", "inference"))}
    installed |= {"transformers", "inference"}
    made = plan("3", overrides=["data.shots=1", "ytvos:sources.ytvos=x"])
    assert {settings(step)["propagation.plug"] for step in of_tests(made) if "propagation" in step.name} == {
        "matching", "lwl", "llb", "sam2", "xmem"}
    assert {settings(step)["sources.ytvos"] for step in trainings(made) if "lwl" in step.name} == {"x"}
    assert not [step for step in plan("3", "demo").steps.values() if "lwl" in step.name]


def test_thresholds_and_memories_are_tests_of_one_training():
    made = plan("7")
    assert len([step for step in trainings(made) if "iounet" not in step.name]) == 1 and len(of_tests(made)) == 18
    assert {settings(step)["memory.select"] for step in of_tests(made)} == {"predicted", "random", "none", "oracle",
                                                                      "ground_truth"}


def test_iounet_of_a_trained_encoder_learns_on_that_encoder():
    for step in trainings(plan("6", "demo")):
        if "iounet" in step.name:
            main = "ytvis/clip_frame_memory/fold1/seed42"
            assert settings(step)["backbone.weights"] == f"out/{main}/last.pth" and main in step.needs


def test_the_papers_iounet_can_be_put_into_all_models_with_memory():
    made = plan("12", variant="image")
    assert {step.name.partition("/")[0]: settings(step)["iou_net.replace"] for step in of_tests(made)
            if "vipmt" in step.name} == {
        "ytvis": "out/ytvis/iounet_image/fold1/seed42/last.pth",
        "minivspw": "out/minivspw/iounet_image/fold1/seed42/last.pth"}
    assert settings(made.steps["minivspw/iounet_image/fold1/seed42"])["data.dataset"] == "coco20i_minivspw"
    baseline, = (step for step in of_tests(made) if "ipmt_baseline" in step.name)
    assert settings(baseline)["iou_net.replace"] == "none"


def test_rows_of_the_readers_own_are_laid_over(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        'tables: {"3": {IPMT+XMem on YouTube-VIS: {train: ipmt_baseline, keys: ["propagation.plug=mine:build"], '
        f'files: [{A}/ipmt_propagation.yaml]}}}}}}\n')
    found = [step for step in of_tests(plan("3", rows=[tmp_path / "mine.yaml"]))
             if "propagation.plug=mine:build" in step.command]
    assert [step.name for step in found] == [
        "ytvis/ipmt_baseline/fold1/seed42/test-ipmt_propagation-plugmine_build"]
    assert settings(found[0])["model.method"] == "propagation"
    (tmp_path / "mine.yaml").write_text('tables: {"3": {x: {train: nothing}}}\n')
    with pytest.raises(ValueError, match="train nothing: there are vipmt"):
        plan("3", rows=[tmp_path / "mine.yaml"])


def test_seeds_are_trainings_of_their_own_on_the_same_test_episodes():
    made = plan("5", seeds=(42, 7))
    assert sorted(settings(step)["seed"] for step in trainings(made)) == [7, 7, 42, 42]
    assert {settings(step)["seed"] for step in of_tests(made)} == {42}


def test_needs_stand_before_those_who_need_them():
    seen = set()
    for step in plan(EVERY, "demo").steps.values():
        assert set(step.needs) <= seen
        seen.add(step.name)


def test_demo_generates_the_data_that_its_configs_name():
    made = plan(EVERY, "demo")
    roots = {after(step, "--output")[0]: name for name, step in made.steps.items() if name.startswith("data/")}
    assert len(roots) == 3
    for step in (*trainings(made), *of_tests(made)):
        assert roots[settings(step)["data.root"]] in step.needs


@pytest.mark.parametrize("preset", ["paper", "mini", "demo"])
def test_overrides_reach_every_run_and_their_data_set_alone(preset):
    made = plan("246", preset, overrides=("ytvis:data.root=here", "coco20i:data.root=stills", "train.epochs=1"))
    for step in (*trainings(made), *of_tests(made)):
        given = settings(step)
        assert given["train.epochs"] == 1
        assert (given["data.root"] == "stills") == ("iounet_image" in step.name.split("/")[1])
        assert (given["data.root"] == "here") == (step.name.startswith("ytvis") and given["data.root"] != "stills")


@pytest.mark.parametrize("text, message", [
    ("data.root=x", "data.root=x"), ("seed=1", "--seeds"), ("davis:train.epochs=1", "no data set 'davis'"),
    ("train.epoch=1", "did you mean 'epochs'")])
def test_overrides_that_would_mix_runs_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        plan("", overrides=[text])


def test_every_training_is_used_by_some_table_and_every_label_is_known():
    experiments = read_experiments("vipmt")
    used = {step.name.split("/")[1] for step in trainings(plan(EVERY))}
    assert used == set(experiments["trainings"])
    ours_alone = {"1": "DAN", "2": "DAN", "3": "IPMT + ", "7": "memory."}
    for number, rows in experiments["tables"].items():
        for label in rows:
            assert label in paper_tables()[number].rows or label.startswith(ours_alone[number])


# -- make -----------------------------------------------------------------------------------------------------------

@pytest.fixture
def toy(tmp_path):
    """A plan of three steps, a before b, and c: each appends its name to a file unless told to fail"""
    made = plan("", output=tmp_path / "a folder")
    code = ("import sys, pathlib, time; out = pathlib.Path({!r}); print('said', flush=True); "
            "sys.exit('no luck') if (out / 'fail').exists() and {!r} == (out / 'fail').read_text() else 0; "
            "open(out / 'ran', 'a').write({!r} + chr(10))")
    for name, needs in (("a", ()), ("b", ("a",)), ("c", ())):
        made.steps[name] = Step(name, ("-c", code.format(str(tmp_path / "a folder"), name, name)), needs)
    return made


def make(made, *arguments):
    return subprocess.run(["make", "-C", made.output, *arguments], capture_output=True, text=True, check=False)


def ran(made):
    file = made.output / "ran"
    return sorted(file.read_text().split()) if file.exists() else []


TARGETS = ("-k", "a/done", "b/done", "c/done")      # `tables` would call the whole tool


def test_make_runs_each_step_once_and_in_order(toy):
    write_makefile(toy, "title", [])
    assert make(toy, "-j2", *TARGETS).returncode == 0
    order = (toy.output / "ran").read_text().split()
    assert sorted(order) == ["a", "b", "c"] and order.index("a") < order.index("b")
    assert all(is_done(toy, step) for step in toy.steps.values())
    assert make(toy, "-j2", *TARGETS).returncode == 0 and len(ran(toy)) == 3


def test_a_failed_step_stops_what_needs_it_and_is_tried_again(toy):
    write_makefile(toy, "title", [])
    (toy.output / "fail").write_text("a")
    done = make(toy, *TARGETS)
    assert done.returncode and ran(toy) == ["c"] and "no luck" in done.stdout and "output.txt" in done.stdout
    (toy.output / "fail").unlink()
    assert make(toy, *TARGETS).returncode == 0 and ran(toy) == ["a", "b", "c"]


def test_a_changed_command_is_run_again_with_what_follows(toy):
    write_makefile(toy, "title", [])
    make(toy, *TARGETS)
    toy.steps["a"] = Step("a", (*toy.steps["a"].command, "more: $HOME 'quoted' # all of it"))
    assert not is_done(toy, toy.steps["a"])
    write_makefile(toy, "title", [])
    assert not stamp(toy, toy.steps["a"]).exists() and stamp(toy, toy.steps["c"]).exists()
    time.sleep(0.01)
    assert make(toy, *TARGETS).returncode == 0 and ran(toy) == ["a", "a", "b", "b", "c"]
    assert is_done(toy, toy.steps["a"])


def test_an_interrupted_step_is_not_done(toy):
    """Ctrl-C reaches make and its steps; one that notes it and ends with a status, as train.py does, starts again."""
    note = toy.output / "note"
    code = (f"import time, pathlib, sys\ntry:\n open({str(toy.output / 'up')!r}, 'w'); time.sleep(60)\n"
            f"except KeyboardInterrupt:\n pathlib.Path({str(note)!r}).touch(); sys.exit(75)")
    toy.steps["a"] = Step("a", ("-c", f"exec({code!r})"))
    write_makefile(toy, "title", [])
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)       # which a suite in the background is not
    process = subprocess.Popen(["make", "-C", toy.output, "a/done"], start_new_session=True, stderr=subprocess.DEVNULL,
                               preexec_fn=listening)
    while not (toy.output / "up").exists():
        time.sleep(0.02)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() != 0 and note.exists() and not is_done(toy, toy.steps["a"])


def test_gpus_are_shared_out_and_threads_bounded(tmp_path):
    made = plan("4", "demo", output=tmp_path)
    write_makefile(made, "title", [])
    text = make(made, "-n", "GPUS=5 7").stdout
    assert text.count("CUDA_VISIBLE_DEVICES=5") + text.count("CUDA_VISIBLE_DEVICES=7") == len(made.steps) == 11
    assert text.count("CUDA_VISIBLE_DEVICES=5") - text.count("CUDA_VISIBLE_DEVICES=7") in (0, 1)
    assert "CUDA_VISIBLE_DEVICES" not in make(made, "-n").stdout
    assert "export OMP_NUM_THREADS ?= 1" in (tmp_path / "Makefile").read_text()


def test_the_shell_gets_every_command_as_it_was_planned(tmp_path):
    made = plan("37", "demo", output=tmp_path, overrides=("name=a $(b) 'c' #d;e",), device="cpu")
    write_makefile(made, "title", ["--table", "3"])
    lines = [line for line in make(made, "-n").stdout.splitlines() if " > " in line and line.startswith("cd ")]
    commands = [shlex.split(line.partition(" && ")[2].rpartition(" > ")[0], comments=True) for line in lines]
    assert {tuple(command[1:]) for command in commands} == {step.command for step in made.steps.values()}


# -- the command ----------------------------------------------------------------------------------------------------

def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
    reproduce.main()


def test_without_any_run_the_papers_numbers_stand_alone(monkeypatch, capsys, tmp_path):
    call(monkeypatch, "--output", tmp_path / "new", "--table", "4", "--fold", "2", "train.epochs=1")
    text = capsys.readouterr().out
    assert "| +C (paper) | 61.8 | 58.8 | 60.7 |\n| +C (ours) |  |  |  |" in text and "0 of 10 steps done" in text
    assert f"make -j2 -C {tmp_path / 'new'}" in text and (tmp_path / "new" / "Makefile").is_file()
    for words in ("The paper's data", "fold 2", "seed 42", "No difference", "Changed: train.epochs=1",
                  "5 of 5 tests are not done", "trained jointly"):
        assert words in text, words


@pytest.mark.parametrize("arguments", [
    ["--table", "8"], ["--table", "4", "--fold", "5"], ["--table", "4", "--seeds", "x"],
    ["--table", "4", "--preset", "big"], ["--table", "4", "--variant", "none"]])
def test_wrong_arguments_are_named(arguments, monkeypatch):
    with pytest.raises(ValueError, match=arguments[-2]):
        call(monkeypatch, *arguments)


def line(run, video, j, f, vc):
    return {"class": "cat", "class_id": 1, "run": run, "video": video, "j": j, "f": f, "vc": vc, "vc_variant": "vipmt",
            "vc_window": 7}


def finished(made, name, offset):
    """A test as if it had been run: J 0.5 + offset, F 0.3 + offset, VC 0.6 + offset, a hundredth more in run 1"""
    step = made.steps[name]
    folder = made.output / name
    folder.mkdir(parents=True)
    lines = [line(run, "v", [0.4 + offset + run / 100, 0.6 + offset + run / 100], [0.3 + offset + run / 100] * 2,
                  [0.6 + offset + run / 100]) for run in range(2)]
    (folder / "results.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    stamp(made, step).write_text(shlex.join(step.command) + "\n")


def test_tables_are_filled_by_hand_computed_means_and_only_with_what_is_done(monkeypatch, capsys, tmp_path):
    made = plan("4", output=tmp_path, folds=())
    for fold in (1, 2, 3, 4):
        finished(made, f"ytvis/clip/fold{fold}/seed42/test", fold / 10 - 0.1)
        finished(made, f"ytvis/clip_frame/fold{fold}/seed42/test", 0)
    stamp(made, made.steps["ytvis/clip_frame/fold3/seed42/test"]).write_text("another command\n")
    call(monkeypatch, "--output", tmp_path, "--table", "4")
    text = capsys.readouterr().out
    spread = 100 * statistics.stdev([0.65, 0.66])
    assert f"| +C (ours) | 65.5 ± {spread:.1f} | 45.5 ± {spread:.1f} | 75.5 ± {spread:.1f} |" in text
    assert "| +C (difference) | +3.7 | -13.3 | +14.8 |" in text
    assert "| +C+F (ours) |  |  |  |" in text and "13 of 20 tests are not done" in text
    assert (tmp_path / "table4.md").read_text() in (tmp_path / "tables.md").read_text()
    assert "+C (ours),65.5,0.7" in (tmp_path / "table4.csv").read_text()
    assert (tmp_path / "table4.tex").read_text().startswith("% Table 4. Effect of each component.")


def test_by_folds_a_missing_one_leaves_the_mean_empty(monkeypatch, capsys, tmp_path):
    made = plan("1", output=tmp_path, folds=())
    finished(made, "ytvis/vipmt/fold1/seed42/test", 0)
    call(monkeypatch, "--output", tmp_path, "--table", "1")
    text = capsys.readouterr().out
    assert "| VIPMT (ours) | 50.5 ± 0.7 |  |  |  |  | 30.5 ± 0.7 |  |  |  |  |  |" in text
    assert "| VIPMT (difference) | -0.1 |  |" in text and "TTI (ours)" not in text


def test_late_starts_are_counted_and_the_leak_is_told(monkeypatch, capsys, tmp_path):
    made = plan("3", output=tmp_path)
    name = "ytvis/ipmt_baseline/fold1/seed42/test-ipmt_propagation"
    finished(made, name, 0)
    lines = [line(0, video, [0.5] * 3, [0.5] * 3, [0.5]) | {"waiting": waiting} for video, waiting in (
        ("a", [False] * 3), ("b", [True, False, False]), ("c", [True] * 3))]
    (tmp_path / name / "results.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    call(monkeypatch, "--output", tmp_path, "--table", "3", "--fold", "1")
    text = capsys.readouterr().out
    assert "| IPMT + feature matching on YouTube-VIS (ours) | 50.0 | 50.0 | 50.0 | 2 of 3 |" in text
    assert "mVC7 | late starts |" in text and "have seen the test classes" in text


def test_difference_is_taken_only_of_the_papers_own_experiment():
    def comparable(preset="paper", folds=(), overrides=()):
        return reproduce.can_be_compared(plan("", preset, folds, overrides=overrides))
    assert comparable() and comparable(overrides=("ytvis:data.root=x", "backbone.weights=file"))
    assert not comparable("demo") and not comparable(folds=(1, 2)) and not comparable(overrides=("train.epochs=1",))


@pytest.mark.skipif(not Path("config/cma/ytvos.yaml").is_file(), reason="the config files of the method are not there")
def test_sentences_are_tested_on_two_data_sets_with_one_training():
    made = Plan(read_experiments("cma"), "paper", "out", (1,))
    for number in paper_tables("cma"):
        assert set(made.rows(number)) <= set(paper_tables("cma")[number].rows)
    assert [settings(step)["data.dataset"] for step in trainings(made)] == ["ref_ytvos"] * 3
    assert sorted(settings(step)["data.dataset"] for step in of_tests(made)) == ["ref_sailvos", *["ref_ytvos"] * 3]


# -- before anything is run -------------------------------------------------------------------------------------------

def test_a_dry_run_says_what_is_missing_and_writes_nothing(monkeypatch, capsys, tmp_path):
    weights = tmp_path / "encoder.pth"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)         # neither SAM 2 nor XMem
    call(monkeypatch, "--output", tmp_path / "new", "--table", "3", "--fold", "1", "--dry-run", "--samples-per-s", "10",
         "backbone.weights=" + str(weights), f"ytvis:data.root={tmp_path}", f"ytvos:sources.davis={tmp_path}")
    text = capsys.readouterr().out
    assert text.startswith("Missing:") and f"{weights} (backbone.weights), for 12 of 16 steps" in text
    assert "data/VSPW_480p (data.root), for 6 of 16 steps.\n    python -m tools.prepare_data explain vspw;" in text
    assert f"{tmp_path} (" not in text and "lwl_stage1/seed42" not in text.partition("| runs")[0]
    assert "| train ytvis/vipmt | 1 | 0 | 300,000 | 8.3 |" in text          # 100 epochs of 30 classes x 100; / 36000
    assert "| test ytvis | 4 | 0 |  | ? |  |" in text and "python train.py" not in text
    assert not (tmp_path / "new").exists()


def test_a_dry_run_counts_what_is_left_and_takes_its_speed_from_the_logs(monkeypatch, capsys, tmp_path):
    made = plan("4", "demo", output=tmp_path)
    train_, test_ = (made.steps[f"ytvis/{name}"] for name in ("clip/fold1/seed42", "vipmt/fold1/seed42/test"))
    finished(made, test_.name, 0)
    with open(tmp_path / test_.name / "results.jsonl", "w") as file:
        file.writelines(json.dumps(line(run, "v", [1.0], [1.0], [1.0]) | {"seconds": 1800}) + "\n" for run in range(2))
    (tmp_path / train_.name).mkdir(parents=True)
    (tmp_path / train_.name / "log.jsonl").write_text('{"samples_per_s": 1.0}\n{"samples_per_s": 3.0}\n')
    monkeypatch.setattr("tools.reproduction.dry_run.samples", lambda cfg, compare: 7200)
    call(monkeypatch, "--output", tmp_path, "--table", "4", "--preset", "demo", "--dry-run", "--commands")
    text = capsys.readouterr().out
    assert "| train ytvis/clip | 1 | 0 | 7,200 | 1.0 |" in text and "| train ytvis/vipmt | 1 | 0 | 7,200 | ? |" in text
    assert "| test ytvis | 5 | 1 |  | 4.0 |  |" in text                     # the one that is done took an hour
    commands = [text for text in text.splitlines() if text.startswith("python ")]
    assert len(commands) == 10 and "python -m tools.make_demo_data --output output/demo_data" in commands


def test_disk_of_a_training_is_that_of_its_checkpoints(tmp_path):
    cfg = load_config(["config/demo/ytvis.yaml"], ["checkpoint.keep=1"])
    model = get_method("vipmt").build(cfg)
    adam = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
    sum(p.sum() for p in model.parameters() if p.requires_grad).backward()
    adam.step()
    save_checkpoint(tmp_path / "last.pth", {"model": model.state_dict(), "optimizer": adam.state_dict()})
    assert checkpoint_bytes(cfg) == pytest.approx((tmp_path / "last.pth").stat().st_size, rel=0.15)
