"""Hostile and broken input: thousands of mutated files into everything of the project that reads files.

    python tools/fuzz.py --output output/fuzz --inputs 2200
    python tools/fuzz.py --output output/fuzz --kinds rle mask --inputs 5000 --seed 7 --processes 8
    python tools/fuzz.py --replay output/fuzz/failures/rle-17.json

What is fed is in fuzz_targets.py, how it is mutated in fuzz_mutations.py. An input is accepted, or refused: by a
ValueError or an OSError that names the file. Everything else is a failure: another exception, an endless message, a
process that ends, hangs (--seconds) or takes too much memory (--megabytes), a file opened outside the input's folder,
executed code. Failures are kept in OUTPUT/failures for --replay. Exit code 1 if there is one.
"""
import base64
import faulthandler
import json
import multiprocessing
import multiprocessing.connection
import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.fuzz_guard import Guard  # noqa: E402  (the project root has to be on the path first)
from tools.fuzz_targets import KINDS, Mutant, Mutator, make_caches, make_pipe, make_sandbox, place, restore  # noqa: E402
from utils.command_line import Parser  # noqa: E402
from utils.config import user_errors  # noqa: E402

LONGEST_MESSAGE = 5000          # characters
LONGEST_DETAIL = 20_000         # characters of a failure that are kept
ENDED = "the process ended with exit code"
OUTCOMES = ("accepted", "refused", "failures")


# -- one input --------------------------------------------------------------------------------------------------------

def judge(mutant, sandbox, guard):
    """Feed one input that is in its place  ->  (outcome, detail); detail: the error in words, or what is wrong"""
    kind = KINDS[mutant.kind]
    try:
        with guard.watching(kind.reads_anywhere):
            kind.use(sandbox, mutant)
        outcome, detail = "accepted", ""
    except (ValueError, OSError) as error:
        outcome, detail = "refused", f"{type(error).__name__}: {error}"
        if str(sandbox) not in detail and (kind.named is None or kind.named not in detail):
            outcome, detail = "failures", "the message names no file\n" + traceback.format_exc()
        elif len(detail) > LONGEST_MESSAGE:
            outcome, detail = "failures", f"a message of {len(detail)} characters\n{detail}"
    except BaseException:        # the point of the tool: whatever else comes is a finding, SystemExit and all
        outcome, detail = "failures", traceback.format_exc()
    crimes = guard.crimes()
    return ("failures", f"{crimes}\n{detail}"[:LONGEST_DETAIL]) if crimes else (outcome, detail[:LONGEST_DETAIL])


