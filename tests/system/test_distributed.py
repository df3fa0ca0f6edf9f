"""Several processes, real ones under torchrun with gloo: they train and test what one process does, and come back."""
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from dataloaders import build_index, build_runs_loader, build_train_loader
from dataloaders.fewshot.loaders import share
from models import get_method
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import load_config, to_dict
from utils.distributed import agree_on_a_name
from utils.evaluation.results import collect_results
from utils.records import read_json_lines

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ["data.size=[48,80]", "data.shots=2", "data.clip_length=2", "data.clips=2", "data.samples_per_class=2",
            "data.few_videos=repeat", "train.batch_size=4", "backbone.width=8", "model.dim=16", "model.layers=2",
            "model.heads=2", "model.ffn_dim=16", "iou_net.dim=4", "iou_net.hidden=8", "train.epochs=1",
            "train.log_every=1", "memory.min_iou=0.0"]
NO_DROPOUT = ["model.dropout=0", "model.feature_dropout=0"]


def arguments(script, root, output, *more):
    return [str(ROOT / script), "--config", "config/demo/ytvis.yaml", "--fold", "1", "--device", "cpu",
            "--output", str(output), f"data.root={root}", *SETTINGS, *map(str, more)]


def launch(processes, *torchrun):
    """The command that starts `processes` of what follows it, on a port that is free."""
    if processes == 1:
        return [sys.executable]
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--rdzv_backend=c10d",
            "--rdzv_endpoint=localhost:0", *torchrun]


def run(processes, *command):
    done = subprocess.run([*launch(processes), *command], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module", params=["trained encoder, one graph", "frozen encoder, clip by clip"])
def trainings(request, demo_root, tmp_path_factory):
    """The same training by one process and by two, in double precision: {processes: folder}"""
    frozen = ["backbone.trained=false", "train.backward=per_clip", "loss.ccds=released"]
    more = [*NO_DROPOUT, *(frozen if request.param.startswith("frozen") else [])]
    folder = tmp_path_factory.mktemp("trainings")
    for processes in (1, 2):
        run(processes, *arguments("tests/system/distributed_float64.py", demo_root, folder / str(processes), *more))
    return {processes: folder / str(processes) for processes in (1, 2)}


def test_two_processes_train_what_one_trains(trainings):
    """Batch 4 as 2 x 2, six steps: losses, gradient norms and weights; CCDS sees the classes of the whole batch."""
    one, two = (read_json_lines(trainings[n] / "log.jsonl") for n in (1, 2))
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-6)
    first, second = (load_checkpoint(trainings[n] / "last.pth") for n in (1, 2))
    for name, weight in first["model"].items():
        torch.testing.assert_close(weight, second["model"][name], rtol=0, atol=1e-5, msg=name)
    assert len(second["rng"]) == 2


def test_two_processes_test_what_one_tests(demo_root, tmp_path):
    cfg = load_config(["config/demo/ytvis.yaml"], SETTINGS)
    weights = get_method("vipmt").build(cfg).state_dict()
    save_checkpoint(tmp_path / "a.pth", {"model": weights, "config": to_dict(cfg), "fold": 1})
    lines = []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        run(processes, *arguments("test.py", demo_root, output, "--checkpoint", tmp_path / "a.pth", "--runs", 2))
        assert not list(output.glob("results.rank*")) and (output / "table.md").is_file()
        found = read_json_lines(output / "results.jsonl")
        lines.append([{k: v for k, v in line.items() if "seconds" not in k} for line in found])
    assert lines[0] == lines[1] and len(lines[0]) > 8


def test_a_killed_worker_brings_the_run_back_by_itself(demo_root, tmp_path):
    """SIGKILL for one of two processes; torchrun starts both again, from the last checkpoint, to the same weights."""
    more = ["--resume", "checkpoint.every_steps=2", "train.epochs=2", "speed.deterministic=true"]
    run(2, *arguments("train.py", demo_root, tmp_path / "whole", *more))
    log, output = tmp_path / "broken" / "log.jsonl", tmp_path / "broken"
    process = subprocess.Popen([*launch(2, "--max-restarts=2"), *arguments("train.py", demo_root, output, *more)],
                               cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") >= 5):
        time.sleep(0.01)
    os.kill(worker_of(process.pid), signal.SIGKILL)
    words = process.communicate()[1]
    assert process.returncode == 0, words[-3000:]
    first, second = (load_checkpoint(tmp_path / name / "last.pth") for name in ("whole", "broken"))
    assert first["progress"] | {"typical_loss": 0} == second["progress"] | {"typical_loss": 0}
    assert all(torch.equal(value, second["model"][name]) for name, value in first["model"].items())
    steps = [line["step"] for line in read_json_lines(log)]
    assert steps == sorted(set(steps)) and len(steps) == 12


def worker_of(agent):
    """Process id of the second worker that torchrun has started."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    workers = [int(child) for child in children if b"train.py" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return workers[-1]


def test_processes_that_start_again_are_not_misled_by_what_the_dead_ones_wrote():
    """torchrun's store outlives a restart; the processes of one start, however late each comes, agree on a new name."""
    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)

    def start(rank, late):
        time.sleep(late)
        store = TCPStore("localhost", server.port, is_master=False, timeout=timedelta(seconds=30))
        return agree_on_a_name(store, rank, 3, timedelta(seconds=30))

    names = []
    with ThreadPoolExecutor(3) as pool:
        for late in ((0, 0, 0), (0, 0.2, 0.4), (0.4, 0.2, 0), (0.2, 0, 0.4), (0, 0, 0)):
            found = set(pool.map(start, range(3), late))
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
    cfg = load_config(["config/demo/ytvis.yaml"], [f"data.root={demo_root}", *SETTINGS])
    index = build_index(cfg)
    whole = [batch.ids for batch in build_train_loader(cfg, index, 1, 0)]
    parts = [[batch.ids for batch in build_train_loader(cfg, index, 1, 0, part=(rank, 2))] for rank in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    keys = build_runs_loader(cfg, index, 1).episodes.keys()
    assert len(set(keys)) == len(keys) == cfg.test.runs * len({key[1:] for key in keys})


def test_a_batch_that_cannot_be_shared_is_refused(demo_root):
    cfg = load_config(["config/demo/ytvis.yaml"], [f"data.root={demo_root}", *SETTINGS])
    with pytest.raises(ValueError, match="train.batch_size is 4, the total over all processes, and 3 of them"):
        build_train_loader(cfg, build_index(cfg), 1, 0, part=(0, 3))


def test_lines_of_an_interrupted_test_of_several_processes_are_collected(tmp_path):
    def line(run, video):
        return {"run": run, "class_id": 1, "video": video}
    (tmp_path / "results.jsonl").write_text(json.dumps(line(0, "a")) + "\n")
    (tmp_path / "results.rank0.jsonl").write_text(json.dumps(line(0, "c")) + "\n" + json.dumps(line(0, "a")) + "\n")
    (tmp_path / "results.rank1.jsonl").write_text(json.dumps(line(0, "b")) + "\n" + '{"torn')
    found = collect_results(tmp_path, [(0, 1, "a"), (0, 1, "b"), (0, 1, "c")])
    assert [x["video"] for x in found] == ["a", "b", "c"] and found == read_json_lines(tmp_path / "results.jsonl")
    assert not list(tmp_path.glob("results.rank*"))
