"""J against K: the same test with 1, 2, ... supports, as a table and a plot.

    python -m tools.shots --shots 1 2 3 5 10 --output output/shots -- --config config/vipmt/ytvis.yaml --fold 1

Behind -- come the arguments of test.py (one fold). The network stays the one that was trained with data.shots supports;
each K draws its own. Into --output: shotsK/ (a test each, which the same command continues), shots.md, .csv and .png.
"""
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from utils.command_line import Parser
from utils.config import user_errors

ROOT = Path(__file__).resolve().parents[1]
COLOURS = {"j": "#2a78b8", "f": "#c4631f", "vc": "#2f9150"}


def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("--shots", nargs="+", type=int, default=[*range(1, 11)], metavar="K", help="1 to 10, all")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("rest", nargs="*", metavar="ARGUMENT", help="of test.py, behind --")
    args = parser.parse_args()
    if min(args.shots) < 1:
        raise ValueError(f"--shots {min(args.shots)}: expected 1 or more")
    if any(text.startswith("data.shots=") for text in args.rest):
        raise ValueError("data.shots: name the numbers of supports with --shots")
    args.shots = sorted(set(args.shots))
    return args


def scores_of(folder):
    """A test's folder  ->  {metric: a mean per run}"""
    from utils.evaluation.metrics import aggregate  # here, since it takes a second to import
    from utils.evaluation.results import read_results
    runs = {}
    for line in read_results(folder / "results.jsonl"):
        runs.setdefault(line["run"], []).append(line)
    means = [aggregate(lines) for lines in runs.values()]
    return {key: [100 * one[key] for one in means] for key in COLOURS}


def draw(scores, path):
    """{K: {metric: means of runs}}  ->  a picture: mean over runs, with the least and the largest"""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from utils.evaluation.tables import NAMES
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes, shots = figure.subplots(), [*scores]
    for key, colour in COLOURS.items():
        values = [scores[k][key] for k in shots]
        axes.plot(shots, [*map(mean, values)], "o-", color=colour, label=NAMES[key])
        axes.fill_between(shots, [*map(min, values)], [*map(max, values)], color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="supports K", ylabel="per cent", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def write(scores, output):
    """->  the table's text"""
    from utils.evaluation.tables import NAMES, Table
    rows = [[str(k), *((mean(its[key]), stdev(its[key]) if len(its[key]) > 1 else None) for key in NAMES)]
            for k, its in scores.items()]
    table = Table(["K", *NAMES.values()], rows)
    (output / "shots.md").write_text(table.markdown(), encoding="utf-8")
    (output / "shots.csv").write_text(table.csv(), encoding="utf-8")
    draw(scores, output / "shots.png")
    return table.markdown()


def main(args=None):
    args = args or parse_arguments()
    for k in args.shots:
        done = subprocess.run([sys.executable, "test.py", *args.rest, f"data.shots={k}", "--output",
                               str((args.output / f"shots{k}").absolute())], cwd=ROOT, check=False).returncode
        if done:
            sys.exit(done)
    print(write({k: scores_of(args.output / f"shots{k}") for k in args.shots}, args.output), end="")
    print(f"{args.output}: shots.md, shots.csv, shots.png")


if __name__ == "__main__":
    with user_errors():
        main()
