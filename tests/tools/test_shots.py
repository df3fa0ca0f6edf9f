"""J against K: one test of test.py per K, their means as a table and a plot."""
import json
import statistics
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tools import shots


@pytest.fixture
def call(monkeypatch, tmp_path):
    """call(*arguments)  ->  commands of test.py; J is K / 10, two hundredths more in run 1"""
    commands = []

    def run(command, cwd, check):
        commands.append(command[2:])
        k = int(next(text for text in command if text.startswith("data.shots=")).partition("=")[2])
        folder = tmp_path / f"shots{k}"
        folder.mkdir(exist_ok=True)
        with open(folder / "results.jsonl", "w") as file:
            for r in range(2):
                line = {"run": r, "class_id": 1, "class": "cat", "video": "v", "j": [k / 10 + r / 50] * 2,
                        "f": [0.5] * 2, "vc": [0.25], "vc_variant": "vipmt", "vc_window": 7}
                file.write(json.dumps(line) + "\n")
        return SimpleNamespace(returncode=75 if k == 9 else 0)
    monkeypatch.setattr(shots.subprocess, "run", run)

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["shots", "--output", str(tmp_path), *map(str, arguments)])
        shots.main()
        return commands
    return start


def test_each_k_is_a_test_and_their_means_are_table_and_plot(call, tmp_path, capsys):
    commands = call("--shots", 3, 1, "--", "--config", "c.yaml", "--fold", 1, "data.root=x")
    assert [command[:6] for command in commands] == [
        ["--config", "c.yaml", "--fold", "1", "data.root=x", f"data.shots={k}"] for k in (1, 3)]
    spread = f"{100 * statistics.stdev([0.1, 0.12]):.1f}"
    assert f"| 1 | 11.0 ± {spread} | 50.0 ± 0.0 | 25.0 ± 0.0 |" in capsys.readouterr().out
    assert (tmp_path / "shots.csv").read_text().splitlines()[2].startswith("3,31.0,")
    picture = np.asarray(Image.open(tmp_path / "shots.png").convert("RGB"))
    assert (picture == (42, 120, 184)).all(axis=2).sum() > 100            # the curve of J


def test_what_stops_a_test_stops_all(call, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        call("--shots", 9, 10)
    assert stopped.value.code == 75 and not (tmp_path / "shots10").exists()
    for wrong in (["--shots", 0], ["data.shots=4"]):
        with pytest.raises(ValueError, match="shots"):
            call(*wrong)
