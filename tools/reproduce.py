"""Every table of the paper from one command: plan its runs, skip what is done, run the rest, print the table.

    python -m tools.reproduce --table 4 --dry-run                        # the commands, ready for a shell
    python -m tools.reproduce --table 4 --fold 1                         # on YouTube-VIS, at the paper's sizes
    python -m tools.reproduce --table all --preset demo --jobs 2         # all tables on generated data, on a CPU
    python -m tools.reproduce --table 1 2 --seeds 42 7 1 ytvis:data.root=FOLDER minivspw:data.root=FOLDER

Trainings that several tables need are run once. Interrupted or failed, the same command continues. In DIR (--output,
default: output/reproduce/PRESET): tableN.md, .csv and .tex, tables.md with all that were asked for, a log of every step
in steps/, and the runs themselves.
"""
import os
import platform
import shlex
import signal
import sys
from datetime import date
from importlib import metadata
from pathlib import Path

from tools.reproduction.plan import MODELS, PRESETS, Planner, check_overrides
from tools.reproduction.run import Records, Scheduler, alone_in, shell_script, what_is_missing
from tools.reproduction.tables import table_specs
from utils.checkpoint import load_checkpoint
from utils.command_line import Parser
from utils.config import user_errors
from utils.evaluation.tables import FOLDS, comparison_by_fold, comparison_table, shares
from utils.records import read_json_lines

# Keys that may differ from the preset without making a number another experiment's.
HARMLESS = ("data.root", "data.annotations", "data.workers", "backbone.weights", "backbone.cache_frames", "train.amp",
            "train.backward", "train.log_every", "checkpoint.every_steps", "speed.")


# -- from finished tests to a table ---------------------------------------------------------------------------------

class Results:
    """The tests that are done, read once."""

    def __init__(self, planner, missing):
        self.planner, self.missing, self.read = planner, missing, {}

    def of(self, setting):
        """A setting  ->  [{fold: lines} of every seed], without what is not done"""
        return [{fold: self._lines(step) for fold, step in tests.items() if step.name not in self.missing}
                for tests in self.planner.results(setting).values()]

    def _lines(self, step):
        if step.name not in self.read:        # runs beyond test.runs: of an earlier, longer test
            self.read[step.name] = [line for line in read_json_lines(step.product)
                                    if line["run"] < step.settings["test.runs"]]
        return self.read[step.name]


def make_table(spec, planner, results, with_difference):
    """What a table shows, the plan, what is done  ->  Table"""
    has = {row.label: results.of(row.setting) for row in spec.rows if planner.has(row.setting)}
    lines = [line for trainings in has.values() for folds in trainings for some in folds.values() for line in some]
    variants = sorted({line["vc_variant"] for line in lines} - {"vipmt"})
    window = "/".join(map(str, sorted({line["vc_window"] for line in lines} or {7})))
    vc = f"VC{window}" + (f" ({', '.join(variants)})" if variants else "")
    if spec.by_fold:
        parts = {fold: (fold,) for fold in planner.folds} | {"mean": planner.folds}
        ours = {label: {part: shares(of, folds) for part, folds in parts.items()} for label, of in has.items()}
    else:
        ours = {label: shares(of, planner.folds) for label, of in has.items()}
    draw = comparison_by_fold if spec.by_fold else comparison_table
    rows = [(row.label, row.paper, ours.get(row.label, {}) if row.setting else None) for row in spec.rows]
    return draw(rows, with_difference, vc)


