"""tools/reproduce.py: the right runs are planned, each once; what is done is skipped; tables say what was measured."""
import csv
import io
import json
import os
import shlex
import signal
import statistics
import sys
from pathlib import Path

import pytest

import test as test_script
import train
from tools import reproduce
from tools.reproduction.plan import MODELS, PRESETS, Planner, check_overrides
from tools.reproduction.run import Records, Scheduler, Step, alone_in, shell_script, what_is_missing
from tools.reproduction.tables import Setting, table_specs
from utils.config import flatten, load_config, to_dict
from utils.evaluation.tables import PAPER, PAPER_ABLATIONS, comparison_by_fold, comparison_table, shares

A = "config/vipmt/ablation"


def plan(*numbers, preset="paper", folds=(1,), plugs=None, **options):
    """Planner with all settings of some tables  ->  it, its steps in order by name"""
    planner = Planner(PRESETS[preset], "out", folds, **options)
    for number in numbers:
        for row in table_specs(plugs)[number].rows:
            if planner.has(row.setting):
                planner.results(row.setting)
    return planner


def files(step):
    """The config files of a command."""
    return [value for flag, value in zip(step.command, step.command[1:], strict=False) if flag == "--config"]


def after(step, flag):
    return step.command[step.command.index(flag) + 1] if flag in step.command else None


def of_kind(planner, kind):
    return [step for step in planner.steps.values() if step.name.startswith(kind)]


# -- plans ----------------------------------------------------------------------------------------------------------

def test_ladder_trains_one_model_per_row_over_the_paper_config():
    trainings = of_kind(plan(4), "train")
    base = "config/vipmt/ytvis.yaml"
    assert [files(step) for step in trainings] == [
        [base, f"{A}/ipmt_baseline.yaml"], [base, f"{A}/clip.yaml"], [base, f"{A}/clip_frame.yaml"],
        [base, f"{A}/clip_frame_memory.yaml"], [base]]
    assert all("--resume" in step.command and after(step, "--fold") == "1" for step in trainings)
    switches = [(s.settings["data.clip_length"], s.settings["model.frame_prototype"],
                 s.settings["model.memory_prototype"], s.settings["loss.ccds"]) for s in trainings]
    assert switches == [(1, False, False, "none"), (5, False, False, "none"), (5, True, False, "none"),
                        (5, True, True, "none"), (5, True, True, "paper")]


def test_every_test_takes_the_checkpoint_and_the_files_of_its_training():
    planner = plan(*range(1, 8), folds=(1, 3))
    for step in of_kind(planner, "test"):
        training, = (planner.steps[name] for name in step.needs if "iounet" not in name)
        assert after(step, "--checkpoint") == str(training.product)
        assert after(step, "--fold") == after(training, "--fold")
        assert files(step)[:len(files(training))] == files(training)


@pytest.mark.parametrize("preset", ["paper", "demo"])
def test_trainings_that_several_tables_need_appear_once(preset):
    planner = plan(*range(1, 8), preset=preset)
    names = [step.name for step in of_kind(planner, "train")]
    main = [name for name in names if "iounet" not in name]
    assert len(names) == len(set(names)) == 13 and len(main) == 9      # seven models, two of them on MiniVSPW as well
    assert sum("minivspw" in name for name in main) == 2
    assert len({step.product for step in planner.steps.values()}) == len(planner.steps)


def test_communication_is_compared_with_the_ladders_own_run():
    assert [files(s)[1] for s in of_kind(plan(5), "train")] == [f"{A}/one_way.yaml", f"{A}/clip_frame.yaml"]
    assert len(of_kind(plan(4, 5), "train")) == 6


def test_propagation_reads_the_baselines_checkpoint():
    step, *_ = of_kind(plan(3), "test ytvis ipmt_baseline")
    assert files(step)[-2:] == [f"{A}/ipmt_baseline.yaml", f"{A}/ipmt_propagation.yaml"]
    assert step.settings["model.method"] == "propagation" and step.settings["data.clip_length"] == 1
    assert after(step, "--checkpoint") == "out/ytvis/ipmt_baseline/fold1/seed42/last.pth"


