"""What a frame of one object costs LWL with a full memory: GFLOP, milliseconds and share of every module.

    python -m tools.workshop.benchmarking.lwl --config config/lwl/stage1.yaml [--precision bf16] [--device cuda]

Random weights; on a CPU the processor's time of one thread, the least of --repeats, so that other work beside it counts
little.
"""
import time

from utils.command_line import Parser
from utils.config import add_config_arguments, load_config, user_errors


def steps_of_a_frame(model, size, samples, steps=3):
    """-> [(module, function that runs it)], in their order; each has what those before it gave"""
    import torch

    from models.lwl.learner import apply_target_model
    image, mask = torch.rand(1, 3, *size).to(model.reg), torch.rand(1, 1, *size).to(model.reg)
    levels = model.backbone(image)
    x, (label, _) = model.features(levels[2]), model.label_encoder(mask)
    tau = model.zero_filters(x, 1)
    memory = [one.expand(samples, *one.shape[1:]).contiguous() for one in (x[None], label, label, label)]
    return [("backbone", lambda: model.backbone(image)), ("target features", lambda: model.features(levels[2])),
            ("label encoder, one mask", lambda: model.label_encoder(mask)),
            ("the new frame's scores", lambda: apply_target_model(x[None], tau)),
            ("learner, three steps", lambda: model.learn(*memory[:3], tau, steps, memory[3])),
            ("decoder", lambda: model.segment(tau, x, levels, size))]


def gflop(function):
    """By PyTorch's counter, two per multiplication"""
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 1e9


def milliseconds(function, repeats, device):
    import torch
    clock = time.process_time if device == "cpu" else time.perf_counter
    found = []
    for _ in range(1 + repeats):                     # the first one warms up
        start = clock()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(1000 * (clock() - start))
    return min(found[1:])


def main():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    import torch

    from models import get_method
    torch.set_num_threads(1)
    cfg = load_config(args.config or ["config/lwl/stage1.yaml"], args.overrides)
    model = get_method("lwl").build(cfg).to(args.device)
    with torch.inference_mode(), torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16"):
        parts = steps_of_a_frame(model, tuple(cfg.data.size), cfg.memory.size, cfg.learner.update_steps)
        rows = [(name, gflop(run), milliseconds(run, args.repeats, args.device)) for name, run in parts]
    work, took = (sum(row[k] for row in rows) for k in (1, 2))
    print("| module | GFLOP | share | ms | share |\n| --- | ---: | ---: | ---: | ---: |")
    for name, flop, ms in [*rows, ("all", work, took)]:
        print(f"| {name} | {flop:.1f} | {flop / work:.0%} | {ms:.0f} | {ms / took:.0%} |")


if __name__ == "__main__":
    with user_errors():
        main()
