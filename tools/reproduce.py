"""Every table of a paper: a Makefile with its runs, and the tables of what is done.

    python -m tools.reproduce --table 4 --preset demo --output output/tables     # writes output/tables/Makefile
    make -j2 -C output/tables                                # trains and tests what is missing, then fills the tables
    python -m tools.reproduce --table 4 --fold 1                                 # YouTube-VIS, at the paper's sizes
    python -m tools.reproduce --dry-run                                          # what is missing, hours, disk
    python -m tools.reproduce --table 1 2 --seeds 42 7 1 ytvis:data.root=FOLDER minivspw:data.root=FOLDER

Trainings that several tables need are run once. In DIR (--output, default: output/reproduce/PRESET): the Makefile,
tableN.md, .csv and .tex, tables.md with all that were asked for, the runs, and in their folders all that they printed.
Each call fills the tables from what is there; cells that were not run stay empty.
"""
import shlex
import sys
from pathlib import Path

from tools.reproduction.dry_run import dry_run
from tools.reproduction.makefile import is_done, write_makefile
from tools.reproduction.plan import METHODS, Plan, chosen, read_experiments
from utils.command_line import Parser
from utils.config import user_errors
from utils.evaluation.tables import FOLDS, comparison, difference, flagged, marked, measured, paper_tables, printed

# Overrides that say where things are, not what is computed: with them a difference to the paper is still one.
PLACES = ("data.root", "data.annotations", "data.workers", "backbone.weights", "backbone.cache_frames")


# -- from finished tests to a table ---------------------------------------------------------------------------------

class Results:
    """The tests that are done, read once."""

    def __init__(self, plan):
        self.plan, self.read = plan, {}

    def of(self, tests):
        """{seed: {fold: Step}}  ->  [{fold: lines} of every seed], without what is not done"""
        return [{fold: self._lines(step) for fold, step in by_fold.items() if is_done(self.plan, step)}
                for by_fold in tests.values()]

    def _lines(self, step):
        from utils.evaluation.results import read_results  # here, since it takes seconds to import
        if step.name not in self.read:
            self.read[step.name] = read_results(self.plan.output / step.name / "results.jsonl")
        return self.read[step.name]


def make_table(paper, rows, plan, results, compare):
    """PaperTable, the Plan's rows of it, Results, whether to take differences  ->  Table"""
    ours = {label: results.of(tests) for label, tests in rows.items()}
    lines = []
    for label in dict.fromkeys([*paper.rows, *rows]):
        if label in paper.rows:
            lines.append((f"{label} (paper)", printed(paper.rows[label])))
        if label in ours:
            cells = measured(ours[label], paper.columns, plan.folds)
            cells |= {key: flagged(ours[label], key) for key in paper.counted}
            lines.append((marked(f"{label} (ours)", behind_of(ours[label])), cells))
            if compare and label in paper.rows:
                lines.append((f"{label} (difference)", difference(cells, paper.rows[label])))
    return comparison(paper.columns, lines, [line for trainings in ours.values() for line in behind_of(trainings)],
                      paper.counted)


def behind_of(trainings):
    """[{fold: lines}]  ->  all lines"""
    return [line for folds in trainings for some in folds.values() for line in some]


def caption(number, paper, rows, plan, compare):
    """What the numbers are, in sentences."""
    tests = [step for of_row in rows.values() for by_fold in of_row.values() for step in by_fold.values()]
    texts = [f"Table {number}. {paper.title}. {plan.preset['words'][0].upper()}{plan.preset['words'][1:]}; "
             f"{count('fold', plan.folds)}, {count('seed', plan.seeds)}."]
    cfg, runs = next(iter(plan.configs.values())), next(iter(plan.configs.values())).test.runs
    shots = cfg.data.get("shots") or cfg.data.support_frames
    of = f"{runs} test run{'s' * (runs > 1)}, {shots}-shot"
    if len(plan.seeds) > 1:
        texts.append(f"± is the sample standard deviation over {len(plan.seeds)} trainings, each a mean ({of}).")
    elif runs > 1:
        texts.append(f"± is the sample deviation over the runs ({of}) of a training; trainings differ by more.")
    else:
        texts.append(f"One training ({of}): no spread is known.")
    if len(plan.folds) < len(FOLDS):
        texts.append(f"Ours are over {count('fold', plan.folds)} alone, the paper's means over four.")
    texts += [] if compare else ["No difference is taken: not the paper's data, settings or folds."]
    texts += [paper.note] if paper.note else []
    texts += [f"Left out: {label}, which needs {package}." for label, package in plan.left_out.get(number, {}).items()]
    texts += [plan.variant["note"]] if number in plan.variant["tables"] else []
    texts += [f"Changed: {', '.join(plan.overrides)}."] if plan.overrides else []
    absent = len({step.name for step in tests if not is_done(plan, step)})
    texts += [f"{absent} of {len({step.name for step in tests})} tests are not done: their cells are empty."] * (
        absent > 0)
    return " ".join(texts)


