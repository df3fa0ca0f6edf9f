"""The options of segment.py, and what of them does not go together. Imports nothing slow: mistakes answer at once."""
from pathlib import Path

from utils.command_line import Parser


def segment_parser(description):
    parser = Parser(description)
    parser.add_argument("--support", action="append", default=[], metavar="FOLDER",
                        help="images with masks, or a file of --save-support; several, or a folder of folders: as many")
    parser.add_argument("--save-support", metavar="FILE", help="keep the supports as one file, with what the model "
                                                               "computes of them; without --video that is all")
    parser.add_argument("--method", metavar="NAME", help="of the checkpoint, e.g. lwl; or one that needs none")
    parser.add_argument("--init-mask", metavar="FILE",
                        help="PNG that numbers the objects in the first frame, or a folder of them by frame")
    parser.add_argument("--init-box", action="append", default=[], metavar="X,Y,W,H",
                        help="of an object in the first frame, in pixels; repeat it for the objects 2, 3, ...")
    parser.add_argument("--text", metavar="SENTENCE", help="what to segment in the video, where the method reads it")
    parser.add_argument("--support-text", metavar="SENTENCE", help="what the supports' masks show, likewise")
    parser.add_argument("--video", help="film, folder of frames, or number of a camera")
    parser.add_argument("--checkpoint", metavar="FILE", help="of train.py or tools/convert_released.py")
    parser.add_argument("--output", metavar="DIR", help="folder of the result")
    _frames(parser)
    parser.add_argument("--shots", type=int, metavar="K", help="only the first K images of the support folder")
    parser.add_argument("--object", type=int, metavar="N", help="object number in the masks; default: all but 0")
    parser.add_argument("--category", metavar="NAME", help="label in files of LabelMe or COCO with several")
    parser.add_argument("--threshold", type=float, default=0.5, metavar="P",
                        help="probability above which a pixel is object (0.5); memory is always cut at 0.5")
    parser.add_argument("--absent", default="never", metavar="auto|never|P",
                        help="auto: nothing is marked where the object seems not to be there; P: below this presence "
                             "(of auto 0.86), which frames.csv then has; three times the work behind the encoder")
    parser.add_argument("--instances", action="store_true",
                        help="splits masks into objects with numbers that stay, and writes tracks.json (YouTube-VIS) "
                             "and tracks_coco.json")
    parser.add_argument("--follow", metavar="PLUG[=WEIGHTS]",
                        help="what follows these objects instead of their motion: a propagation.plug, e.g. lwl=lwl.pth")
    parser.add_argument("--soft", action="store_true", help="also probabilities, soft/00000.png: grey, 255 is certain")
    parser.add_argument("--max-side", type=int, default=1280, metavar="PIXELS",
                        help="longer side of the film at most (1280; 0: as the video); masks keep the video's size")
    parser.add_argument("--no-film", action="store_true", help="no overlay film; in HD it takes most of the time")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    parser.add_argument("--config", action="append", default=[], metavar="FILE",
                        help="instead of the config in the checkpoint; repeat it to lay one over the other")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes a key, e.g. memory.min_iou=0.6")
    return parser


def _frames(parser):
    """Which frames of the video"""
    parser.add_argument("--continue", dest="go_on", metavar="DIR",
                        help="an earlier result with masks that you have drawn, DIR/corrected/00057.png: frames before "
                             "the first new one stay, later ones are segmented again, with what these show")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th frame")
    parser.add_argument("--start", metavar="TIME", help="first frame: seconds (12.5), or a frame's number (300f)")
    parser.add_argument("--end", metavar="TIME", help="the frame before which it ends, as --start")
    parser.add_argument("--fps", type=float, help="frames per second of a folder of frames (6), or of a film that lies")


def checked(args, parser):
    """The same; an error where what is given does not go together"""
    if not (args.video and args.output) and (args.video or args.output or not args.save_support):
        parser.error(f"--{'output' if args.video else 'video'} is missing")
    if sum(map(bool, (args.support, args.init_mask, args.init_box))) != 1:
        raise ValueError("what to segment?\n  Give one of --support FOLDER, --init-mask FILE, --init-box X,Y,W,H")
    if args.follow and not args.instances:
        raise ValueError("--follow says what follows the objects of --instances; add that, or leave --follow out")
    args.overrides += [f"model.method={args.method}"] if args.method else []
    if args.go_on and args.output and Path(args.go_on).resolve() == Path(args.output).resolve():
        raise ValueError(f"--continue {args.go_on}: name another --output, so that the earlier result stays")
    if args.go_on and args.instances:
        raise ValueError("--continue goes on with categories, not with their objects: leave --instances out")
    if args.max_side < 0:
        raise ValueError(f"--max-side {args.max_side}: expected pixels, or 0 for the size of the video")
    return args
