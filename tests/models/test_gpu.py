"""GPU = CPU: the same network, the same video, the same masks."""
import pytest
import torch
from material import MODEL, PAPER, RELEASED, segmented

from dataloaders.episode import SupportSet
from models import get_method
from utils.config import load_config
from utils.seeds import rng_for

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def random_video(frames=7):
    """support images and masks, query images"""
    torch.manual_seed(0)
    support_masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    support_masks[:, 16:48, 24:64] = True
    return torch.randn(2, 3, 64, 96), support_masks, torch.randn(frames, 3, 64, 96)


@pytest.mark.parametrize("config", [PAPER, RELEASED])
def test_gpu_segments_a_video_as_the_cpu_does(config, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    cfg = load_config([config], [*MODEL, "memory.min_iou=0.0"])
    torch.manual_seed(0)
    method, results = get_method("vipmt"), []
    model = method.build(cfg).eval()
    *supports, images = random_video()
    for device in ("cpu", "cuda"):
        segmenter = method.Segmenter(model.to(device), SupportSet(*supports), cfg, rng=rng_for(0))
        results.append(segmented(segmenter, images, clip_length=3))
    on_cpu, on_gpu = results
    assert torch.allclose(on_cpu.margins, on_gpu.margins.cpu(), atol=2e-3)
    assert torch.allclose(on_cpu.ious, on_gpu.ious, atol=1e-3) and torch.equal(on_cpu.remembered, on_gpu.remembered)
