"""A VIPMT of a few channels whose weights are far from trivial, for comparisons with slow or other computations."""
import torch

from models.backbone import Backbone
from models.vipmt.iou_net import IoUNet
from models.vipmt.model import VIPMT

RELEASED = dict(memory_attention="joint", cumulative_prior=True, memory_in_prior=True, patch_masks=True,
                cosine_maps=True)


def model_of(name="tiny", high_level="c5", with_memory=True, dim=16, trained=False, **settings):
    torch.manual_seed(1)
    backbone = Backbone(name=name, width=8, high_level=high_level, trained=trained)
    maps = 5 if settings.get("use_maps", True) else 1
    iou_net = IoUNet(channels=backbone.channels, maps=maps, dim=4, hidden=8) if with_memory else None
    model = VIPMT(backbone, iou_net, dim=dim, num_layers=2, heads=2, ffn_dim=24, init="balanced",
                  **{"dropout": 0.0, "feature_dropout": 0.0, **settings})
    with torch.no_grad():
        for up in (model.upsample_final, model.upsample_initial):
            up.weight += 0.01 * torch.randn_like(up.weight)
        for parameter in model.parameters():       # biases and norms that are not the identity
            if parameter.dim() == 1:
                parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()
