"""Write a synthetic demo data set into a folder, in the layout of one of the data sets of the paper.

    python -m tools.make_demo_data --output output/demo_data
    python -m tools.make_demo_data --layout minivspw --output output/demo_minivspw_data
    python -m tools.make_demo_data --layout coco --output output/demo_coco_data
    python -m tools.make_demo_data --layout clip --output output/demo_clip

ytvis: videos of 16 categories (demo_data/ytvis.py). minivspw: videos of MiniVSPW's 25 classes, where the object
may be absent, with its lists. coco: still images of 22 classes, for IoUNet. clip: a support folder and a film of a
category that fold 1 does not train on, for segment.py. encoder: as ytvis, of 72 categories of shapes and textures that
no other layout tests, on which the demo's encoder has learned (pretrain_model/README.md). turning: as ytvis, but
longer: objects leave and come back, and in half of the videos they turn; what their backs look like no support shows.
"""
import importlib
from pathlib import Path

from tqdm import tqdm

from utils.command_line import Parser
from utils.config import user_errors

LAYOUTS = {                    # module and function that write it, its name for --videos
    "ytvis": ("ytvis", "write_demo_data", "videos_per_category"),
    "minivspw": ("minivspw", "write_demo_minivspw", "videos_per_category"),
    "coco": ("coco", "write_demo_coco", "images_per_category"),
    "clip": ("clip", "write_demo_clip", "supports"),
    "encoder": ("ytvis", "write_encoder_data", "videos_per_category"),
    "turning": ("ytvis", "write_turning_data", "videos_per_category")}


def parse():
    parser = Parser(__doc__)
    parser.add_argument("--layout", choices=LAYOUTS, default="ytvis", help="of which data set (default ytvis)")
    parser.add_argument("--output", type=Path, required=True, help="folder to create; must be new or empty")
    parser.add_argument("--seed", type=int, help="decides every byte (default 0)")
    parser.add_argument("--videos", type=int, help="made for each category (default 12; minivspw 8; coco 30 images); "
                                                   "of clip: supports (2)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("ROWS", "COLUMNS"),
                        help="of most videos, in pixels (default 96 160; coco 144 240)")
    parser.add_argument("--frames", type=int, nargs=2, metavar=("FEWEST", "MOST"),
                        help="frames of a video (default 12 16)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2); the bytes do not depend on it")
    args = parser.parse_args()
    if args.layout == "coco" and args.frames:
        parser.error("--frames: stills have one frame; leave it out with --layout coco")
    return args


def main():
    args = parse()
    module, function, number = LAYOUTS[args.layout]
    write = getattr(importlib.import_module(f"tools.demo_data.{module}"), function)    # some of them need PyTorch
    given = {"seed": args.seed, number: args.videos, "size": args.size, "frames": args.frames,
             "jobs": None if args.layout == "clip" else args.jobs}
    written = write(args.output, **{name: value for name, value in given.items() if value is not None},
                    progress=lambda items: tqdm(items, desc="demo data", disable=None))
    print(f"{args.output}: {'written' if written else 'already there with the same parameters, left as it is'}.")


if __name__ == "__main__":
    with user_errors():
        main()
