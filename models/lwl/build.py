"""From the config to an LWL with its weights: what is trained in which stage, and at which rate."""
import torch

from models.backbone import Pyramid
from models.backbone_weights import load_pyramid
from models.lwl.decoder import initialise_he
from models.lwl.model import LWL
from utils.checkpoint import load_trained, load_weights

PARTS = {"reg": "reg", "features": "features", "decoder": "decoder", "label": "label_encoder", "backbone": "backbone",
         "box": "box_encoder"}          # key of rates -> part of the model


def build(cfg, pretrained=False, split=None):
    """The model of a config; pretrained: for a training, from train.start, else with backbone.weights.

    FileNotFoundError, ValueError: weights that are not there or do not fit
    """
    model = cfg.model
    network = LWL(pyramid_of(cfg), feature_dim=model.feature_dim, filters=model.filters, widths=model.widths,
                  label=model.label, with_weight=model.weight == "predictor", box_encoder=model.box_encoder,
                  reg=cfg.learner.reg)
    if model.decoder_init == "he":
        initialise_he(network.decoder)
    network.to(memory_format=torch.channels_last)          # convolutions take half the time or less, on any device
    freeze(network, cfg)
    if pretrained:
        load_pretrained(network, cfg)
    return network


def pyramid_of(cfg):
    own = cfg.backbone
    return Pyramid(name=own.name, flavour=own.flavour, stride_in_1x1=own.stride_in_1x1, bn_eps=own.bn_eps,
                   high_level=cfg.model.high_level, trained=own.trained)


def load_pretrained(model, cfg):
    """What a training starts from: the checkpoint of the stage before, or weights of the backbone"""
    if cfg.train.start != "none":
        load_start(model, cfg.train.start)
    elif cfg.backbone.weights != "none":
        load_pyramid(model.backbone, cfg.backbone)


def freeze(model, cfg):
    """No gradients for what this stage does not train: the network, its box encoder, or the decoder alone (Table 1)."""
    box, names = cfg.train.part == "box", ("reg", "features", "label_encoder")
    for name in ("reg", "features", "label_encoder", "decoder"):
        getattr(model, name).requires_grad_(not box and (cfg.learner.end_to_end or name not in names))
    if model.box_encoder is not None:
        model.box_encoder.requires_grad_(box)


def load_start(model, path):
    """The weights of the stage before; a box encoder that it does not have keeps its own."""
    weights = load_trained(path, None)["model"]
    if isinstance(weights, dict) and not any(str(name).startswith("box_encoder.") for name in weights):
        weights = weights | {k: v for k, v in model.state_dict().items() if k.startswith("box_encoder.")}
    load_weights(model, weights, path)


def parameter_groups(model, cfg, parts=PARTS):
    """What has gradients, part by part at its share of train.lr (section rates)."""
    groups = []
    for key, name in parts.items():
        part = getattr(model, name)
        parameters = [part] if isinstance(part, torch.nn.Parameter) else part.parameters() if part is not None else []
        trained = [p for p in parameters if p.requires_grad]
        if trained:
            groups.append({"params": trained, "share": cfg.rates[key]})
    return groups


def load(model, path, cfg, split):
    """The weights of a checkpoint, strictly  ->  its content"""
    content = load_trained(path, split)
    load_weights(model, content["model"], path)
    return content


def compile_parts(model, backend="inductor"):
    """speed.compile: backbone and decoder, which take the time."""
    for part in (model.backbone, model.decoder):
        part.compile(backend=backend)
