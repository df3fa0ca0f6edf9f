"""Write a synthetic demo data set into a folder, in the layout of one of the data sets of the paper.

    python -m tools.make_demo_data --output output/demo_data
    python -m tools.make_demo_data --layout minivspw --output output/demo_minivspw_data
    python -m tools.make_demo_data --layout coco --output output/demo_coco_data
    python -m tools.make_demo_data --layout clip --output output/demo_clip

ytvis: videos of 16 categories (demo_data/ytvis.py). minivspw: videos of MiniVSPW's 25 classes, where the object
may be absent, with its lists. coco: still images of 22 classes, for IoUNet. clip: a support folder and a film of a
category that fold 1 does not train on, for segment.py.
"""
from functools import partial
from pathlib import Path

from tqdm import tqdm

from tools.demo_data.clip import write_demo_clip
from tools.demo_data.coco import write_demo_coco
from tools.demo_data.minivspw import write_demo_minivspw
from tools.demo_data.scene import ENCODER_CATEGORIES
from tools.demo_data.ytvis import write_demo_data
from utils.command_line import Parser
from utils.config import user_errors
from utils.pictures.film import Film

LAYOUTS = {                    # what writes it, its name for --videos, what is said of the summary
    "ytvis": (write_demo_data, "videos_per_category",
              "{videos} videos, {frames} frames, {annotations} objects of {categories} categories, "
              "each in {fewest_videos} videos or more."),
    "encoder": (partial(write_demo_data, categories=ENCODER_CATEGORIES), "videos_per_category",
                "{videos} videos, {frames} frames, {annotations} objects of {categories} categories."),
    "minivspw": (write_demo_minivspw, "videos_per_category",
                 "{videos} videos, {frames} frames, {listed} entries of lists; each class in {fewest_train} training "
                 "or {fewest_test} test videos or more."),
    "coco": (write_demo_coco, "images_per_category",
             "{images} images, {annotations} annotations of {categories} categories, {crowds} of them crowds; "
             "each in {fewest_images} training images or more."),
    "clip": (partial(write_demo_clip, open_film=partial(Film, fps=12)), "supports",
             "support/ has {supports} images of {category}; {video} has {frames} frames, truth/ their masks."),
}


def parse():
    parser = Parser(__doc__)
    parser.add_argument("--layout", choices=LAYOUTS, default="ytvis", help="of which data set (default ytvis)")
    parser.add_argument("--output", type=Path, required=True, help="folder to create; must be new or empty")
    parser.add_argument("--seed", type=int, help="decides every byte (default 0)")
    parser.add_argument("--videos", type=int,
                        help="made for each category (default 12; minivspw 8; coco 30 images); of clip: supports (2)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("ROWS", "COLUMNS"),
                        help="of most videos, in pixels (default 96 160; coco 144 240)")
    parser.add_argument("--frames", type=int, nargs=2, metavar=("FEWEST", "MOST"),
                        help="frames of a video (default 12 16)")
    args = parser.parse_args()
    if args.layout == "coco" and args.frames:
        parser.error("--frames: stills have one frame; leave it out with --layout coco")
    return args


def main():
    args = parse()
    write, number, sentence = LAYOUTS[args.layout]
    given = {"seed": args.seed, number: args.videos, "size": args.size, "frames": args.frames}
    made = write(args.output, **{name: value for name, value in given.items() if value is not None},
                 progress=lambda items: tqdm(items, desc="demo data", unit=number.split("s_")[0], disable=None))
    state = "written" if made["written"] else "already there with the same parameters, left as it is"
    print(f"{made['root']}: {state}. {sentence.format(**made)}")


if __name__ == "__main__":
    with user_errors():
        main()
