"""The training in a report: losses, IoU, validation, speed, and what went wrong on the way.

Functions take a Part of utils/report/read.py and return HTML, or None where there is nothing to show.
"""
from html import escape
from statistics import mean

from utils.report.blocks import chart, charts, sentence
from utils.report.charts import curves
from utils.report.read import is_number

LAST = 0.05              # share of the logged steps that stand for the end of a training
MOST_SPIKES = 5


def steps_of(part):
    """The lines of log.jsonl that are steps."""
    return [line for line in part.log if line.get("losses")]


def column(lines, name):
    """Lines, a name  ->  its (step, value)s, where it is a number"""
    return [(line["step"], line[name]) for line in lines if is_number(line.get(name))]


def training_state(part):
    """How far the training is, as one sentence."""
    fold, lines = f" of fold {part.fold}" if part.fold else "", steps_of(part)
    if not lines:
        return f'Training{fold}: <b class="warning">nothing logged yet</b>.'
    last, epochs = lines[-1], part.config and part.config.train.epochs
    epoch = last.get("epoch")
    where = f"step {last['step']:g}"
    if not (epochs and is_number(epoch)):
        return f"Training{fold}: logged up to {where}."
    where += f", in epoch {epoch + 1:g} of {epochs}"
    if epoch + 1 < epochs:
        return (f'Training{fold}: <b class="warning">not at its end</b>, logged up to {where}. '
                "The same train.py command with --resume continues it.")
    return f"Training{fold}: logged up to {where}."


def training_tiles(part):
    """[(name, value)] of the most telling numbers."""
    lines = steps_of(part)
    if not lines:
        return []
    end = lines[-max(1, round(LAST * len(lines))):]
    found = [("steps", f"{lines[-1]['step']:g}"), ("loss, last 5 %", f"{mean(total(line) for line in end):.3g}")]
    if column(end, "iou"):
        found.append(("training IoU, last 5 %", f"{100 * mean(y for _, y in column(end, 'iou')):.1f}"))
    scores = [line["validation"] for line in part.log if "j" in line.get("validation", {})]
    return found + ([("best validation J", f"{100 * max(score['j'] for score in scores):.1f}")] if scores else [])


def total(line):
    return sum(line["losses"].values())


def training_section(part, several):
    """Every curve of one training."""
    name = f"training{part.fold or ''}" if several else "training"
    head = f"Training of fold {part.fold}" if several and part.fold else "Training"
    lines = steps_of(part)
    if not lines:
        return (name, head, [sentence("No step is logged yet.")]) if part.log or part.record else None
    how = (f"{len(lines)} logged steps; long curves are means of neighbouring ones. Losses are weighted as in the "
           "config, so that their sum is what is minimised.")
    figures = [*loss_charts(lines), *quality_charts(part, lines), *speed_charts(lines)]
    return name, head, [sentence(how), charts(figures), *troubles(part)]


def loss_charts(lines):
    """The sum, and each term on its own scale: they differ by orders of magnitude."""
    found, names = [], list(dict.fromkeys(name for line in lines for name in line["losses"]))
    if len(names) > 1:
        found = [chart("Sum of losses", curves({"sum": [(line["step"], total(line)) for line in lines]}, low=0))]
    for name in names:
        values = [(line["step"], line["losses"][name]) for line in lines if name in line["losses"]]
        if any(y for _, y in values):
            found.append(chart(f"Loss <code>{escape(name)}</code>", curves({name: values}, low=0)))
    return found


def quality_charts(part, lines):
    """IoU of the training masks, IoUNet's error, and J, F and VC of the validation."""
    found = []
    if column(lines, "iou"):
        found.append(chart("IoU of the masks in training", curves({"IoU": column(lines, "iou")}, low=0, high=1),
                           "Mean true IoU of the batch's masks: predicted ones, or noisy ones where IoUNet alone is "
                           "trained."))
    if column(lines, "iou_error"):
        found.append(chart("Error of the predicted IoU", curves({"error": column(lines, "iou_error")}, low=0),
                           "Mean distance of predicted from true IoU."))
    scores = [(line["step"], line["validation"]) for line in part.log if line.get("validation")]
    series = {label: [(step, 100 * values[key]) for step, values in scores if key in values]
              for key, label in (("j", "J"), ("f", "F"), ("vc", "VC"))}
    if scores and any(series.values()):
        found.append(chart("Validation", curves({k: v for k, v in series.items() if v}, low=0, high=100),
                           "Per cent, on the validation episodes of the config."))
    return found


def speed_charts(lines):
    found = []
    for name, head in (("grad_norm", "Norm of the gradient"), ("samples_per_s", "Samples per second")):
        if column(lines, name):
            found.append(chart(head, curves({name: column(lines, name)}, low=0)))
    return found


def troubles(part):
    """Spikes of the loss, left-out steps and steps that were not finite, each with what helps."""
    spikes = [line for line in part.log if is_number(line.get("spike")) and is_number(line.get("typical"), 1e-12)]
    found = []
    if spikes:
        worst = sorted(spikes, key=lambda line: -line["spike"] / line["typical"])[:MOST_SPIKES]
        named = ", ".join(f"step {line['step']:g} ({line['spike'] / line['typical']:.1f} times)" for line in worst)
        found.append(sentence(f"{len(spikes)} spikes of the loss, the largest: {named}. log.jsonl names their "
                              "episodes.", "warning"))
    for file in sorted(part.folder.glob("nonfinite_step*.pth")):
        found.append(sentence(f"A step was not finite and ended the run: <code>python -m tools.workshop.replay_step "
                              f"{escape(file.name)}</code> looks into it.", "warning"))
    return found