def test_a_plug_fills_the_papers_row():
    planner = plan(3, plugs={"IPMT+XMem": "mine:build"})
    found = [step for step in of_kind(planner, "test") if "propagation.plug=mine:build" in step.command]
    assert len(found) == 2 and len(of_kind(planner, "test")) == 6
    rows = [row for row in table_specs({"IPMT+XMem": "mine:build"})[3].rows if row.setting]
    assert [row.paper for row in rows if "XMem" in row.label] == [(59.2, 56.8, 62.2), (27.7, 31.7, 41.1)]


def test_iounet_table_swaps_five_networks_and_retrains_one():
    planner = plan(6, folds=(1, 2))
    tests = {(after(step, "--fold"), after(step, "--iou-net"), step.settings["iou_net.similarity_maps"])
             for step in of_kind(planner, "test")}
    video, image = "out/ytvis/iounet_video{}/fold1/seed42/last.pth", "out/ytvis/iounet_image{}/seed42/last.pth"
    assert {entry[1:] for entry in tests if entry[0] == "1"} == {
        (None, True), (None, False), (video.format(""), True), (video.format("_without_maps"), False),
        (image.format(""), True), (image.format("_without_maps"), False)}
    assert all(step.settings["memory.min_iou"] == 0.5 for step in of_kind(planner, "test"))
    judges = [step for step in of_kind(planner, "train") if "iounet" in step.name]
    assert len(judges) == 2 * 2 + 2, "video: one per fold, image: one for all"
    assert {step.settings["data.dataset"] for step in judges} == {"ytvis", "coco20i"}
    real = [step for step in of_kind(planner, "train") if "iounet" not in step.name]
    assert {step.settings["iou_net.similarity_maps"] for step in real} == {True, False} and len(real) == 4


def test_thresholds_need_one_training_and_only_tests():
    planner = plan(6, 7)
    own = [step for step in of_kind(planner, "train") if "iounet" not in step.name]
    assert len(own) == 2 and len(of_kind(planner, "train")) == 6
    # 6 of Table 6; 10 of Table 7, two of them Table 6's; 4 selections; 4 lengths, of which 5 is the row of 0.8
    assert len(of_kind(planner, "test")) == 6 + 8 + 4 + 3
    values = {step.settings["memory.select"] for step in of_kind(planner, "test")}
    assert values == {"predicted", "random", "none", "oracle", "ground_truth"}


def test_iounet_of_a_trained_encoder_learns_on_that_encoder():
    planner = plan(6, preset="demo")
    for step in of_kind(planner, "train"):
        if "iounet" in step.name:
            main = "out/ytvis/clip_frame_memory/fold1/seed42/last.pth"
            assert step.settings["backbone.weights"] == main
            assert "train ytvis clip_frame_memory fold 1 seed 42" in step.needs


def test_the_papers_iounet_can_be_put_into_all_models_with_memory():
    planner = plan(1, 2, iou_net="image")
    assert {(step.name.split()[1:3][0], after(step, "--iou-net")) for step in of_kind(planner, "test")} == {
        ("ytvis", None), ("ytvis", "out/ytvis/iounet_image/seed42/last.pth"),
        ("minivspw", "out/minivspw/iounet_image/seed42/last.pth")}
    assert planner.steps["train minivspw iounet_image seed 42"].settings["data.dataset"] == "coco20i_minivspw"


def test_seeds_are_trainings_of_their_own_on_the_same_test_episodes():
    planner = plan(5, seeds=(42, 7))
    assert sorted(step.settings["seed"] for step in of_kind(planner, "train")) == [7, 7, 42, 42]
    assert {step.settings["seed"] for step in of_kind(planner, "test")} == {42}


def test_needs_stand_before_those_who_need_them():
    seen = set()
    for step in plan(*range(1, 8), preset="demo").steps.values():
        assert set(step.needs) <= seen
        seen.add(step.name)


def test_demo_generates_the_data_that_its_configs_name():
    planner = plan(*range(1, 8), preset="demo")
    roots = {after(step, "--output") for step in of_kind(planner, "data")}
    assert len(roots) == 3
    for step in planner.steps.values():
        if not step.name.startswith("data"):
            assert step.settings["data.root"] in roots and step.needs


