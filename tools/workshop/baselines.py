"""What training is worth: an untrained VIPMT and the support prototype on the episodes of a test, side by side.

    python -m tools.workshop.baselines --config config/demo/ytvis.yaml --fold 1 --checkpoint output/demo/fold1/last.pth

The prototype (cosine to the masked average of support features) gets the one threshold that is best on these
very episodes, which is more than a fair method may know. Results of test.py beside it are put into the table.
"""
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataloaders import build_index, build_test_loader
from models import get_method
from models.vipmt.inference import ClipSegmentation
from tools.workshop.support_prototype import PrototypeScorer
from utils.checkpoint import load_checkpoint, load_weights
from utils.command_line import Parser
from utils.config import add_config_arguments, load_config, user_errors
from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import aggregate
from utils.logger import setup_logger
from utils.records import JsonLines, read_json_lines
from utils.seeds import rng_for

THRESHOLDS = np.linspace(0, 1, 201)


def episodes(cfg, index, fold, device):
    for run in range(cfg.test.runs):
        yield from build_test_loader(cfg, index, fold, run, pin_memory=device.type == "cuda")


def jaccard_at(scores, masks):
    """J of every frame at every threshold, by counting: (T, H, W) twice  ->  (T, thresholds)"""
    rows = []
    edges = np.append(THRESHOLDS, np.inf)
    for score, mask in zip(scores, masks, strict=True):
        inside, outside = (np.histogram(score[part], edges)[0][::-1].cumsum()[::-1] for part in (mask, ~mask))
        rows.append(inside / np.maximum(mask.sum() + outside, 1))
    return np.array(rows)


def best_threshold(model, cfg, index, fold, device):
    """The threshold with the highest J, averaged over frames of a class, then over classes."""
    sums, frames = {}, {}
    for episode in tqdm(episodes(cfg, index, fold, device), desc="threshold", unit="video", disable=None):
        scorer = PrototypeScorer(model, episode.support_images, episode.support_masks)
        for clip in episode.clips:
            rows = jaccard_at(scorer(clip.images).numpy(), clip.masks.numpy())
            sums[episode.class_id] = sums.get(episode.class_id, 0) + rows.sum(axis=0)
            frames[episode.class_id] = frames.get(episode.class_id, 0) + len(rows)
    means = np.mean([sums[class_id] / frames[class_id] for class_id in sums], axis=0)
    return float(THRESHOLDS[means.argmax()])


def run_reference(name, start, cfg, index, fold, device, output):
    """Evaluate into output/<name>.jsonl, afresh  ->  its lines"""
    path = output / f"{name}.jsonl"
    path.unlink(missing_ok=True)
    with JsonLines(path) as lines:
        return evaluate(start, episodes(cfg, index, fold, device), cfg, fold, lines.append)


def untrained(cfg, device):
    """start(episode), see `evaluate`, of a VIPMT as it is before the first step."""
    torch.manual_seed(cfg.seed)
    method = get_method(cfg.model.method)
    model = method.build(cfg, pretrained=True).to(device).eval()

    def start(episode):
        rng = rng_for(cfg.seed, "memory", episode.run, episode.class_id, episode.video)
        return method.VideoSegmenter(
            model, episode.support_images, episode.support_masks, memory=cfg.memory, rng=rng).shared
    return start


def prototype(model, threshold):
    """start(episode), see `evaluate`, of the support prototype."""
    def start(episode):
        scorer = PrototypeScorer(model, episode.support_images, episode.support_masks)

        def segment(clip):
            scores = scorer(clip.images)
            return ClipSegmentation(scores - threshold, None, torch.zeros(len(scores), dtype=torch.bool))
        return segment
    return start


def row(name, lines):
    """A line of the table: mean over runs, and the spread where there are several."""
    runs = [aggregate([line for line in lines if line["run"] == run]) for run in sorted({x["run"] for x in lines})]
    cells = []
    for key in ("j", "f", "vc"):
        values = [100 * means[key] for means in runs]
        cells.append(f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""))
    return f"| {name} | " + " | ".join(cells) + " |"


def main():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--fold", type=int, required=True, choices=(1, 2, 3, 4))
    parser.add_argument("--checkpoint", help="its encoder makes the prototype's features (default: the pretrained one)")
    parser.add_argument("--output", type=Path, help="default: output/<name>/fold<k>/test")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_intermixed_args()
    cfg = load_config(args.config, args.overrides)
    output = args.output or Path("output") / cfg.name / f"fold{args.fold}" / "test"
    setup_logger(output)
    device, index = torch.device(args.device), build_index(cfg, output.parent / "cache")
    model = get_method(cfg.model.method).build(cfg, pretrained=not args.checkpoint)
    if args.checkpoint:
        load_weights(model, load_checkpoint(args.checkpoint)["model"], args.checkpoint)
    model = model.to(device).eval()
    threshold = best_threshold(model, cfg, index, args.fold, device)
    where = cfg, index, args.fold, device, output
    table = {
        "untrained": run_reference("untrained", untrained(cfg, device), *where),
        f"support prototype, cosine > {threshold:.3f}": run_reference(
            "support_prototype", prototype(model, threshold), *where)}
    if (output / "results.jsonl").is_file():
        table[f"VIPMT ({cfg.name})"] = read_json_lines(output / "results.jsonl")
    text = "\n".join(["| method | J | F | VC7 |", "| --- | --- | --- | --- |", *(row(*item) for item in table.items())])
    (output / "references.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    with user_errors():
        main()
