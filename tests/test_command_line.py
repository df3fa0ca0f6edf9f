"""Every command line of the project: examples that work, mistakes with a suggestion, silence without a terminal."""
import ast
import io
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import completion
from utils.command_line import RED, Parser, bar_hidden, coloured

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = completion.scripts()
SYNOPSIS = re.compile(r"\[|\.\.\.")          # [--option] or key=value ...: says what may follow, is no example


@pytest.fixture(scope="module")
def parsers():
    return {script: completion.parser_of(script) for script in SCRIPTS}


def examples(script, text):
    """The lines of a help that call the script, as lists of arguments."""
    found, name = [], re.escape(script.relative_to(ROOT).as_posix())
    for line in text.splitlines():
        call = re.match(rf"\s+(?:python|torchrun)\s(?:.*\s)?{name}(?:\s|$)", line)
        if call and not SYNOPSIS.search(line):
            command = re.split(r"\s{2,}", line[call.end():].strip())[0]         # what follows is a remark
            words = shlex.split(command, comments=True)
            found.append(words[:words.index("--")] if "--" in words else words)   # the rest is for another command
    return found


def refusal(parser, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        parser.parse_intermixed_args(arguments) if not completion.sub_commands(parser) else parser.parse_args(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_all_commands_are_known():
    names = {script.name for script in SCRIPTS}
    assert {"train.py", "test.py", "prepare_data.py", "check_dataset.py", "reproduce.py", "completion.py"} <= names


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_has_an_example_and_all_examples_parse(script, parsers, capsys):
    parser = parsers[script]
    calls = examples(script, parser.format_help())
    assert calls, f"python {script.relative_to(ROOT)} --help shows no example"
    for call in calls:
        try:
            parser.parse_args(call) if completion.sub_commands(parser) else parser.parse_intermixed_args(call)
        except SystemExit:
            pytest.fail(f"{call}: {capsys.readouterr().err}")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_mistyped_option_is_answered_with_the_right_one(script, parsers, capsys):
    parser = parsers[script]
    assert isinstance(parser, Parser)
    for one in [parser, *completion.sub_commands(parser).values()]:
        for option in [o for action in one._actions for o in action.option_strings if len(o) > 6]:
            typo = option[:-3] + option[-2] + option[-3] + option[-1]
            if typo != option and not any(other.startswith(typo) for other in one._option_string_actions):
                assert f"did you mean '{option}'?" in refusal(one, [typo], capsys)


def test_help_of_sub_commands_has_examples_that_parse(parsers):
    script = ROOT / "tools" / "prepare_data.py"
    for name, sub in completion.sub_commands(parsers[script]).items():
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
    assert "did you mean 'ytvis'?" in refusal(parser, ["explain", "ytvsi"], capsys)
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
    small = ["--config", "config/demo.yaml", "--fold", "1", "--device", "cpu", f"data.root={demo_root}", "data.shots=1",
             "data.size=[32, 48]", "data.samples_per_class=2", "model.dim=16", "backbone.width=8", "iou_net.dim=8"]
    runs = [["train.py", *small, "--output", str(tmp_path), "train.epochs=1", "data.workers=1", "train.batch_size=8"],
            ["test.py", *small, "--checkpoint", str(tmp_path / "last.pth"), "--output", str(tmp_path / "test")]]
    both = f"import runpy, sys\nfor sys.argv in {runs}:\n    runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", both], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "test" / "results.jsonl").is_file()
    assert not re.search(r"warn|deprecat|\r|\033|it/s", done.stdout + done.stderr, re.I), done.stdout + done.stderr


@pytest.fixture(scope="module")
def bash(parsers, tmp_path_factory):
    """What bash offers for words of a command line, the last of them being typed."""
    file = tmp_path_factory.mktemp("completion") / "completion.bash"
    file.write_text(completion.completion({script.name: parser for script, parser in parsers.items()}))

    def offers(*words):
        code = f'. {file}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vipmt; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", code, "bash", *words], capture_output=True, text=True, check=True)
        assert not done.stderr
        return done.stdout.split()
    return offers


def test_tab_offers_options_choices_commands_and_keys(bash):
    assert {"--fold", "--resume", "--config"} <= set(bash("python", "train.py", "--"))
    assert bash("python", "train.py", "--fold", "") == ["1", "2", "3", "4"]
    assert bash("python", "tools/prepare_data.py", "ch") == ["check"]
    assert bash("python", "tools/prepare_data.py", "check", "we") == ["weights"]
    assert bash("torchrun", "--nproc_per_node=4", "./train.py", "memory.se") == ["memory.select="]
    assert bash("python", "train.py", "train.amp", "=", "b") == ["bf16"]
    assert bash("python", "test.py", "--checkpoint", "") == []           # bash completes files itself
    assert bash("python", "other.py", "--") == []


def test_tab_works_in_an_interactive_shell(parsers, tmp_path):
    file = tmp_path / "completion.bash"
    file.write_text(completion.completion({"train.py": parsers[ROOT / "train.py"]}))
    main, sub = pty.openpty()
    typed = f". {file}\npython train.py --resu\t\nexit\n"
    process = subprocess.Popen(
        [shutil.which("bash"), "--norc", "--noprofile", "-i"], stdin=sub, stdout=sub, stderr=sub, cwd=tmp_path,
        env={"PATH": "/nowhere", "TERM": "dumb", "HOME": str(tmp_path)}, start_new_session=True)
    os.close(sub)
    os.write(main, typed.encode())
    text = b""
    try:
        while chunk := os.read(main, 4096):
            text += chunk
    except OSError:                                                      # the shell has ended
        pass
    process.wait(timeout=20)
    assert b"train.py --resume " in text.replace(b"\r", b"")
