"""LWL, Figure 2: backbone, target features, label encoder, learner, decoder; the box encoder beside them."""
import math

import torch
from torch import nn

from models.lwl.decoder import Decoder
from models.lwl.label_encoder import BoxEncoder, LabelEncoder, PlainLabel
from models.lwl.learner import apply_target_model, learn

KERNEL = 3                # K of the target model


class TargetFeatures(nn.Module):
    """x of T_tau(x) (Section 3.4): layer3 (N, C3, h, w)  ->  (N, C, h, w), each sample scaled to one norm"""

    def __init__(self, channels, dim):
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, 3, padding=1, bias=False)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / (9 * dim)))
        self.factor = math.sqrt(1 / (dim * KERNEL ** 2))

    def forward(self, layer3):
        x = self.conv(layer3)
        wide = x.float() if x.dtype in (torch.half, torch.bfloat16) else x       # a sum of many squares
        power = wide.square().sum((1, 2, 3), keepdim=True)
        return (wide * (self.factor * (x[0].numel() / (power + 1e-5)).sqrt())).to(x.dtype)


class LWL(nn.Module):
    """backbone: models.backbone.Pyramid; the rest are the config's values. Images (N, 3, H, W), RGB in [0, 1]."""

    def __init__(self, backbone, *, feature_dim=512, filters=16, widths=(64, 128, 128, 256), label="encoder",
                 with_weight=True, box_encoder=False, reg=0.01):
        super().__init__()
        self.backbone, self.filters = backbone, filters
        self.features = TargetFeatures(backbone.channels[2], feature_dim)
        self.label_encoder = (LabelEncoder(filters=filters, with_weight=with_weight) if label == "encoder"
                              else PlainLabel())
        self.reg = nn.Parameter(torch.full((1,), float(reg)))
        self.decoder = Decoder(backbone.channels, widths=widths, filters=filters)
        self.box_encoder = BoxEncoder(feature_dim=feature_dim, filters=filters) if box_encoder else None
        self.eval()

    def train(self, mode=True):
        """Always in eval mode, as released: batch normalisation keeps its statistics while it is trained."""
        return super().train(False)

    @property
    def device(self):
        return self.reg.device

    def encode(self, images):
        """images (N, 3, H, W)  ->  backbone levels, target features (N, C, H/16, W/16)"""
        levels = self.backbone(images)
        return levels, self.features(levels[2])

    def zero_filters(self, x, count):
        """tau^0 for features (..., C, h, w)  ->  (count, D, C, 3, 3), never in half precision"""
        return self.reg.new_zeros(count, self.filters, x.shape[-3], KERNEL, KERNEL)

    def learn(self, x, label, weight, tau, steps, scores=None):
        """A (Section 3.3): see models.lwl.learner.learn"""
        return learn(x, label, weight, self.reg, tau, steps, scores)

    def segment(self, tau, x, levels, size):
        """D(x, T_tau(x)): filters (B, D, C, 3, 3), x (B, C, h, w), levels of the same B crops  ->  logits (B, H, W)"""
        return self.decoder(apply_target_model(x[None], tau.to(x.dtype))[0], levels, size)

    def segment_box(self, boxes, images):
        """D(x, B(b, x)), Section 3.7: filled boxes (N, H, W), images (N, 3, H, W)  ->  logits (N, H, W)"""
        levels, x = self.encode(images)
        return self.decoder(self.box_encoder(x, boxes), levels, boxes.shape[-2:])
