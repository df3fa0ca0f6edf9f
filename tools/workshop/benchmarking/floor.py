"""The floor: what one later clip would cost if it were nothing but its convolutions and matrix products.

PyTorch counts their operations, which over the best rate of a matrix product are what the arithmetic needs; each call,
repeated alone on the same tensors, is what PyTorch's kernels need for it.
"""
from collections import Counter
from statistics import median

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from tools.workshop.benchmarking.bench import PRECISIONS, predict, timed

ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu       # the registry has no line for it
SQUARES = (512, 1024, 2048, 4096)


class Replay(TorchDispatchMode):
    """Repeats every convolution and matrix product that is new to it: `calls` and median `seconds` of each layout."""

    def __init__(self, repeats):
        super().__init__()
        self.repeats, self.calls, self.seconds = repeats, Counter(), {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function._overloadpacket in (*flop_registry, ON_CPU):
            layout = tree_map_only(torch.Tensor, lambda x: (x.shape, x.stride(), x.dtype, x.device), (args, kwargs))
            call = function, *tree_flatten(layout)[0]
            if call not in self.seconds:
                self.seconds[call] = median(seconds_of("f(*a, **k)", self.repeats, f=function, a=args, k=kwargs))
            self.calls[call] += 1
        return function(*args, **kwargs)

    def total(self):
        return sum(count * self.seconds[call] for call, count in self.calls.items())


def count_flops(function):
    """Calls it  ->  floating point operations"""
    flash = {ON_CPU: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)}
    with FlopCounterMode(display=False, custom_mapping=flash) as counter:
        function()
    return counter.get_total_flops()


def seconds_of(statement, repeats, **names):
    """`repeats` times, after a warm-up"""
    timer = Timer(statement, globals=names, num_threads=torch.get_num_threads())
    return [timer.timeit(1).median for _ in range(repeats)]


def matrix_rate(device, tokens, dim, dtype, repeats, squares):
    """Best measured rate of a product, in operations/s: squares and the network's own tall shape"""
    best = 0.0
    for m, n, k in [(n, n, n) for n in squares] + [(tokens, dim, 4 * dim)]:
        a, b = (torch.randn(shape, device=device, dtype=dtype) for shape in ((m, k), (k, n)))
        best = max(best, 2 * m * n * k / min(seconds_of("torch.mm(a, b, out=out)", repeats + 1, torch=torch, a=a, b=b,
                                                        out=torch.empty(m, n, device=device, dtype=dtype))))
    return best


def floor(bench):
    """One clip with full memory. arithmetic: its convolutions and matrix products at the best rate that any of several
    products reaches here; replay: each of them alone, median."""
    s, length, size = bench.settings, bench.cfg.data.clip_length, bench.cfg.data.size
    video, amp = bench.video(length * (s.repeats + 5)), PRECISIONS[s.precision]
    segmenter = bench.ours(bench.model().requires_grad_(False), s.precision)(video.supports)
    bench.allocate("ours")
    clip = median([timed(predict, segmenter, video.clip(number))[1] for number in range(s.repeats + 3)][3:])
    # Without inference mode, which would hand whole layers to the modes, past autocast.
    prepare, call = type(segmenter).prepare.__wrapped__, type(segmenter).__call__.__wrapped__
    first, second = (video.clip(s.repeats + number) for number in (3, 4))
    with torch.no_grad():
        flops = count_flops(lambda: call(segmenter, prepare(segmenter, first), first))
        with Replay(s.repeats) as replay:
            call(segmenter, prepare(segmenter, second), second)
    with torch.inference_mode():
        rate = matrix_rate(bench.device, length * (size[0] // 8) * (size[1] // 8), bench.cfg.model.dim,
                           amp or torch.float32, s.repeats, SQUARES[:1] if s.quick else SQUARES)
    alone = replay.total()
    return [{"precision": s.precision, "clip_s": clip, "gflop": flops / 1e9, "gflop_per_s": rate / 1e9,
             "arithmetic_s": flops / rate, "clip_over_arithmetic": clip * rate / flops, "replay_s": alone,
             "clip_over_replay": clip / alone, "calls": replay.calls.total(), "distinct": len(replay.calls)}]
