"""Several processes, real ones under torchrun with gloo: they train and test what one process does, and come back."""
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
import torch
from material import DEMO, ROOT, TINY, result_line, results_of, same_weights
from torch.distributed import TCPStore

from dataloaders import build_index
from dataloaders.fewshot.loaders import share, test_videos, train_batches
from utils.checkpoint import load_checkpoint
from utils.config import load_config
from utils.distributed import agree_on_a_name
from utils.evaluation.results import collect_results
from utils.records import read_json_lines

SHORT = ["data.clips=2", "data.samples_per_class=1", "train.epochs=1"]       # three steps
TRAINING = "tests/system/odd_training.py"


def run(processes, script, root, output, *more, torchrun=(), fails=False, **environment):
    """The script on fold 1, by one process or by torchrun with several, on a port that is free  ->  the output, or
    what it says where it fails"""
    launcher = [sys.executable] if processes == 1 else [
        sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--rdzv_backend=c10d",
        "--rdzv_endpoint=localhost:0", *torchrun]
    words = ["--config", DEMO, "--fold", 1, "--device", "cpu", "--output", output, f"data.root={root}", *TINY, *more]
    done = subprocess.run([*launcher, script, *map(str, words)], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"} | environment)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stderr if fails else output


@pytest.mark.parametrize("settings", [
    ["backbone.trained=true", "train.backward=once"],
    ["backbone.trained=false", "train.backward=per_clip", "loss.ccds=released"]], ids=["one graph", "clip by clip"])
def test_two_processes_train_what_one_trains(demo_root, tmp_path, settings):
    """Batch 4 as 2 x 2, in double precision: losses, gradients, weights; CCDS sees the classes of the whole batch."""
    more = [*SHORT, "model.dropout=0", "model.feature_dropout=0", *settings]
    folders = [run(n, TRAINING, demo_root, tmp_path / str(n), *more, DOUBLE="1") for n in (1, 2)]
    one, two = (read_json_lines(folder / "log.jsonl") for folder in folders)
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-6)
    first, second = (load_checkpoint(folder / "last.pth") for folder in folders)
    for name, weight in first["model"].items():
        torch.testing.assert_close(weight, second["model"][name], rtol=0, atol=1e-5, msg=name)
    assert len(second["rng"]) == 2


def test_two_processes_test_what_one_tests(demo_root, demo_run, tmp_path):
    lines = []
    for processes in (1, 2):
        output = run(processes, "test.py", demo_root, tmp_path / str(processes), "--runs", 2,
                     "--checkpoint", demo_run / "last.pth")
        assert not list(output.glob("results.rank*")) and (output / "table.md").is_file()
        lines.append(results_of(output))
    assert lines[0] == lines[1] and len(lines[0]) > 8


def test_processes_with_other_data_or_settings_do_not_train_together(demo_root, tmp_path):
    """What else they compare, and that one process alone does not mind, is told in test_records.py."""
    shutil.copytree(demo_root, moved := tmp_path / "moved")
    with open(moved / "train.json", "a") as file:
        file.write(" ")
    said = run(2, TRAINING, demo_root, tmp_path / "out", *SHORT, fails=True, OTHER=f"data.root={moved}")
    assert "process 1 was started with another data than process 0" in said
    assert not (tmp_path / "out" / "last.pth").is_file()


