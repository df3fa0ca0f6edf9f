"""One HTML page about a run of train.py or test.py: results, films, curves, memory, config, machine and time.

    python -m tools.report output/vipmt_ytvis/fold1                 training, and its test where there is one
    python -m tools.report output/vipmt_ytvis                       all folds below it
    python -m tools.report output/replayed --films overlays         films that test.py --save-overlays kept elsewhere

Writes RUN/report.html, or --output. Runs may be unfinished: the page says how far they are. It needs nothing but
itself: no network, no script; a browser opens it from the disk. train.py and test.py write it on their own.
"""
from pathlib import Path

from utils.files import atomic_file
from utils.command_line import Parser
from utils.config import user_errors
from utils.logger import get_logger
from utils.report.films import kept_by
from utils.report.page import build_page
from utils.report.read import read_parts

NAME = "report.html"


def write_report(folder, output=None, films=None, masks=None):
    """The page about the run in `folder`  ->  its path

    films, masks: where test.py kept them, or None
    """
    parts = read_parts(folder)
    page = build_page(parts, {part.folder: kept_by(part.folder, films, masks) for part in parts if part.is_test})
    path = Path(output or Path(folder) / NAME)
    with atomic_file(path) as file:
        file.write(page.encode("utf-8"))
    return path


def refresh_report(folder, films=None, masks=None):
    """write_report from within a run, for the training around a test as well: whatever fails is one warning."""
    folder = Path(folder)
    around = [folder.parent] if folder.name == "test" and (folder.parent / "log.jsonl").is_file() else []
    for place in (folder, *around):
        try:
            write_report(place, films=films, masks=masks)
        except Exception as error:      # a picture of the run must not cost the run
            get_logger().warning("no report of %s: %s: %s\n  The run goes on; python -m tools.report %s tries it again",
                                 place, type(error).__name__, error, place)


def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("run", type=Path, help="output folder of train.py or test.py, or one with fold1/ to fold4/")
    parser.add_argument("--films", type=Path, metavar="DIR", help="what test.py --save-overlays got; default: "
                                                                   "RUN/overlays, or beside RUN where it is test/")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="the same of --save-masks: films are made of them")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"default: RUN/{NAME}")
    args = parser.parse_args()
    for flag in ("films", "masks"):
        given = getattr(args, flag)
        if given and not given.is_dir():
            raise FileNotFoundError(f"--{flag} {given}: no such folder.\n"
                                    "  Name what test.py was given, or leave it out")
    return args


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
        print(write_report(arguments.run, arguments.output, arguments.films, arguments.masks))
