"""The steps of a plan: what is done, what is missing and why, and running the rest, several at a time.

A step is one command of this project. That it is done stands in a record, a JSON file beside the step's log, and holds
as long as its product is there, its settings are the same and nothing that it needs is newer. A step that is not done
is run again: train.py and test.py continue where they stand, and refuse by themselves to mix different settings.
"""
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from utils.files import atomic_file

POLL_SECONDS = 0.5
LINES_OF_A_FAILURE = 12


@dataclass(frozen=True)
class Step:
    """One command. `product`: a file that is there once it is done; needs: names of the steps before it."""
    name: str
    command: tuple                                      # arguments of the Python interpreter
    product: Path
    needs: tuple = ()
    settings: dict = field(default_factory=dict)        # {key: value}, what the product depends on

    @property
    def slug(self):
        return re.sub(r"[^\w.+-]+", "_", self.name)


class Records:
    """The folder with a log and a record of every step."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def log(self, step):
        return self.folder / f"{step.slug}.log"

    def path(self, step):
        return self.folder / f"{step.slug}.json"

    def read(self, step):
        """{"command", "settings", "seconds"} of the last time the step was completed, None where it never was"""
        try:
            return json.loads(self.path(step).read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            raise ValueError(f"{self.path(step)}: not JSON; delete it, and the step is run again") from None

    def write(self, step, seconds):
        with atomic_file(self.path(step), "w") as file:
            json.dump({"command": list(step.command), "seconds": round(seconds, 1), "settings": step.settings}, file,
                      indent=1)

    def missing(self, step):
        """Why the step has to be run, without regard to the steps before it; None if it is done"""
        record = self.read(step)
        if not step.product.exists():
            return f"no {step.product}"
        if record is None:
            return f"{step.product} is there, but the step was not completed here"
        changed = changed_settings(record["settings"], json.loads(json.dumps(step.settings)))
        return f"changed since: {changed}" if changed else None

    def newer(self, step, before):
        """Whether the product of `before` was written after the step was completed"""
        return before.product.stat().st_mtime > self.path(step).stat().st_mtime


def changed_settings(then, now):
    """Two {key: value}  ->  'key was 1, is 2', '' if none; a key that the project did not have then is no change."""
    keys = [key for key in then if then[key] != now.get(key)]
    return "; ".join(f"{key} was {then[key]}, is {now.get(key, 'gone')}" for key in keys[:3])


def what_is_missing(steps, records):
    """{name: Step}, in order, needs before those who need them  ->  {name: why it has to be run} of those not done"""
    missing = {}
    for step in steps.values():
        reason = records.missing(step)
        waits = [name for name in step.needs if name in missing]
        if reason is None and waits:
            reason = f"after {waits[0]}"
        elif reason is None:
            newer = [name for name in step.needs if records.newer(step, steps[name])]
            reason = f"{steps[newer[0]].product} is newer" if newer else None
        if reason is not None:
            missing[step.name] = reason
    return missing


def shell_script(steps, missing, threads=None):
    """The plan as text for a shell: commands in order; what is done stands behind a comment sign."""
    setting = f"OMP_NUM_THREADS={threads} " if threads else ""
    lines = [f"# {len(steps)} steps: {len(steps) - len(missing)} done, {len(missing)} to run"]
    for step in steps.values():
        line = setting + shlex.join([interpreter(), *step.command])
        reason = missing.get(step.name)
        lines += [f"# {step.name}: {reason or 'done'}".replace("\n", " "), line if reason else f"# {line}"]
    return "\n".join(lines)


def interpreter():
    """This Python, as one would type it from the current folder."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class Scheduler:
    """Runs the missing steps, at most `jobs` at a time; what many others wait for comes first.

    A failed step holds up those that need it, and no others. start(step, log, slot) -> an object with poll(), as of
    subprocess.Popen, and send_signal() and wait().
    """

    def __init__(self, steps, records, jobs=1, start=None, threads=None):
        self.steps, self.records, self.jobs = steps, records, jobs
        self.start = start or (lambda step, log, slot: start_process(step, log, slot, jobs, threads))
        self.missing = what_is_missing(steps, records)
        self.waiting = sorted((steps[name] for name in self.missing), key=self._weight)
        self.running, self.failed = {}, {}              # name: (slot, process, started); name: message

    def run(self):
        """Until nothing is left that can be run  ->  {name: message} of the steps that failed or had to be left"""
        hidden = None if self.missing else True      # None: where there is no terminal
        with tqdm(total=len(self.missing), desc="steps", unit="step", disable=hidden) as self.bar:
            try:
                while self.waiting or self.running:
                    self._leave_blocked()
                    self._start_ready()
                    self._collect()
                    self._show()
            except KeyboardInterrupt:
                self._stop()
                raise
        return self.failed

    def _weight(self, step):
        """Negative number of missing steps that wait for it, directly or not."""
        found = {step.name}
        for other in self.steps.values():               # in order: needs come first
            if other.name in self.missing and found & set(other.needs):
                found.add(other.name)
        return -len(found)

    def _leave_blocked(self):
        for step in list(self.waiting):
            before = [name for name in step.needs if name in self.failed]
            if before:
                self.waiting.remove(step)
                self._fail(step, f"not run: it needs {before[0]}")

    def _start_ready(self):
        pending = {step.name for step in self.waiting} | set(self.running)
        for step in [step for step in self.waiting if not pending & set(step.needs)]:
            free = sorted(set(range(self.jobs)) - {slot for slot, _, _ in self.running.values()})
            if not free:
                return
            self.records.folder.mkdir(parents=True, exist_ok=True)
            self.waiting.remove(step)
            process = self.start(step, self.records.log(step), free[0])
            self.running[step.name] = free[0], process, time.monotonic()

    def _collect(self):
        done = [name for name, (_, process, _) in self.running.items() if process.poll() is not None]
        if not done and self.running:
            time.sleep(POLL_SECONDS)
        for name in done:
            _, process, started = self.running.pop(name)
            step, seconds = self.steps[name], time.monotonic() - started
            if process.poll() == 0 and step.product.exists():
                self.records.write(step, seconds)
                self.bar.write(f"{name}: done in {seconds:.0f} s")
                self.bar.update()
            else:
                self._fail(step, failure(step, process.poll(), self.records.log(step)))

    def _fail(self, step, message):
        self.failed[step.name] = message
        self.bar.write(f"{step.name}: {message}")
        self.bar.update()

    def _show(self):
        logs = {name: self.records.log(self.steps[name]) for name in self.running}
        self.bar.set_postfix_str(", ".join(f"{name}{progress(log)}" for name, log in logs.items()))

    def _stop(self):
        """As if Ctrl-C had reached every step: each writes down what it has."""
        for _, process, _ in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for _, process, _ in self.running.values():
            process.wait()


