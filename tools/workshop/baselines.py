"""What training is worth: an untrained model and the support prototype on the episodes of a test, side by side.

    python -m tools.workshop.baselines --config config/demo/ytvis.yaml --fold 1 --checkpoint output/demo/fold1/last.pth

The prototype, cosine to the masked average of the supports' backbone features, needs no training: what one threshold
over these maps reaches is what the encoder already knows. It gets the threshold that is best on these very episodes,
which is more than a fair method may know. Results of test.py beside it are put into the table.
"""
from itertools import chain
from pathlib import Path

from utils.command_line import Parser, say
from utils.config import add_config_arguments, load_config, user_errors


def parse_arguments():
    parser = Parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument("--fold", type=int, help="with --episodes it is the list's")
    parser.add_argument("--episodes", metavar="FILE", help="replay these, see tools/episodes.py")
    parser.add_argument("--checkpoint", help="its encoder serves the prototype and, frozen, the untrained model")
    parser.add_argument("--output", type=Path, help="default: output/<name>/fold<k>/test")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    with user_errors():
        arguments = parse_arguments()
    say("loading PyTorch")

# Only now, since it takes seconds: help and mistakes on the command line answer at once.
import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from dataloaders import build_index, check_split, get_task
from models import get_method
from models.method import Prediction
from utils.checkpoint import load_checkpoint, load_weights
from utils.evaluation.evaluate import evaluate
from utils.evaluation.results import read_results
from utils.evaluation.tables import comparison, measured
from utils.logger import setup_logger
from utils.records import JsonLines
from utils.runtime import choose_device
from utils.seeds import rng_for

STRIDE = 8
THRESHOLDS = np.linspace(0, 1, 201)


class PrototypeScorer:
    """A Segmenter of the contract: cosine of every query pixel with the support prototype, c3 and c4 side by side.

    model: anything with encode(images); threshold: of the cosine, is subtracted from it
    """

    def __init__(self, model, reference, threshold=0.0):
        self.model, self.threshold, self.device = model, threshold, next(model.parameters()).device
        masks = reference.masks[:, None, ::STRIDE, ::STRIDE].to(self.device)
        with torch.inference_mode():
            features = self.features(reference.images)
            averages = (features * masks).sum((-2, -1)) / masks.sum((-2, -1)).clamp(min=1)
            self.prototype = F.normalize(averages.sum(dim=0), dim=0)                  # empty masks add nothing

    def features(self, images):
        """images (T, 3, H, W)  ->  (T, C, h, w), of unit length in c3 and in c4"""
        levels = self.model.encode(images[None].to(self.device))
        return torch.cat([F.normalize(levels.c3[0], dim=1), F.normalize(levels.c4[0], dim=1)], dim=1)

    def prepare(self, clip):
        """Clip  ->  its features, which any scorer of this model may compare"""
        with torch.inference_mode():
            return F.normalize(self.features(clip.images), dim=1)

    @torch.inference_mode()
    def __call__(self, features, clip):
        cosine = torch.einsum("c,tchw->thw", self.prototype, features)[None]
        scores = F.interpolate(cosine, clip.images.shape[-2:], mode="bilinear", align_corners=False)
        return Prediction(scores.float().cpu() - self.threshold)


def jaccard_at(scores, masks):
    """J of every frame at every threshold, by counting: (T, H, W) twice  ->  (T, thresholds)"""
    rows, edges = [], np.append(THRESHOLDS, np.inf)
    for score, mask in zip(scores, masks, strict=True):
        inside, outside = (np.histogram(score[part], edges)[0][::-1].cumsum()[::-1] for part in (mask, ~mask))
        rows.append(inside / np.maximum(mask.sum() + outside, 1))
    return np.array(rows)


def best_threshold(model, videos):
    """The threshold with the highest J, averaged over frames of a class, then over classes."""
    rows = {}
    for video in tqdm(videos, desc="threshold", unit="video", disable=None):
        scorers = [PrototypeScorer(model, reference) for reference in video.references]
        for clip in video.clips:
            features = scorers[0].prepare(clip)
            for scorer, reference in zip(scorers, video.references, strict=True):
                found = jaccard_at(scorer(features, clip).margins[0].numpy(), clip.masks[0].numpy())
                rows.setdefault(reference.facts[0]["class_id"], []).extend(found)
    return float(THRESHOLDS[np.mean([np.mean(its, axis=0) for its in rows.values()], axis=0).argmax()])


def main(args):
    cfg = load_config(args.config, args.overrides)
    method = get_method(cfg.model.method)
    task, device = get_task(method.TASK), torch.device(choose_device(args.device))
    listed = task.read_episode_list(args.episodes) if args.episodes else None
    args.fold = args.fold or (listed and listed.fold)
    check_split(task, args.fold)
    output = args.output or Path("output") / cfg.name / f"fold{args.fold}" / "test"
    setup_logger(output)
    index = build_index(cfg, output.parent / "cache")

    def videos():
        return task.test_videos(cfg, index, args.fold, listed=listed, pin_memory=device.type == "cuda")

    def tested(name, start):
        (output / f"{name}.jsonl").unlink(missing_ok=True)
        with JsonLines(output / f"{name}.jsonl") as lines:
            return evaluate(start, videos(), cfg, lines.append, {"fold": args.fold})

    encoder = method.build(cfg, pretrained=not args.checkpoint)
    if args.checkpoint:
        load_weights(encoder, load_checkpoint(args.checkpoint)["model"], args.checkpoint)
    encoder = encoder.to(device).eval()
    threshold = best_threshold(encoder, videos())
    torch.manual_seed(cfg.seed)
    untrained = method.build(cfg, pretrained=True).to(device).eval()      # as it is before the first step
    if not cfg.backbone.trained:         # a frozen encoder may have learned its channels' statistics
        untrained.backbone.load_state_dict(encoder.backbone.state_dict())
    table = {
        "untrained": tested("untrained", lambda reference: method.Segmenter(
            untrained, reference, cfg, rng=rng_for(cfg.seed, "memory", *reference.key))),
        f"support prototype, cosine > {threshold:.3f}": tested(
            "support_prototype", lambda reference: PrototypeScorer(encoder, reference, threshold))}
    if (output / "results.jsonl").is_file():
        table[f"VIPMT ({cfg.name})"] = read_results(output / "results.jsonl")
    columns = [f"{name} {args.fold}" for name in ("J", "F", "VC7")]
    rows = [(name, measured([{args.fold: lines}], columns, (args.fold,))) for name, lines in table.items()]
    text = comparison(columns, rows, list(chain(*table.values()))).markdown()
    (output / "references.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    with user_errors():
        main(arguments)
