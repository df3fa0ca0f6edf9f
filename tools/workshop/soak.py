"""Kill a training and a test again and again, and compare what comes out with a run that nobody disturbed.

    python -m tools.workshop.soak --kills 5 --output output/soak
    python -m tools.workshop.soak --kills 20 [--seed 0] [--output output/soak]

A small model on synthetic videos: first train.py and test.py undisturbed, then the same ended by SIGKILL at random
moments and resumed, until --kills of each were survived: anywhere from the first import on, between steps, while a
checkpoint is being written, during validation. A run that ends before that is compared, and another one begun. Weights,
optimiser, generators, progress, log and result lines have to be equal, bit for bit. Ends with status 1 where they are
not; report.json tells all kills.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from utils.command_line import Parser
from utils.config import user_errors

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ["data.size=[48,80]", "data.clip_length=2", "data.clips=2", "data.workers=1", "data.samples_per_class=12",
            "data.few_videos=repeat", "train.batch_size=4", "train.epochs=4", "train.log_every=1", "backbone.width=8",
            "backbone.weights=none", "model.dim=32", "model.heads=2", "model.ffn_dim=32", "model.dropout=0.1",
            "iou_net.dim=4", "iou_net.hidden=8", "iou_net.weights=none", "memory.min_iou=0.0",
            "validate.classes=base_holdout", "validate.every=1", "validate.holdout=0.2", "validate.episodes=6",
            "checkpoint.every_steps=3", "speed.deterministic=true"]
MOMENTS = ("anywhere", "step", "write", "validation")
TIMES = ("seconds", "data_seconds", "samples_per_s", "data_s")


def command(script, data, output, *more):
    return [sys.executable, str(ROOT / script), "--config", str(ROOT / "config" / "demo" / "ytvis.yaml"), "--fold", "1",
            "--output", str(output), "--device", "cpu", f"data.root={data}", *SETTINGS, *more]


def start(arguments, log):
    """A process of its own group, its messages at the end of a file."""
    with open(log, "a") as file:
        return subprocess.Popen(arguments, cwd=ROOT, stdout=file, stderr=file, start_new_session=True,
                                env=os.environ | {"OMP_NUM_THREADS": "1"})


def run(arguments, log):
    """To the end. ValueError with its last words where it fails."""
    if status := start(arguments, log).wait():
        raise ValueError(f"{' '.join(arguments[:2])} ended with status {status}:\n{Path(log).read_text()[-2000:]}")


# -- when to kill ---------------------------------------------------------------------------------------------------

def lines_in(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def wait_for(moment, process, output, lines, rng):
    """Until the moment has come or the process has ended."""
    ended, wanted = time.monotonic() + rng.uniform(0, 8), lines_in(lines) + rng.randint(1, 5)

    def is_due():
        if moment == "anywhere":
            return time.monotonic() > ended
        if moment == "write":
            return any(output.glob("*.tmp"))
        return lines_in(lines) >= wanted and (moment == "step" or epoch_is_complete(lines))

    while process.poll() is None and not is_due():
        time.sleep(0.0005 if moment == "write" else 0.01)
    time.sleep(rng.uniform(0, {"anywhere": 0, "write": 0.01}.get(moment, 0.15)))


def epoch_is_complete(lines):
    last = lines.read_bytes().rstrip(b"\n").rsplit(b"\n", 1)[-1]
    step = json.loads(last).get("step", 0) if last.endswith(b"}") else 0
    return step > 0 and step % 36 == 0           # 12 classes x 12 samples / 4


def torment(arguments, output, lines, moments, kills, rng, log, compare):
    """Start and kill until `kills` were survived, then to the end; a run that ends before is compared and begun anew.

    compare() gives the names of what differs from the undisturbed run  ->  {kills: list of dicts, runs, different}
    """
    done, runs, different = [], 1, []
    while len(done) < kills:
        moment, process = rng.choice(moments), start(arguments, log)
        wait_for(moment, process, output, lines, rng)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done.append({"moment": moment, "lines": lines_in(lines), "run": runs})
            print(f"kill {len(done)} of {kills}: {moment}, after {lines_in(lines)} lines of run {runs}", flush=True)
        else:
            run(arguments, log)       # at once, where it was complete; its message, where it had failed
            different += compare()
            shutil.rmtree(output)
            runs += 1
    run(arguments, log)
    return {"kills": done, "runs": runs, "different": different + compare()}


# -- what has to be equal -------------------------------------------------------------------------------------------

def without_times(path):
    from utils.records import read_json_lines
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read_json_lines(path)]


def compare_trainings(first, second):
    """Names of what differs between two run folders."""
    from utils.checkpoint import content_checksum, load_checkpoint
    (a, best), (b, other) = ([load_checkpoint(folder / name) for name in ("last.pth", "best.pth")]
                             for folder in (first, second))
    wrong = [key for key in a if key != "config" and content_checksum(a[key]) != content_checksum(b[key])]
    wrong += ["best.pth"] if content_checksum(best["model"]) != content_checksum(other["model"]) else []
    return wrong + compare_lines(first / "log.jsonl", second / "log.jsonl")


def compare_lines(first, second):
    return [] if without_times(first) == without_times(second) else [first.name]


def soak(output, kills, seed):
    """Both halves  ->  report, a dict"""
    from tools.demo_data.ytvis import write_demo_data
    rng, data, log = random.Random(seed), output / "data", output / "messages.log"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    write_demo_data(data, videos_per_category=3, frames=(10, 10))
    whole, broken = output / "whole", output / "broken"
    run(command("train.py", data, whole), log)
    report = {"seed": seed}
    report["training"] = torment(command("train.py", data, broken, "--resume"), broken, broken / "log.jsonl", MOMENTS,
                                 kills, rng, log, lambda: compare_trainings(whole, broken))
    more = ["--checkpoint", str(whole / "last.pth"), "--runs", "3"]
    first, second = (folder / "test" / "results.jsonl" for folder in (whole, broken))
    run(command("test.py", data, first.parent, *more), log)
    report["test"] = torment(command("test.py", data, second.parent, *more), second.parent, second, MOMENTS[:2], kills,
                             rng, log, lambda: compare_lines(first, second))
    (output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def main():
    parser = Parser(__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of the training, and of the test")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, default=Path("output/soak"), help="emptied first")
    args = parser.parse_args()
    report = soak(args.output, args.kills, args.seed)
    halves = [report["training"], report["test"]]
    for name, half in zip(("training", "test"), halves, strict=True):
        print(f"{name}: {len(half['kills'])} kills in {half['runs']} runs survived, " + (
            f"DIFFERENT: {', '.join(half['different'])}" if half["different"] else
            "equal to the undisturbed run, bit for bit"))
    sys.exit(any(half["different"] for half in halves))


if __name__ == "__main__":
    with user_errors():
        main()