@pytest.mark.parametrize("preset", ["paper", "demo"])
def test_every_command_is_understood_as_it_was_planned(preset, monkeypatch):
    """train.py's and test.py's own parsers make the config of it that the plan says."""
    for step in plan(3, 6, preset=preset, overrides=("train.epochs=3",), device="cpu").steps.values():
        if step.name.startswith("data"):
            continue
        monkeypatch.setattr(sys, "argv", list(step.command))
        args = (train if step.name.startswith("train") else test_script).parse_arguments()
        assert flatten(to_dict(load_config(args.config, args.overrides))) == step.settings, step.name
        assert Path(args.output) == step.product.parent and args.device == "cpu"
        assert step.settings["train.epochs"] == 3


def test_overrides_reach_their_data_set_alone():
    planner = plan(2, 4, overrides=("ytvis:data.root=here", "minivspw:data.root=there", "train.epochs=1"))
    for step in planner.steps.values():
        assert step.settings["data.root"] == ("there" if "minivspw" in step.name else "here")
        assert step.settings["train.epochs"] == 1


@pytest.mark.parametrize("text, message", [
    ("data.root=x", "ytvis:data.root=x"), ("seed=1", "--seeds"), ("davis:train.epochs=1", "no data set 'davis'")])
def test_overrides_that_would_mix_runs_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        check_overrides([text], plan())


# -- running --------------------------------------------------------------------------------------------------------

class Fake:
    """Commands that are not run: each writes its product, unless it is told to fail or to be interrupted."""

    def __init__(self, fails=(), interrupted=None):
        self.fails, self.interrupted, self.started, self.signals = fails, interrupted, [], []

    def __call__(self, step, log, slot):
        self.started.append(step.name)
        log.write_text(f"the command\nsome lines\rValueError: no luck with {step.name}\n")
        if step.name not in self.fails:
            step.product.parent.mkdir(parents=True, exist_ok=True)
            step.product.write_text("")
        return FakeProcess(self, step)


class FakeProcess:
    def __init__(self, fake, step):
        self.fake, self.step, self.stopped = fake, step, False

    def poll(self):
        if self.step.name == self.fake.interrupted and not self.stopped:
            raise KeyboardInterrupt if not self.fake.signals else AssertionError
        return int(self.step.name in self.fake.fails)

    def send_signal(self, number):
        self.fake.signals.append(number)

    def wait(self):
        return 0


@pytest.fixture
def steps(tmp_path):
    """a -> b -> c, and d on its own"""
    needs = {"a": (), "b": ("a",), "c": ("b",), "d": ()}
    return {name: Step(name, (f"{name}.py",), tmp_path / name / "product", before, {"train.epochs": 2})
            for name, before in needs.items()}


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "steps")


def run(steps, records, fake, jobs=1):
    return Scheduler(steps, records, jobs, fake).run()


def test_what_is_done_is_not_run_again(steps, records):
    first, second = Fake(), Fake()
    assert run(steps, records, first) == {} and first.started == ["a", "b", "c", "d"]
    assert run(steps, records, second) == {} and second.started == []


def test_failed_step_stops_what_needs_it_and_nothing_else(steps, records):
    fake = Fake(fails=["b"])
    failed = run(steps, records, fake, jobs=2)
    assert set(fake.started) == {"a", "b", "d"} and set(failed) == {"b", "c"}
    assert "ValueError: no luck with b" in failed["b"] and "b.py" in failed["b"] and "exit status 1" in failed["b"]
    assert "some lines" not in failed["b"], "of a progress bar only its last state"
    assert "needs b" in failed["c"]
    again = Fake()
    assert run(steps, records, again) == {} and again.started == ["b", "c"]


def test_step_that_leaves_no_product_has_failed(steps, records):
    class Nothing(Fake):
        def __call__(self, step, log, slot):
            process = super().__call__(step, log, slot)
            step.product.unlink()
            return process
    assert "there is no" in run({"d": steps["d"]}, records, Nothing())["d"]


def test_interruption_stops_the_steps_and_the_next_run_continues(steps, records):
    fake = Fake(interrupted="b")
    with pytest.raises(KeyboardInterrupt):
        run(steps, records, fake)
    assert fake.started == ["a", "b"] and not records.path(steps["b"]).exists()
    again = Fake()
    assert run(steps, records, again) == {} and again.started == ["b", "c", "d"]


