"""Before a plan is run: what is missing, then its runs with hours and disk. Nothing is written, no video is read.

Hours of trainings are samples over samples per second, which the logs of what was trained here say, or the caller; of
tests the mean of those that are done. Where neither is known, none are invented.
"""
import shlex
import shutil
from collections import defaultdict
from pathlib import Path
from statistics import mean

from dataloaders import build_index
from tools.dataset_preparation.sources import SOURCES
from tools.reproduction.makefile import is_done
from utils.config import flatten, load_config, to_dict
from utils.evaluation.tables import Table, paper_tables

ROOTS = ("data.root", "sources.ytvos", "sources.davis", "sources.coco")      # folders of data
EXPLAINED = {"minivspw": "vspw", "coco20i": "coco2014", "coco20i_minivspw": "coco2014", "coco": "coco2017"}


def settings(step):
    """The config of a step, from its command"""
    words = list(step.command)
    files = [value for flag, value in zip(words, words[1:], strict=False) if flag == "--config"]
    flags = {i + 1 for i, word in enumerate(words) if word.startswith("--") and word != "--resume"}
    keys = [word for i, word in enumerate(words[1:], 1) if i not in flags and not word.startswith("--") and "=" in word]
    return load_config(files, keys)


def missing(plan, configs):
    """{path: (keys that name it, steps that need it)}: data and weights that are not there and that no step makes"""
    made, found = {str(plan.output / step) for step in plan.steps}, {}
    for name, cfg in configs.items():
        flat = flatten(to_dict(cfg))
        keys = [key for key in ROOTS if flat.get(key) and flat.get(f"{key}_weight", 1) > 0]
        keys += [key for key, value in flat.items() if key.endswith("weights") and str(value).endswith(".pth")]
        generated = any(need.startswith("data/") for need in plan.steps[name].needs)
        for key in keys:
            path = Path(flat[key])
            if not path.exists() and str(path.parent) not in made and not (generated and key == "data.root"):
                of_keys, of_steps = found.setdefault(flat[key], (set(), set()))
                of_keys.add(key)
                of_steps.add(name)
    return found


def how_to_get(keys, datasets):
    """The keys that name something missing, data sets of the steps that need it  ->  a command, or the page"""
    names = {key.partition(".")[2] for key in keys if key.startswith("sources.")} or datasets
    names = {"weights"} if any(key.endswith("weights") for key in keys) else {EXPLAINED.get(x, x) for x in names}
    return "; ".join([*(f"python -m tools.prepare_data explain {name}" for name in sorted(names & SOURCES.keys())),
                      "docs/data.md"])


def samples(cfg, compare):
    """Training samples of a run; None where nobody can say how many classes there are

    compare: whether the data are a paper's, whose classes are known; of others the annotations are read
    """
    if "samples" in cfg.data:
        return cfg.train.epochs * cfg.data.samples
    table = next((t for t in paper_tables().values() if t.dataset == cfg.data.dataset), None)
    if compare and table:
        classes = sum(len(fold["classes"]) for fold in table.folds) * 3 // 4      # the other three folds
    elif not compare and Path(cfg.data.root).is_dir():
        classes = len(build_index(cfg).side(1, "train")[1])
    else:
        return None
    return cfg.train.epochs * classes * cfg.data.samples_per_class


def checkpoint_bytes(cfg):
    """Of all checkpoints that a training keeps: the weights, and two moments of what is trained"""
    import torch  # here, since it takes seconds to import

    from models import get_method
    with torch.device("meta"):
        model = get_method(cfg.model.method).build(cfg)
    weights = sum(x.numel() * x.element_size() for x in model.state_dict().values())
    moments = 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    return cfg.checkpoint.keep * (weights + moments)


