"""Every command line of the project: examples that work, mistakes with a suggestion, silence without a terminal."""
import argparse
import ast
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from utils.command_line import RED, Parser, bar_hidden, coloured

ROOT = Path(__file__).resolve().parents[2]
HOOKS = ("parse_args", "parse_intermixed_args", "parse_known_args")
SCRIPTS = [path for path in [*(ROOT / name for name in ("train.py", "test.py", "segment.py")),
                             *sorted((ROOT / "tools").glob("*.py")), *sorted((ROOT / "tools/workshop").glob("*.py"))]
           if '__name__ == "__main__"' in (text := path.read_text()) and any(f".{hook}(" in text for hook in HOOKS)]
SYNOPSIS = re.compile(r"\[|\.\.\.")          # [--option] or key=value ...: says what may follow, is no example


class Found(Exception):
    """Carries a parser out of the script that made it."""


def parser_of(script):
    """The parser of a command, which is run up to the point where it would read its command line."""
    def stop(parser, *_, **__):
        raise Found(parser)
    with mock.patch.multiple(argparse.ArgumentParser, **dict.fromkeys(HOOKS, stop)), \
            mock.patch.object(sys, "argv", [str(script)]), pytest.raises(Found) as found:
        runpy.run_path(str(script), run_name="__main__")
    return found.value.args[0]


def sub_commands(parser):
    """{name: parser} of the sub-commands, {} where there are none"""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return groups[0].choices if groups else {}


@pytest.fixture(scope="module")
def parsers():
    return {script: parser_of(script) for script in SCRIPTS}


def examples(script, text):
    """The lines of a help that call the script, as lists of arguments."""
    path = script.relative_to(ROOT)
    found, name = [], re.escape(path.name if len(path.parts) == 1 else ".".join(path.with_suffix("").parts))
    for line in text.splitlines():
        call = re.match(rf"\s+(?:python|torchrun)\s(?:.*\s)?{name}(?:\s|$)", line)
        if call and not SYNOPSIS.search(line):
            command = re.split(r"\s{2,}", line[call.end():].strip())[0]         # what follows is a remark
            words = shlex.split(command, comments=True)
            found.append(words[:words.index("--")] if "--" in words else words)   # the rest is for another command
    return found


