"""Write the synthetic demo data set (see dataloaders/demo.py) into a folder.

    python tools/make_demo_data.py --output data/demo
"""
import argparse
import sys
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataloaders.demo import write_demo_data  # noqa: E402  (the project root has to be on the path first)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to create; must be new or empty")
    parser.add_argument("--seed", type=int, default=0, help="decides every byte (default 0)")
    parser.add_argument("--videos", type=int, default=12, help="videos made for each of the 16 categories (default 12)")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 160), metavar=("ROWS", "COLUMNS"),
                        help="of most videos, in pixels (default 96 160)")
    parser.add_argument("--frames", type=int, nargs=2, default=(12, 16), metavar=("FEWEST", "MOST"),
                        help="frames of a video (default 12 16)")
    return parser.parse_args()


def main():
    args = parse()
    try:
        made = write_demo_data(args.output, args.seed, args.videos, args.size, args.frames,
                               progress=lambda videos: tqdm(videos, desc="demo data", unit="video"))
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))
    state = "written" if made["written"] else "already there with the same parameters, left as it is"
    print(f"{made['root']}: {state}. {made['videos']} videos, {made['frames']} frames, {made['annotations']} objects "
          f"of {made['categories']} categories, each in {made['fewest_videos']} videos or more.")


if __name__ == "__main__":
    main()
