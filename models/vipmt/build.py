"""From the config to a VIPMT with its weights: the one place where the model meets the config."""
import torch

from models.backbone import Backbone
from models.backbone_weights import load_backbone
from models.vipmt.iou_net import IoUNet
from models.vipmt.iou_net_files import load_iou_net, read_iou_net, with_iou_net
from models.vipmt.model import VIPMT
from models.winograd import use_winograd
from utils.checkpoint import load_trained, load_weights
from utils.config import to_dict


def build(cfg, pretrained=False, split=None):
    """The model of a config; pretrained: with the weights of backbone.weights and iou_net.weights, for training.

    split: the training's fold, whose test classes iou_net.weights must not have seen
    FileNotFoundError, ValueError: weights that are not there or do not fit
    """
    if pretrained and cfg.model.memory_prototype and cfg.iou_net.weights != "none":
        read_iou_net(cfg.iou_net.weights, cfg, split)        # a wrong one is found before anything else is read
    backbone = Backbone(
        name=cfg.backbone.name, stem=cfg.backbone.stem, stride_in_1x1=cfg.backbone.stride_in_1x1,
        high_level=cfg.model.high_level, trained=cfg.backbone.trained, width=cfg.backbone.width,
        cache_frames=cfg.backbone.cache_frames, weights=cfg.backbone.weights, size=cfg.data.size,
        standardise=cfg.backbone.standardise)
    iou_net = build_iou_net(cfg, backbone.channels) if cfg.model.memory_prototype else None
    model = VIPMT(
        backbone, iou_net, dim=cfg.model.dim, num_layers=cfg.model.layers, heads=cfg.model.heads,
        ffn_dim=cfg.model.ffn_dim, dropout=cfg.model.dropout, feature_dropout=cfg.model.feature_dropout,
        frame_prototype=cfg.model.frame_prototype, communication=cfg.model.communication,
        memory_attention=cfg.model.memory_attention, cumulative_prior=cfg.model.prior == "cumulative",
        memory_in_prior=cfg.model.memory_in_prior, patch_masks=cfg.model.degenerate_masks == "patch",
        cosine_maps=cfg.iou_net.similarity == "pooled_cosine", use_maps=cfg.iou_net.similarity_maps,
        init=cfg.model.init, prior_channels=cfg.model.prior_channels, prior_skip=cfg.model.prior_skip,
        match=cfg.model.match, prior_scale=cfg.model.prior_scale, calibration=cfg.iou_net.calibration,
        confidence=cfg.iou_net.confidence)
    use_winograd(model, cfg.speed.winograd)
    if pretrained and cfg.backbone.weights != "none":
        load_backbone(model.backbone, cfg.backbone)
    if pretrained and iou_net is not None and cfg.iou_net.weights != "none":
        load_iou_net(iou_net, cfg.iou_net.weights, cfg, split)
        iou_net.requires_grad_(cfg.iou_net.training == "joint")
    return model


def compile_parts(model, backend="inductor"):
    """speed.compile: the parts that take the time, each once for all clips; the first clips then take minutes."""
    model.backbone.run = torch.compile(model.backbone.run, backend=backend)
    for layer in model.layers:
        layer.compile(backend=backend)
    if model.iou_net is not None:
        model.iou_net.compile(backend=backend)


def build_iou_net(cfg, channels):
    maps = 5 if cfg.iou_net.similarity_maps else 1
    iou_net = IoUNet(channels=channels, maps=maps, dim=cfg.iou_net.dim, hidden=cfg.iou_net.hidden,
                     init=cfg.iou_net.init)
    if cfg.iou_net.confidence:
        torch.nn.init.zeros_(iou_net.fc2.weight)         # it starts with no correction
    return iou_net


def parameter_groups(model, cfg):
    """All that has gradients (Section 5.1: at one rate); an IoUNet trained beside the rest at its share of it."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    iou_net = [p for name, p in trained.items() if name.startswith("iou_net.")]
    rest = [p for name, p in trained.items() if not name.startswith("iou_net.")]
    if cfg.iou_net.rate == 1 or not iou_net or not rest:
        return [{"params": [*trained.values()]}]
    return [{"params": rest}, {"params": iou_net, "share": cfg.iou_net.rate}]


def load(model, path, cfg, split):
    """The weights of a checkpoint, with the IoUNet of iou_net.replace where one is named  ->  the checkpoint's content

    ValueError: other names or sizes, or classes of this split's test among those that it was trained on
    """
    content = load_trained(path, split)
    weights = content["model"]
    if cfg.iou_net.replace != "none":
        weights = with_iou_net(model, weights, cfg.iou_net.replace, cfg, split)
        if "config" in content:          # the IoUNet that was replaced: nobody needs to hear how it differs
            content["config"]["iou_net"] = to_dict(cfg.iou_net)
    load_weights(model, weights, path)
    return content
