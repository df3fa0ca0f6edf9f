"""Backbone (left of Figure 2): frames in, the feature maps X_1..X_4 (c2..c5) out.

A dilated ResNet after Section 5.1: c2 at 1/4 of the input, c3, c4 and c5 at 1/8. It is frozen, so each frame
needs encoding only once. `tiny` is a small encoder of ours that is trained with the rest (config/demo/ytvis.yaml);
`timm/NAME` puts a network of timm in the ResNet's place (models.timm_body).
"""
import copy
from collections import OrderedDict
from dataclasses import dataclass, fields
from functools import partial
from hashlib import blake2b

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

from models.timm_body import PREFIX, TimmBody
from utils.distributed import mean_over_ranks

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)       # of ImageNet, for RGB in [0, 1]
STAGES = ("layer1", "layer2", "layer3", "layer4")
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


@dataclass
class Features:
    """Backbone maps of some frames: c2 (B, T, C2, H/4, W/4), c3, c4 and c5 (B, T, C, H/8, W/8).

    c5 is None where the backbone ends at c4 (`model.high_level: c4`), c2 in remembered frames.
    """
    c2: torch.Tensor | None
    c3: torch.Tensor
    c4: torch.Tensor
    c5: torch.Tensor | None

    def map(self, fn):
        """fn applied to every level."""
        return Features(*(None if x is None else fn(x) for x in self.levels()))

    def levels(self):
        return [getattr(self, f.name) for f in fields(self)]

    def frames(self, index):
        """index: slice or list of positions along T."""
        return self.map(lambda x: x[:, index])

    def detach(self):
        return self.map(torch.Tensor.detach)


