"""The floor: what one later clip would cost if it were nothing but its convolutions and matrix products.

torch's FlopCounterMode counts their operations, which over the best rate of a matrix product are what the arithmetic
needs; each recorded call, repeated alone on tensors of the same layout, is what PyTorch's kernels need for it.
"""
from collections import Counter
from dataclasses import dataclass
from statistics import median

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from tools.workshop.benchmarking.bench import PRECISIONS

ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu       # the registry has no line for it
SQUARES = (512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Layout:
    """What a kernel sees of a tensor."""
    shape: tuple
    stride: tuple
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x):
        return cls(tuple(x.shape), x.stride(), x.dtype, x.device)

    def tensor(self):
        """Random numbers; elements share memory where they did, as in an expanded tensor."""
        extent = 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return torch.randn(extent, device=self.device).to(self.dtype).as_strided(self.shape, self.stride)


class Record(TorchDispatchMode):
    """Counts the calls of every convolution and matrix product: `calls`, of (function, arguments, their form)"""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._overloadpacket in (*flop_registry, ON_CPU):
            values, form = tree_flatten(tree_map_only(torch.Tensor, Layout.of, (args, kwargs or {})))
            self.calls[function, tuple(values), form] += 1
        return function(*args, **kwargs or {})


def count_flops(function):
    """Calls it  ->  floating point operations, Record"""
    flash = {ON_CPU: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=flash) as counter, Record() as record:
        function()
    return counter.get_total_flops(), record


def replay(calls, repeats):
    """Each recorded call alone, on random tensors of the same layout  ->  seconds of all of them"""
    total = 0.0
    for (function, values, form), count in calls.items():
        args, kwargs = form.unflatten([x.tensor() if isinstance(x, Layout) else x for x in values])
        total += count * median(seconds_of("f(*a, **k)", repeats, f=function, a=args, k=kwargs))
    return total


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
    video, amp = bench.video(length * (s.repeats + 4)), PRECISIONS[s.precision]
    segment = bench.ours(bench.model().requires_grad_(False), s.precision)(video)
    bench.allocate("ours")
    clip = median([bench.timed(segment, video.clip(number))[1] for number in range(s.repeats + 3)][3:])
    # Without inference mode, which would hand whole layers to the record, past autocast.
    one, last = segment.segmenter, video.clip(s.repeats + 3)
    prepare, judge = type(one).prepare.__wrapped__, type(one).__call__.__wrapped__
    flops, record = count_flops(lambda: judge(one, prepare(one, last), last))
    with torch.inference_mode():
        rate = matrix_rate(bench.device, length * (size[0] // 8) * (size[1] // 8), bench.cfg.model.dim,
                           amp or torch.float32, s.repeats, SQUARES[:1] if s.quick else SQUARES)
        alone = replay(record.calls, s.repeats)
    return [{"precision": s.precision, "clip_s": clip, "gflop": flops / 1e9, "gflop_per_s": rate / 1e9,
             "arithmetic_s": flops / rate, "clip_over_arithmetic": clip * rate / flops, "replay_s": alone,
             "clip_over_replay": clip / alone, "calls": sum(record.calls.values()), "distinct": len(record.calls)}]
