"""Write the page about a run, by command (tools/report.py) or from within train.py and test.py."""
from pathlib import Path

from utils.files import atomic_file
from utils.logger import get_logger
from utils.report.page import build_page
from utils.report.read import read_parts

NAME = "report.html"


def write_report(folder, output=None, films=None):
    """The page about the run in `folder`  ->  its path; films: where test.py kept them, or None"""
    parts = read_parts(folder)
    path = Path(output or Path(folder) / NAME)
    with atomic_file(path) as file:
        file.write(build_page(parts, films).encode("utf-8", "replace"))
    return path


def refresh_report(folder, films=None):
    """write_report from within a run, for the training around a test as well: whatever fails is one warning."""
    folder = Path(folder)
    around = [folder.parent] if folder.name == "test" and (folder.parent / "log.jsonl").is_file() else []
    for place in (folder, *around):
        try:
            write_report(place, films=films)
        except Exception as error:      # a picture of the run must not cost the run
            get_logger().warning("no report of %s: %s: %s\n  The run goes on; python -m tools.report %s tries it again",
                                 place, type(error).__name__, error, place)
