"""A frozen network of timm in the place of the ResNet: `backbone.name: timm/NAME`. docs/backbones.md has a table.

timm is imported when such a name is used, and never else.
"""
import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from utils.checkpoint import UNREADABLE, load_checkpoint

PREFIX = "timm/"
STRIDES = (4, 8, 8, 8)           # of c2, c3, c4 and c5, as the dilated ResNet has them
CELLS = {True: 8, False: 16}     # pixels of a frame that all stages divide: of a transformer of one resolution, others
MISSING = "backbone.name: {} is a network of timm, which is not installed: pip install timm"
SOURCES = "Set backbone.weights=timm (downloaded once, no account), or name a file with weights of {}"


class TimmBody(nn.Module):
    """frames (N, 3, H, W), normalised  ->  list of c2, c3, c4 and c5, (N, C, h, w), h = H/4, then H/8, rounded up

    A frame is padded with black and enlarged until c4 lies at stride 8 by itself: twice, or by 14/8 for a transformer
    of patch 14, so that a patch is a position. Finer levels are averaged, coarser ones interpolated, and channels are
    normalised at every position, since networks differ much in the size of what they hand over.

    weights: timm, a file (.pth or .safetensors), or none. Public weights stay out of the state dict, which has their
    SHA-256 instead; random ones (none) are in it. size: of the frames, for networks whose input has one size.
    ValueError: timm is missing, does not know the name or has no such levels, weights do not fit. FileNotFoundError
    """

    def __init__(self, name, *, levels=4, weights="none", size=(240, 424)):
        super().__init__()
        whole = rounded_up(size, CELLS[False])
        net = create(name, weights, [2 * n for n in whole])
        info, self.index = choose_levels(net, name)
        self.index = self.index[:levels]
        self.channels = tuple(info[i]["num_chs"] for i in self.index)
        self.plain = info[self.index[0]]["reduction"] == info[self.index[2]]["reduction"]
        self.enlarge = info[self.index[2]]["reduction"] / STRIDES[2]
        self.fixed = whole if has_one_size(net) else None
        net.prune_intermediate_layers(self.index, prune_norm=not self.plain)
        self.mean, self.std = (net.pretrained_cfg[part] for part in ("mean", "std"))
        black = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        self.register_buffer("black", torch.tensor(black).view(3, 1, 1), persistent=False)
        net.eval().requires_grad_(False)
        if weights == "none":
            self.net = net
        else:
            self.__dict__["net"] = net               # no child: neither parameters nor state dict have it
            self.register_buffer("sha256", weights_hash(net))

    def _apply(self, fn, recurse=True):
        """.to(), .double() and the like reach the network where it is no child, too."""
        if "net" in self.__dict__:
            self.net._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, frames):
        height, width = frames.shape[-2:]
        cells = self.fixed or rounded_up((height, width), CELLS[self.plain])
        if height > cells[0] or width > cells[1]:
            raise ValueError(f"backbone.name: this network was built for frames of at most {cells[0]} x {cells[1]}, "
                             f"not {height} x {width}.\n  Set data.size to the size of the frames")
        frames = F.pad(frames - self.black, (0, cells[1] - width, 0, cells[0] - height)) + self.black
        frames = F.interpolate(frames, [round(n * self.enlarge) for n in cells], mode="bilinear")
        maps = self.net.forward_intermediates(frames, indices=self.index, norm=self.plain, intermediates_only=True)
        return [self.level(x, cells, stride)[..., :-(-height // stride), :-(-width // stride)]
                for x, stride in zip(maps, STRIDES, strict=False)]

    @staticmethod
    def level(x, cells, stride):
        """A map of the padded frame (N, C, h, w)  ->  the same at this stride, channels of mean 0 and deviation 1"""
        size = [n // stride for n in cells]
        if x.shape[-2] > size[0]:
            x = F.adaptive_avg_pool2d(x, size)
        elif x.shape[-2] < size[0]:
            x = F.interpolate(x, size, mode="bilinear")
        return F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)


def rounded_up(size, step):
    return [-(-n // step) * step for n in size]


def create(name, weights, size):
    """timm's network, with its classifier, weights loaded strictly; size: of its input where that is fixed"""
    try:
        import timm
    except ImportError:
        raise ValueError(MISSING.format(PREFIX + name)) from None
    keys = {} if weights in ("none", "timm") else {"pretrained_cfg_overlay": {"state_dict": read(weights, name)}}
    if not timm.is_model(name):
        raise ValueError(f"backbone.name: timm {timm.__version__} knows no {name}; timm.list_models() names them all")
    for size_keys in ({"dynamic_img_size": True}, {"img_size": size}, {}):
        try:
            return timm.create_model(name, pretrained=weights != "none", **size_keys, **keys)
        except TypeError as error:                   # a network without this argument
            if not size_keys or not any(key in str(error) for key in size_keys):
                raise
        except (*UNREADABLE, OSError) as error:
            what = f"of a size of {size[0]} x {size[1]}" if weights == "none" else f"with backbone.weights={weights}"
            raise ValueError(f"backbone.name: timm makes no {name} {what}: {type(error).__name__}: {str(error)[:300]}"
                             + ("" if weights == "none" else f"\n  {SOURCES.format(name)}")) from error


def read(path, name):
    """Weights by name from a file, without running anything that it holds"""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"backbone.weights: no file {path}.\n  {SOURCES.format(name)}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"backbone.weights: {path} is damaged, or no file of safetensors ({error})") from None
    state = load_checkpoint(path)
    return state.get("state_dict", state.get("model", state))


def choose_levels(net, name):
    """Where c2, c3, c4 and c5 come from  ->  timm's list of levels, positions in it

    A pyramid gives its strides 4, 8, 16 and 32; a transformer of one resolution what stands after each quarter of it.
    """
    info = list(net.feature_info) if hasattr(net, "prune_intermediate_layers") else []
    last = {one["reduction"]: i for i, one in enumerate(info)}
    if {4, 8, 16, 32} <= last.keys():
        return info, [last[stride] for stride in (4, 8, 16, 32)]
    if len(last) == 1 and len(info) >= 4 and (not has_one_size(net) or 16 in last):
        return info, [len(info) * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    raise ValueError(f"backbone.name: timm gives no levels at strides 4, 8, 16 and 32 of {name}, nor those of a "
                     "transformer at any size; take a ViT, ConvNeXt, Swin, Hiera or a convolutional network")


def has_one_size(net):
    """Whether the network takes no inputs but of the size that it was built for"""
    return net.pretrained_cfg.get("fixed_input_size", False) and not getattr(net, "dynamic_img_size", False)


def weights_hash(net):
    """SHA-256 of all names and values  ->  (32,) uint8"""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