class Backbone(nn.Module):
    """images (B, T, 3, H, W), RGB in [0, 1], black around  ->  Features

    A frozen ResNet computes with a copy whose normalisations are folded into its convolutions, channels last; what is
    stored in a checkpoint is the original. high_level c4 leaves stage 4 out. cache_frames > 0 keeps that many encoded
    frames, found by their content, so that a support that comes back is not encoded again. weights, size: of a network
    of timm, see TimmBody; the others are loaded by models.backbone_weights. standardise: every level goes through
    Standardisation.
    """

    def __init__(self, *, name="resnet50", stem="deep", stride_in_1x1=False, high_level="c5", trained=False,
                 width=64, cache_frames=0, weights="none", size=(240, 424),
                 standardise=False):
        super().__init__()
        mean, std = MEAN, STD
        if name.startswith(PREFIX):
            self.body = TimmBody(name.removeprefix(PREFIX), levels=3 if high_level == "c4" else 4, weights=weights,
                                 size=size)
            self.channels, mean, std = self.body.channels, self.body.mean, self.body.std
        elif name == "tiny":
            self.body = TinyBody(width)
            self.channels = (width, 2 * width, 4 * width, 8 * width)
        else:
            self.body = dilated_resnet(BLOCKS[name], stem, stride_in_1x1)
            self.channels = (256, 512, 1024, 2048)
        if high_level == "c4" and len(self.channels) == 4:
            del self.body.layer4
            self.channels = self.channels[:3]
        for part, values in (("mean", mean), ("std", std)):
            self.register_buffer(part, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.standard = nn.ModuleList(Standardisation(c) for c in self.channels) if standardise else None
        self.trained = trained
        self.run = run_stages if hasattr(self.body, "layer1") else run_whole
        self.fast_body = FoldedBody(self.body) if isinstance(self.body, DilatedResNet) and not trained else None
        self.cache = FrameCache(cache_frames) if cache_frames and not trained else None
        if not trained:
            self.requires_grad_(False)

    def train(self, mode=True):
        """A frozen backbone stays in eval mode, all but the statistics."""
        super().train(mode and self.trained)
        if self.standard:
            self.standard.train(mode)
        return self

    def forward(self, images):
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            frames = (images.flatten(0, 1) - self.mean) / self.std
            levels = self.cache.encode(frames, self.encode) if self.cache else self.encode(frames)
            if self.standard:
                levels = [norm(x) for norm, x in zip(self.standard, levels, strict=True)]
            levels = [x.unflatten(0, images.shape[:2]) for x in levels]
        return Features(*levels, *[None] * (4 - len(levels)))

    def encode(self, frames):
        """frames (N, 3, H, W)  ->  list of the levels, (N, C, h, w) each"""
        body = self.fast_body.current() if self.fast_body else self.body
        if self.fast_body:      # with gradients oneDNN crashes: strided 1x1 weights of few channels (PyTorch 2.12)
            frames = frames.to(memory_format=torch.channels_last)
        return self.run(body, frames, STAGES[:len(self.channels)])


class Standardisation(nn.Module):
    """Every channel to mean 0 and deviation 1 over all that training has shown so far: (N, C, h, w)  ->  the same shape

    Ours, for trainings of a few hundred steps: a ResNet's channels have means far from 0 and sizes that differ much, so
    that all cosines are alike, and Adam moves the loud ones only. Training and test use the same numbers, of all frames
    of all processes.
    """

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("moments", torch.stack([torch.zeros(channels), torch.ones(channels)]))    # of x and x x
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                now = torch.stack([y.mean((0, 2, 3)) for y in (x.float(), x.float().square())])
                self.batches += 1
                self.moments += (mean_over_ranks(now) - self.moments) / self.batches
        mean, square = self.moments[:, :, None, None]
        scale = (square - mean.square()).clamp(min=1e-6).rsqrt()
        return (x - mean.to(x.dtype)) * scale.to(x.dtype)


def run_stages(body, frames, stages):
    """frames (N, 3, H, W)  ->  the output of every stage; a function, for torch.compile (models.vipmt.build)"""
    x, levels = body.stem(frames), []
    for stage in stages:
        x = getattr(body, stage)(x)
        levels.append(x)
    return levels


def run_whole(body, frames, stages):
    return body(frames)


class DilatedResNet(ResNet):
    """torchvision's ResNet without its classifier; the stem is a method, since ours may be deep."""

    def __init__(self, blocks, stem):
        super().__init__(Bottleneck, list(blocks), replace_stride_with_dilation=[False, True, True],
                         norm_layer=FrozenBatchNorm2d)
        del self.fc, self.avgpool
        self.deep = stem == "deep"
        if self.deep:
            self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
            self.conv2 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
            self.conv3 = nn.Conv2d(64, 128, 3, padding=1, bias=False)
            self.bn2, self.bn3 = FrozenBatchNorm2d(64), FrozenBatchNorm2d(128)
            self.rebuild_first_stage(blocks[0])

    def rebuild_first_stage(self, blocks):
        """The deep stem hands over 128 channels where torchvision's hands over 64."""
        first = Bottleneck(128, 64, norm_layer=FrozenBatchNorm2d, downsample=nn.Sequential(
            nn.Conv2d(128, 256, 1, bias=False), FrozenBatchNorm2d(256)))
        self.layer1 = nn.Sequential(first, *list(self.layer1)[1:blocks])

    def stem(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        if self.deep:
            x = self.relu(self.bn2(self.conv2(x)))
            x = self.relu(self.bn3(self.conv3(x)))
        return self.maxpool(x)


def dilated_resnet(blocks, stem, stride_in_1x1):
    """blocks: residual blocks per stage; stride_in_1x1: the stride of stage 2 sits where the first ResNet had it."""
    body = DilatedResNet(blocks, stem)
    if stride_in_1x1:
        first = body.layer2[0]
        first.conv1.stride, first.conv2.stride = first.conv2.stride, (1, 1)
    return body


class FoldedBody:
    """The folded copy of a frozen ResNet, made anew when weights were loaded, moved or changed in place."""

    def __init__(self, body):
        self.body, self.copy, self.state = body, None, None

    def current(self):
        """The body itself where its weights are to be trained after all."""
        tensors = [*self.body.parameters(), *self.body.buffers()]
        if any(x.requires_grad for x in tensors):
            return self.body
        state = [(x.data_ptr(), x._version, x.dtype) for x in tensors]
        if state != self.state:
            # Outside inference mode: a training that follows a validation uses the same copy.
            with torch.inference_mode(False), torch.no_grad():
                self.copy, self.state = fold_normalisation(self.body), state
        return self.copy

    def __deepcopy__(self, memo):
        return FoldedBody(copy.deepcopy(self.body, memo))


def fold_normalisation(body):
    """A copy of a ResNet in which convolutions carry the frozen normalisation behind them; equal to rounding."""
    body = copy.deepcopy(body).to(memory_format=torch.channels_last)
    for module in list(body.modules()):
        names = dict(module.named_children())
        pairs = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3) if f"bn{i}" in names]
        if isinstance(module, nn.Sequential) and isinstance(names.get("1"), FrozenBatchNorm2d):    # a projection
            pairs = [("0", "1")]
        for conv, norm in ((names[a], b) for a, b in pairs):
            bn = names[norm]
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, None, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
            setattr(module, norm, nn.Identity())
    return body.requires_grad_(False)


