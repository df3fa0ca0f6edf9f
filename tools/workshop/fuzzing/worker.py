"""The processes of tools/workshop/fuzz.py: each feeds one input after the other and is replaced when an input ends it.

In: jobs. Out: of every job an outcome, accepted, refused or failures, and the words that belong to it.
"""
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import cv2
import torch

from tools.workshop.fuzzing.guard import Guard
from tools.workshop.fuzzing.sandbox import Mutant, copy_sandbox, make_caches, make_sandbox, place, restore
from tools.workshop.fuzzing.targets import KINDS, Mutator

OUTCOMES = ("accepted", "refused", "failures")
LONGEST_MESSAGE = 5000          # characters
LONGEST_DETAIL = 20_000         # characters of a failure that are kept
ENDED = "the process ended with exit code"
LOOK = 0.2                      # seconds between two looks at the processes
TICKS = os.sysconf("SC_CLK_TCK")


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


# -- in the process ---------------------------------------------------------------------------------------------------

def work(connection, folder, jobs, args):
    """Every job in turn, a Mutant or (kind, number); sends (outcome, detail), or ends with its input."""
    log = open(folder / "stderr.txt", "w+")         # decoders write there
    os.dup2(log.fileno(), 2)
    sys.stderr = log
    faulthandler.enable(log)
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is for the one who waits for the results
    original, sandbox = folder / "original" / "sandbox", folder / "sandbox"
    mutator, guard = Mutator(original, args.seed), prepare(sandbox, args.megabytes)
    for job in jobs:
        os.lseek(2, 0, os.SEEK_SET)
        os.ftruncate(2, 0)
        mutant = job if isinstance(job, Mutant) else mutator.mutant(*job)
        place(mutant, sandbox)
        result = judge(mutant, sandbox, guard)
        restore(mutant, sandbox, original)
        connection.send(result)
    connection.close()


def prepare(sandbox, megabytes):
    """A process that may only read, write and use memory as it should  ->  its Guard"""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2 ** 20,) * 2)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    warnings.simplefilter("ignore")
    tempfile.tempdir = str(sandbox)                 # PyTorch makes a folder there to look at some files
    os.chdir(sandbox)
    return Guard(sandbox)


# -- around it --------------------------------------------------------------------------------------------------------

class Watch:
    """Whether a process hangs: since its last sign of life it has computed, or slept, for so many seconds.

    What counts is not the clock: on a busy machine a process that is ready to go on may wait long for its turn.
    """

    def __init__(self, pid, seconds):
        self.stat, self.seconds = Path(f"/proc/{pid}/stat"), seconds
        self.sign_of_life()

    def sign_of_life(self):
        self.slept, self.looked, self.last = 0.0, time.monotonic(), self._read()[1]
        self.start = self.last

    def hangs(self):
        """To be asked often."""
        (asleep, computed), now = self._read(), time.monotonic()
        self.slept = self.slept + min(now - self.looked, 2 * LOOK) if asleep and computed == self.last else 0.0
        self.looked, self.last = now, computed
        return max(self.slept, computed - self.start) > self.seconds

    def _read(self):
        """(whether it sleeps, seconds of all its threads on a processor)"""
        fields = self.stat.read_text().rpartition(")")[2].split()
        return fields[0] == "S", (int(fields[11]) + int(fields[12])) / TICKS


class Worker:
    """A process with its own sandbox, replaced when an input ends it."""

    def __init__(self, folder, jobs, args):
        self.folder, self.jobs, self.args = folder, list(jobs), args
        make_caches(make_sandbox(folder))
        copy_sandbox(folder, folder / "original")
        self.context = multiprocessing.get_context("fork")       # what is imported once serves every process
        self.start()

    def start(self):
        self.connection, other = self.context.Pipe(duplex=False)
        self.process = self.context.Process(target=work, args=(other, self.folder, self.jobs, self.args), daemon=True)
        self.process.start()
        other.close()
        self.watch, self.hung = Watch(self.process.pid, self.args.seconds), False

    def has_result(self):
        """Whether `result` has something to give; a process that hangs is ended."""
        if self.connection.poll():
            return True
        if self.watch.hangs():
            self.hung = True
            os.kill(self.process.pid, signal.SIGABRT)            # its stack goes to its log
            self.process.join(5)
            self.process.kill()
        return False

    def result(self):
        """The next result, once there is one  ->  (job, outcome, detail)"""
        try:
            outcome, detail = self.connection.recv()
            self.watch.sign_of_life()
            return self.jobs.pop(0), outcome, detail
        except EOFError:
            self.process.join()
        job, words = self.jobs.pop(0), self.last_words()
        copy_sandbox(self.folder / "original", self.folder)
        if self.jobs:
            self.start()
        return job, "failures", words

    def last_words(self):
        words = (self.folder / "stderr.txt").read_text(errors="replace")
        return f"{ENDED} {self.process.exitcode}{', a hang' if self.hung else ''}\n{words[-4000:]}"

    def end(self):
        self.process.kill()
        self.process.join()


def run(jobs, args, folder):
    """Jobs (kind, number) or Mutants  ->  yields (job, outcome, detail) as they end"""
    count = min(args.processes, len(jobs))
    workers = [Worker(folder / f"worker{i}", jobs[i::count], args) for i in range(count)]
    try:
        while busy := [worker for worker in workers if worker.jobs]:
            multiprocessing.connection.wait([worker.connection for worker in busy], timeout=LOOK)
            for worker in busy:
                if worker.has_result():
                    yield worker.result()
    finally:
        for worker in workers:
            worker.end()
