"""The references that training is measured against: thresholds by counting, prototype scores by a loop."""
import sys

import numpy as np
import pytest
import torch

from dataloaders.episode import Clip, SupportSet
from models.backbone import Backbone
from models.vipmt import build as build_vipmt
from tools.workshop import baselines
from utils.checkpoint import save_checkpoint
from utils.config import load_config
from utils.evaluation.metrics import jaccard


def test_jaccard_at_every_threshold_equals_thresholding():
    rng = np.random.default_rng(0)
    scores, masks = rng.random((3, 12, 16)), rng.random((3, 12, 16)) > 0.7
    masks[2] = False
    scores[0, 0, :5] = baselines.THRESHOLDS[40]                # exactly on a threshold
    curve = baselines.jaccard_at(scores, masks)
    for column in (0, 40, 41, 137, 200):
        chosen = scores >= baselines.THRESHOLDS[column]
        for t in range(2):
            assert curve[t, column] == pytest.approx(jaccard(chosen[t], masks[t]), abs=1e-12)


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone(name="tiny", width=8, high_level="c4")

    def encode(self, images):
        return self.backbone(images)


def test_prototype_scores_equal_a_loop_over_positions():
    torch.manual_seed(0)
    model = Encoder().double()
    support, query = torch.randn(2, 3, 32, 40).double(), torch.randn(7, 3, 32, 40).double()
    masks = torch.zeros(2, 32, 40, dtype=torch.bool)
    masks[0, 8:24, 8:32] = True                                # the second support shows nothing
    scorer = baselines.PrototypeScorer(model, SupportSet(support, masks), threshold=0.25)
    clips = [Clip(images) for images in query.split(5)]
    scores = torch.cat([scorer(scorer.prepare(clip), clip).margins[0] for clip in clips]) + 0.25
    assert scores.shape == (7, 32, 40)

    def unit(x):
        return x / x.norm()
    with torch.no_grad():
        levels, seen = model.encode(support[None]), model.encode(query[None])
    features = [torch.cat([unit(levels.c3[0, 0, :, i, j]), unit(levels.c4[0, 0, :, i, j])])
                for i in range(4) for j in range(5) if masks[0, 8 * i, 8 * j]]
    prototype = unit(torch.stack(features).mean(0))
    position = unit(torch.cat([unit(seen.c3[0, 6, :, 2, 3]), unit(seen.c4[0, 6, :, 2, 3])]))
    around = scores[6, 16:24, 24:32]      # bilinear: the cell's centre lies between its four middle pixels
    assert around[3:5, 3:5].mean() == pytest.approx(float(prototype @ position), abs=0.02)


def test_references_run_end_to_end_and_write_a_table(demo_root, tmp_path, monkeypatch, capsys):
    """... with the encoder and the IoUNet of the demo as they are kept in pretrain_model/."""
    settings = ["data.size=[48, 80]", "data.few_videos=repeat", f"data.root={demo_root}"]
    monkeypatch.setattr(sys, "argv", ["baselines.py", "--config", "config/demo/ytvis.yaml", "--fold", "2",
                                      "--output", str(tmp_path / "out"), *settings])
    baselines.main(baselines.parse_arguments())
    printed = capsys.readouterr().out
    assert "| untrained |" in printed and "| support prototype, cosine > " in printed
    assert (tmp_path / "out" / "references.md").read_text() == printed
    rows = [[float(x) for x in line.split("|")[2:5]] for line in printed.splitlines()[2:]]
    assert all(0 <= x <= 100 for row in rows for x in row)


def test_a_checkpoints_frozen_encoder_serves_prototype_and_untrained_model(demo_root, tmp_path, monkeypatch):
    """Its channels' statistics may be of the training; all else of the untrained model is as it starts."""
    settings = ["data.size=[48, 80]", "data.few_videos=repeat", f"data.root={demo_root}"]
    cfg = load_config(["config/demo/ytvis.yaml"], settings)
    torch.manual_seed(1)
    state = {name: x + 0.25 for name, x in build_vipmt(cfg, pretrained=True).state_dict().items()}
    save_checkpoint(tmp_path / "trained.pth", {"model": state})
    models = []

    def segment_nothing(start, videos, *_):
        models.append(start(next(iter(videos)).references[0]).model)
        return []
    monkeypatch.setattr(baselines, "evaluate", segment_nothing)
    monkeypatch.setattr(baselines, "best_threshold", lambda *_: 0.5)
    monkeypatch.setattr(sys, "argv", [
        "baselines.py", "--config", "config/demo/ytvis.yaml", "--fold", "2", "--checkpoint",
        str(tmp_path / "trained.pth"), "--output", str(tmp_path / "out"), *settings])
    baselines.main(baselines.parse_arguments())
    untrained, prototype = (model.state_dict() for model in models)
    same = {name for name in state if torch.equal(untrained[name], prototype[name])}
    assert same == {name for name in state if name.startswith("backbone.")} and len(same) > 5
