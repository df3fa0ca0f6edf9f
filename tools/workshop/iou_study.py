"""How well IoUNet knows the quality of a mask: on held-out synthetic noise, and on real predictions of a test.

    python -m tools.workshop.iou_study --config config/vipmt/iounet_video.yaml --fold 1 --output output/iou_study
           [--checkpoint output/iounet_video/fold1/last.pth] [--results output/vipmt_ytvis/fold1/test/results.jsonl]
    python -m tools.workshop.iou_study --config config/vipmt/ytvis.yaml --fold 1 --output output/calibration
           --checkpoint output/vipmt_ytvis/fold1/last.pth --calibrate

Without --checkpoint: only what the noise is, histogram.png (true IoU) and kinds.png (every kind, five strengths). With
one, of train.py with any method: L1 error and Spearman correlation of predicted against true IoU as a Markdown table,
study.md, and scatter.png. The noise is on the fold's test classes; of COCO, where no class is tested, name images that
were not trained on: data.annotations=annotations/instances_val2017.json.

--calibrate: the checkpoint segments the base videos that were held out of its training (validate.classes, holdout), and
iou_net.calibration is fitted there: scale and shift of the logits, so that of the frames said to have IoU 0.8 the mean
is 0.8 (Platt, 1999; the cross entropy with the true IoU is smallest). `--calibrate trained`: on all base videos, for
data sets too small to hold any out; their masks are better than those of new videos, and so will the promise be.
"""
from pathlib import Path

from utils.command_line import Parser, say
from utils.config import add_config_arguments, load_config, split_overrides, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--fold", type=int, required=True, choices=(1, 2, 3, 4))
    parser.add_argument("--checkpoint", help="of train.py, with an IoUNet")
    parser.add_argument("--calibrate", nargs="?", const="held_out", choices=("held_out", "trained"),
                        help="fit iou_net.calibration to the checkpoint on base videos, those held out of its training")
    parser.add_argument("--results", nargs="+", default=[], help="results.jsonl of test.py, one or more")
    parser.add_argument("--batches", type=int, default=50, help="held-out batches that noise is drawn for")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    args = parser.parse_intermixed_args()
    args.results, more = split_overrides(args.results)      # keys that follow a list
    args.overrides = [*args.overrides, *more]
    return args


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
    say("loading PyTorch")

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from dataloaders import build_index
from dataloaders.episode import collate
from dataloaders.fewshot import loaders as fewshot
from dataloaders.fewshot.sampling import DistinctClassBatchSampler, TrainEpisodes
from dataloaders.fewshot.streaming import EpisodeStream, TestEpisodes
from models import iou_training, vipmt
from models.iou_training.build import load_encoder_and_iou_net
from models.iou_training.mask_noise import KINDS
from models.trained import trained_model
from models.vipmt.losses import mask_iou
from utils.evaluation.evaluate import evaluate
from utils.evaluation.rank_correlation import spearman
from utils.evaluation.results import read_results
from utils.runtime import choose_device, prepare_runtime
from utils.seeds import rng_for

EPOCH = -1                    # training counts from 0: none of its episodes is drawn here
STRENGTHS = (0.02, 0.1, 0.25, 0.5, 1.0)
HEAD = ("| masks | frames | L1 error | of the best constant | Spearman | mean true IoU | mean predicted |\n"
        "| --- | --- | --- | --- | --- | --- | --- |")


def row(name, predicted, true):
    """One line of the table. The best constant is the median: who is no better than it has learned nothing."""
    constant = np.abs(true - np.median(true)).mean()
    cells = (np.abs(predicted - true).mean(), constant, spearman(predicted, true), true.mean(), predicted.mean())
    return f"| {name} | {len(true)} | " + " | ".join("" if np.isnan(x) else f"{x:.3f}" for x in cells) + " |"


# -- where they come from -------------------------------------------------------------------------------------------

