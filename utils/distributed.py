"""Several processes, one per GPU, as `torchrun` starts them; without it, all of this is a world of one.

In: torchrun's environment. Out: who we are, means, sums and lists over all processes, with gradient where a loss needs
it. Rank 0 alone writes.
"""
import os
import time
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=2)      # one rank may test a long video while the others wait for it
GATHERING = timedelta(minutes=10)  # from the start of the first process to the start of the last one


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def world_size():
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main():
    """Whether this process writes files."""
    return rank() == 0


@contextmanager
def processes(device):
    """Around a run: joins the other processes if torchrun started them  ->  the torch.device of this one

    device: cpu | cuda | cuda:N; with several processes every one gets the GPU of its local rank.
    """
    device = torch.device(device)
    if "TORCHELASTIC_RUN_ID" not in os.environ and int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", _local_gpu())
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        store, number, size = next(dist.rendezvous("env://", timeout=GATHERING))
        store = dist.PrefixStore(agree_on_a_name(store, number, size), store)
        dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=PATIENCE)
    else:
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def agree_on_a_name(store, rank, world_size, patience=GATHERING):
    """All processes of this start, through a store that may hold what an earlier start wrote  ->  a name for the start

    torchrun keeps its store when it starts the processes again, without a prefix (PyTorch up to 2.12), so that a new
    process may read the address of a dead one and hang. Its restart count is no name either: nodes count differently.
    So every process brings a token; rank 0 names the start after the tokens that it reads, until all answer to it.
    Raises TimeoutError when not all processes have come within `patience`.
    """
    token, deadline = uuid4().hex, time.monotonic() + patience.total_seconds()
    ranks = [str(number) for number in range(world_size)]
    store.set(f"token/{rank}", token)
    while time.monotonic() < deadline:
        if rank == 0:
            proposed = " ".join(t.decode() for t in store.multi_get([f"token/{r}" for r in ranks]))
            store.set("proposed", proposed)
        else:
            proposed = store.get("proposed").decode()
        if proposed.split()[rank:rank + 1] == [token]:
            store.set(f"answer/{rank}", proposed)
            if rank == 0 and all(store.check([f"answer/{r}"]) and store.get(f"answer/{r}").decode() == proposed
                                 for r in ranks):
                store.set("agreed", proposed)
            if store.check(["agreed"]) and store.get("agreed").decode() == proposed:
                return proposed.split()[0]
        time.sleep(0.02)
    raise TimeoutError(f"process {rank} of {world_size} waited {patience} for the others; did all nodes start?")


def _local_gpu():
    number, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= count:
        raise ValueError(f"torchrun started process {number + 1} on a machine with {count} GPUs.\n"
                         f"  Use --nproc_per_node={count}, or --device cpu")
    return number


def in_parallel(module, device):
    """The module under DistributedDataParallel, or itself where there is one process or nothing to train."""
    if world_size() == 1 or not any(p.requires_grad for p in module.parameters()):
        return module
    gpus = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=gpus, broadcast_buffers=False)


def mean_over_ranks(values):
    """A tensor  ->  its mean over all processes, the same everywhere"""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world_size()


def gather_objects(value):
    """A plain value of every process  ->  list of all of them, by rank; our own processes, no file is involved"""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def wait_for_all():
    if world_size() > 1:
        gather_objects(None)


def gather_with_gradient(values, dim):
    """Tensors of one shape from all processes, side by side along `dim`; the gradient returns to where each came from.

    A loss that is a mean over all processes (DDP averages gradients) has the very gradient that it has in one process.
    """
    if world_size() == 1:
        return values
    return torch.cat(_Gather.apply(values), dim=dim)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(_, values):
        everyone = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(everyone, values.contiguous())
        return tuple(everyone)

    @staticmethod
    def backward(_, *gradients):
        gradients = torch.stack(gradients)
        dist.all_reduce(gradients)
        return gradients[rank()]