def rates(plan):
    """{training: samples per second}, {data set: hours of a test}, as far as something was run here"""
    from utils.records import read_json_lines  # here, since it imports PyTorch

    speeds, hours = {}, defaultdict(list)
    for name, step in plan.steps.items():
        folder = plan.output / name
        if step.command[0] == "train.py" and (folder / "log.jsonl").is_file():
            found = [line["samples_per_s"] for line in read_json_lines(folder / "log.jsonl") if "samples_per_s" in line]
            if found:
                speeds[training_of(name)] = mean(found)
        elif step.command[0] == "test.py" and is_done(plan, step):
            lines = read_json_lines(folder / "results.jsonl")
            hours[name.split("/")[0]].append(sum(x.get("seconds", 0) + x.get("data_seconds", 0) for x in lines) / 3600)
    return speeds, {data: mean(values) for data, values in hours.items()}


def training_of(name):
    """'ytvis/vipmt/fold1/seed42'  ->  'ytvis/vipmt'"""
    return "/".join(name.split("/")[:2])


def runs_table(plan, configs, rate):
    """Trainings by name, tests by data set: how many, done, samples, hours, disk  ->  Table, bytes of all together"""
    groups, (speeds, test_hours) = defaultdict(list), rates(plan)
    for name, step in plan.steps.items():
        kind = {"train.py": f"train {training_of(name)}", "test.py": f"test {name.split('/')[0]}"}.get(
            step.command[0], f"make {name}")
        groups[kind].append(name)
    rows, total, disk = [], 0.0, 0
    for kind, names in groups.items():
        cfg, open_ = configs.get(names[0]), [name for name in names if not is_done(plan, plan.steps[name])]
        count, size, hours = None, 0, 0.0 if kind.startswith("make") else None
        if kind.startswith("train"):
            count, size = samples(cfg, plan.preset.get("compare")), len(open_) * checkpoint_bytes(cfg)
            speed = speeds.get(training_of(names[0]), rate)
            hours = count * len(open_) / speed / 3600 if count and speed else None
        elif kind.startswith("test"):
            hours = test_hours.get(names[0].split("/")[0])
            hours = None if hours is None else hours * len(open_)
        hours, disk = (0.0 if not open_ else hours), disk + size
        total = None if None in (total, hours) else total + hours
        rows.append([kind, f"{len(names)}", f"{len(names) - len(open_)}", "" if count is None else f"{count:,}",
                     "" if kind.startswith("make") else in_hours(hours), in_gigabytes(size) if size else ""])
    rows.append(["together", f"{len(plan.steps)}", "", "", in_hours(total), in_gigabytes(disk)])
    return Table(["runs", "steps", "done", "samples each", "hours", "GB"], rows), disk


def in_hours(hours):
    return "?" if hours is None else f"{hours:.1f}"


def in_gigabytes(size):
    return f"{size / 2 ** 30:.1f}"


def dry_run(plan, rate=None, commands=False):
    """A Plan with its steps  ->  the text; rate: samples per second of a training, where no log says it"""
    configs = {name: settings(step) for name, step in plan.steps.items() if step.command[0] in ("train.py", "test.py")}
    lacking = missing(plan, configs)
    texts = ["Missing:" if lacking else "Nothing is missing: data and weights are where the configs say."]
    for path, (keys, names) in lacking.items():
        how = how_to_get(keys, {configs[name].data.dataset for name in names})
        texts.append(f"  {path} ({', '.join(sorted(keys))}), for {len(names)} of {len(plan.steps)} steps.\n    {how}")
    table, disk = runs_table(plan, configs, rate)
    here = next(folder for folder in [plan.output.absolute(), *plan.output.absolute().parents] if folder.is_dir())
    free = shutil.disk_usage(here).free
    texts += ["", table.markdown(), "Hours: one run after the other, on the machine whose logs or --samples-per-s they "
              "come from; ?: not known before one has run (python -m tools.workshop.benchmark --only train).",
              f"GB: checkpoints of what is not done, without masks and films; {in_gigabytes(free)} are free"
              f"{', which is too little' if disk > free else ''}."]
    if commands:
        texts += ["", *(shlex.join(["python", *step.command]) for step in plan.steps.values()
                        if not is_done(plan, step))]
    return "\n".join(texts)
