"""What a report says of how a run was made: what differs from the default config, run.json, test.json, times."""
import shlex
from pathlib import Path
from statistics import mean

from utils.config import differences, flatten, load_config, to_dict
from utils.report.read import is_number
from utils.report.sections import Section
from utils.report.training import column


def config_section(parts):
    """The keys that differ from the defaults: training and test side by side where both are there."""
    found, default = {}, load_config()
    for part in parts:
        if part.config is not None:
            changes = {key: now for key, (_, now) in differences(default, part.config).items() if key != "name"}
            alike = found.setdefault(tuple(sorted((k, str(v)) for k, v in changes.items())), (changes, []))
            alike[1].append(part.name)
    notes = [("warning", part.config_note) for part in parts if part.config_note]
    section = Section("config", "Config in brief", notes)
    if found:
        values = flatten(to_dict(default))
        keys = list(dict.fromkeys(key for changes, _ in found.values() for key in changes))
        columns = [values, *(values | changes for changes, _ in found.values())]
        rows = [[key, *(plain(some.get(key)) for some in columns)] for key in keys]
        header = ["key", "default", *(" and ".join(names) for _, names in found.values())]
        section.blocks[:0] = [("text", "What differs from the defaults; config.yaml beside the run has every key."),
                              ("table", {"header": header, "rows": rows}) if rows else
                              ("text", "Nothing: all values are the defaults.")]
    return section


def plain(value):
    """A value of the config as it stands in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def setup_section(parts):
    """One table per part; of many parts they are folded up."""
    return Section("setup", "How it was made", [("facts", {"name": part.name, "open": len(parts) <= 2,
                                                           "facts": facts(part)}) for part in parts])


def facts(part):
    """{name: value} of run.json and test.json, as they are, and of the times in the logs"""
    record, earlier = dict(part.record), part.record.get("earlier")
    command, _ = record.pop("command", None), record.pop("folder", None)
    if isinstance(command, list) and len(command) > 1:
        record["command"] = shlex.join(["python", Path(str(command[1])).name, *map(str, command[2:])])
    record["earlier"] = f"{len(earlier)} starts before this one" if isinstance(earlier, list) and earlier else None
    header = {key: value for key, value in part.header.items() if key not in ("config", *record)}
    found = flatten(record) | flatten(header) | (test_times(part) if part.is_test else training_times(part))
    return {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in found.items()
            if value not in (None, "", []) and key != "data.sample"}


def training_times(part):
    """From the logged speeds: validations, checkpoints and pauses between starts are not in it."""
    rates = [rate for _, rate in column(part.steps, "samples_per_s") if rate > 0]
    batch = part.setting("train.batch_size")
    if not rates or not is_number(batch):
        return {}
    seconds = mean(batch / rate for rate in rates)
    return {"time per step": f"{1000 * seconds:.0f} ms (mean of the logged steps)",
            "time of all steps": f"about {duration(seconds * part.steps[-1]['step'])}, validation not counted"}


def test_times(part):
    """Seconds in the network and waiting for data, which overlap with the metrics."""
    network, data = (sum(line.get(key, 0) for line in part.results) for key in ("seconds", "data_seconds"))
    frames = sum(len(line["j"]) for line in part.results)
    return {"time in the network": f"{duration(network)} for {frames} frames, {frames / network:.1f} frames per second",
            "time waiting for data": duration(data)} if network else {}


def duration(seconds):
    """5400  ->  '1.5 h'"""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
