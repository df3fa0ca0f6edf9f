"""GPU = CPU: the same network, the same video, the same masks."""
import numpy as np
import pytest
import torch

from models import get_method
from utils.config import load_config

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def random_video(frames=7):
    """support images and masks, query images"""
    torch.manual_seed(0)
    support_masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    support_masks[:, 16:48, 24:64] = True
    return torch.randn(2, 3, 64, 96), support_masks, torch.randn(frames, 3, 64, 96)


@pytest.mark.parametrize("config", ["config/vipmt/ytvis.yaml", "config/vipmt/released.yaml"])
def test_gpu_segments_a_video_as_the_cpu_does(config, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    cfg = load_config([config], ["backbone.name=tiny", "backbone.width=16", "model.dim=32", "model.heads=4",
                                 "model.layers=2", "iou_net.dim=8", "iou_net.hidden=16", "memory.min_iou=0.0"])
    torch.manual_seed(0)
    method, results = get_method("vipmt"), []
    model = method.build(cfg).eval()
    *supports, images = random_video()
    for device in ("cpu", "cuda"):
        segmenter = method.VideoSegmenter(model.to(device), *supports, memory=cfg.memory, rng=np.random.default_rng(0))
        results.append([segmenter(clip) for clip in images.split(3)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert torch.allclose(on_cpu.margins, on_gpu.margins.cpu(), atol=2e-3)
        assert torch.allclose(on_cpu.ious, on_gpu.ious, atol=1e-3)
