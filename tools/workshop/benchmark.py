"""How fast, and how much faster than the released way: one table per question, measured here and now.

    python -m tools.workshop.benchmark --config config/vipmt/released.yaml --only test,parts
    python -m tools.workshop.benchmark --config config/demo/ytvis.yaml --quick
    python -m tools.workshop.benchmark --config config/vipmt/released.yaml [--device cpu|cuda] [--threads N] [--quick]
                              [--only test,parts,train,metrics,index,precision,memory,floor] [--output benchmarks]

The reference mode (reference_mode.py) runs the same weights as the released code does. Both run in one process, after a
warm-up, on the same frames, one after the other or (--allocator kept, default) in turns, and every ratio is of that one
run. Each job has a process of its own, so that peak memory is its own. Written after every job:
<output>/speed_<config>_<device>.json and .md; a run with --only replaces just its tables there.
"""
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import torch

from tools.workshop.benchmarking import floor as benchmark_floor
from tools.workshop.benchmarking import index as benchmark_index
from tools.workshop.benchmarking import jobs as benchmark_jobs
from tools.workshop.benchmarking import metrics as benchmark_metrics
from tools.workshop.benchmarking import training as benchmark_training
from tools.workshop.benchmarking.data import RECORDED
from tools.workshop.benchmarking.setup import Bench, ratio
from utils.command_line import Parser
from utils.config import add_config_arguments, load_config, user_errors

ROOT = Path(__file__).resolve().parents[2]
JOBS = {
    "network": benchmark_jobs.network, "end_to_end": benchmark_jobs.end_to_end, "runs": benchmark_jobs.runs,
    "parts": benchmark_jobs.parts,
    "memory": benchmark_jobs.memory, "precision": benchmark_jobs.precision, "train": benchmark_training.train,
    "metrics": benchmark_metrics.metrics,
    "index": benchmark_index.index, "floor": benchmark_floor.floor}
GROUPS = {"test": ("network", "end_to_end", "runs"), "parts": ("parts",), "train": ("train",),
          "metrics": ("metrics",), "index": ("index",), "precision": ("precision",), "memory": ("memory",),
          "floor": ("floor",)}
INCLUDED = {
    "network": "Frames in memory to masks and IoUs, supports included; no decoding, no metrics. Every frame is "
               "remembered. ratio: same clips of both; later clip: median from the third on, with full memory. The "
               "reference is always float32. Videos that exceed the time limit are cut: see the frame counts.",
    "end_to_end": "Ours: the evaluation loop with JPEG decoding, resizing, network, J, F, VC. Reference: the same, one "
                  "after the other in one process, metrics frame by frame. Medians of whole videos.",
    "runs": "Five support sets over one video: together as in test.py, where what depends on the clip alone is "
            "computed once, and each run for itself. Seconds of one later clip of all runs.",
    "parts": "One clip with full memory, milliseconds. network: all of it, other: what the named parts leave.",
    "memory": "Peak of the process (CPU: libraries and weights included) or of tensors (CUDA) over a streamed video. "
              "difference: against the shortest video of the same mode.",
    "precision": "Ours against ours in float32, turn by turn on one video; J against the generated truth. With random "
                 "weights the masks are of a kind that the slightest change flips.",
    "train": "Forward, backward and Adam on one batch in memory, each mode in a process of its own; the reference in "
             "float32. data: reading, decoding and augmenting one batch in one process; with data: one after the "
             "other. peak: weights and optimiser included; share: of the reference's.",
    "metrics": "One core. Masks of a moving object and a ragged prediction that lags behind.",
    "index": "A generated train.json as large as the real one, in fresh processes; peak memory includes libraries. "
             "json.load: the file as Python objects and nothing else.",
    "floor": "One clip with full memory. arithmetic: its convolutions and matrix products at the best rate that any of "
             "several products reaches here; transfer: their inputs and outputs at the rate of a copy; replay: each of "
             "them alone, median."}


