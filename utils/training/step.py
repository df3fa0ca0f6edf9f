"""One optimiser step: unit after unit, gradients averaged over all processes, and guards against what ruins a run.

A step needs one transfer from the device: losses, statistics, the gradient's norm and what the processes have to agree
on travel together.
"""
import math
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from functools import partial

import torch

from utils.checkpoint import save_checkpoint
from utils.config import to_dict
from utils.distributed import mean_over_ranks, rank, world_size

SPIKE_AFTER = 50             # steps until a typical loss is known
RESERVED = {"losses", "grad_norm", "step", "epoch", "lr", "overflows", "samples_per_s", "data_s"}     # of log.jsonl
SPIKE_MEMORY = 0.98          # share of the typical loss that each step leaves as it was


def optimise(state, step, batch, flags=()):
    """One step on a batch  ->  {"losses": {name: mean over units}, statistic: ..., "grad_norm": norm}, agreed

    state: TrainingState; step: the method's TrainStep, under DistributedDataParallel or alone; flags: numbers of this
    process, agreed: their means over all processes.
    FloatingPointError names loss, step and episodes; weights are then still those before the step.
    """
    device, inner, done, waiting = state.device, getattr(step, "module", step), [], []
    before = torch.get_rng_state(), *([torch.cuda.get_rng_state()] if device.type == "cuda" else [])
    autocast = partial(torch.autocast, device.type, dtype=state.amp, enabled=state.amp is not None)
    state.optimizer.zero_grad(set_to_none=True)
    with autocast():
        units = inner.units(batch)
    for number, unit in enumerate(units, 1):
        # Gradients of all units but the last add up in this process; the last one averages them over all processes.
        with step.no_sync() if step is not inner and number < len(units) else nullcontext():
            with autocast():
                losses, statistics = step(*unit)
            total = sum(losses.values())
            if inner.one_graph:
                waiting.append(total)
            else:
                state.scaler.scale(total).backward()
            done.append(({name: loss.detach() for name, loss in losses.items()}, statistics))
            del losses, total         # or their graph would outlive the next unit's forward pass
    if waiting:
        state.scaler.scale(sum(waiting)).backward()
    state.scaler.unscale_(state.optimizer)
    graded = [p for p in state.model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in graded])
    if state.cfg.train.clip_norm:
        torch.nn.utils.clip_grads_with_norm_(graded, state.cfg.train.clip_norm, norm)
    values, agreed = fetch(done, norm, flags)
    check_finite(state, values, batch, before)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return values, agreed


def fetch(units, norm, flags=()):
    """Means over units and processes in one transfer: see optimise"""
    losses, statistics = list(units[0][0]), list(units[0][1])
    twice = RESERVED & {*losses, *statistics} or {*losses} & {*statistics}
    if twice or any([*a, *b] != [*losses, *statistics] for a, b in units):
        raise ValueError(f"losses {losses}, statistics {statistics}: " + (
            f"{sorted(twice)[0]!r} is a name twice, or one of the log's own" if twice else "others in another unit")
            + ".\n  Give each a name of its own, the same in every unit, in the method's TrainStep")
    table = torch.stack([torch.stack([*a.values(), *b.values()]).detach().double() for a, b in units]).mean(dim=0)
    table = torch.cat([table, norm.detach().double()[None], table.new_tensor(list(flags))])
    means = mean_over_ranks(table).tolist()
    named = dict(zip([*losses, *statistics, "grad_norm"], means, strict=False))
    values = {"losses": {name: named.pop(name) for name in losses}} | named
    return values, means[len(means) - len(flags):]


def check_finite(state, values, batch, before):
    """FloatingPointError where a loss, or a gradient that no scaler handles, is not finite; the batch is kept."""
    wrong = {f"loss '{name}'": value for name, value in values["losses"].items() if not math.isfinite(value)}
    if not wrong and not state.scaler.is_enabled() and not math.isfinite(values["grad_norm"]):
        wrong = {"the gradient's norm": values["grad_norm"]}
    if not wrong:
        return
    name, value = next(iter(wrong.items()))
    step = state.progress.global_step + 1
    file = dump_step(state, batch, before, step)
    raise FloatingPointError(
        f"{name} is {value} at step {step}; episodes: {', '.join(batch.ids)}.\n"
        f"  The last checkpoint is intact. {file} holds this step: look into it with\n"
        f"  python -m tools.workshop.replay_step {file}   (or lower train.lr, or set train.amp=off)")


def dump_step(state, batch, before, step):
    """Everything that a repetition of this step needs, weights and random numbers included  ->  the file"""
    suffix = f"_rank{rank()}" if world_size() > 1 else ""
    file = state.output / f"nonfinite_step{step}{suffix}.pth"
    save_checkpoint(file, {
        "model": state.model.state_dict(), "config": to_dict(state.cfg), "fold": state.fold, "step": step,
        "rng": list(before), "batch": {f.name: plain(getattr(batch, f.name)) for f in fields(batch)}})
    return file


def plain(value):
    """A field of a batch  ->  tensors on the CPU, lists, numbers, text, and dicts of a sample's fields"""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if isinstance(value, str | float | bool) else int(value)


def note_spike(progress, values, factor):
    """Whether the sum of losses is `factor` times what is typical; the typical value follows slowly."""
    total = sum(values["losses"].values())
    known, typical = progress.global_step > SPIKE_AFTER, progress.typical_loss
    progress.typical_loss = total if typical is None else SPIKE_MEMORY * typical + (1 - SPIKE_MEMORY) * total
    return known and factor > 0 and typical is not None and total > factor * typical
