"""The project's messages: on standard error, and in run.log."""
import logging
from pathlib import Path

LOGGERS = ("vipmt", "dataloaders", "models")   # whose information is shown; of all others only warnings


def get_logger():
    """The project's logger; it stays silent until setup_logger was called."""
    return logging.getLogger(LOGGERS[0])


def setup_logger(output=None, main=True):
    """Send messages to stderr and, with `output`, append them to output/run.log; other ranks only warn."""
    remove_handlers()
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO if main else logging.WARNING)
    handlers = [logging.StreamHandler()]
    if output is not None and main:
        Path(output).mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(Path(output) / "run.log", encoding="utf-8", errors="backslashreplace"))
    for handler in handlers:
        handler.of_this_project = True
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
        logging.getLogger().addHandler(handler)
    return get_logger()


def remove_handlers():
    """Messages of this project go nowhere from now on, until setup_logger says where."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if getattr(h, "of_this_project", False)]:
        root.removeHandler(handler)
        handler.close()
