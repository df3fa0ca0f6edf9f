"""Masks that another program made of our episodes, measured as test.py measures: results.jsonl and its table.

    python -m tools.episodes --config config/vipmt/ytvis.yaml --fold 1 --output episodes.json
    python -m tools.score_masks --config config/vipmt/ytvis.yaml --episodes episodes.json --masks MASKS --output mine

MASKS/run0/CLASS/VIDEO/FRAME.png: one PNG per frame of an episode, named as the frame, 0 is background; of the video's
own size, or data.size with black borders, as test.py --save-masks writes them. docs/your_method.md has the whole way.
"""
from itertools import islice
from pathlib import Path

from utils.command_line import Parser, say
from utils.config import add_config_arguments, load_config, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--episodes", required=True, metavar="FILE", help="what they are of, see tools/episodes.py")
    parser.add_argument("--masks", type=Path, required=True, metavar="DIR", help="their folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="of results.jsonl and table.md")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
    say("loading PyTorch")

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
import numpy as np
import torch

from dataloaders import build_index, data_fingerprint, get_task
from dataloaders.images import read_mask
from dataloaders.transforms import TestTransform
from models import get_method
from models.method import Prediction
from utils.evaluation.evaluate import evaluate
from utils.evaluation.results import describe_test, key_of, open_results
from utils.evaluation.tables import class_table, summary
from utils.files import owned, safe_name
from utils.logger import setup_logger
from utils.records import describe_run


class SavedMasks:
    """A Segmenter of the contract that reads its masks from files, as they are measured."""

    def __init__(self, folder, reference, cfg):
        self.folder = folder.joinpath(*map(safe_name, reference.folder))
        self.stems = (Path(name).stem for name in reference.facts[0]["frames"])
        self.original, self.transform = cfg.test.resolution == "original", TestTransform(cfg.data.size,
                                                                                         cfg.data.mask_resize)

    def prepare(self, clip):
        return None

    def __call__(self, prepared, clip):
        masks = [self.mask(self.folder / f"{stem}.png", clip) for stem in islice(self.stems, len(clip.images))]
        return Prediction(2 * torch.stack(masks)[None].float() - 1)

    def mask(self, path, clip):
        """A file  ->  its mask at the size that is measured"""
        if not path.is_file():
            raise FileNotFoundError(f"--masks: no {path}.\n  Every frame of every episode needs one: "
                                    "runR/CLASS/VIDEO/FRAME.png; names as the list of episodes has them")
        mask, own, asked = read_mask(path), tuple(clip.original_size), self.transform.size
        if mask.shape not in ((own,) if self.original else (own, asked)):
            raise ValueError(f"{path}: shape {mask.shape}; expected one number per pixel of {own[0]} x {own[1]}"
                             + ("" if self.original else f", or of {asked[0]} x {asked[1]} with black borders"))
        if mask.shape == own and not self.original:
            _, (mask,) = self.transform([np.zeros((*own, 3), np.uint8)], [mask > 0])
            return mask
        return torch.from_numpy(mask > 0)


def main(args=None):
    args = args or parse_arguments()
    cfg, log = load_config(args.config, args.overrides), setup_logger(args.output)
    task = get_task(get_method(cfg.model.method).TASK)
    listed = task.read_episode_list(args.episodes)
    with owned(args.output):
        index = build_index(cfg, args.output / "cache", task)
        data = data_fingerprint(cfg, index)
        whole = task.test_videos(cfg, index, listed.fold, listed=listed).episodes
        header = describe_test(None, cfg, listed.fold, listed.source, data)
        writer, done = open_results(args.output, header, whole.keys())
        describe_run(cfg, args.output, data, listed.fold)
        videos = task.test_videos(cfg, index, listed.fold, done=frozenset(map(key_of, done)), listed=listed)
        with writer:
            results = done + evaluate(lambda reference: SavedMasks(args.masks, reference, cfg), videos, cfg,
                                      writer.append, {"fold": listed.fold}, lambda margins, size: margins)
        log.info("fold %d: %s\n\n%s", listed.fold, summary(results), class_table(results).write(args.output))


if __name__ == "__main__":
    with user_errors():
        main(arguments)
