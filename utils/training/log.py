"""The numbers of a training as events for TensorBoard, beside log.jsonl, where TensorBoard is installed.

In: the very lines that log.jsonl gets. Out: output/events; `tensorboard --logdir output` shows it. It is no part of
requirements.txt: without it nothing is written, and log.jsonl, curves.png and report.html say the same.
"""
from utils.logger import JsonLines, get_logger, read_json_lines

FOLDER = "events"
NO_SCALAR = ("step", "epoch", "videos", "typical", "spike", "episodes")


class TrainingLog(JsonLines):
    """JsonLines of a training; each line goes to TensorBoard, too. Without a path nothing is written."""

    def __init__(self, path):
        super().__init__(path)
        self.events = None if path is None else open_events(self.path)

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

    def close(self):
        super().close()
        if self.events is not None:
            self.events.close()


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