def count(word, numbers):
    """'fold', (1, 3)  ->  'folds 1, 3'"""
    return f"{word}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def can_be_compared(plan):
    """Whether a difference to the paper means anything."""
    keys = [text.partition("=")[0].rpartition(":")[2] for text in plan.overrides]
    return bool(plan.preset.get("compare")) and set(plan.folds) == set(FOLDS) and all(key in PLACES for key in keys)


def write_table(folder, number, text, table):
    """tableN.md, .csv and .tex  ->  the first one's text"""
    markdown = f"{text}\n\n{table.markdown()}"
    for suffix, content in (("md", markdown), ("csv", table.csv()), ("tex", f"% {text}\n{table.latex()}")):
        (folder / f"table{number}.{suffix}").write_text(content, encoding="utf-8")
    return markdown


# -- command line ---------------------------------------------------------------------------------------------------

def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("--table", nargs="+", default=["all"], metavar="N", help="one of the paper's or several (all)")
    parser.add_argument("--method", choices=METHODS, default="vipmt", help="whose paper (vipmt)")
    parser.add_argument("--preset", default="paper", help="data and sizes: paper, mini or demo (paper)")
    parser.add_argument("--variant", help="of vipmt: which IoUNet Tables 1 to 4 have, joint, video or image (joint; "
                                          "the paper: image)")
    parser.add_argument("--rows", action="append", default=[], metavar="FILE",
                        help="YAML with trainings and rows of yours, as in tools/reproduction/vipmt.yaml")
    parser.add_argument("--fold", nargs="+", default=[], metavar="N", help="one or several; default: all, demo: 1")
    parser.add_argument("--seeds", nargs="+", default=[], metavar="N", help="a training each; default: the config's")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: output/reproduce/PRESET")
    parser.add_argument("--dry-run", action="store_true", help="what is missing, and the runs with hours and disk; "
                                                               "writes nothing")
    parser.add_argument("--commands", action="store_true", help="with --dry-run: also the command of every run")
    parser.add_argument("--samples-per-s", type=float, metavar="N", help="of a training, for the hours of --dry-run")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU if there is one")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value",
                        help="for all runs, or DATA:key.sub=value for those on ytvis, minivspw or coco20i")
    args = parser.parse_intermixed_args()
    args.table = values(args, "table")
    args.fold = sorted(map(int, values(args, "fold", [*map(str, FOLDS)])))
    args.seeds = tuple(map(int, values(args, "seeds")))
    return args


def values(args, name, choices=None):
    """The values of a flag, each once; key=value that argparse took for one goes to the overrides."""
    given = list(dict.fromkeys(getattr(args, name)))
    args.overrides += [text for text in given if "=" in text]
    given = [text for text in given if "=" not in text]
    for text in given:
        if text not in choices if choices else not (text.isascii() and text.isdigit() or text == "all"):
            raise ValueError(f"--{name} {text}: write {', '.join(choices) if choices else 'whole numbers, e.g. 4 7'}")
    return given


def main():
    args = parse_arguments()
    papers, output = paper_tables(args.method), args.output or Path("output", "reproduce", args.preset)
    plan = Plan(read_experiments(args.method, args.rows), args.preset, output, args.fold, args.seeds, args.overrides,
                args.variant, args.device)
    tables = {number: chosen(papers, number, "--table") for number in (papers if "all" in args.table else args.table)}
    rows = {number: plan.rows(number) for number in tables}
    if args.dry_run:
        print(dry_run(plan, args.samples_per_s, args.commands))
        return
    command = shlex.join(["python", "-m", "tools.reproduce", *sys.argv[1:]])
    write_makefile(plan, command, sys.argv[1:])
    results, compare, texts = Results(plan), can_be_compared(plan), []
    for number, paper in tables.items():
        text = caption(number, paper, rows[number], plan, compare)
        texts.append(write_table(output, number, text, make_table(paper, rows[number], plan, results, compare)))
    (output / "tables.md").write_text("\n".join([f"Command: `{command}`", "", *texts]), encoding="utf-8")
    print("\n".join(texts))
    done = sum(is_done(plan, step) for step in plan.steps.values())
    rest = "" if done == len(plan.steps) else f"; the others: make -j2 -C {shlex.quote(str(output))}"
    print(f"{output}: tables.md, each table as .md, .csv, .tex, Makefile; {done} of {len(plan.steps)} steps done{rest}")


if __name__ == "__main__":
    with user_errors():
        main()
