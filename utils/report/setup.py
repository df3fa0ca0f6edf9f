"""How a run was made, for its report: what differs from the main config, command, code, data, machine and time."""
import shlex
from html import escape
from pathlib import Path
from statistics import mean

from utils.config import differences, flatten, load_config, to_dict
from utils.report.blocks import fact_table, sentence, text_table
from utils.report.read import is_number
from utils.report.training import steps_of


def config_section(parts):
    """The keys that differ from config/vipmt/ytvis.yaml: training and test side by side where both are there."""
    found, paper = {}, load_config()
    for part in parts:
        if part.config is not None:
            changes = {key: now for key, (_, now) in differences(paper, part.config).items() if key != "name"}
            column = found.setdefault(tuple(sorted((k, str(v)) for k, v in changes.items())), (part, changes, []))
            column[2].append(label(part))
    notes = [sentence(escape(part.config_note), "warning") for part in parts if part.config_note]
    if not found:
        return "config", "Config in brief", notes
    text = ("What differs from <code>config/vipmt/ytvis.yaml</code>, the paper's main setting; "
            "<code>config.yaml</code> beside the run has every key.")
    main = flatten(to_dict(paper))
    keys = [key for key in main if any(key in changes for _, changes, _ in found.values())]
    header = ["key", "main config", *(" and ".join(labels) for *_, labels in found.values())]
    rows = [[key, plain(main[key]), *(plain(changes.get(key, main[key])) for _, changes, _ in found.values())]
            for key in keys]
    table = text_table(header, rows) if rows else sentence("Nothing: it is the main config.")
    return "config", "Config in brief", [sentence(text), table, *notes]


def label(part):
    return ("test" if part.is_test else "training") + (f", fold {part.fold}" if part.fold else "")


def plain(value):
    """A value of the config as it stands in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def setup_section(parts):
    """One table per part; of many parts they are folded up."""
    tables = [f"<details{' open' if len(parts) <= 2 else ''}><summary>{label(part)}</summary>{fact_table(facts(part))}"
              "</details>" for part in parts]
    return "setup", "How it was made", tables


def facts(part):
    """{name: value} of run.json, test.json and of the times in the logs; older records lack some of it"""
    record, hardware = part.record, section_of(part.record, "hardware")
    git, data, versions = (section_of(record, key) for key in ("git", "data", "versions"))
    earlier = record.get("earlier") if isinstance(record.get("earlier"), list) else []
    first = next((start.get("started") for start in earlier if isinstance(start, dict)), None)
    again = f" ({len(earlier) + 1} starts, the first {first})" if first else ""
    changed = ", with local changes" if git.get("dirty") else ""
    gpus = hardware.get("gpus") if isinstance(hardware.get("gpus"), list) else []
    return {
        "command": command_of(record),
        "started": f"{record.get('started', '')}{again}",
        "code": f"{git.get('commit') or 'no commit'}{changed}" if git else "",
        "seed": record.get("seed"),
        "data": ", ".join(str(data[key]) for key in ("dataset", "annotations") if key in data),
        "data, SHA-256": data.get("sha256"),
        "checkpoint": part.header.get("checkpoint"), "checkpoint, SHA-256": part.header.get("sha256"),
        "IoUNet of": section_of(part.header, "iou_net").get("file"),
        "GPUs": ", ".join(map(str, gpus)) or ("none" if hardware else ""),
        "processor": f"{hardware.get('cpu')}, {hardware.get('cores')} cores, {hardware.get('threads')} threads"
                     if hardware else "",
        "system": hardware.get("machine"), "processes": record.get("processes"),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        **(test_times(part) if part.is_test else training_times(part))}


def section_of(record, key):
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def command_of(record):
    """What was typed, without the place of Python and of the script."""
    command = record.get("command")
    if not isinstance(command, list) or len(command) < 2:
        return ""
    return shlex.join(["python", Path(str(command[1])).name, *map(str, command[2:])])


def training_times(part):
    """From the logged speeds: validations, checkpoints and pauses between starts are not in it."""
    lines = [line for line in steps_of(part) if is_number(line.get("samples_per_s"), 1e-9)]
    if not lines or part.config is None:
        return {}
    seconds = mean(part.config.train.batch_size / line["samples_per_s"] for line in lines)
    waits = [line["data_s"] for line in lines if is_number(line.get("data_s"), 0)]
    waiting = f", {1000 * mean(waits):.0f} ms of it waiting for data" if waits else ""
    return {"time per step": f"{1000 * seconds:.0f} ms{waiting} (mean of the logged steps)",
            "time of all steps": f"about {duration(seconds * lines[-1]['step'])}, without validation and checkpoints"}


def test_times(part):
    """Seconds in the network and waiting for data, which overlap with the metrics."""
    seconds = sum(line.get("seconds", 0) for line in part.results)
    frames, waiting = sum(len(line["j"]) for line in part.results), sum(line.get("data_seconds", 0)
                                                                        for line in part.results)
    if not seconds:
        return {}
    return {"time in the network": f"{duration(seconds)} for {frames} frames, {frames / seconds:.1f} frames per second",
            "time waiting for data": duration(waiting)}


def duration(seconds):
    """5400  ->  '1.5 h'"""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