class Runner:
    """Runs jobs one by one in processes of their own and keeps the tables on disk."""

    def __init__(self, args, cfg):
        self.args, self.shared = args, {
            "config": args.config, "overrides": args.overrides, "device": args.device, "checkpoint": args.checkpoint,
            "allocator": args.allocator}
        self.path = args.output / f"speed_{cfg.name}_{args.device}.json"
        self.document = {"machine": machine(args), "settings": self.shared | {"quick": args.quick}}
        self.tables, self.failed = self.earlier(), []

    def earlier(self):
        """Tables of the same settings on the same machine, which this run replaces or keeps."""
        if not self.path.is_file():
            return {}
        old = json.loads(self.path.read_text())
        return old["tables"] if {key: old.get(key) for key in self.document} == self.document else {}

    def job(self, name, **settings):
        """->  rows of the job; none if it failed"""
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in settings.items()), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            asked, answer = Path(folder) / "settings.json", Path(folder) / "rows.json"
            asked.write_text(json.dumps(self.shared | settings))
            command = [sys.executable, "-m", "tools.workshop.benchmark", "--run", name, str(asked), str(answer)]
            done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": str(self.args.threads)},
                                  capture_output=True, text=True)
            if done.returncode:
                self.failed.append(f"{name} {settings}:\n{done.stderr.strip()[-1500:]}")
                print("  failed, see the end", flush=True)
                return []
            return json.loads(answer.read_text())

    def keep(self, name, rows):
        """A table is complete: print it and write all of them."""
        self.tables[name] = {"included": INCLUDED[name], "date": str(date.today()), "rows": rows}
        print("\n" + table(rows) + "\n", flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.document | {"tables": self.tables}, indent=1) + "\n")
        self.path.with_suffix(".md").write_text(self.markdown())

    def markdown(self):
        facts = self.document["machine"]
        config = ", ".join(map(str, self.args.config)) or "config/vipmt/ytvis.yaml"
        lines = [f"# Speed: {config}, {self.args.device}", "",
                 f"{facts['processor']}, {facts['threads']} threads, PyTorch {facts['torch']}, allocator: "
                 f"{self.args.allocator}. Random weights unless a checkpoint is named. Made by "
                 "tools/workshop/benchmark.py; s: seconds, fps: frames per second, ratio: reference time to ours."]
        for name, found in self.tables.items():
            lines += ["", f"## {name}", "", f"{found['included']} ({found['date']})", "", table(found["rows"])]
        return "\n".join(lines) + "\n"


def machine(args):
    gpu = torch.cuda.get_device_properties(0) if args.device == "cuda" else None
    return {"processor": gpu.name if gpu else processor(), "cores": os.cpu_count(), "threads": args.threads,
            "memory_gib": round(gpu.total_memory / 2 ** 30) if gpu else None, "torch": torch.__version__,
            "python": platform.python_version(), "bf16": has_bf16(args.device),
            "environment": {key: os.environ[key] for key in sorted(os.environ)
                          if key.startswith(("MALLOC_", "LD_PRELOAD", "PYTORCH_"))}}


