"""The floor: what one later clip would cost if it were nothing but its convolutions and matrix products.

Every operation of a clip is recorded on its way to the device. From the record: floating point operations over the
best rate that a square or tall matrix product reaches here; bytes of these operations' inputs and outputs over the
measured rate of a copy; and each recorded convolution and product, repeated alone on tensors of the same layout. The
first two are what the arithmetic needs, the third is what PyTorch's kernels need for it.
"""
from collections import Counter
from statistics import median

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_flop

from models.vipmt.inference import VideoSegmenter
from tools.workshop.benchmarking.setup import PRECISIONS, ratio

aten = torch.ops.aten
ATTENTION_ON_CPU = aten._scaled_dot_product_flash_attention_for_cpu       # the registry has no line for it
SQUARES = (512, 1024, 2048, 4096)


class Layout:
    """What a kernel sees of a tensor: shape, strides, dtype; hashable."""

    def __init__(self, x):
        self.key = tuple(x.shape), x.stride(), x.dtype, x.device

    def __eq__(self, other):
        return isinstance(other, Layout) and self.key == other.key

    def __hash__(self):
        return hash(self.key)

    def tensor(self):
        """Random numbers; elements share memory where they did, as in an expanded tensor."""
        shape, stride, dtype, device = self.key
        extent = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        return torch.randn(extent, device=device).to(dtype).as_strided(shape, stride)


class Record(TorchDispatchMode):
    """Counts the calls of every convolution and matrix product: `calls`, their `flops`, `bytes` and `all_bytes`."""

    def __init__(self):
        super().__init__()
        self.calls, self.flops, self.bytes, self.all_bytes = Counter(), 0, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, packet = kwargs or {}, function._overloadpacket
        heavy = packet in flop_registry or packet is ATTENTION_ON_CPU
        out = function(*args, **kwargs)
        size = 0 if function.is_view else volume((args, kwargs, out))
        self.all_bytes += size
        if heavy:
            self.bytes += size
            self.flops += flops_of(packet, args, kwargs, out)
            self.calls[frozen(function, args, kwargs)] += 1
        return out


def volume(values):
    """Bytes of all tensors in a nest of values"""
    return sum(x.numel() * x.element_size() for x in tree_flatten(values)[0] if isinstance(x, torch.Tensor))


def flops_of(packet, args, kwargs, out):
    if packet is ATTENTION_ON_CPU:
        return sdpa_flop(*(x.shape for x in args[:3]))
    return flop_registry[packet](*args, **kwargs, out_val=out)


def frozen(function, args, kwargs):
    """A call with layouts for tensors, hashable"""
    values, form = tree_flatten(tree_map_only(torch.Tensor, Layout, (args, kwargs)))
    return function, tuple(values), form


def replay(calls, bench, repeats):
    """Each recorded call alone, on random tensors of the same layout  ->  seconds of all of them"""
    total = 0.0
    for (function, values, form), count in calls.items():
        filled = [x.tensor() if isinstance(x, Layout) else x for x in values]
        args, kwargs = form.unflatten(filled)
        times = [bench.timed(lambda: function(*args, **kwargs))[1] for _ in range(repeats + 1)]   # noqa: B023
        total += count * median(times[1:])
    return total


def matrix_rate(bench, tokens, dim, dtype, repeats):
    """Best measured rate of a product, in operations/s: squares and the network's own tall shape"""
    best = 0.0
    for m, n, k in [(n, n, n) for n in SQUARES[:bench.settings.squares]] + [(tokens, dim, 4 * dim)]:
        a, b = (torch.randn(shape, device=bench.device, dtype=dtype) for shape in ((m, k), (k, n)))
        out = torch.empty(m, n, device=bench.device, dtype=dtype)
        seconds = min(bench.timed(lambda: torch.mm(a, b, out=out))[1] for _ in range(repeats + 1))   # noqa: B023
        best = max(best, 2 * m * n * k / seconds)
    return best


def copy_rate(bench, repeats, megabytes=256):
    """Bytes/s read and written by a copy larger than any cache"""
    a = torch.ones(megabytes * 2 ** 20, dtype=torch.uint8, device=bench.device)
    b = torch.empty_like(a)
    return 2 * len(a) / min(bench.timed(lambda: b.copy_(a))[1] for _ in range(repeats + 1))


def floor(bench):
    """settings size, shots, precision, repeats, squares (how many of SQUARES to try)"""
    s, model, length = bench.settings, bench.model(), bench.cfg.data.clip_length
    video, amp = bench.video(s.size, s.shots, length * (s.repeats + 4)), PRECISIONS[s.precision]
    segment, seconds = bench.segmenter(VideoSegmenter, model, video, amp), []
    for number in range(s.repeats + 3):
        seconds.append(bench.timed(segment, video.clip(number)[0])[1])
    # Without inference mode, which would hand whole layers to the record, past autocast.
    prepare, judge = VideoSegmenter.prepare.__wrapped__, VideoSegmenter.segment.__wrapped__
    with torch.no_grad(), Record() as record:
        judge(segment, prepare(segment, video.clip(s.repeats + 3)[0]), s.size)
    clip = median(seconds[3:])
    with torch.inference_mode():
        tokens = length * (s.size[0] // 8) * (s.size[1] // 8)
        rate = matrix_rate(bench, tokens, bench.cfg.model.dim, amp or torch.float32, s.repeats)
        bandwidth, alone = copy_rate(bench, s.repeats), replay(record.calls, bench, s.repeats)
    arithmetic, transfer = record.flops / rate, record.bytes / bandwidth
    return [{
        "size": s.size, "shots": s.shots, "precision": s.precision, "clip_s": clip, "gflop": record.flops / 1e9,
        "gflop_per_s": rate / 1e9, "arithmetic_s": arithmetic, "gbyte": record.bytes / 1e9,
        "gbyte_all_operations": record.all_bytes / 1e9, "gbyte_per_s": bandwidth / 1e9, "transfer_s": transfer,
        "clip_over_arithmetic": ratio(clip, max(arithmetic, transfer)), "replay_s": alone,
        "clip_over_replay": ratio(clip, alone), "calls": sum(record.calls.values()), "distinct": len(record.calls)}]
