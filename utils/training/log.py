"""The numbers of a training: log.jsonl, and events for TensorBoard where that is installed.

In: the lines of log.jsonl. Out: output/events; `tensorboard --logdir output` shows it. TensorBoard is no part of
requirements.txt: without it log.jsonl and report.html say the same.
"""
import time

from tqdm import tqdm

from utils.command_line import EveryMinute, bar_hidden
from utils.logger import get_logger
from utils.records import JsonLines, read_json_lines

FOLDER = "events"
MINUTES = 3                  # between two drawings at least: a small training would do little else
NO_SCALAR = ("step", "epoch", "videos", "typical", "spike", "episodes")


class TrainingLog(JsonLines):
    """JsonLines of a training; each line goes to TensorBoard, too. Without a path nothing is written."""

    def __init__(self, path):
        super().__init__(path)
        self.events = None if path is None else open_events(self.path)
        self.drawn = time.monotonic()

    def append(self, entry):
        super().append(entry)
        if self.events is None:
            return
        try:
            for name, value in scalars(entry).items():
                self.events.add_scalar(name, value, entry["step"])
            self.events.flush()
        except Exception as error:          # a second copy of the numbers must not cost the run
            get_logger().warning("no more events for TensorBoard: %s: %s; log.jsonl has all numbers",
                                 type(error).__name__, error)
            self.events = None

    def drawing_is_due(self, at_end):
        """Whether the report is to be written anew: at the end of a training, else every few minutes."""
        if self._file is None or not at_end and time.monotonic() < self.drawn + 60 * MINUTES:
            return False
        self.drawn = time.monotonic()
        return True

    def close(self):
        super().close()
        if self.events is not None:
            self.events.close()


class StepBar:
    """`with StepBar(...) as bar:` a progress bar on a terminal, one line a minute in a log file."""

    def __init__(self, done, name, main):
        self.bar = tqdm(initial=done, desc=name, disable=bar_hidden(main))
        self.name, self.done, self.minute = name, done, EveryMinute(main and self.bar.disable)

    def of(self, total):
        self.bar.total = total

    def step(self, values, rate):
        """A step is done: its losses and statistics, samples per second"""
        self.done += 1
        shown = {"loss": sum(values["losses"].values())}
        if "iou" in values:
            shown["iou"] = values["iou"]
        self.bar.set_postfix({k: f"{v:.3f}" for k, v in shown.items()} | {"samples/s": f"{rate:.1f}"}, refresh=False)
        self.bar.update()
        if self.minute.over():
            get_logger().info("%s: step %d of %s, %s, %.1f samples/s", self.name, self.done,
                              self.bar.total, ", ".join(f"{k} {v:.3f}" for k, v in shown.items()), rate)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()


def open_events(log_path):
    """SummaryWriter beside a log, None without TensorBoard; events after the log's last line will be written again."""
    try:
        from torch.utils.tensorboard import SummaryWriter
        lines = read_json_lines(log_path)
        return SummaryWriter(str(log_path.parent / FOLDER), purge_step=lines[-1]["step"] + 1 if lines else None)
    except ImportError:
        return None
    except Exception as error:              # an installation that does not fit, a full disk
        get_logger().warning("no events for TensorBoard: %s: %s", type(error).__name__, error)
        return None


def scalars(entry):
    """A line of log.jsonl  ->  {"loss/final": value, ..., "train/iou": value, "validation/j": value}"""
    losses = entry.get("losses", {})
    found = {f"loss/{name}": value for name, value in losses.items()}
    found |= {"loss/sum": sum(losses.values())} if losses else {}
    found |= {f"validation/{name}": value for name, value in entry.get("validation", {}).items()}
    return found | {f"train/{name}": value for name, value in entry.items()
                    if name not in NO_SCALAR and isinstance(value, int | float)}