def refusal(parser, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        parser.parse_intermixed_args(arguments) if not sub_commands(parser) else parser.parse_args(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_all_commands_are_known():
    names = {script.name for script in SCRIPTS}
    assert {"train.py", "test.py", "prepare_data.py", "check_dataset.py", "reproduce.py", "check_parity.py"} <= names


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_has_an_example_and_all_examples_parse(script, parsers, capsys):
    parser = parsers[script]
    calls = examples(script, parser.format_help())
    assert calls, f"python {script.relative_to(ROOT)} --help shows no example"
    for call in calls:
        try:
            parser.parse_args(call) if sub_commands(parser) else parser.parse_intermixed_args(call)
        except SystemExit:
            pytest.fail(f"{call}: {capsys.readouterr().err}")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_mistyped_option_is_answered_with_the_right_one(script, parsers, capsys):
    parser = parsers[script]
    assert isinstance(parser, Parser)
    for one in [parser, *sub_commands(parser).values()]:
        for option in [o for action in one._actions for o in action.option_strings if len(o) > 6]:
            typo = option[:-3] + option[-2] + option[-3] + option[-1]
            if typo != option and not any(other.startswith(typo) for other in one._option_string_actions):
                assert f"did you mean '{option}'?" in refusal(one, [typo], capsys)


def test_help_of_sub_commands_has_examples_that_parse(parsers):
    script = ROOT / "tools" / "prepare_data.py"
    for name, sub in sub_commands(parsers[script]).items():
        calls = examples(script, sub.format_help())
        assert calls and all(call[0] == name for call in calls)
        for call in calls:
            assert sub.parse_args(call[1:])


@pytest.mark.parametrize(("arguments", "meant"), [
    (["--fodl", "1"], "--fold"), (["-fold", "1"], "--fold"), (["--fold", "1", "--batch-sise", "2"], "--batch_size"),
    (["--fold", "1", "--lr", "0.1"], "train.lr=VALUE"), (["--fold", "1", "--train.amp=off"], "train.amp=off")])
def test_train_says_what_was_meant(arguments, meant, parsers, capsys):
    assert f"did you mean '{meant}'?" in refusal(parsers[ROOT / "train.py"], arguments, capsys)


def test_choices_and_sub_commands_have_suggestions(parsers, capsys):
    parser = parsers[ROOT / "tools" / "prepare_data.py"]
    assert "did you mean 'arrange'?" in refusal(parser, ["arange", "ytvis"], capsys)
    assert "did you mean 'ytvis'?" in refusal(parser, ["explain", "ytviss"], capsys)
    assert "did you mean '--archives'?" in refusal(
        parser, ["arrange", "ytvis", "--archives", "a", "--output", "b", "--archvies", "c"], capsys)


def test_what_is_right_or_resembles_nothing_gets_no_suggestion(parsers, capsys):
    text = refusal(parsers[ROOT / "train.py"], ["--fold", "1", "--res", "--xyzxyz", "-5"], capsys)
    assert "did you mean" not in text


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colours_are_for_terminals_without_no_color(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured("error", RED, Terminal()).startswith(RED)
    assert coloured("error", RED, io.StringIO()) == "error"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("error", RED, Terminal()) == "error"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert coloured("error", RED, Terminal()) == "error"


def test_bars_are_for_terminals(monkeypatch):
    from tqdm import tqdm
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert bool(list(tqdm(range(3), disable=bar_hidden())) and stream.getvalue()) == shown
    assert bar_hidden(main=False) is True


def test_every_bar_of_the_project_hides_outside_a_terminal():
    for path in [*ROOT.glob("*.py"), *(path for room in ("models", "dataloaders", "utils", "tools")
                                       for path in (ROOT / room).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            called = [node.func, *node.args[:1]] if isinstance(node, ast.Call) else []       # tqdm(), partial(tqdm)
            if any(isinstance(one, ast.Name) and one.id == "tqdm" for one in called):
                assert "disable" in [keyword.arg for keyword in node.keywords], f"{path}, line {node.lineno}"


def test_a_whole_run_is_quiet_without_a_terminal(demo_root, tmp_path):
    """Training and test as from cron: no warning of a library, no bar, no colour."""
    small = ["--config", "config/demo/ytvis.yaml", "--fold", "1", "--device", "cpu", f"data.root={demo_root}",
             "data.shots=1", "data.size=[32, 48]", "data.samples_per_class=2", "model.dim=16", "backbone.width=8",
             "iou_net.dim=8", "backbone.weights=none", "iou_net.weights=none"]
    runs = [["train.py", *small, "--output", str(tmp_path), "train.epochs=1", "data.workers=1", "train.batch_size=8"],
            ["test.py", *small, "--checkpoint", str(tmp_path / "last.pth"), "--output", str(tmp_path / "test")]]
    both = f"import runpy, sys\nfor sys.argv in {runs}:\n    runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", both], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "test" / "results.jsonl").is_file()
    assert not re.search(r"warn|deprecat|\r|\033|it/s", done.stdout + done.stderr, re.I), done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_answers_before_pytorch_is_loaded(script):
    """PyTorch takes seconds to import; help and mistakes on the command line need none of it."""
    path = script.relative_to(ROOT).with_suffix("")
    code = f"""
import runpy, sys
sys.argv = ["{script.name}", "--help"]
try:
    runpy.run_module("{'.'.join(path.parts)}", run_name="__main__")
except SystemExit as end:
    assert not end.code
assert "torch" not in sys.modules and "torchvision" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert "usage:" in done.stdout


def test_of_overrides_before_and_behind_the_files_of_an_option_the_last_counts(monkeypatch):
    import test as script
    words = ["test.py", "--fold", "1", "seed=1", "--checkpoint", "a.pth", "seed=2", "--runs", "3", "seed=3"]
    monkeypatch.setattr(sys, "argv", words)
    args = script.parse_arguments()
    assert args.checkpoint == ["a.pth"] and args.overrides == ["seed=1", "seed=2", "seed=3", "test.runs=3"]
