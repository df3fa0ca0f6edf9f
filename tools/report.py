"""One HTML page about a run of train.py or test.py: results, films, curves, memory, config, machine and time.

    python -m tools.report output/vipmt_ytvis/fold1                 training, and its test where there is one
    python -m tools.report output/vipmt_ytvis                       all folds below it
    python -m tools.report output/replayed --films overlays         films that test.py --save-overlays kept elsewhere

Writes RUN/report.html, or --output. Runs may be unfinished: the page says how far they are. It needs nothing but
itself: no network, no script; a browser opens it from the disk. train.py and test.py write it on their own.
"""
from pathlib import Path

from utils.command_line import Parser
from utils.config import user_errors


def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("run", type=Path, help="output folder of train.py or test.py, or one with fold1/ to fold4/")
    parser.add_argument("--films", type=Path, metavar="DIR", help="what test.py --save-overlays got; default: "
                                                                   "RUN/overlays, or beside RUN where it is test/")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: RUN/report.html")
    args = parser.parse_args()
    if args.films and not args.films.is_dir():
        raise FileNotFoundError(f"--films {args.films}: no such folder.\n"
                                "  Name what test.py was given, or leave it out")
    return args


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
        from utils.report.write import write_report  # only now, since it loads PyTorch
        print(write_report(arguments.run, arguments.output, arguments.films))
