"""One optimiser step: clip after clip, gradients averaged over all processes, and guards against what ruins a run.

A step needs one transfer from the device: losses, statistics, the gradient's norm and what the processes have to agree
on travel together.
"""
import math
from contextlib import nullcontext
from functools import partial

import torch

from utils.checkpoint import save_checkpoint
from utils.config import to_dict
from utils.distributed import mean_over_ranks, rank, world_size

SPIKE_AFTER = 50             # steps until a typical loss is known
SPIKE_MEMORY = 0.98          # share of the typical loss that each step leaves as it was


def optimise(run, batch, wishes=()):
    """One step on an EpisodeBatch  ->  {"losses": {name: mean over clips}, statistic: ..., "grad_norm": norm}, agreed

    run: see train.Run. wishes: numbers of this process, agreed: their means over all processes.
    FloatingPointError names loss, step and episodes; weights are then still those before the step.
    """
    state, per_clip, clips, waiting = run.state, run.cfg.train.backward == "per_clip", [], []
    before = torch.get_rng_state(), *([torch.cuda.get_rng_state()] if run.device.type == "cuda" else [])
    autocast = partial(torch.autocast, run.device.type, dtype=state.amp, enabled=state.amp is not None)
    state.optimizer.zero_grad(set_to_none=True)
    with autocast():
        encoded = run.step.encode(batch)
    for number in range(encoded.num_clips):
        with gradients_stay_here(run) if number + 1 < encoded.num_clips else nullcontext():
            with autocast():
                losses, statistics = run.parallel(encoded, number)
            total = sum(losses.values())
            if per_clip:
                state.scaler.scale(total).backward()
            else:
                waiting.append(total)
            clips.append(({name: loss.detach() for name, loss in losses.items()}, statistics))
            del losses, total         # or their graph would outlive the next clip's forward pass
    if not per_clip:
        state.scaler.scale(sum(waiting)).backward()
    state.scaler.unscale_(state.optimizer)
    norm = torch.nn.utils.get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None])
    values, agreed = fetch(clips, norm, wishes)
    check_finite(run, values, batch, before)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return values, agreed


def gradients_stay_here(run):
    """Around all clips but the last: their gradients add up in this process and are averaged over all once."""
    return run.parallel.no_sync() if run.parallel is not run.step else nullcontext()


def fetch(clips, norm, wishes=()):
    """Means over clips and processes in one transfer: see optimise"""
    losses, statistics = list(clips[0][0]), list(clips[0][1])
    table = torch.stack([torch.stack([*a.values(), *b.values()]).detach().double() for a, b in clips]).mean(dim=0)
    table = torch.cat([table, norm.detach().double()[None], table.new_tensor(list(wishes))])
    means = mean_over_ranks(table).tolist()
    named = dict(zip([*losses, *statistics, "grad_norm"], means, strict=False))
    values = {"losses": {name: named.pop(name) for name in losses}} | named
    return values, means[len(means) - len(wishes):]


def check_finite(run, values, batch, before):
    """FloatingPointError where a loss, or a gradient that no scaler handles, is not finite; the episodes are kept."""
    wrong = {f"loss '{name}'": value for name, value in values["losses"].items() if not math.isfinite(value)}
    if not wrong and not run.state.scaler.is_enabled() and not math.isfinite(values["grad_norm"]):
        wrong = {"the gradient's norm": values["grad_norm"]}
    if not wrong:
        return
    name, value = next(iter(wrong.items()))
    step = run.state.progress.steps + 1
    file = dump_step(run, batch, before, step)
    raise FloatingPointError(
        f"{name} is {value} at step {step}; episodes: {', '.join(batch.ids)}.\n"
        f"  The last checkpoint is intact. {file} holds this step: look into it with\n"
        f"  python -m tools.workshop.replay_step {file}   (or lower train.lr, or set train.amp=off)")


def dump_step(run, batch, before, step):
    """Everything that a repetition of this step needs, weights and random numbers included  ->  the file"""
    suffix = f"_rank{rank()}" if world_size() > 1 else ""
    file = run.output / f"nonfinite_step{step}{suffix}.pth"
    tensors = {name: getattr(batch, name).cpu() for name in
               ("support_images", "support_masks", "query_images", "query_masks")}
    save_checkpoint(file, {
        "model": run.model.state_dict(), "config": to_dict(run.cfg), "fold": run.fold, "step": step,
        "rng": list(before), "batch": tensors | {
            "memory_index": [index.cpu() for index in batch.memory_index], "clip_length": batch.clip_length,
            "class_ids": [int(x) for x in batch.class_ids], "ids": list(batch.ids)}})
    return file


def note_spike(progress, values, factor):
    """Whether the sum of losses is `factor` times what is typical; the typical value follows slowly."""
    total = sum(values["losses"].values())
    known, typical = progress.steps > SPIKE_AFTER, progress.typical_loss
    progress.typical_loss = total if typical is None else SPIKE_MEMORY * typical + (1 - SPIKE_MEMORY) * total
    return known and factor > 0 and typical is not None and total > factor * typical
