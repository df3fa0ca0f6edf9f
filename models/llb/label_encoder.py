"""The discriminative label generation module (DLGM): what the learner learns, and what matching carries over.

In: frames and masks. The frame times the mask is the background-filtered frame (BFF); a trunk encodes it, one head each
gives the target encodings of the two branches.
"""
import torch.nn.functional as F
from torch import nn

from models.backbone import Normalise
from models.llb.vitae import ViTAE
from models.lwl.label_encoder import STRIDE, Block, conv, fan_out_normal

WIDTH = 64                # channels that the heads see


class TimmTrunk(nn.Module):
    """A network of timm up to stride 16: images (N, 3, H, W)  ->  (N, channels, H/16, W/16)

    ValueError: timm is not installed, does not know the name, or the network has no map at stride 16
    """

    def __init__(self, name, pretrained=False):
        super().__init__()
        try:
            import timm
        except ImportError:
            raise ValueError(f"model.label_encoder: {name} is a network of timm, which is not installed: pip install "
                             "timm, or take vitae or cnn") from None
        try:
            levels = timm.create_model(name, features_only=True).feature_info
            place = levels.reduction().index(STRIDE)
            self.net = timm.create_model(name, features_only=True, out_indices=(place,), pretrained=pretrained)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"model.label_encoder: timm gives no map of {name} at stride {STRIDE}: {error}") from None
        self.channels = levels.channels()[place]

    def forward(self, x):
        return self.net(x)[0]


def parts_of(name, inputs, pretrained):
    """model.label_encoder  ->  the trunk, and a tower for each branch, (N, WIDTH, h, w)

    cnn is JOINT's: a common first convolution, then two residual blocks for each branch.
    """
    if name == "cnn":
        trunk = nn.Sequential(conv(inputs, 16, stride=2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
        return trunk, [nn.Sequential(Block(16, 32, stride=2), Block(32, WIDTH, stride=2)) for _ in range(2)]
    trunk = ViTAE() if name == "vitae" else TimmTrunk(name, pretrained)
    return trunk, [nn.Sequential(conv(trunk.channels, WIDTH), nn.ReLU()) for _ in range(2)]


class LabelEncoder(nn.Module):
    """G: images (T, B, 3, H, W), RGB in [0, 1], masks (T, B, H, W) in [0, 1]  ->  E2, W, E1, (T, B, D, H/16, W/16) each

    trunk: vitae, cnn or a name of timm; source: bff, or mask, which a trunk of three channels sees three times;
    flavour: of the frames before they are filtered, so that the background becomes the mean colour. E2 and W are the
    learner's labels and weights, E1 the values of the matching; W may be negative, since the loss squares it.
    """

    def __init__(self, *, trunk="vitae", source="bff", flavour="imagenet", filters=32, pretrained=False):
        super().__init__()
        self.source, self.channels = source, 1 if source == "mask" and trunk == "cnn" else 3
        self.normalise = Normalise(flavour)
        self.trunk, (self.induction, self.transduction) = parts_of(trunk, self.channels, pretrained)
        self.label, self.weight, self.value = (conv(WIDTH, filters) for _ in range(3))
        for part in (self.induction, self.transduction, self.label, self.value, *([self.trunk] * (trunk == "cnn"))):
            fan_out_normal(part)
        nn.init.zeros_(self.weight.weight)
        nn.init.ones_(self.weight.bias)

    def forward(self, images, masks):
        masks = masks.flatten(0, 1)[:, None]
        x = (masks.expand(-1, self.channels, -1, -1) if self.source == "mask"
             else self.normalise(images.flatten(0, 1)) * masks)
        x = self.trunk(x)
        induction, transduction = self.induction(x), self.transduction(x)
        found = F.relu(self.label(induction)), self.weight(induction), F.relu(self.value(transduction))
        return tuple(one.unflatten(0, images.shape[:2]) for one in found)
