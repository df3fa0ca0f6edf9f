"""The process of tools/workshop/fuzz.py that reads one input after the other, and is replaced when an input ends it.

In: Mutants. Out: of each an outcome, accepted, refused or failures, and the words that belong to it.
"""
import faulthandler
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import cv2
import torch

from tools.workshop.fuzzing.guard import Guard
from tools.workshop.fuzzing.sandbox import copy_sandbox, make_sandbox
from tools.workshop.fuzzing.targets import KINDS

OUTCOMES = ("accepted", "refused", "failures")
LONGEST_MESSAGE = 5000          # characters
LONGEST_DETAIL = 20_000         # characters of a failure that are kept
ENDED = "the process ended with exit code"
PATIENCE = 6                    # times the seconds that an input may compute, by the clock: others may keep the machine


def judge(mutant, sandbox, guard):
    """Feed one input that is in its place  ->  (outcome, detail); detail: the error in words, or what is wrong"""
    kind, outcome, detail = KINDS[mutant.kind], "accepted", ""
    try:
        with guard.watching(kind.reads_anywhere):
            kind.use(sandbox, mutant)
    except (ValueError, OSError) as error:
        outcome, detail = "refused", f"{type(error).__name__}: {error}"
        if str(sandbox) not in detail and (kind.named is None or kind.named not in detail):
            outcome, detail = "failures", "the message names no file\n" + traceback.format_exc()
        elif len(detail) > LONGEST_MESSAGE:
            outcome, detail = "failures", f"a message of {len(detail)} characters\n{detail}"
    except BaseException:        # the point of the tool: whatever else comes is a finding, SystemExit and all
        outcome, detail = "failures", traceback.format_exc()
    if crimes := guard.crimes():
        outcome, detail = "failures", f"{crimes}\n{detail}"
    return outcome, detail[:LONGEST_DETAIL]


def work(connection, folder, seconds, megabytes):
    """Within the process: every Mutant that comes, until nobody sends any; ends with an input that takes too much."""
    sys.stderr = log = open(folder / "stderr.txt", "w+")
    os.dup2(log.fileno(), 2)                        # decoders write there
    faulthandler.enable(log)
    faulthandler.register(signal.SIGXCPU, log, chain=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is for the one who waits for the results
    sandbox = folder / "sandbox"
    guard = confined(sandbox, megabytes)
    while mutant := connection.recv():
        os.ftruncate(2, 0)
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 1, -1))
        mutant.place(sandbox)
        result = judge(mutant, sandbox, guard)
        mutant.restore(sandbox, folder / "original" / "sandbox")
        connection.send(result)


def confined(sandbox, megabytes):
    """This process may only read, write and use memory as it should  ->  its Guard"""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2 ** 20,) * 2)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    warnings.simplefilter("ignore")
    tempfile.tempdir = str(sandbox)                 # PyTorch makes a folder there to look at some files
    os.chdir(sandbox)
    return Guard(sandbox)


class Worker:
    """A process with its own sandbox; `original` is where its files are correct."""

    def __init__(self, folder, seconds, megabytes):
        self.folder, self.limits, self.original = folder, (seconds, megabytes), folder / "original" / "sandbox"
        make_sandbox(folder)
        copy_sandbox(folder, folder / "original")
        self.start()

    def start(self):
        context = multiprocessing.get_context("fork")            # what is imported once serves every process
        self.connection, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, self.folder, *self.limits), daemon=True)
        self.process.start()
        other.close()

    def feed(self, mutant):
        """->  (outcome, detail)"""
        try:
            self.connection.send(mutant)
            if self.connection.poll(PATIENCE * self.limits[0]):
                return self.connection.recv()
            os.kill(self.process.pid, signal.SIGABRT)            # its stack goes to its log
            self.process.join(5)
        except (EOFError, OSError):
            self.process.join()
        code = self.process.exitcode
        hung = ", perhaps a hang" if code is None or -code in (signal.SIGXCPU, signal.SIGABRT) else ""
        words = f"{ENDED} {code}{hung}\n{(self.folder / 'stderr.txt').read_text(errors='replace')[-4000:]}"
        self.end()
        copy_sandbox(self.folder / "original", self.folder)
        self.start()
        return "failures", words

    def end(self):
        self.process.kill()
        self.process.join()
