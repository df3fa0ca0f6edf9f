"""What the learner learns: labels E and weights W of a mask (Section 3.2); B, the encoding of a box (Section 3.7)."""
import torch
import torch.nn.functional as F
from torch import nn

STRIDE = 16               # of the target model's features


def conv(inputs, outputs, stride=1, bias=True):
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


def fan_out_normal(module):
    """Weights N(0, 2 / (k k outputs)), as [12] of the paper."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


class Block(nn.Module):
    """relu(conv relu conv x + conv x), without normalisation; only the shortcut has a bias."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs, stride, bias=False), conv(outputs, outputs, bias=False)
        self.shortcut = conv(inputs, outputs, stride)

    def forward(self, x):
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class LabelEncoder(nn.Module):
    """E and W, Section 3.4: masks (T, B, H, W) in [0, 1]  ->  two of (T, B, D, H/16, W/16)

    with_weight false leaves W out: it is 1 then (third row of Table 1). W may be negative, since the loss squares it.
    """

    def __init__(self, *, filters=16, with_weight=True):
        super().__init__()
        self.stem = conv(1, 16, stride=2)
        self.block1, self.block2 = Block(16, 32, stride=2), Block(32, 64, stride=2)
        self.label = conv(64, filters)
        self.weight = conv(64, filters) if with_weight else None
        fan_out_normal(self)
        if with_weight:
            nn.init.zeros_(self.weight.weight)
            nn.init.ones_(self.weight.bias)

    def forward(self, masks):
        x = F.max_pool2d(F.relu(self.stem(masks.flatten(0, 1)[:, None])), 3, stride=2, padding=1)
        x = self.block2(self.block1(x))
        label = F.relu(self.label(x))
        weight = torch.ones_like(label) if self.weight is None else self.weight(x)
        return label.unflatten(0, masks.shape[:2]), weight.unflatten(0, masks.shape[:2])


class PlainLabel(nn.Module):
    """The baseline of Table 1: the label is the mask itself, averaged over each position of the features; W is 1."""

    def forward(self, masks):
        label = F.avg_pool2d(masks, STRIDE, ceil_mode=True)[:, :, None]
        return label, torch.ones_like(label)


class BoxEncoder(nn.Module):
    """B, Section 3.7: target features (N, C, h, w), filled boxes (N, H, W)  ->  encodings (N, D, h, w)"""

    def __init__(self, *, feature_dim=512, filters=16):
        super().__init__()
        self.block1, self.block2 = Block(feature_dim + 1, 64), Block(64, 64)
        self.label = conv(64, filters)
        fan_out_normal(self)

    def forward(self, x, boxes):
        boxes = F.interpolate(boxes[:, None].to(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.label(self.block2(self.block1(torch.cat([x, boxes], dim=1)))))