def test_reasons_for_running_a_step_are_named(steps, records):
    run(steps, records, Fake())
    changed = dict(steps, b=Step("b", ("b.py",), steps["b"].product, ("a",), {"train.epochs": 3}))
    assert what_is_missing(changed, records) == {"b": "changed since: train.epochs was 2, is 3", "c": "after b"}
    gained = dict(steps, b=Step("b", ("b.py",), steps["b"].product, ("a",), {"train.epochs": 2, "new.key": 1}))
    assert what_is_missing(gained, records) == {}, "a key that the project has gained changes no result"
    os.utime(steps["a"].product, (2e9, 2e9))
    assert what_is_missing(steps, records) == {"b": f"{steps['a'].product} is newer", "c": "after b"}
    steps["a"].product.unlink()
    assert what_is_missing(steps, records)["a"] == f"no {steps['a'].product}"


def test_real_processes_run_side_by_side_and_are_logged(tmp_path, records):
    def step(name, code):
        return Step(name, ("-c", code), tmp_path / name)
    write = "import sys, pathlib; print('12%|'); pathlib.Path({!r}).touch()"
    steps = {"one": step("one", write.format(str(tmp_path / "one"))), "two": step("two", "raise OSError('disk')")}
    failed = Scheduler(steps, records, jobs=2).run()
    assert list(failed) == ["two"] and "OSError: disk" in failed["two"]
    assert "12%|" in records.log(steps["one"]).read_text() and records.read(steps["one"])["seconds"] >= 0


def test_interrupted_process_gets_the_signal_once(tmp_path, records, monkeypatch):
    """A real process that notes its interruption, as train.py does."""
    note = tmp_path / "note"
    code = f"import time, pathlib\ntry:\n print('5%|', flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n" \
           f" pathlib.Path({str(note)!r}).touch()"
    scheduler = Scheduler({"s": Step("s", ("-c", code), tmp_path / "never")}, records)

    def interrupt():
        if "%|" in records.log(scheduler.steps["s"]).read_text():
            os.kill(os.getpid(), signal.SIGINT)
    monkeypatch.setattr(scheduler, "_show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        scheduler.run()
    assert note.exists()


def test_two_plans_do_not_work_in_one_folder(tmp_path):
    with alone_in(tmp_path / "steps"):
        with pytest.raises(ValueError, match="another --output"):
            with alone_in(tmp_path / "steps"):
                pass


# -- dry run --------------------------------------------------------------------------------------------------------

def test_dry_run_can_be_pasted_into_a_shell(records):
    steps = plan(3, 7, preset="demo", plugs={"IPMT+XMem": "my mod:build; rm x"}, device="cpu").steps
    lines = shell_script(steps, what_is_missing(steps, records), threads=1).splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if not line.startswith("#")]
    assert all(command[0] == "OMP_NUM_THREADS=1" for command in commands)
    assert [tuple(command[2:]) for command in commands] == [step.command for step in steps.values()]


def test_dry_run_leaves_out_what_is_done_and_says_why_the_rest_is_run(steps, records, capsys):
    run({"a": steps["a"]}, records, Fake())
    text = shell_script(steps, what_is_missing(steps, records))
    assert "# a: done\n# " in text and "1 done, 3 to run" in text and f"# d: no {steps['d'].product}" in text
    assert [line.split()[-1] for line in text.splitlines() if not line.startswith("#")] == ["b.py", "c.py", "d.py"]


def test_dry_run_of_the_command_starts_nothing(monkeypatch, capsys, tmp_path):
    output = tmp_path / "new"
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--output", str(output), "--table", "4", "--dry-run", "--fold",
                                      "2", "train.epochs=1"])
    reproduce.main()
    printed = capsys.readouterr().out
    assert "# 10 steps: 0 done" in printed and printed.count("--fold 2") == 10 and printed.count("train.epochs=1") == 10
    assert not output.exists()


@pytest.mark.parametrize("arguments", [
    ["--table", "8"], ["--table", "4", "--fold", "5"], ["--table", "4", "--seeds", "x"],
    ["--table", "3", "--plug", "IPMT+XMem"], ["--table", "4", "--jobs", "0"]])
