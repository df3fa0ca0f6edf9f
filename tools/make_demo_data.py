"""Write a synthetic demo data set into a folder, in the layout of one of the data sets of the paper.

    python tools/make_demo_data.py --output output/demo_data
    python tools/make_demo_data.py --layout minivspw --output output/demo_minivspw_data
    python tools/make_demo_data.py --layout coco --output output/demo_coco_data
    python tools/make_demo_data.py --layout clip --output output/demo_clip

ytvis: videos of 16 categories (dataloaders/demo.py). minivspw: videos of MiniVSPW's 25 classes, where the object may be
absent, with its lists (demo_minivspw.py). coco: still images of 22 classes, for IoUNet (demo_coco.py). clip:
a support folder and a film of a category that fold 1 does not train on, for segment.py (demo_clip.py).
"""
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataloaders.demo import write_demo_data  # noqa: E402  (the project root has to be on the path first)
from dataloaders.demo_clip import write_demo_clip  # noqa: E402
from dataloaders.demo_coco import write_demo_coco  # noqa: E402
from dataloaders.demo_minivspw import write_demo_minivspw  # noqa: E402
from utils.command_line import Parser  # noqa: E402
from utils.config import user_errors  # noqa: E402
from utils.film import Film  # noqa: E402

LAYOUTS = {                    # what writes it, its name for --videos, what is said of the summary
    "ytvis": (write_demo_data, "videos_per_category",
              "{videos} videos, {frames} frames, {annotations} objects of {categories} categories, "
              "each in {fewest_videos} videos or more."),
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
