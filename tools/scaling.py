"""What more processes would gain a training: an ESTIMATE from measured parts, not a measurement of many GPUs.

    python tools/scaling.py --config config/vipmt_ytvis.yaml --processes 1 2 4
    python tools/scaling.py --config config/vipmt_ytvis.yaml [--processes 1 2 4] [--repeats 3] [--bandwidth GB/S]

Measured on this machine: a training step with B / N episodes for every N, the time to read and augment an episode, and
(unless --bandwidth gives it) an all-reduce of tensors as large as the gradients between two local processes. With N
processes a step takes max(step(B / N) + all-reduce(N), reading of B / N episodes / data.workers): nothing overlaps, so
that DDP, which averages gradients during the backward pass, should do no worse on GPUs of one machine; what sharing
memory, disks and links costs is not in it.
"""
import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from tools.benchmark_setup import Bench  # noqa: E402
from tools.benchmark_training import OurTraining, training_batches  # noqa: E402
from utils.command_line import Parser  # noqa: E402
from utils.config import add_config_arguments, split_overrides, user_errors  # noqa: E402
from utils.distributed import processes  # noqa: E402
from utils.training_state import AMP  # noqa: E402


def measured_step(bench, episodes, repeats):
    """Seconds of one step with so many episodes, and seconds to read one of them."""
    bench.settings.batch, bench.settings.recorded = episodes, (720, 1280)
    batches = training_batches(bench)
    next(batches)
    batch, reading = bench.timed(next, batches)
    batches.close()
    amp = AMP.get(bench.cfg.train.amp) if bench.device.type == "cuda" else None
    step, batch = OurTraining(bench, bench.model(), amp), batch.to(bench.device)
    return median([bench.timed(step, batch)[1] for _ in range(repeats + 1)][1:]), reading / episodes


def gradient_bytes(bench):
    step = bench.method.TrainStep(bench.method.build(bench.cfg), bench.cfg)
    return sum(p.numel() * p.element_size() for p in step.parameters() if p.requires_grad)


def measured_bandwidth(size, device):
    """Bytes per second of an all-reduce between two local processes, as each of them sees it."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d",
         "--rdzv_endpoint=localhost:0", __file__, "--all-reduce", str(size), "--device", device.type],
        capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"} | dict(os.environ))
    if done.returncode:
        raise ValueError(f"the all-reduce between two processes failed; give --bandwidth.\n{done.stderr[-1500:]}")
    return float(done.stdout.split()[-1])


def all_reduce(size, device):
    """Run by torchrun: rank 0 prints the bytes per second that each process sends."""
    with processes(device) as own:
        values, seconds = torch.zeros(size // 4, device=own), []
        for _ in range(6):
            dist.barrier()
            started = time.perf_counter()
            dist.all_reduce(values)
            if own.type == "cuda":
                torch.cuda.synchronize(own)
            seconds.append(time.perf_counter() - started)
        if dist.get_rank() == 0:
            print(size / median(seconds[1:]))       # a ring of two sends the size once


def estimate(steps, reading, size, bandwidth, batch, workers):
    """{N: seconds of a step with B / N episodes} and the other parts  ->  rows (N, step, all-reduce, reading, total)"""
    rows = []
    for count, step in steps.items():
        ring = 2 * (count - 1) / count * size / bandwidth
        data = reading * batch / count / max(1, workers)
        rows.append((count, step, ring, data, max(step + ring, data)))
    return rows


def table(rows, batch):
    lines = ["| processes | episodes each | step, s | all-reduce, s | reading, s | estimate, s | estimated speed-up |",
             "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    return "\n".join(lines + [f"| {n} | {batch // n} | {step:.3f} | {ring:.3f} | {data:.3f} | {total:.3f} | "
                              f"{rows[0][-1] / total:.2f} |" for n, step, ring, data, total in rows])


def parse_arguments():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--processes", nargs="+", metavar="N", default=["1", "2", "4"],
                        help="each divides train.batch_size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bandwidth", type=float, help="GB/s between processes, where theirs is not this machine's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--all-reduce", type=int, help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    numbers, more = split_overrides(args.processes)      # keys that follow a list
    if not all(number.isdecimal() for number in numbers):
        raise ValueError(f"--processes {' '.join(numbers)}: expected numbers of processes, such as 1 2 4")
    args.processes, args.overrides = [int(number) for number in numbers], [*args.overrides, *more]
    return args


def main():
    args = parse_arguments()
    if args.all_reduce:
        return all_reduce(args.all_reduce, args.device)
    bench = Bench({"config": args.config, "overrides": args.overrides, "device": args.device, "checkpoint": None,
                   "allocator": "kept"})
    batch, workers = bench.cfg.train.batch_size, bench.cfg.data.workers
    wrong = [n for n in args.processes if n < 1 or batch % n]
    if wrong:
        raise ValueError(f"--processes {wrong[0]}: it has to divide train.batch_size, {batch}")
    measured = {n: measured_step(bench, batch // n, args.repeats) for n in sorted(args.processes)}
    size = gradient_bytes(bench)
    bandwidth = args.bandwidth * 1e9 if args.bandwidth else measured_bandwidth(size, bench.device)
    rows = estimate({n: step for n, (step, _) in measured.items()}, median(r for _, r in measured.values()), size,
                    bandwidth, batch, workers)
    print(f"ESTIMATE for {bench.device}; gradients {size / 1e6:.1f} MB at {bandwidth / 1e9:.2f} GB/s, "
          f"data.workers {workers} per process\n\n{table(rows, batch)}")


if __name__ == "__main__":
    with user_errors():
        main()