def caption(spec, planner, missing, with_difference):
    """What the numbers are, in sentences."""
    settings = [row.setting for row in spec.rows if planner.has(row.setting)]
    tests = [step for setting in settings for by_fold in planner.results(setting).values() for step in by_fold.values()]
    preset, folds, seeds = planner.preset, ", ".join(map(str, planner.folds)), ", ".join(map(str, planner.seeds))
    one = tests[0].settings if tests else {}
    texts = [f"{preset.words[0].upper()}{preset.words[1:]}; fold{'s' * (len(planner.folds) > 1)} {folds}, "
             f"seed{'s' * (len(planner.seeds) > 1)} {seeds}."]
    if tests:
        runs = one["test.runs"]
        texts.append(f"{steps_trained(planner, tests, missing)} {runs} test run{'s' * (runs > 1)} of protocol "
                     f"{one['test.protocol']}, {one['data.shots']}-shot.")
        texts.append(spread(len(planner.seeds), runs))
    if len(planner.folds) < len(FOLDS):
        texts.append(f"Ours are over fold{'s' * (len(planner.folds) > 1)} {folds} alone, the paper's means over four.")
    if not with_difference:
        texts.append("No difference is taken: " + ("not all four folds, or other settings than the paper's."
                                                   if preset.is_paper else "other data and sizes than the paper's."))
    if any(setting.iou_net == "default" and MODELS[setting.model].memory for setting in settings):
        texts.append({"own": "IoUNet is trained jointly (the paper: on images)."}.get(
            planner.iou_net, f"IoUNet is trained on synthesised masks: {planner.iou_net}."))
    if planner.overrides:
        texts.append(f"Changed: {', '.join(planner.overrides)}.")
    absent = sum(step.name in missing for step in tests)
    if absent:
        texts.append(f"{absent} of {len(tests)} tests are not done: their cells are empty.")
    return " ".join(texts)


def spread(seeds, runs):
    """What stands behind the ± of a table."""
    if seeds > 1:
        return (f"± is the sample standard deviation over {seeds} trainings, each the mean of its test runs, on "
                "the same episodes.")
    if runs > 1:
        return "± is the sample standard deviation over the test runs of one training; trainings differ by more."
    return "One training, one run: no spread is known."


def steps_trained(planner, tests, missing):
    """How long the models were trained, from their checkpoints, as far as there are any."""
    trainings = {name for step in tests for name in step.needs if name.startswith("train ") and "iounet" not in name}
    counts = {load_checkpoint(planner.steps[name].product)["progress"]["steps"]
              for name in sorted(trainings) if name not in missing}
    if not counts:
        return "Not trained."
    return f"Trained for {' to '.join(map(str, sorted({min(counts), max(counts)})))} steps."


def write_table(folder, number, text, table):
    """tableN.md, .csv and .tex  ->  the first one's text"""
    folder.mkdir(parents=True, exist_ok=True)
    markdown = f"{text}\n\n{table.markdown()}"
    for suffix, content in (("md", markdown), ("csv", table.csv()), ("tex", f"% {text}\n{table.latex()}")):
        (folder / f"table{number}.{suffix}").write_text(content, encoding="utf-8")
    return markdown


def can_be_compared(planner):
    """Whether a difference to the paper means anything."""
    keys = [text.partition("=")[0].rpartition(":")[2] for text in planner.overrides]
    return planner.preset.is_paper and set(planner.folds) == set(FOLDS) and all(k.startswith(HARMLESS) for k in keys)


def heading(planner, missing, records):
    """What tables.md opens with: command, machine, and what the steps took."""
    seconds = {}
    for step in planner.steps.values():
        if step.name not in missing:
            seconds.setdefault(step.name.split()[0], []).append(records.read(step)["seconds"])
    took = [f"{kind} {len(values)} steps, {min(values):.0f} to {max(values):.0f} s, {sum(values) / 60:.0f} min together"
            for kind, values in seconds.items()]
    return (f"Command: `{shlex.join(['python', 'tools/reproduce.py', *sys.argv[1:]])}`\n\n"
            f"{date.today()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
            f"PyTorch {metadata.version('torch')}. {'; '.join(took) or 'Nothing is done yet'}.")


# -- command line ---------------------------------------------------------------------------------------------------

