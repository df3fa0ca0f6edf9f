"""What two runs differ in: set-up (config, code, versions, hardware, data) and result (scores, losses, weights).

    python -m tools.compare_runs output/vipmt_ytvis/fold1 output/clip_frame/fold1
    python -m tools.compare_runs A/test B/test

A and B are folders of train.py or test.py. Videos that both have tested with the same supports are compared one by one.
Ends with status 0 where set-up and result are the same, else with 1.
"""
import sys
from pathlib import Path
from statistics import mean, stdev

from utils.command_line import Parser
from utils.config import differences, flatten, load_config, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
from utils.checkpoint import content_checksum, load_checkpoint
from utils.evaluation.results import key_of, read_results
from utils.evaluation.tables import summary
from utils.report.read import fold_of, read_log, read_object

ALWAYS_OTHER = ("started", "command", "folder", "earlier", "name", "seed")     # name and seed stand in the config
OF_TEST = ("config.", "fold", "checkpoint", "iou_net.file")       # of test.json: said elsewhere, or a name of a file
METRICS = {"j": "J", "f": "F", "vc": "VC"}


def read_record(folder):
    """What a run was, {"git.commit": ...}: run.json, and of test.json what a test's numbers depend on"""
    file = folder / "run.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: no run.json: name the output folder of train.py or test.py")
    record, test = read_object(file), read_object(folder / "test.json")
    inputs = {f"test.{key}": value for key, value in flatten(test).items() if not key.startswith(OF_TEST)}
    return flatten(record) | inputs | {"fold": fold_of(folder, record, test)}


def setup_lines(first, second):
    """Every key of config and record in which the two differ, as text."""
    records = [{key: value for key, value in read_record(folder).items() if key not in ALWAYS_OTHER}
               for folder in (first, second)]
    configs = differences(load_config([first / "config.yaml"]), load_config([second / "config.yaml"]))
    lines = [f"config {key}: {a} | {b}" for key, (a, b) in configs.items()]
    keys = [key for key in records[0] | records[1] if records[0].get(key) != records[1].get(key)]
    return lines + [f"{key}: {records[0].get(key)} | {records[1].get(key)}" for key in keys]


def training_lines(first, second):
    """Steps, last losses and weights."""
    logs = [[line for line in read_log(folder / "log.jsonl") if line.get("losses")] for folder in (first, second)]
    if not all(logs):
        return []
    lines = []
    ends = [log[-1] for log in logs]
    for name, values in (("steps", [end["step"] for end in ends]),
                         ("sum of losses, last line", [sum(end["losses"].values()) for end in ends])):
        if values[0] != values[1]:
            lines.append(f"{name}: {values[0]:.6g} | {values[1]:.6g}")
    steps = [{line["step"]: line["losses"] for line in log} for log in logs]
    apart = next((step for step in steps[0] if step in steps[1] and steps[0][step] != steps[1][step]), None)
    if apart is not None:
        lines.append(f"losses differ from step {apart} on")
    weights = [content_checksum(load_checkpoint(folder / "last.pth")["model"]) for folder in (first, second)]
    return lines + ([] if weights[0] == weights[1] else ["weights of last.pth: not the same"])


def test_lines(first, second):
    """Scores of both, and video by video where both had the same supports."""
    results = [read_results(folder / "results.jsonl") for folder in (first, second)]
    lines = [] if summary(results[0]) == summary(results[1]) else [f"{summary(results[0])} | {summary(results[1])}"]
    a, b = ({key_of(line): line for line in lines_} for lines_ in results)
    both = [key for key in a if key in b and a[key]["support_frames"] == b[key]["support_frames"]]
    if len(both) < max(len(a), len(b)):
        lines.append(f"the same video, run and supports: {len(both)} of {len(a)} | {len(b)}")
    for key, name in METRICS.items():
        gains = [100 * (mean(b[x][key]) - mean(a[x][key])) for x in both if a[x][key] and b[x][key]]
        if any(gains):
            spread = f" ± {stdev(gains):.2f} over videos" if len(gains) > 1 else ""
            better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
            lines.append(f"{name}, second minus first: {mean(gains):+.2f}{spread}; "
                         f"better in {better}, worse in {worse} of {len(gains)}")
    return lines


def compare(first, second):
    """Two folders  ->  {"set-up": lines, "training": lines, "test": lines}, each only where both have it"""
    found = {"set-up": setup_lines(first, second)}
    if all((folder / "last.pth").is_file() and (folder / "log.jsonl").is_file() for folder in (first, second)):
        found["training"] = training_lines(first, second)
    if all((folder / "results.jsonl").is_file() for folder in (first, second)):
        found["test"] = test_lines(first, second)
    return found


def main(args):
    found = compare(args.first, args.second)
    print(f"{args.first} | {args.second}")
    for part, lines in found.items():
        print(f"\n{part}: " + ("the same" if not lines else f"{len(lines)} differences"))
        print("".join(f"  {line}\n" for line in lines), end="")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    with user_errors():
        main(arguments)
