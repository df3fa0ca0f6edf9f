"""soak.py: its model is one that today's demo config can be made into, and what differs between two runs is named."""
import json

from models import get_method
from tools.workshop import soak
from utils.config import load_config


def test_its_settings_give_a_small_model_of_the_demo():
    cfg = load_config([soak.ROOT / "config" / "demo" / "ytvis.yaml"], soak.SETTINGS)
    model = get_method(cfg.model.method).build(cfg, pretrained=True)
    assert model.iou_net is not None and sum(p.numel() for p in model.parameters()) < 500_000


def test_lines_are_compared_without_their_times(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(json.dumps({"step": 1, "loss": 0.5, "seconds": 1.0}) + "\n")
    second.write_text(json.dumps({"step": 1, "loss": 0.5, "seconds": 2.0}) + "\n")
    assert soak.compare_lines(first, second) == []
    second.write_text(json.dumps({"step": 1, "loss": 0.25, "seconds": 1.0}) + "\n")
    assert soak.compare_lines(first, second) == ["a.jsonl"]


def test_a_validation_follows_the_last_step_of_an_epoch(tmp_path):
    log = tmp_path / "log.jsonl"
    for step, complete in ((35, False), (36, True)):
        log.write_text(json.dumps({"step": step}) + "\n")
        assert soak.epoch_is_complete(log) == complete