def test_wrong_arguments_are_named(arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
    with pytest.raises(ValueError, match=arguments[-2]):
        reproduce.main()


# -- tables ---------------------------------------------------------------------------------------------------------

def line(run, j, f, vc, name="cat"):
    return {"class": name, "run": run, "video": "v", "j": j, "f": f, "vc": vc, "vc_variant": "vipmt", "vc_window": 7}


def results(offset, runs=2):
    """J 0.5 + offset, F 0.3 + offset, VC 0.7 + offset, a hundredth more in every run."""
    return [line(run, [0.4 + offset + run / 100, 0.6 + offset + run / 100], [0.3 + offset + run / 100] * 2,
                 [0.75 + offset + run / 100]) for run in range(runs)]


@pytest.fixture
def filled(tmp_path):
    """fill(planner, offsets): results of some tests, {part of a test's name: offset}, as if they had been run"""
    def fill(planner, offsets):
        records = Records(tmp_path / "steps")
        for name, offset in offsets.items():
            tests = [step for step in of_kind(planner, "test") if name in step.name]
            assert tests, name
            for number, test in enumerate(tests):
                for step in (*(planner.steps[need] for need in test.needs), test):
                    step.product.parent.mkdir(parents=True, exist_ok=True)
                    lines = results(offset + number / 10, runs=3) if step is test else []
                    step.product.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
                    records.write(step, 1.0)
        return what_is_missing(planner.steps, records)
    return fill


def table(number, planner, missing, difference=False):
    return reproduce.make_table(table_specs()[number], planner, reproduce.Results(planner, missing), difference)


def planned(tmp_path, number, preset="paper", **options):
    planner = Planner(PRESETS[preset], tmp_path / "out", **options)
    for row in table_specs()[number].rows:
        if planner.has(row.setting):
            planner.results(row.setting)
    return planner


def test_table_from_results_equals_means_and_spread_by_hand(tmp_path, filled):
    """Two of three runs are asked for, four folds whose offsets rise by a tenth: their mean is 0.15 above."""
    planner = planned(tmp_path, 4, overrides=("test.runs=2",))
    missing = filled(planner, {"ytvis clip fold": 0.0})
    rows = {row[0]: row[1:] for row in table(4, planner, missing, difference=True).rows}
    spread = 100 * statistics.stdev([0.65, 0.66])
    j, f, vc = rows["+C"][:3], rows["+C"][3:6], rows["+C"][6:]
    assert j[0] == (61.8, None) and j[1] == pytest.approx((65.5, spread)) and j[2] == "+3.7"
    assert f[0] == (58.8, None) and f[1] == pytest.approx((45.5, spread)) and f[2] == "-13.3"
    assert vc[0] == (60.7, None) and vc[1] == pytest.approx((90.5, spread), abs=1e-4) and vc[2] == "+29.8"
    assert rows["Baseline"] == [(57.8, None), None, "", (53.9, None), None, "", (57.8, None), None, ""]


def test_mean_with_a_missing_fold_stays_empty(tmp_path, filled):
    planner = planned(tmp_path, 1)
    missing = filled(planner, {"vipmt fold 1": 0.0, "vipmt fold 3": 0.1})
    rows = {row[0]: row[1:] for row in table(1, planner, missing, difference=True).rows}
    ours, difference = rows["VIPMT (ours)"], rows["VIPMT (difference)"]
    assert ours[0][0] == pytest.approx(51) and ours[2][0] == pytest.approx(61)
    assert [ours[i] for i in (1, 3, 4, 9, 10)] == [None] * 5 and difference[0] == "+0.4" and difference[4] == ""
    assert rows["TTI (paper)"][:5] == [(x, None) for x in PAPER["ytvis"]["TTI"]["j"]]
    assert "TTI (ours)" not in rows and rows["IPMT (ours)"] == [None] * 11


def test_spread_over_several_trainings_is_that_of_their_means():
    trainings = [{1: results(0.0)}, {1: results(0.1)}, {1: results(0.3)}]
    values = shares(trainings, (1,))
    assert values["j"] == pytest.approx([0.505, 0.605, 0.805]) and values["f"] == pytest.approx([0.305, 0.405, 0.605])
    row, = comparison_table([("x", None, values)]).rows
    assert row[2] == pytest.approx((100 * statistics.mean(values["j"]), 100 * statistics.stdev(values["j"])))
    assert shares([*trainings, {}], (1,)) == {"j": [], "f": [], "vc": []}, "a training is missing"


def test_without_any_run_the_papers_numbers_stand_alone(tmp_path):
    for number, spec in table_specs().items():
        planner = planned(tmp_path, number)
        missing = what_is_missing(planner.steps, Records(tmp_path / "steps"))
        cells = [cell for row in table(number, planner, missing).rows for cell in row[1:]]
        given = [x for row in spec.rows for x in (
            ([*row.paper["j"], *(row.paper["f"] or []), row.paper["vc"]] if spec.by_fold else row.paper) or ())]
        assert sorted(cell[0] for cell in cells if cell) == sorted(given) and None in cells


def test_rows_carry_the_numbers_of_the_paper():
    specs = table_specs()
    assert [row.paper for row in specs[4].rows] == list(PAPER_ABLATIONS["components"].values())
    numbers = {row.label: row.paper for row in specs[7].rows}
    assert numbers["0.8, w/ SSM"] == (63.5, 61.9, 62.8) and numbers["0.5, w/o SSM"] == (63.0, 61.7, 62.7)
    assert numbers["ours: memory.select oracle"] is None
    assert {row.label: row.paper for row in specs[6].rows}["Video, w/o SSM"] == (62.9, 61.6, 62.6)
    assert [row.paper for row in specs[3].rows if "VIPMT" in row.label] == [(64.2, 62.0, 65.7), (32.4, 36.7, 42.1)]


def test_difference_is_taken_only_of_the_papers_own_experiment():
    def comparable(preset="paper", folds=(), overrides=()):
        return reproduce.can_be_compared(Planner(PRESETS[preset], "out", folds, overrides=overrides))
    assert comparable() and comparable(overrides=("ytvis:data.root=x", "train.amp=fp16"))
    assert not comparable("demo") and not comparable(folds=(1, 2)) and not comparable(overrides=("train.epochs=1",))
    assert comparison_table([("x", (1, 2, 3), None)]).header == [
        "", "J paper", "J ours", "F paper", "F ours", "mVC7 paper", "mVC7 ours"]
    entry = PAPER["ytvis"]["VIPMT"]
    assert [row[0] for row in comparison_by_fold([("x", entry, {})]).rows] == ["x (paper)", "x (ours)"]


def test_caption_says_what_was_measured(tmp_path):
    planner = planned(tmp_path, 4, preset="demo", seeds=(1, 2), overrides=("train.epochs=1",))
    text = reproduce.caption(table_specs()[4], planner, dict.fromkeys(planner.steps, "never run"), False)
    for words in ("Generated data", "fold 1,", "seeds 1, 2", "2 test runs of protocol II", "over 2 trainings",
                  "No difference", "train.epochs=1", "10 of 10 tests are not done", "trained jointly"):
        assert words in text, text


def test_tables_are_written_as_markdown_csv_and_latex(tmp_path, filled):
    planner = planned(tmp_path, 6, folds=(1,))
    missing = filled(planner, {"42 video_without_maps": 0.0, "42 video min_iou0.5": 0.1})
    made = table(6, planner, missing)
    reproduce.write_table(tmp_path / "new", 6, "Table 6. Words.", made)
    assert (tmp_path / "new" / "table6.md").read_text() == "Table 6. Words.\n\n" + made.markdown()
    rows = {row[""]: row for row in csv.DictReader(io.StringIO((tmp_path / "new" / "table6.csv").read_text()))}
    assert rows["Video, w/ SSM"]["J ours"] == "61.0" and rows["Video, w/ SSM"]["J ours std"] == "1.0"
    assert rows["Image, w/ SSM"]["J ours"] == "" and rows["Image, w/ SSM"]["J paper"] == "63.3"
    latex = (tmp_path / "new" / "table6.tex").read_text()
    assert latex.startswith("% Table 6. Words.\n\\begin{tabular}") and r"& 61.0 $\pm$ 1.0 &" in latex


def test_every_model_is_used_by_some_table():
    used = {row.setting.model for spec in table_specs().values() for row in spec.rows if row.setting}
    assert used == set(MODELS) and Setting().model in used
