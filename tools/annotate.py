"""Mark supports in the browser, with a brush or a polygon, segment a film with them, correct it and go on.

    python -m tools.annotate photos/ --output output/annotate/birds
    python -m tools.annotate clip.mp4 --checkpoint output/demo/fold1/last.pth
    python -m tools.annotate photos/ --video clip.mp4 --checkpoint FILE -- --every 5 --device cuda

IMAGES is a folder of JPEG or PNG images, or a video whose frames a slider picks. The page is on this machine's own
address only (127.0.0.1) and loads nothing from the internet. OUTPUT/support gets name.jpg and name.png (the mask, at
the image's own size) for every frame saved; a frame that was saved before shows its mask again. With a checkpoint the
page runs segment.py on the video and shows its film, kept in OUTPUT/result, OUTPUT/result_2, ... Frames that look worst
can be mended, and segment.py --continue goes on from there. With a checkpoint of CMA the page asks for sentences, and
keeps that about the supports in OUTPUT/support/sentence.txt. What follows `--` goes to segment.py as it stands. The
page needs Gradio: pip install -r requirements-annotate.txt
"""
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from utils.command_line import Parser, say

if __name__ == "__main__":
    say("loading the page, which takes some seconds")

from tools.annotation.frames import open_source, stem_of
from tools.annotation.run import Job, reads_sentences
from utils.config import user_errors

# Read by Gradio and what it brings as they are imported: no reports, no look for newer versions, no files elsewhere.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1",
         "GRADIO_SHARE": "False", "GRADIO_NUM_WORKERS": "0", "GRADIO_MCP_SERVER": "False"}


def parse_arguments(arguments):
    """Command line  ->  its values; `options`: what stands behind `--`, for segment.py"""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = Parser(__doc__, usage="%(prog)s IMAGES [options] [-- options of segment.py]")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a folder of images, or a video file")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: output/annotate/NAME of IMAGES")
    parser.add_argument("--video", type=Path, metavar="FILE", help="what to segment, file or folder; default: IMAGES")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the trained network; without: marking only")
    parser.add_argument("--port", type=int, metavar="N", help="default: the first free one from 7860 on")
    args = parser.parse_args(arguments[:cut])
    args.options = tuple(arguments[cut + 1:])
    if args.port is not None and not 1 <= args.port <= 65535:
        raise ValueError(f"--port {args.port}: give a number from 1 to 65535, or leave it out")
    for flag, path in (("--video", args.video), ("--checkpoint", args.checkpoint)):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{flag} {path}: there is nothing of this name; check its spelling")
    return args


def prepare_gradio():
    """Settings for its import  ->  the folder of its temporary files; ValueError where it is not installed"""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("tools/annotate.py needs Gradio, which is not installed here.\n"
                         f"  Install it: {sys.executable} -m pip install -r requirements-annotate.txt")
    os.environ.update(QUIET)
    for name in ("NO_PROXY", "no_proxy"):                # Gradio calls its own page once, never through a proxy
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="annotate_")
    return Path(os.environ["GRADIO_TEMP_DIR"])


def main(arguments):
    """Open the page and stay until Ctrl-C or SIGTERM."""
    args = parse_arguments(arguments)
    source = open_source(args.images)
    folder = args.output or Path("output", "annotate", stem_of(args.images.resolve().stem))
    job = Job((args.video or args.images).resolve(), args.checkpoint and args.checkpoint.resolve(), args.options,
              bool(args.checkpoint) and reads_sentences(args.checkpoint))
    temporary = prepare_gradio()
    try:
        from tools.annotation.page import serve  # here, since it needs Gradio and takes seconds to import
        from tools.annotation.work import Work
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        serve(Work(source, folder.resolve(), job), temporary, args.port)
    except KeyboardInterrupt:
        print("The page is closed; what was saved stays.")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