def held_out_batches(cfg, index, fold, count):
    """At most `count` Batches of the fold's test classes, always the same."""
    index, classes = index.side(fold, "test")
    size = min(cfg.train.batch_size, len(classes))
    order = DistinctClassBatchSampler(classes, -(-count * size // len(classes)), size, cfg.seed, EPOCH)
    batches = [keys for keys, _ in zip(order, range(count), strict=False)]
    return DataLoader(TrainEpisodes(index, classes, cfg), batch_sampler=batches, collate_fn=collate,
                      num_workers=cfg.data.workers, generator=torch.Generator())


def predicted_and_true(step, batches, device):
    """IoUNet on noise  ->  predicted and true IoU of every frame, (N,) arrays"""
    with torch.inference_mode():
        pairs = [step.predict(*unit) for batch in batches for unit in step.units(batch.to(device))]
    logits, true = (torch.cat([part.flatten().cpu() for part in parts]) for parts in zip(*pairs, strict=True))
    return logits.float().sigmoid().double().numpy(), true.numpy()


def noise_alone(step, batches):
    """The same noise without a network  ->  true IoU of every frame (N,)"""
    pairs = ((step.initial_memory_masks(b.query_masks), b.query_masks) for b in batches)
    return np.concatenate([mask_iou(*pair).flatten().numpy() for pair in pairs])


def of_results(path):
    """results.jsonl of test.py  ->  predicted and true IoU of every frame, (N,) arrays"""
    lines = [line for line in read_results(path) if line.get("pred_iou")]
    if not lines:
        raise ValueError(f"{path}: no video with pred_iou.\n  Test a model with IoUNet: model.memory_prototype=true")
    return tuple(np.array([value for line in lines for value in line[key]]) for key in ("pred_iou", "true_iou"))


def base_videos(args, cfg):
    """The episodes to calibrate on; ValueError: none were held out"""
    index = build_index(cfg, args.output / "cache")
    if args.calibrate == "trained":
        index, base = index.side(args.fold, "train")
        episodes = TestEpisodes(index, base, cfg, fewshot.VALIDATION_RUN)
        return EpisodeStream(episodes, range(len(episodes)), cfg.data.workers, False, cfg.data.patience)
    videos = fewshot.validation_videos(cfg, index, args.fold)
    if videos is None or cfg.validate.classes != "base_holdout":
        raise ValueError("--calibrate needs base videos that were held out of the training.\n  Train and calibrate "
                         "with validate.classes=base_holdout, or, with very little data, take --calibrate trained")
    return videos


def on_base_videos(args, cfg):
    """What the checkpoint predicts there  ->  predicted, true (N,)"""
    if not args.checkpoint:
        raise ValueError("--calibrate needs --checkpoint")
    videos = base_videos(args, cfg)
    device = torch.device(choose_device(args.device))
    model, amp = trained_model(cfg, args.checkpoint, args.fold)[0].to(device), prepare_runtime(cfg.speed, device)

    def start(reference):
        return vipmt.Segmenter(model, reference, cfg, rng=rng_for(cfg.seed, "memory", *reference.key), amp=amp)

    lines = evaluate(start, videos, cfg, lambda line: None)
    return tuple(np.array([value for line in lines for value in line[key]]) for key in ("pred_iou", "true_iou"))


def fit_calibration(predicted, true, steps=50):
    """(N,) in (0, 1), (N,) in [0, 1]  ->  scale and shift of the logits whose cross entropy is smallest (Newton)"""
    logits = torch.from_numpy(predicted).clamp(1e-6, 1 - 1e-6).logit()
    inputs, wanted = torch.stack([logits, torch.ones_like(logits)], dim=1), torch.from_numpy(true)
    found = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for _ in range(steps):
        now = (inputs @ found).sigmoid()
        curvature = inputs.T @ (inputs * (now * (1 - now))[:, None]) + 1e-6 * torch.eye(2)
        found = found - torch.linalg.solve(curvature, inputs.T @ (now - wanted)).clamp(-1, 1)
    return found.tolist()


def calibrate(args, cfg):
    """->  the table and the key, as text"""
    cfg.iou_net.calibration = [1.0, 0.0]
    predicted, true = on_base_videos(args, cfg)
    scale, shift = fit_calibration(predicted, true)
    logits = np.log(predicted) - np.log1p(-predicted)
    fitted = 1 / (1 + np.exp(-(scale * logits + shift)))
    rows = [row(name, values, true) for name, values in (("as trained", predicted), ("calibrated", fitted))]
    return "\n".join([HEAD, *rows, "", f"iou_net.calibration=[{scale:.3f},{shift:.3f}]"])


# -- pictures -------------------------------------------------------------------------------------------------------

def figure(rows, columns, size):
    drawn = Figure(figsize=size, layout="constrained")
    return drawn, drawn.subplots(rows, columns, squeeze=False)


def draw_histogram(true, path):
    """How evenly the true IoUs of the noise are spread."""
    drawn, ((axes,),) = figure(1, 1, (6, 3.5))
    axes.hist(true, bins=20, range=(0, 1), edgecolor="white")
    axes.axhline(len(true) / 20, color="black", linewidth=1, label="even")
    axes.set(title=f"mask noise, {len(true)} frames", xlabel="true IoU", ylabel="frames", xlim=(0, 1))
    axes.legend(loc="lower right")
    drawn.savefig(path, dpi=120)


def draw_kinds(mask, other, path):
    """Every kind of noise on one mask (H, W): found in black, missed in red, too much in blue."""
    drawn, grid = figure(len(KINDS), len(STRENGTHS), (2.2 * len(STRENGTHS), 1.35 * len(KINDS)))
    colours = np.array([(255, 255, 255), (60, 110, 220), (220, 50, 40), (0, 0, 0)], np.uint8)
    for (name, kind), line in zip(KINDS.items(), grid, strict=True):
        at = kind(mask, np.random.default_rng(0), other)
        for strength, axes in zip(STRENGTHS, line, strict=True):
            axes.imshow(colours[2 * mask.astype(int) + at(strength)])
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{name} {strength:g}", fontsize=8)
    drawn.savefig(path, dpi=100)


def draw_scatter(studies, path):
    """{name: (predicted, true)}: one panel each."""
    drawn, (panels,) = figure(1, len(studies), (4.2 * len(studies), 4))
    for axes, (name, (predicted, true)) in zip(panels, studies.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="black", linewidth=1)
        axes.scatter(true, predicted, s=6, alpha=0.4)
        axes.set(title=name, xlabel="true IoU", ylabel="predicted IoU", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    drawn.savefig(path, dpi=120)


# -- the command ----------------------------------------------------------------------------------------------------

def study(args, cfg):
    """All that the command line asks for  ->  the table as text, None without a checkpoint and results"""
    args.output.mkdir(parents=True, exist_ok=True)
    if args.calibrate:
        return calibrate(args, cfg)
    device, studies = torch.device(choose_device(args.device)), {}
    model = iou_training.build(cfg).to(device).eval()
    step = iou_training.TrainStep(model, cfg).eval()
    batches = held_out_batches(cfg, build_index(cfg, args.output / "cache"), args.fold, args.batches)
    torch.manual_seed(cfg.seed)
    if args.checkpoint:
        load_encoder_and_iou_net(model, args.checkpoint)
        studies["held-out noise"] = predicted_and_true(step, batches, device)
    true = studies["held-out noise"][1] if studies else noise_alone(step, batches)
    draw_histogram(true, args.output / "histogram.png")
    masks = next(iter(batches)).query_masks[:, 0].numpy()
    draw_kinds(masks[0], masks[-1] if len(masks) > 1 else masks[0, :, ::-1], args.output / "kinds.png")
    studies |= {f"real predictions, {path}": of_results(path) for path in args.results}
    if not studies:
        return None
    draw_scatter(studies, args.output / "scatter.png")
    table = "\n".join([HEAD, *(row(name, *pair) for name, pair in studies.items())])
    (args.output / "study.md").write_text(table + "\n")
    return table


if __name__ == "__main__":
    with user_errors():
        table = study(arguments, load_config(arguments.config, arguments.overrides))
        print(table or f"Pictures of the noise: {arguments.output}")