class TinyBody(nn.Module):
    """A small encoder with the same four levels, for runs that train everything from scratch."""

    def __init__(self, width):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False), nn.GroupNorm(4, width), nn.ReLU())
        self.layer1 = TinyBlock(width, width, stride=2)
        self.layer2 = TinyBlock(width, 2 * width, stride=2)
        self.layer3 = TinyBlock(2 * width, 4 * width, dilation=2)
        self.layer4 = TinyBlock(4 * width, 8 * width, dilation=4)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)      # PyTorch's own shrinks each level: slow from scratch


class TinyBlock(nn.Module):
    """relu(conv conv x + projection of x), normalised per group: independent of the batch."""

    def __init__(self, inputs, outputs, stride=1, dilation=1):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.GroupNorm(4, outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=dilation, dilation=dilation, bias=False), nn.GroupNorm(4, outputs))
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        return torch.relu(self.conv(x) + self.shortcut(x))


class FrameCache:
    """The last `size` encoded frames, found again by a hash of the frame's content; for a frozen encoder only.

    It knows nothing of the weights: they have to stay as they are once the first frame is encoded.
    """

    def __init__(self, size):
        self.size = size
        self.entries = OrderedDict()

    def encode(self, frames, encoder):
        """frames (N, 3, H, W), encoder: the same -> list of levels. Encodes only frames not seen lately."""
        # Shape and precision are part of the key: all black frames have the same bytes, and autocast gives half maps.
        kind = (frames.shape[1:], frames.dtype, torch.is_autocast_enabled(frames.device.type))
        keys = [(blake2b(frame.cpu().contiguous().numpy().data, digest_size=16).digest(), kind) for frame in frames]
        fresh = {key: i for i, key in enumerate(keys) if key not in self.entries}
        if fresh:
            levels = encoder(frames[list(fresh.values())])
            for i, key in enumerate(fresh):
                self.entries[key] = [level[i].clone() for level in levels]
        for key in keys:
            self.entries.move_to_end(key)
        found = [torch.stack(level) for level in zip(*(self.entries[key] for key in keys), strict=True)]
        while len(self.entries) > self.size:
            self.entries.popitem(last=False)
        return found


# RGB in [0, 1]  ->  what the weights were trained on: order of the channels, factor, mean, deviation
FLAVOURS = {"imagenet": ((0, 1, 2), 1.0, MEAN, STD),
            "caffe2": ((2, 1, 0), 255.0, (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))}
PYRAMIDS = {"resnet18": (BasicBlock, (2, 2, 2, 2)), **{name: (Bottleneck, blocks) for name, blocks in BLOCKS.items()}}


class Normalise(nn.Module):
    """images (..., 3, H, W), RGB in [0, 1]  ->  as weights of a flavour want them; dtype of the constants"""

    def __init__(self, flavour):
        super().__init__()
        self.order, self.factor, *constants = FLAVOURS[flavour]
        for part, values in zip(("mean", "deviation"), constants, strict=True):
            self.register_buffer(part, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images):
        images = images.to(self.mean.dtype)[..., list(self.order), :, :]
        return (images * self.factor - self.mean) / self.deviation


class Pyramid(nn.Module):
    """images (N, 3, H, W), RGB in [0, 1]  ->  [layer1, ..., layer4] at strides 4, 8, 16 and 32, (N, C, h, w) each

    A ResNet that owns its normalisation and always normalises batches with stored statistics. high_level c4 leaves
    layer4 out; trained: from the given stage on.
    """

    def __init__(self, *, name="resnet50", flavour="imagenet", stride_in_1x1=False, bn_eps=1e-5, high_level="c5",
                 trained=False):
        super().__init__()
        block, blocks = PYRAMIDS[name]
        self.body = ResNet(block, list(blocks), norm_layer=partial(nn.BatchNorm2d, eps=bn_eps))
        del self.body.fc, self.body.avgpool
        self.stages = STAGES[:3] if high_level == "c4" else STAGES
        self.channels = [n * block.expansion for n in (64, 128, 256, 512)][:len(self.stages)]
        if high_level == "c4":
            del self.body.layer4
        if stride_in_1x1 and block is Bottleneck:
            for stage in self.stages[1:]:
                first = getattr(self.body, stage)[0]
                first.conv1.stride, first.conv2.stride = first.conv2.stride, (1, 1)
        self.normalise = Normalise(flavour)
        self.requires_grad_(False)
        for stage in self.stages[1:] if trained else ():
            getattr(self.body, stage).requires_grad_(True)

    def train(self, mode=True):
        """Stored statistics, always."""
        return super().train(False)

    def forward(self, images):
        body = self.body
        x, levels = body.maxpool(body.relu(body.bn1(body.conv1(self.normalise(images))))), []
        for stage in self.stages:
            x = getattr(body, stage)(x)
            levels.append(x)
        return levels