def start_process(step, log, slot, jobs, threads=None):
    """The step as a process of the same Python; all it prints goes to the log.

    It gets a share of the cores and, where CUDA_VISIBLE_DEVICES names several GPUs, one of them. It is a session of its
    own, so that Ctrl-C reaches it once, through us.
    """
    environment = {"OMP_NUM_THREADS": str(threads or max(1, (os.cpu_count() or 1) // jobs)), **os.environ}
    devices = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if len(devices) > 1:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    with open(log, "w", encoding="utf-8") as file:
        file.write(shlex.join([interpreter(), *step.command]) + "\n")
        file.flush()
        return subprocess.Popen([sys.executable, *step.command], stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                env=environment, start_new_session=True)


def failure(step, code, log):
    """What the reader needs: the end of the log, the log's name and the command."""
    what = f"failed with exit status {code}" if code else f"ended, but there is no {step.product}"
    text = log.read_bytes().decode(errors="replace") if log.exists() else ""
    lines = [line.rpartition("\r")[2] for line in text.split("\n")]       # of a progress bar, its last state
    tail = [line for line in lines[1:] if line.strip()][-LINES_OF_A_FAILURE:]
    return "\n  ".join([what, *tail, f"All of it: {log}", f"Command: {shlex.join([interpreter(), *step.command])}"])


def progress(log):
    """The last percentage that the log's progress bar shows, ' 45%', '' if none"""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - 2000))
            found = re.findall(rb"(\d+%)\|", file.read())
    except FileNotFoundError:
        return ""
    return f" {found[-1].decode()}" if found else ""


@contextmanager
def alone_in(folder):
    """Two plans must not train into the same folders: ValueError while another one works here."""
    try:
        import fcntl
    except ImportError:                                 # not on Unix: nothing guards the folder there
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{folder.parent}: another tools/reproduce.py works in this folder.\n"
                             "  Wait until it is done, or choose another --output") from None
        yield
