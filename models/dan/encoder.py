"""DAN's encoder: the backbone up to stage 3, f1 at 1/4 of the input (c2), f2 and f3 at 1/8 (c3, c4); frozen."""
import torch.nn.functional as F
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from models.backbone import Backbone, DilatedResNet


class Encoder(Backbone):
    """images (B, T, 3, H, W)  ->  Features with c2, c3 and c4

    released_bn: in training mode the normalisations use the batch's own statistics, and the stored ones follow.
    """

    def __init__(self, *, released_bn=False, **settings):
        super().__init__(high_level="c4", **settings)
        self.released_bn = released_bn
        if isinstance(self.body, DilatedResNet):
            first = self.body.layer3[0].conv2      # torchvision dilates a stage from its second block on
            first.dilation = first.padding = (2, 2)
        if released_bn:
            self.fast_body = None                  # nothing to fold: the statistics are not fixed
            for module in [*self.body.modules()]:
                for name, child in module.named_children():
                    if isinstance(child, FrozenBatchNorm2d):
                        setattr(module, name, RunningBatchNorm(len(child.weight)))

    def train(self, mode=True):
        """The weights are frozen either way."""
        return nn.Module.train(self, mode and self.released_bn)


class RunningBatchNorm(FrozenBatchNorm2d):
    """Fixed weight and bias, moving statistics; the same names in a checkpoint as where these are frozen, too."""

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1,
                            self.eps)
