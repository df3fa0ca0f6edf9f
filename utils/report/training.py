"""What a report says of a training: losses and further numbers by the names that the log has, scores, troubles."""
from itertools import islice
from statistics import mean

from markupsafe import Markup

from utils.evaluation.tables import NAMES
from utils.report import charts
from utils.report.read import is_number
from utils.report.sections import Chart, Section

LAST = 0.05              # share of the logged steps that stand for the end of a training
MOST_CHARTS, MOST_SCORES = 40, 8


def column(lines, *names):
    """Lines, names of a value (one within the other)  ->  its (step, value)s, where it is a number"""
    found = []
    for line in lines:
        value = line
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        found += [(line["step"], value)] if is_number(value) else []
    return found


def total(line):
    return sum(line["losses"].values())


def training_state(part):
    """How far a training is  ->  a word of warning or '', a sentence"""
    last, epochs = (part.steps or [{}])[-1], part.setting("train.epochs")
    if not part.steps:
        return "unfinished", "nothing logged yet."
    where, epoch = f"logged up to step {last['step']:g}", last.get("epoch")
    if not (is_number(epochs) and is_number(epoch)):
        return "", f"{where}."
    where += f", in epoch {epoch + 1:g} of {epochs}."
    return ("", where) if epoch + 1 >= epochs else (
        "not at its end", f"{where} The same train.py command with --resume continues it.")


def training_tiles(part):
    """[(name, value)] of the most telling numbers."""
    if not part.steps:
        return []
    end = part.steps[-max(1, round(LAST * len(part.steps))):]
    found = [("steps", f"{part.steps[-1]['step']:g}"), ("loss, last 5 %", f"{mean(map(total, end)):.3g}")]
    scores = [100 * j for _, j in column(part.log, "validation", "j")]
    return found + ([("best validation J", f"{max(scores):.1f}")] if scores else [])


def training_section(part, several):
    """Every curve of one training: losses, scores of the validation, and whatever else is logged of a step."""
    name = f"training{part.fold or ''}" if several else "training"
    section = Section(name, f"Training of fold {part.fold}" if several and part.fold else "Training")
    if not part.steps:
        section.blocks.append(("text", "No step is logged yet."))
        return section if part.log or part.record else None
    how = (f"{len(part.steps)} logged steps; long curves are means of neighbouring ones. Losses are weighted as in the "
           "config, so that their sum is what is minimised.")
    losses = list(dict.fromkeys(name for line in part.steps for name in line["losses"]))
    found = {"Sum of losses": [(line["step"], total(line)) for line in part.steps]} if len(losses) > 1 else {}
    found |= {f"Loss {name}": column(part.steps, "losses", name) for name in losses}
    rest = dict.fromkeys(key for line in part.steps for key in line if key not in ("step", "epoch"))
    found |= {key: column(part.steps, key) for key in rest}
    drawn = [Chart(head, charts.curves({head: points}, head, low=0 if min(y for _, y in points) >= 0 else None))
             for head, points in islice(found.items(), MOST_CHARTS) if any(y for _, y in points)]
    scores = list(dict.fromkeys(name for line in part.log for name in line.get("validation", ())))
    if scores:
        series = {NAMES.get(name, name): [(x, 100 * y) for x, y in column(part.log, "validation", name)]
                  for name in scores[:MOST_SCORES]}
        drawn.insert(0, Chart("Validation", charts.curves(series, "scores of the validation", low=0),
                              "Per cent, on the validation episodes of the config."))
    section.blocks = [("text", how), ("charts", drawn), *troubles(part)]
    return section


def troubles(part, most=5):
    """Spikes of the loss, and steps that were not finite, each with what helps."""
    spikes = [line for line in part.log if is_number(line.get("spike")) and is_number(line.get("typical"), 1e-12)]
    found = []
    if spikes:
        worst = sorted(spikes, key=lambda line: -line["spike"] / line["typical"])[:most]
        named = ", ".join(f"step {line['step']:g} ({line['spike'] / line['typical']:.1f} times)" for line in worst)
        found.append(("warning", f"{len(spikes)} spikes of the loss, the largest: {named}. log.jsonl names their "
                                 "episodes."))
    for file in sorted(part.folder.glob("nonfinite_step*.pth")):
        text = Markup("A step was not finite and ended the run: <code>python -m tools.workshop.replay_step {}</code>.")
        found.append(("warning", text.format(file.name)))
    return found
