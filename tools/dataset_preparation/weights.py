"""A file of backbone weights: is it the right one, is it whole, and which config keys does it need?

In: a .pth file. Out: its SHA-256, and the keys with which the project loads it. Nothing is unpickled but tensors.
"""
import re
from pathlib import Path

from easydict import EasyDict

from models.backbone import BLOCKS, Backbone
from models.backbone_weights import load_backbone, read_state_dict
from utils.files import fingerprint

NAMED_HASH = re.compile(r".*-([0-9a-f]{8,64})\.pth")      # torchvision's convention: the SHA-256 begins like that
ADVICE = "Read where it comes from: python -m tools.prepare_data explain weights"


def find_weights(root):
    """A .pth file, or a folder with some  ->  the files"""
    files = [root] if root.is_file() else sorted(root.glob("*.pth"))
    if not files:
        raise FileNotFoundError(f"backbone weights: no .pth file at {root}.\n  {ADVICE}")
    return files


def check_weights(path, sha256=None):
    """path, the SHA-256 (or its beginning) that it should have or None  ->  (SHA-256, {config key: value})

    ValueError where the file is another one than it should be, or no backbone of ours.
    """
    found = fingerprint(path)
    named = NAMED_HASH.fullmatch(Path(path).name)
    for expected, who in ((sha256, "--sha256"), (named and named[1], "its name")):
        if expected and not found.startswith(expected.strip().lower()):
            raise ValueError(f"{path}: SHA-256 {found}, but {who} says {expected}.\n  Download it again. {ADVICE}")
    return found, matching_keys(path)


def matching_keys(path):
    """The config keys that describe the network of a file; ValueError if it fits none of ours, tensor by tensor"""
    state = read_state_dict(path, "backbone weights", f"\n  {ADVICE}")
    names = {str(name).removeprefix("module.") for name in state}
    deepest = max((int(match[1]) for match in (re.match(r"layer3\.(\d+)\.", name) for name in names) if match),
                  default=0)
    name = next((name for name, blocks in BLOCKS.items() if blocks[2] == deepest + 1), "resnet50")
    high_level = "c5" if any(name.startswith("layer4.2.") for name in names) else "c4"
    keys = {"backbone.name": name, "backbone.stem": "deep" if "conv3.weight" in names else "plain",
            "model.high_level": high_level}
    backbone = Backbone(name=name, stem=keys["backbone.stem"], high_level=high_level)
    load_backbone(backbone, EasyDict(name=name, stem=keys["backbone.stem"], weights=str(path)))
    return keys