def test_a_killed_worker_brings_the_run_back_by_itself(demo_root, tmp_path):
    """SIGKILL for one of two processes in its fifth step; torchrun starts both again, from the last checkpoint, to the
    same weights, and no step is in the log twice."""
    more = ["--resume", *SHORT, "train.epochs=2", "checkpoint.every_steps=2", "speed.deterministic=true"]
    whole = run(2, TRAINING, demo_root, tmp_path / "whole", *more)
    broken = run(2, TRAINING, demo_root, tmp_path / "broken", *more, torchrun=["--max-restarts=2"], KILL_AT="5")
    first, second = (load_checkpoint(folder / "last.pth") for folder in (whole, broken))
    assert first["progress"] | {"typical_loss": 0} == second["progress"] | {"typical_loss": 0}
    assert same_weights(first["model"], second["model"])
    assert [line["step"] for line in read_json_lines(broken / "log.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert json.loads((broken / "run.json").read_text())["earlier"]          # it was started twice


class Announced:
    """A store that lets others know once something was written through it."""

    def __init__(self, store, written):
        self.store, self.written = store, written

    def set(self, *arguments):
        self.store.set(*arguments)
        self.written.set()

    def __getattr__(self, name):
        return getattr(self.store, name)


def test_processes_that_start_again_are_not_misled_by_what_the_dead_ones_wrote():
    """torchrun's store outlives a restart; the processes of one start, in any order, agree on a new name."""
    server, names = TCPStore("localhost", 0, is_master=True, wait_for_workers=False), []
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1), ()):      # each after the one before it, or all at once
        come = [Event() for _ in range(3)]

        def start(rank, order=order, come=come):
            for earlier in order[:order.index(rank)] if order else ():
                come[earlier].wait(30)
            store = TCPStore("localhost", server.port, is_master=False, timeout=timedelta(seconds=30))
            return agree_on_a_name(Announced(store, come[rank]), rank, 3, timedelta(seconds=30))
        with ThreadPoolExecutor(3) as pool:
            found = set(pool.map(start, range(3)))
        assert len(found) == 1 and not found & set(names)
        names += found
    with pytest.raises(TimeoutError, match="process 0 of 3 waited 0:00:00.1"):
        agree_on_a_name(server, 0, 3, timedelta(seconds=0.1))


def test_shares_have_no_overlap_and_no_padding():
    for count in range(12):
        for processes in range(1, 5):
            shares = [share(list(range(count)), (rank, processes)) for rank in range(processes)]
            assert sorted(sum(shares, [])) == list(range(count))


def test_every_process_draws_its_own_part_of_the_same_batches(demo_root):
    """And all runs of its own part of the videos."""
    cfg = load_config([DEMO], [f"data.root={demo_root}", *TINY, "test.runs=2"])
    index = build_index(cfg)
    whole = [batch.ids for batch in train_batches(cfg, index, 1, 0)]
    parts = [[batch.ids for batch in train_batches(cfg, index, 1, 0, part=(rank, 2))] for rank in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    keys = list(test_videos(cfg, index, 1).episodes.keys())
    assert len(set(keys)) == len(keys) == cfg.test.runs * len({key[1:] for key in keys})
    shares = [[one.key for video in test_videos(cfg, index, 1, part=(rank, 2)) for one in video.references]
              for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == sorted(keys)


def test_a_batch_that_cannot_be_shared_is_refused(demo_root):
    cfg = load_config([DEMO], [f"data.root={demo_root}", *TINY])
    with pytest.raises(ValueError, match="train.batch_size is 4, the total over all processes, and 3 of them"):
        train_batches(cfg, build_index(cfg), 1, 0, part=(0, 3))


def test_lines_of_an_interrupted_test_of_several_processes_are_collected(tmp_path):
    def line(run, video):
        return result_line(video) | {"run": run}
    (tmp_path / "results.jsonl").write_text(json.dumps(line(0, "a")) + "\n")
    (tmp_path / "results.rank0.jsonl").write_text(json.dumps(line(0, "c")) + "\n" + json.dumps(line(0, "a")) + "\n")
    (tmp_path / "results.rank1.jsonl").write_text(json.dumps(line(0, "b")) + "\n" + '{"torn')
    found = collect_results(tmp_path, [(0, 1, "a"), (0, 1, "b"), (0, 1, "c")])
    assert [x["video"] for x in found] == ["a", "b", "c"] and found == read_json_lines(tmp_path / "results.jsonl")
    assert not list(tmp_path.glob("results.rank*"))