def prepare(sandbox, megabytes):
    """A process that may only read, write and use memory as it should."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2 ** 20,) * 2)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    warnings.simplefilter("ignore")
    tempfile.tempdir = str(sandbox)                 # PyTorch makes a folder there to look at some files
    os.chdir(sandbox)
    return Guard(sandbox)


def work(connection, folder, jobs, args):
    """One process: every job in turn, a Mutant or (kind, number); sends (outcome, detail), or ends with its input."""
    log = open(folder / "stderr.txt", "w+")         # decoders write there
    os.dup2(log.fileno(), 2)
    faulthandler.enable(log)
    original, sandbox = folder / "original" / "sandbox", folder / "sandbox"
    mutator, guard = Mutator(original, args.seed), prepare(sandbox, args.megabytes)
    for job in jobs:
        os.lseek(2, 0, os.SEEK_SET)
        os.ftruncate(2, 0)
        mutant = job if isinstance(job, Mutant) else mutator.mutant(*job)
        place(mutant, sandbox)
        faulthandler.dump_traceback_later(args.seconds, exit=True, file=log)
        result = judge(mutant, sandbox, guard)
        faulthandler.cancel_dump_traceback_later()
        restore(mutant, sandbox, original)
        connection.send(result)
    connection.close()


# -- many inputs ------------------------------------------------------------------------------------------------------

class Worker:
    """A process with its own sandbox, replaced when an input ends it."""

    def __init__(self, folder, jobs, args):
        self.folder, self.jobs, self.args = folder, list(jobs), args
        sandbox = make_sandbox(folder)
        make_caches(sandbox)
        copy_sandbox(folder, folder / "original")
        self.context = multiprocessing.get_context("fork")       # what is imported once serves every process
        self.start()

    def start(self):
        self.connection, other = self.context.Pipe(duplex=False)
        self.process = self.context.Process(target=work, args=(other, self.folder, self.jobs, self.args), daemon=True)
        self.process.start()
        other.close()

    def result(self):
        """The next result, once there is one  ->  (job, outcome, detail)"""
        try:
            outcome, detail = self.connection.recv()
        except EOFError:
            outcome, detail = None, ""
        job = self.jobs.pop(0)
        if outcome is not None:
            return job, outcome, detail
        self.process.join()
        words = self.last_words()
        copy_sandbox(self.folder / "original", self.folder)
        if self.jobs:
            self.start()
        return job, "failures", words

    def last_words(self):
        words = (self.folder / "stderr.txt").read_text(errors="replace")
        return f"{ENDED} {self.process.exitcode}{', a hang' if 'Timeout' in words else ''}\n{words[-4000:]}"


def copy_sandbox(source, target):
    """With the times of the files, which caches look at; without what cannot be copied."""
    shutil.rmtree(target / "sandbox", ignore_errors=True)
    shutil.copytree(source / "sandbox", target / "sandbox", symlinks=True, ignore=shutil.ignore_patterns("pipe"))
    for folder in (source, target):
        make_pipe(folder / "sandbox")


def run(jobs, args, folder):
    """Jobs (kind, number) or Mutants  ->  yields (job, outcome, detail) as they end"""
    count = min(args.processes, len(jobs))
    workers = [Worker(folder / f"worker{i}", jobs[i::count], args) for i in range(count)]
    try:
        while any(worker.jobs for worker in workers):
            multiprocessing.connection.wait([worker.connection for worker in workers if worker.jobs])
            for worker in workers:
                if worker.jobs and worker.connection.poll():
                    yield worker.result()
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()


def keep(output, mutant, detail):
    """A failure as a file that --replay reads."""
    file = output / "failures" / f"{mutant.kind}-{mutant.number}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = None if mutant.content is None else base64.b64encode(mutant.content).decode()
    file.write_text(json.dumps(asdict(mutant) | {"content": content, "detail": detail}, indent=1))
    return file


def read_failure(file):
    """A file of `keep`  ->  Mutant"""
    try:
        record = json.loads(Path(file).read_text())
        record.pop("detail")
        content = record.pop("content")
        mutant = Mutant(**record, content=None if content is None else base64.b64decode(content))
        KINDS[mutant.kind]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: no failure that this tool has kept ({type(error).__name__}: {error}).\n"
                         "  Name a file of OUTPUT/failures") from None
    return mutant


def in_short(detail):
    """The line of a traceback that says most."""
    lines = detail.strip().splitlines() or [""]
    return (lines[0] if ENDED in lines[0] else [lines[0], *(line for line in lines if "Error" in line)][-1])[:300]


def table(counts):
    """{kind: Counter}  ->  text"""
    lines = [f"{'kind':<12}{'inputs':>8}" + "".join(f"{name:>10}" for name in OUTCOMES)]
    total = sum(counts.values(), Counter())
    for kind, found in [*counts.items(), ("all", total)]:
        lines.append(f"{kind:<12}{found.total():>8}" + "".join(f"{found[name]:>10}" for name in OUTCOMES))
    return "\n".join(lines)


def parse(arguments):
    parser = Parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/fuzz"), help="folder of failures (output/fuzz)")
    parser.add_argument("--inputs", type=int, default=2200, help="in all, shared evenly among the kinds (2200)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of input (all)")
    parser.add_argument("--seed", type=int, default=0, help="decides every input")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10, help="one input may take (10)")
    parser.add_argument("--megabytes", type=int, default=2048, help="a process may take for its inputs (2048)")
    parser.add_argument("--replay", nargs="+", metavar="FILE", help="kept failures, instead of new inputs")
    args = parser.parse_args(arguments)
    if min(args.inputs, args.processes, args.seconds, args.megabytes) <= 0:
        parser.error("--inputs, --processes, --seconds and --megabytes have to be positive")
    return args


def main(arguments=None):
    args = parse(arguments)
    with user_errors(), tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        jobs = [read_failure(file) for file in args.replay] if args.replay else [
            (kind, number) for number in range(-(-args.inputs // len(args.kinds))) for kind in args.kinds]
        counts, folder = {kind: Counter() for kind in args.kinds}, Path(folder)
        for job, outcome, detail in tqdm(run(jobs, args, folder), total=len(jobs), unit=" inputs", desc="fuzz", disable=None):
            kind = job.kind if args.replay else job[0]
            counts[kind][outcome] += 1
            if args.replay:
                tqdm.write(f"{kind}-{job.number} ({job.how}): {outcome}\n{detail}")
            elif outcome == "failures":
                mutant = Mutator(folder / "worker0" / "original" / "sandbox", args.seed).mutant(*job)
                tqdm.write(f"{keep(args.output, mutant, detail)} {mutant.how!a}: {in_short(detail)}")
    print(table({kind: found for kind, found in counts.items() if found}))
    return 1 if any(found["failures"] for found in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
