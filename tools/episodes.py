"""Write the episodes of a test as a JSON file, so that two methods can be compared on the very same ones.

    python -m tools.episodes --config config/vipmt/ytvis.yaml --fold 1 --output episodes.json
    python -m tools.episodes --config config/vipmt/ytvis.yaml --from-results results.jsonl --output episodes.json
    python test.py --config config/vipmt/ytvis.yaml --episodes episodes.json

The first draws what test.py would draw (test.runs, test.protocol, data.shots, seed); the second takes the episodes of a
finished test from its results.jsonl, with protocol and seed from test.json where that lies beside it. test.py replays
either, also one edited by hand: fewer episodes, other supports, another order of the lines.

The file is one object:

    format       "few-shot video episodes"
    version      1
    dataset      "ytvis" or "minivspw"
    fold         1 to 4; all classes are novel classes of this fold
    protocol     "II": supports per query video, "I": per class and run, null: chosen otherwise
    shots        K, the number of supports of every episode
    seed         what the draws followed from, null: nothing was drawn; for the record only
    annotations  {"file", "bytes", "sha256"} of train.json or the test list that the frames were found in, or null
    frame_names  what file names are relative to: JPEGImages/ (ytvis) or data/ of VSPW_480p (minivspw)
    episodes     a list of objects, one per line:
        run                   0, 1, ...: scores are averaged within a run, the spread is over runs
        class_id, class       category id and name; of MiniVSPW the label id of VSPW
        video                 the query video, a folder
        frames                file names of the frames that are segmented and scored, in order
        supports              K objects {"video", "frame"}: folder and file name of each support
        supports_share_video  optional, true: a support is from the query video, or two from one video

A mask is what the annotations have of the class in that frame, all instances together. Supports are final: one that is
too small to be seen at input size (data.size) is replaced already. A run, class and video come once. Further entries
are ignored.
"""
import json
from collections import Counter
from pathlib import Path

from utils.command_line import Parser
from utils.config import add_config_arguments, load_config, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--fold", type=int, choices=(1, 2, 3, 4), help="with --from-results it follows from the lines")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cache", metavar="DIR", help="keeps parsed annotations; a test has its own in OUTPUT/cache")
    parser.add_argument("--from-results", type=Path, metavar="FILE", help="results.jsonl of a finished test")
    args = parser.parse_intermixed_args()
    if not (args.fold or args.from_results):
        parser.error("name a --fold, or the results of a test: --from-results")
    return args


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
from tqdm import tqdm

from dataloaders import build_index
from dataloaders.fewshot.episode_list import (
    drawn_entries,
    list_header,
    list_text,
    parse_episode_list,
    replay,
    result_entries,
)
from dataloaders.fewshot.streaming import TestEpisodes
from utils.evaluation.tables import FOLDS
from utils.files import atomic_file
from utils.logger import setup_logger
from utils.records import read_json_lines


def draw(cfg, index, class_ids):
    """config, index of the fold, its test classes  ->  entries of all cfg.test.runs runs"""
    runs = [TestEpisodes(index, class_ids, cfg, run) for run in range(cfg.test.runs)]
    with tqdm(total=sum(map(len, runs)), desc="episodes", unit="episode", disable=None) as progress:
        for episodes in runs:
            for entry in drawn_entries(episodes):
                yield entry
                progress.update()


def results_of(path, fold, cfg):
    """results.jsonl  ->  (its lines, its fold); cfg takes protocol, seed and shots from the test.json beside it"""
    lines = read_json_lines(path)
    folds = sorted({str(line.get("fold")) if isinstance(line, dict) else "?" for line in lines})
    if folds not in [[str(fold)] for fold in ([fold] if fold else FOLDS)]:
        found = ", ".join(folds)[:200] or "nothing"
        raise ValueError(f"{path}: its lines are of fold {found}, not {fold or 'one fold'}.\n"
                         f"  Name the results.jsonl of a test of one fold, and no other --fold.")
    note = Path(path).parent / "test.json"
    if note.is_file():
        try:
            test = json.loads(note.read_bytes())
            cfg.test.protocol, cfg.seed, cfg.data.shots = (
                test["config"][key] for key in ("test.protocol", "seed", "data.shots"))
            if test.get("episodes"):      # itself replayed: what its list was drawn by is not in the note
                cfg.test.protocol = cfg.seed = None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{note}: no description of a test ({type(error).__name__}: {error}).\n"
                             f"  Move it away: protocol, seed and shots are then taken from --config") from None
    return lines, int(folds[0])


def main(args=None):
    args = args or parse_arguments()
    cfg, fold = load_config(args.config, args.overrides), args.fold
    log = setup_logger()
    if args.from_results:
        lines, fold = results_of(args.from_results, args.fold, cfg)
    index, class_ids = build_index(cfg, args.cache).side(fold, "test")
    header, source = list_header(cfg, index, fold), args.from_results or args.output
    if args.from_results:
        entries = result_entries(lines, index, class_ids, source)
    else:
        entries = list(draw(cfg, index, class_ids))
    replay(parse_episode_list(header | {"episodes": entries}, source), cfg, index, class_ids)   # is it accepted?
    with atomic_file(args.output, "w") as file:
        file.write(list_text(header, entries))
    counts = Counter(entry["run"] for entry in entries)
    log.info("%s: %s", args.output, ", ".join(f"run {run}: {counts[run]} episodes" for run in sorted(counts)))


if __name__ == "__main__":
    with user_errors():
        main(arguments)
