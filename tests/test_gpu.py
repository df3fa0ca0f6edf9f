"""GPU = CPU: the same network, the same video, the same masks."""
import numpy as np
import pytest
import torch

from dataloaders.episode import Episode
from models import get_method
from utils.config import load_config

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def random_episode(frames=7):
    torch.manual_seed(0)
    support_masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    support_masks[:, 16:48, 24:64] = True
    return Episode(torch.randn(2, 3, 64, 96), support_masks, torch.randn(frames, 3, 64, 96),
                   torch.zeros(frames, 64, 96, dtype=torch.bool), 1, "x", "v", [], [], (64, 96))


@pytest.mark.parametrize("config", ["config/vipmt_ytvis.yaml", "config/released.yaml"])
def test_gpu_segments_a_video_as_the_cpu_does(config, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    cfg = load_config([config], ["backbone.name=tiny", "backbone.width=16", "model.dim=32", "model.heads=4",
                                 "model.layers=2", "iou_net.dim=8", "iou_net.hidden=16", "memory.min_iou=0.0"])
    torch.manual_seed(0)
    method, results = get_method("vipmt"), []
    model = method.build(cfg).eval()
    for device in ("cpu", "cuda"):
        results.append(method.segment_video(model.to(device), random_episode(), memory=cfg.memory, clip_length=3,
                                            rng=np.random.default_rng(0)))
    assert torch.allclose(results[0].margins, results[1].margins, atol=2e-3)
    assert torch.allclose(results[0].ious, results[1].ious, atol=1e-3)