def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("--table", nargs="+", required=True, metavar="N", help="1 to 7, several of them, or all")
    parser.add_argument("--preset", choices=list(PRESETS), default="paper",
                        help="; ".join(f"{name}: {preset.words}" for name, preset in PRESETS.items()))
    parser.add_argument("--fold", nargs="+", default=[], metavar="N", help="one or several; default: all, demo: 1")
    parser.add_argument("--seeds", nargs="+", default=[], metavar="N", help="a training each; default: the config's")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="steps that run at the same time")
    parser.add_argument("--iou-net", choices=["joint", "video", "image"], default="joint",
                        help="IoUNet of the models with memory in Tables 1 to 4 (the paper: image)")
    parser.add_argument("--plug", action="append", default=[], metavar="ROW=MODULE:FACTORY",
                        help="a propagation model of yours for Table 3, e.g. IPMT+XMem=my_xmem:build")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: output/reproduce/PRESET")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU if there is one")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and why each has to be run")
    parser.add_argument("--show", action="store_true", help="run nothing: the tables of what is done")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value",
                        help="for all runs, or DATASET:key.sub=value for those on ytvis, minivspw or coco20i")
    args = parser.parse_intermixed_args()
    if args.jobs < 1:
        raise ValueError(f"--jobs {args.jobs}: at least one step has to run; give 1 or more")
    tables = [*"1234567"]
    args.table = numbers(args, "table", [*tables, "all"])
    args.table = sorted(map(int, tables if "all" in args.table else args.table))
    args.fold = sorted(map(int, numbers(args, "fold", [*map(str, FOLDS)])))
    args.seeds = tuple(map(int, numbers(args, "seeds")))
    plugs = [text.partition("=") for text in args.plug]
    for row, _, factory in plugs:
        if not row or not factory:
            raise ValueError(f"--plug {row}: write ROW=MODULE:FACTORY, e.g. IPMT+XMem=my_xmem:build")
    args.plugs = {row: factory for row, _, factory in plugs}
    return args


def numbers(args, name, choices=None):
    """The values of a flag, each once; key=value that argparse took for one goes to the overrides."""
    values = list(dict.fromkeys(getattr(args, name)))
    args.overrides += [text for text in values if "=" in text]
    values = [text for text in values if "=" not in text]
    for text in values:
        if text not in choices if choices else not text.isdecimal():
            raise ValueError(f"--{name} {text}: write {', '.join(choices) if choices else 'whole numbers, e.g. 42 7'}")
    return values


def main():
    args = parse_arguments()
    output = args.output or Path("output", "reproduce", args.preset)
    planner = Planner(PRESETS[args.preset], output, args.fold, args.seeds, args.overrides,
                      {"joint": "own"}.get(args.iou_net, args.iou_net), args.device)
    check_overrides(args.overrides, planner)
    specs = {number: table_specs(args.plugs)[number] for number in args.table}
    for setting in [row.setting for spec in specs.values() for row in spec.rows if planner.has(row.setting)]:
        planner.results(setting)
    records, failed = Records(output / "steps"), {}
    if args.dry_run:
        print(shell_script(planner.steps, what_is_missing(planner.steps, records), planner.preset.threads))
        return
    if not args.show:
        signal.signal(signal.SIGTERM, signal.default_int_handler)     # stop as with Ctrl-C, the steps as well
        with alone_in(records.folder):
            failed = Scheduler(planner.steps, records, args.jobs, threads=planner.preset.threads).run()
    print_tables(specs, planner, records, output)
    if failed:
        sys.exit("\n".join([f"\n{len(failed)} steps failed or were left; the same command tries them again:",
                            *(f"  {name}: {message.splitlines()[0]}" for name, message in failed.items())]))


def print_tables(specs, planner, records, output):
    """Each table into its files, all of them into tables.md, and to the screen"""
    missing, difference = what_is_missing(planner.steps, records), can_be_compared(planner)
    results, texts = Results(planner, missing), []
    for number, spec in specs.items():
        text = f"Table {number}. {spec.title}. {caption(spec, planner, missing, difference)}"
        texts.append(write_table(output, number, text, make_table(spec, planner, results, difference)))
        print(f"\n{texts[-1]}")
    (output / "tables.md").write_text("\n".join([heading(planner, missing, records), "", *texts]), encoding="utf-8")
    print(f"Written to {output}: tables.md, and each table as .md, .csv and .tex")


if __name__ == "__main__":
    with user_errors():
        main()
