"""The fuzzing tool: mutated files of every kind are read or refused by name, and whatever must not happen is found."""
import json
import os
import pickle
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.workshop import fuzz
from tools.workshop.fuzzing import targets, worker
from tools.workshop.fuzzing.guard import Guard
from tools.workshop.fuzzing.sandbox import copy_sandbox, make_sandbox
from tools.workshop.fuzzing.targets import KINDS, Kind, mutants


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """The sandbox of the tool, with a copy of it beside for what is damaged."""
    folder = tmp_path_factory.mktemp("fuzz")
    sandbox = make_sandbox(folder)
    copy_sandbox(folder, folder / "original")
    before = os.getcwd()
    os.chdir(sandbox)                                         # hostile code writes to ../outside
    tempfile.tempdir = str(sandbox)                           # PyTorch makes a folder there to look at some files
    yield sandbox
    os.chdir(before)
    tempfile.tempdir = None


@pytest.fixture(scope="module")
def guard(sandbox):
    return Guard(sandbox)


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused_by_name(sandbox, guard, kind):
    original = sandbox.parent / "original" / "sandbox"

    @settings(max_examples=16, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutants(kind, original))
    def check(mutant):
        mutant.place(sandbox)
        try:
            outcome, detail = worker.judge(mutant, sandbox, guard)
        finally:
            mutant.restore(sandbox, original)
        assert outcome in ("accepted", "refused"), f"{mutant.file}\n{detail[-3000:]}"

    check()


def opens_outside(sandbox, mutant):
    open(sandbox.parent / "outside" / "secret.jpg", "rb").close()


def writes_outside(sandbox, mutant):
    (sandbox.parent / "left.txt").write_text("x")


def runs_code(sandbox, mutant):
    pickle.loads(mutant.content)


def hangs(sandbox, mutant):
    while True:
        pass


def waits(sandbox, mutant):
    os.mkfifo(sandbox / "pipe")
    open(sandbox / "pipe").close()


def takes_memory(sandbox, mutant):
    bytearray(2 ** 40)


def raises(error):
    def use(sandbox, mutant):
        raise error
    return use


def names_the_file(sandbox, mutant):
    raise ValueError(f"{sandbox / mutant.file}: bad")


def ends(sandbox, mutant):
    os.abort()


PLANTED = {
    "opens": (opens_outside, "secret.jpg"), "writes": (writes_outside, "left.txt"), "code": (runs_code, "os.system"),
    "hangs": (hangs, "perhaps a hang"), "waits": (waits, "perhaps a hang"), "memory": (takes_memory, "MemoryError"),
    "key": (raises(KeyError("x")), "KeyError"), "silent": (raises(ValueError("bad")), "names no file"),
    "long": (lambda sandbox, mutant: raises(ValueError(f"{sandbox}{'x' * 6000}"))(sandbox, mutant), "a message of"),
    "exit": (raises(SystemExit(0)), "SystemExit"), "assert": (raises(AssertionError()), "AssertionError"),
    "ends": (ends, "ended with exit code -6"), "good": (lambda sandbox, mutant: None, None),
    "refused": (names_the_file, None)}


@pytest.fixture
def planted(monkeypatch):
    """Readers that do what must not happen, in the place of the project's."""
    def small_sandbox(folder):
        (folder / "sandbox" / "ytvis" / "JPEGImages").mkdir(parents=True)
        (folder / "outside").mkdir()
        for name in ("outside/secret.jpg", "sandbox/file"):
            (folder / name).write_bytes(b"x")
        return folder / "sandbox"

    code = b"cos\nsystem\n(S'touch ../outside/code'\ntR."
    kinds = {name: Kind("file", lambda data: st.just(code), use) for name, (use, _) in PLANTED.items()}
    for module in (fuzz, targets, worker):
        monkeypatch.setattr(module, "KINDS", kinds)
    monkeypatch.setattr(fuzz, "NAMES", tuple(kinds))
    monkeypatch.setattr(worker, "make_sandbox", small_sandbox)
    monkeypatch.setattr(targets, "SPECIAL", ("folder",))
    return kinds


def test_the_tool_finds_everything_that_must_not_happen(tmp_path, planted, capsys):
    arguments = ["--output", str(tmp_path), "--seconds", "1", "--kinds", *planted, "--inputs", str(len(planted))]
    assert fuzz.main(fuzz.parse(arguments)) == 1
    failures = {file.stem.removesuffix("-1"): json.loads(file.read_text())["detail"]
                for file in (tmp_path / "failures").iterdir()}
    assert failures.keys() == PLANTED.keys() - {"good", "refused"}
    for name, detail in failures.items():
        assert PLANTED[name][1] in detail, name
    assert fuzz.main(fuzz.parse(["--replay", str(tmp_path / "failures" / "key-1.json")])) == 1
    assert "KeyError: 'x'" in capsys.readouterr().out


def test_the_command_offers_every_kind():
    assert tuple(KINDS) == fuzz.NAMES


def test_the_seed_decides_every_input(sandbox):
    """Of kinds without times and addresses in their files; another seed gives others."""
    class Recorder:
        original = sandbox.parent / "original" / "sandbox"

        def __init__(self):
            self.fed = []

        def feed(self, mutant):
            self.fed.append(mutant)
            return "accepted", ""

    def fed(kind, seed):
        recorder, args = Recorder(), fuzz.parse(["--seed", str(seed)])
        fuzz.feed_kind(kind, 30, recorder, args, fuzz.tqdm(disable=True))
        return recorder.fed

    for kind in ("train.json", "rle", "mask", "config", "episodes"):
        assert fed(kind, 3) == fed(kind, 3) != fed(kind, 4) and len(fed(kind, 3)) == 30, kind


def test_a_file_that_is_no_kept_failure_is_not_replayed(tmp_path):
    kept = fuzz.keep(tmp_path, targets.Mutant("rle", "ytvis/train.json", b"x"), 1, "words")
    assert fuzz.read_failure(kept) == targets.Mutant("rle", "ytvis/train.json", b"x")
    for text in ("[]", json.dumps(json.loads(kept.read_text()) | {"file": "../outside/secret.jpg"})):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match="x.json: no failure that this tool has kept"):
            fuzz.read_failure(tmp_path / "x.json")
