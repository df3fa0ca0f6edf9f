"""Pretrained weights of the encoder: a file or torchvision's, checked name by name before they are loaded."""
from pathlib import Path

from models.timm_body import PREFIX
from utils.checkpoint import load_checkpoint

GET_WEIGHTS = """The paper's encoder, a ResNet-50 with a deep stem trained on ImageNet, is linked from the released
  README (github.com/nankepan/VIPMT) as resnet50_v2.pth; put it there (pretrain_model/README.md).
  Without it: backbone.weights=torchvision backbone.stem=plain takes torchvision's ImageNet weights."""


def load_backbone(backbone, cfg):
    """Pretrained weights into the encoder: a classifier and stages that we lack are left out, the rest is strict.

    A network of timm has them since it was built, in tests as well.
    """
    if cfg.name.startswith(PREFIX):
        return
    if cfg.weights == "torchvision":
        state, source = torchvision_weights(cfg), "torchvision"
    else:
        state, source = read_state_dict(Path(cfg.weights), "backbone.weights", GET_WEIGHTS), cfg.weights
    state = {k.removeprefix("module."): v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    dropped = ("fc.",) if hasattr(backbone.body, "layer4") else ("fc.", "layer4.")
    state = {k: v for k, v in state.items() if not k.startswith(dropped)}
    check_backbone_keys(backbone.body.state_dict(), state, source, cfg)
    backbone.body.load_state_dict(state)


def torchvision_weights(cfg):
    import torchvision
    if cfg.name == "tiny":
        raise ValueError("backbone.weights=torchvision: it has no tiny encoder.\n"
                         "  Name a file (pretrain_model/README.md), or set backbone.weights=none")
    if cfg.stem != "plain":
        raise ValueError("backbone.weights=torchvision: its ResNets have the plain stem; set backbone.stem=plain")
    weights = torchvision.models.get_model_weights(cfg.name).IMAGENET1K_V1
    return weights.get_state_dict(progress=True, check_hash=True)


def check_backbone_keys(expected, state, source, cfg):
    """ValueError with a readable difference and the likely fix."""
    wrong = sorted(set(expected) ^ set(state)) + [
        k for k in expected if k in state and expected[k].shape != state[k].shape]
    if not wrong:
        return
    hint = "backbone.name, stem and width have to be those of the file"
    if "conv3.weight" in wrong:
        hint = f"backbone.stem={'plain' if cfg.stem == 'deep' else 'deep'} is this file's stem"
    elif all(k.startswith("layer4.") for k in wrong):
        hint = "the file ends before stage 4: set model.high_level=c4"
    raise ValueError(f"backbone.weights: {source} does not fit {cfg.name} with the {cfg.stem} stem: "
                     f"{len(wrong)} tensors differ, first {', '.join(wrong[:3])}.\n  {hint}")


def read_state_dict(path, key, advice):
    """Tensors by name, of their average if there is one; FileNotFoundError with the advice, ValueError: no such file"""
    if not path.is_file():
        raise FileNotFoundError(f"{key}: no file {path}.\n  {advice}")
    state = load_checkpoint(path)
    return state.get("state_dict_ema", state.get("state_dict", state))


# -- Pyramid ----------------------------------------------------------------------------------------------------------

PYRAMID_WEIGHTS = """Name a file of a torchvision ResNet or Mask R-CNN, or set backbone.weights to maskrcnn, torchvision
  (both are loaded from the network) or none"""


def load_pyramid(backbone, cfg):
    """Weights of backbone.weights into a Pyramid, by name; those of a Mask R-CNN are its backbone.body.

    A classifier, and a stage 4 that is not used, are left out. ValueError where names or sizes differ.
    """
    if cfg.weights == "maskrcnn":
        from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
        state = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.get_state_dict(progress=True, check_hash=True)
    elif cfg.weights == "torchvision":
        from torchvision.models import get_model_weights
        state = get_model_weights(cfg.name).IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    else:
        state = read_state_dict(Path(cfg.weights), "backbone.weights", PYRAMID_WEIGHTS)
    prefix = "backbone.body."
    if any(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    expected = {k: v for k, v in backbone.body.state_dict().items() if not k.endswith("num_batches_tracked")}
    dropped = ("fc.",) if len(backbone.stages) == 4 else ("fc.", "layer4.")
    state = {k: v for k, v in state.items() if not k.startswith(dropped) and not k.endswith("num_batches_tracked")}
    wrong = sorted(set(expected) ^ set(state)) + [
        k for k in expected if k in state and expected[k].shape != state[k].shape]
    if wrong:
        hint = ("the file ends before stage 4: set model.high_level=c4" if all(k.startswith("layer4.") for k in wrong)
                else "backbone.name has to be that of the file, with a plain stem")
        raise ValueError(f"backbone.weights: {cfg.weights} does not fit {cfg.name}: {len(wrong)} tensors differ, first "
                         f"{', '.join(wrong[:3])}.\n  {hint}")
    backbone.body.load_state_dict(state, strict=False)
