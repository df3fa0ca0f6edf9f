"""segment.py run for the page: started, watched, stopped, and what it left read. Part of tools/annotate.py.

In: the support folder and what the command line named. Out: how far it is, and the film.
"""
import shlex
import subprocess
import sys
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from dataloaders.own.film import picture_at
from dataloaders.own.video import open_video
from tools.annotation.frames import stem_of

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 10                # seconds that a stopped run has to finish writing
LOG_LINES = 12               # of its log, in the page


@dataclass(frozen=True)
class Job:
    """What segment.py is run on, from the command line; video or checkpoint None: it was not named.

    sentences: whether the checkpoint's method reads them
    """
    video: Path | None
    checkpoint: Path | None
    options: tuple = ()
    sentences: bool = False

    def described(self):
        """A line for the page: what would be run on what"""
        video, checkpoint = self.video or "not given (--video)", self.checkpoint or "not given (--checkpoint)"
        options = f", options: `{shlex.join(self.options)}`" if self.options else ""
        return f"Video: `{video}`, checkpoint: `{checkpoint}`{options}"

    def read(self, number, result):
        """A frame of the film, by its number in frames.csv of a Result  ->  (H, W, 3) uint8 RGB"""
        if self.video.is_file() and "--fps" not in self.options:
            return picture_at(self.video, float(result.rows[number]["time"]))
        return next(iter(open_video(self.video, start=f"{number}f"))).image

    def name(self, number):
        """Of a frame of the film as a support"""
        return stem_of(f"{self.video.stem}_{number:05d}")

    def command(self, support, output, text="", earlier=None):
        """Arguments of the process; text: what to segment, in a sentence; earlier: result to go on from, or None

        ValueError with what is missing
        """
        if self.sentences and not text.strip():
            raise ValueError("write what to segment in the video: one sentence")
        for flag, value in (("--video FILE", self.video), ("--checkpoint FILE", self.checkpoint)):
            if value is None:
                raise ValueError(f"{flag} was not given: end this page in its terminal and start it again with it")
        said = [f"--text={text}"] * self.sentences + (["--continue", str(earlier)] if earlier else [])
        return [sys.executable, str(ROOT / "segment.py"), "--support", str(support), "--video", str(self.video),
                "--checkpoint", str(self.checkpoint), "--output", str(output), *said, *self.options]


def reads_sentences(checkpoint):
    """Whether the method of a checkpoint takes a sentence; its import takes seconds"""
    from models import get_method
    from utils.checkpoint import load_checkpoint
    config = load_checkpoint(checkpoint).get("config") or {}
    method = config.get("model", {}).get("method")
    return method is not None and get_method(method).TASK == "referring"


def shown_command(command):
    """The same as a line for a shell."""
    return shlex.join(["python", Path(command[1]).name, *command[2:]])


def next_folder(base):
    """The first of base, base_2, base_3, ... that is not there: no result is written over."""
    base = Path(base)
    later = (base.with_name(f"{base.name}_{n}") for n in count(2))
    return next(folder for folder in chain([base], later) if not folder.exists())


class Run:
    """One process of segment.py; what it prints goes to OUTPUT/segment.log."""

    def __init__(self, command, output):
        self.output = Path(output)
        self.output.mkdir(parents=True)
        self.log = self.output / "segment.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                            cwd=ROOT)

    @property
    def running(self):
        return self.process.poll() is None

    @property
    def succeeded(self):
        return self.process.poll() == 0

    def frames(self):
        """How many frames are segmented so far: frames.csv grows with them."""
        table = self.output / "frames.csv"
        return max(0, table.read_bytes().count(b"\n") - 1) if table.is_file() else 0

    def last_lines(self):
        """The end of what it printed; of a line that was drawn over, what stands there last."""
        text = self.log.read_bytes()[-20_000:].decode("utf-8", errors="replace")
        return "\n".join([line.rstrip("\r").split("\r")[-1] for line in text.rstrip().split("\n")][-LOG_LINES:])

    def stop(self):
        """End the process if it runs; first asked, then made to."""
        if self.running:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
