"""How fast, and how much faster than the released way: one table per question, measured here and now.

    python -m tools.workshop.benchmark --config config/vipmt/released.yaml --only network end_to_end parts
    python -m tools.workshop.benchmark --config config/demo/ytvis.yaml --quick
    python -m tools.workshop.benchmark --config config/vipmt/released.yaml data.size=[480,854] data.shots=1 --frames 10

The reference mode (reference_mode.py) runs the same weights as the released code does. Both run in one process, after a
warm-up, on the same frames, one after the other or (--allocator kept, default) in turns, and every ratio is of that one
run. Each job has a process of its own, so that peak memory is its own. Written after every table:
OUTPUT/speed_<config>_<device>.json and .md; a run with --only replaces just its tables there.
"""
import json
import os
import platform
import re
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from inspect import cleandoc
from multiprocessing import get_context, set_start_method
from pathlib import Path

from utils.command_line import Parser
from utils.config import add_config_arguments, load_config, user_errors

NAMES = ("network", "end_to_end", "parts", "memory", "precision", "train", "metrics", "index", "floor")


def run_job(name, settings):
    """One job, in the process that calls this  ->  its rows, what they include in words"""
    from tools.workshop.benchmarking.bench import Bench
    from tools.workshop.benchmarking.jobs import JOBS
    set_start_method(None, force=True)       # or a spawned process would spawn loader processes, which test.py does not
    return JOBS[name](Bench(settings)), " ".join(cleandoc(JOBS[name].__doc__).partition("\n\n")[0].split())


def variants(name, args):
    """What a table's jobs differ in: each runs in a process of its own"""
    precisions = [{"precision": precision} for precision in args.precisions]
    if name == "memory":
        return [{"mode": mode, "frames": frames} for mode, frames in (
            ("ours", args.frames), ("ours", args.long), ("reference", args.frames))]
    if name == "train":
        return [{"mode": "reference", "precision": "fp32"}, *(
            {"mode": "ours", **one} for one in (precisions if args.device == "cuda" else [{"precision": "fp32"}]))]
    return [{}] if name in ("precision", "metrics", "index") else precisions


def compared(rows):
    """Rows of several processes: peaks against the first one of the same mode, steps against the reference's"""
    first = {row["mode"]: row for row in reversed(rows) if "mode" in row}
    for row in rows:
        same, theirs = first.get(row.get("mode")), first.get("reference")
        if "peak_mib" in row and same and row is not same:
            row["growth_percent"] = 100 * (row["peak_mib"] / same["peak_mib"] - 1)
        if "step_s" in row and row is not theirs and theirs:
            row["ratio"], row["peak_share"] = theirs["step_s"] / row["step_s"], row["peak_mib"] / theirs["peak_mib"]
    return rows


class Tables:
    """All tables of one machine and setting, kept on disk."""

    def __init__(self, args, cfg):
        self.path = args.output / f"speed_{cfg.name}_{args.device}.json"
        self.head = {"machine": machine(args), "config": [str(x) for x in args.config], "overrides": args.overrides,
                     "size": list(cfg.data.size), "shots": cfg.data.shots,
                     **{name: getattr(args, name) for name in ("device", "allocator", "checkpoint", "quick")}}
        earlier = json.loads(self.path.read_text()) if self.path.is_file() else {}
        self.tables = earlier["tables"] if {key: earlier.get(key) for key in self.head} == self.head else {}

    def keep(self, name, included, rows):
        """A table is complete: print it and write all of them."""
        self.tables[name] = {"included": included, "date": str(date.today()), "rows": rows}
        print("\n" + table(rows) + "\n", flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.head | {"tables": self.tables}, indent=1) + "\n")
        facts, size = self.head["machine"], " x ".join(map(str, self.head["size"]))
        parts = [f"# Speed: {', '.join(self.head['config']) or 'config/vipmt/ytvis.yaml'}, {self.head['device']}",
                 f"{facts['processor']}, {facts['threads']} threads, PyTorch {facts['torch']}, {size}, K = "
                 f"{self.head['shots']}, allocator: {self.head['allocator']}. Random weights unless a checkpoint is "
                 "named. s: seconds, fps: frames per second, ratio: reference time to ours."]
        for title, found in self.tables.items():
            parts += [f"## {title}", f"{found['included']} ({found['date']})", table(found["rows"])]
        self.path.with_suffix(".md").write_text("\n\n".join(parts) + "\n")


def machine(args):
    """What the numbers depend on besides the settings."""
    import torch
    cpu, file = platform.machine(), Path("/proc/cpuinfo")
    if file.is_file():
        cpu = (re.findall(r"model name\s*: (.*)", file.read_text()) or [cpu])[0]
    environment = {key: value for key, value in sorted(os.environ.items())
                   if key.startswith(("MALLOC_", "LD_PRELOAD", "PYTORCH_"))}
    return {"processor": torch.cuda.get_device_name(0) if args.device == "cuda" else cpu, "threads": args.threads,
            "torch": torch.__version__, "environment": environment}


def table(rows):
    """Rows  ->  Markdown; a column that is empty everywhere is left out, a cell that is empty stays so"""
    def cell(value):
        if isinstance(value, float):
            return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return "" if value is None else str(value)
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value is not None)
    lines = [[*names], ["---"] * len(names), *([cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parse_arguments(arguments=None):
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    parser.add_argument("--threads", type=int, help="of the CPU; default: PyTorch's")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--only", nargs="+", default=NAMES, choices=NAMES, metavar="TABLE", help=", ".join(NAMES))
    parser.add_argument("--frames", type=int, default=20, help="of a video that both modes run over (20)")
    parser.add_argument("--long", type=int, default=2000, help="frames of the long video of the memory table (2000)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of what is measured, after a warm-up (3)")
    parser.add_argument("--cap", type=float, default=300, metavar="S", help="seconds for each mode on one video (300)")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16", "fp16"), default=["fp32"], help="of ours")
    parser.add_argument("--allocator", choices=["shipped", "kept", "default"], default="shipped", help="CPU: shipped:"
                        " ours keeps freed memory, as train.py and test.py do, the reference gives it back, as the "
                        "release does; kept, default: both modes alike")
    parser.add_argument("--checkpoint", help="weights; default: random ones, their last bias set so that masks are "
                                             "neither empty nor full")
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    return parser.parse_intermixed_args(arguments)


def main(arguments=None):
    args, failed = parse_arguments(arguments), []
    import torch  # only now, since it takes seconds: help and mistakes on the command line answer at once

    from utils.runtime import choose_device
    cfg, args.device = load_config(args.config, args.overrides), choose_device(args.device)
    args.threads = args.threads or torch.get_num_threads()
    if args.quick:
        args.frames, args.long, args.repeats = 3 * cfg.data.clip_length, 6 * cfg.data.clip_length, 1
    tables, settings = Tables(args, cfg), {name: value for name, value in vars(args).items() if name != "only"}
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    for name in args.only:
        rows, included = [], ""
        for variant in variants(name, args):
            print(f"{name}: {variant}", flush=True)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                try:
                    found, included = process.submit(run_job, name, settings | variant).result()
                    rows += found
                except Exception as error:          # whatever a job dies of: the others go on
                    failed.append(f"{name} {variant}: {type(error).__name__}: {error}")
        tables.keep(name, included, compared(rows))
    print(f"{tables.path} and .md written")
    if failed:
        raise ValueError(f"{len(failed)} jobs failed; their rows are missing:\n" + "\n".join(failed))


if __name__ == "__main__":
    with user_errors():
        main()