def processor():
    """Model name of the CPU"""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def has_bf16(device):
    """Whether bfloat16 products run in hardware; elsewhere they are slower than float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def table(rows):
    """Rows  ->  Markdown; a column that is empty everywhere is left out, a cell that is empty stays so"""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value is not None)
    lines = [[*names], ["---"] * len(names), *([cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value):
    if value is None:
        return ""
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:.0f}" \
        if isinstance(value, float) else str(value)


# -- what is measured -------------------------------------------------------------------------------------------------

class Plan:
    """Sizes of everything: the full measurement, or --quick, which only shows that all of it runs."""

    def __init__(self, args, cfg):
        clip, quick = cfg.data.clip_length, args.quick
        self.cap, self.repeats, self.warm_up = args.cap, 1 if quick else args.repeats, 1 if quick else 3
        self.sizes = [list(cfg.data.size)] if quick else args.sizes
        self.shots = [cfg.data.shots] if quick else args.shots
        self.precisions = ["fp32", "bf16"] if has_bf16(args.device) and not quick else ["fp32"]
        # frames, and whether the reference runs beside ours
        self.lengths = [(3 * clip, True)] if quick else [(frames, frames <= 50) for frames in args.lengths]
        self.memory_lengths = [3 * clip, 6 * clip] if quick else [min(args.lengths), max(args.lengths)]
        self.recorded = [90, 160] if quick else RECORDED
        self.batch = 2 if quick or args.device == "cpu" else cfg.train.batch_size
        self.index = dict.fromkeys(("videos", "objects", "categories"), 8) | {"frames": 40} \
            if quick else benchmark_index.REAL_SIZE
        self.squares, self.metric_frames = (1, 8) if quick else (len(benchmark_floor.SQUARES), 20)

    def cases(self):
        """Settings of the test loop: the largest first is of no use, the shortest first shows numbers early"""
        return [{"size": size, "frames": frames, "shots": shots, "precision": precision,
                 "modes": ["ours", "reference"] if both else ["ours"]}
                for size in self.sizes for frames, both in self.lengths
                for shots in self.shots for precision in self.precisions]


def network(run, plan):
    return [row for case in plan.cases() for row in run.job("network", **case, cap=plan.cap, warm_up=plan.warm_up)]


def end_to_end(run, plan):
    """Only videos that the reference finishes, too; repeats shrink as videos grow"""
    return [row for case in plan.cases() if "reference" in case["modes"] for row in run.job(
        "end_to_end", **case, recorded=plan.recorded, repeats=plan.repeats if case["frames"] <= 20 else 1)]


def runs(run, plan):
    return run.job("runs", size=plan.sizes[0], shots=plan.shots[0], runs=5, clips=plan.repeats)


def parts(run, plan):
    return [row for precision in plan.precisions for row in run.job(
        "parts", size=plan.sizes[0], shots=plan.shots[0], precision=precision, clips=plan.repeats,
        recorded=plan.recorded)]


def memory(run, plan):
    """Ours over short and long videos, the reference over the short one"""
    rows, first = [], {}
    for mode, lengths in (("ours", plan.memory_lengths), ("reference", plan.memory_lengths[:1])):
        for frames in lengths:
            for row in run.job("memory", mode=mode, size=plan.sizes[0], shots=plan.shots[0], frames=frames,
                               cap=10 * plan.cap):
                shortest = first.setdefault(mode, row["peak_mib"])
                rows.append(row | {"difference_percent": 100 * (row["peak_mib"] / shortest - 1)})
    return rows


def precision(run, plan):
    frames = max(frames for frames, both in plan.lengths if both or len(plan.lengths) == 1)
    return run.job("precision", size=plan.sizes[0], shots=plan.shots[0], frames=frames, warm_up=plan.warm_up,
                   compiled=not run.args.quick)


def train(run, plan):
    """Each mode in a process of its own: together they would not fit. The reference is always float32."""
    asked = [("reference", "fp32")] + [("ours", p) for p in plan.precisions if p == "fp32" or run.args.device == "cuda"]
    rows = [row for mode, precision in asked for row in run.job(
        "train", mode=mode, batch=plan.batch, precision=precision, repeats=plan.repeats, recorded=plan.recorded)]
    theirs = next((row for row in rows if row["mode"] == "reference"), {})
    return [row | {"ratio": ratio(theirs.get("step_s"), row["step_s"]),
                   "peak_share": ratio(row["peak_mib"], theirs.get("peak_mib"))} for row in rows]


def metrics(run, plan):
    return run.job("metrics", size=plan.sizes[0], frames=plan.metric_frames, repeats=10 * plan.repeats)


def index(run, plan):
    """Afresh and through the cache in turns, after the cache was made"""
    kinds = {"json.load": None, "afresh": False, "from the cache": True}
    with tempfile.TemporaryDirectory() as root:
        benchmark_index.write_large_annotations(Path(root) / "train.json", **plan.index)
        run.job("index", root=root, cache=True)
        found = {kind: [row for _ in range(plan.repeats) for row in run.job("index", root=root, cache=cache)]
                 for kind, cache in kinds.items()}
    rows = [rows[0] | {"seconds": median(row["seconds"] for row in rows), "what": kind}
            for kind, rows in found.items() if rows]
    afresh = next((row["seconds"] for row in rows if row["what"] == "afresh"), None)
    return [row | {"ratio": ratio(afresh, row["seconds"])} for row in rows]


def floor(run, plan):
    return [row for precision in plan.precisions for row in run.job(
        "floor", size=plan.sizes[0], shots=plan.shots[0], precision=precision, repeats=plan.repeats,
        squares=plan.squares)]


TABLES = {function.__name__: function for function in (
    network, end_to_end, runs, parts, memory, precision, train, metrics, index, floor)}


# -- command line -----------------------------------------------------------------------------------------------------

def numbers_of(separator):
    """'240x424'  ->  [240, 424]"""
    return lambda text: [int(part) for part in text.split(separator)]


def parse_arguments(arguments=None):
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU; default: PyTorch's")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--only", default=",".join(GROUPS), metavar="A,B", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--sizes", type=numbers_of("x"), nargs="+", default=[[240, 424], [480, 854]], metavar="HxW")
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 50, 200, 2000], metavar="FRAMES",
                        help="of the videos; up to 50 the reference runs, too; memory: the shortest and the longest")
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 1], metavar="K")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of what is measured, after a warm-up")
    parser.add_argument("--cap", type=float, default=120, metavar="S", help="seconds for each mode on one video")
    parser.add_argument("--allocator", choices=["shipped", "kept", "default"], default="shipped", help="CPU: shipped:"
                        " ours keeps freed memory, as train.py and test.py do, the reference gives it back, as the "
                        "release does; kept, default: both modes alike")
    parser.add_argument("--checkpoint", help="weights; default: random ones, their last bias set so that masks are "
                                             "neither empty nor full")
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    args = parser.parse_intermixed_args(arguments)
    unknown = [name for name in args.only.split(",") if name not in GROUPS]
    if unknown:
        raise ValueError(f"--only: unknown {', '.join(unknown)}.\n  Choose of: {', '.join(GROUPS)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no GPU here; use --device cpu or check nvidia-smi")
    return args


def run_job(name, settings):
    """One job in this process  ->  its rows"""
    return JOBS[name](Bench(settings))


def main(arguments=None):
    args = parse_arguments(arguments)
    cfg = load_config(args.config, args.overrides)
    run, plan, started = Runner(args, cfg), Plan(args, cfg), time.perf_counter()
    for group in args.only.split(","):
        for name in GROUPS[group]:
            run.keep(name, TABLES[name](run, plan))
    print(f"{run.path} and .md written, {(time.perf_counter() - started) / 60:.1f} min")
    if run.failed:
        raise ValueError(f"{len(run.failed)} jobs failed; their rows are missing:\n" + "\n\n".join(run.failed))


if __name__ == "__main__":
    with user_errors():
        if sys.argv[1:2] == ["--run"]:
            name, settings, answer = sys.argv[2:]
            Path(answer).write_text(json.dumps(run_job(name, json.loads(Path(settings).read_text()))))
        else:
            main()
