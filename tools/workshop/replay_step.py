"""Repeat a step whose loss or gradient was not finite, and name the first module whose output was not.

    python -m tools.workshop.replay_step output/vipmt_ytvis/fold1/nonfinite_step1234.pth train.amp=off
    python -m tools.workshop.replay_step output/vipmt_ytvis/fold1/nonfinite_step1234.pth [--device cuda]

The file holds weights, batch and random numbers of the step, so that it comes out the same on the same device. Changed
keys show what would have helped: train.amp=off, loss.ccds=none, ...
"""
import math
from functools import partial
from pathlib import Path

from utils.command_line import Parser, say
from utils.config import apply_overrides, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("file", type=Path, help="nonfinite_step*.pth of a training")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="what to change, e.g. train.amp=off")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
    say("loading PyTorch")

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
import torch

from dataloaders import get_task
from models import get_method
from utils.checkpoint import load_checkpoint, load_weights
from utils.runtime import choose_device
from utils.training.state import AMP


def read_step(path):
    """A file of utils.training.step.dump_step  ->  its content; ValueError where it is another file"""
    content = load_checkpoint(path)
    if not {"batch", "rng", "model", "config"} <= content.keys():
        raise ValueError(f"{path}: not a saved step; expected a nonfinite_step*.pth of train.py")
    return content


def watch(model, found):
    """Note the first module whose output is not finite, and how large outputs were before it."""
    def hook(module, inputs, output, name):
        if isinstance(output, torch.Tensor) and output.is_floating_point() and "first" not in found:
            if torch.isfinite(output).all():
                found.setdefault("largest", []).append((float(output.detach().abs().max()), name))
            else:
                found["first"] = f"{name} ({type(module).__name__})"
    for name, module in model.named_modules():
        module.register_forward_hook(partial(hook, name=name))


def replay(content, cfg, device):
    """The step once more  ->  (losses of every unit, gradient norm of every tensor that has one, what `watch` found)"""
    method, found = get_method(cfg.model.method), {}
    model = method.build(cfg).to(device)
    load_weights(model, content["model"], "the saved step")
    step = method.TrainStep(model, cfg).train()
    watch(model, found)
    torch.set_rng_state(content["rng"][0])
    if device.type == "cuda" and len(content["rng"]) > 1:
        torch.cuda.set_rng_state(content["rng"][1], device)
    amp = AMP.get(cfg.train.amp) if device.type == "cuda" else None
    with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
        units = step.units(get_task(method.TASK).Batch(**content["batch"]).to(device))
        losses = [step(*unit)[0] for unit in units]
    sum(sum(named.values()) for named in losses).backward()
    norms = {name: float(p.grad.norm()) for name, p in model.named_parameters() if p.grad is not None}
    return [{name: loss.item() for name, loss in named.items()} for named in losses], norms, found


def report(losses, norms, found, ids):
    """Text for people."""
    largest = [f"{name} {value:.3g}" for value, name in sorted(found.get("largest", []), reverse=True)[:3]]
    broken = [name for name, norm in norms.items() if not math.isfinite(norm)]
    return "\n".join([
        f"episodes: {', '.join(ids)}",
        *(f"unit {number}: " + ", ".join(f"{name} {value:.4g}" for name, value in named.items())
          for number, named in enumerate(losses, 1)),
        f"first output that is not finite: {found.get('first', 'none')}",
        f"largest outputs before it: {', '.join(largest)}",
        f"gradients that are not finite: {len(broken)} of {len(norms)}"
        + (f", first {', '.join(broken[:3])}" if broken else "")])


def main(args):
    content = read_step(args.file)
    cfg = apply_overrides(content["config"], args.overrides)
    print(report(*replay(content, cfg, torch.device(choose_device(args.device))), content["batch"]["ids"]))


if __name__ == "__main__":
    with user_errors():
        main(arguments)
