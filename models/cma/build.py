"""From the config to a CMA with its weights."""
from models.backbone import Pyramid
from models.backbone_weights import load_pyramid
from models.cma.model import CMA
from models.cma.text import RobertaWords, TinyWords
from utils.checkpoint import load_trained, load_weights

# Of the affinity, what the release names, but trains nowhere; its LayerNorm is trained.
UNTRAINED = ("query_query", "query_key", "query_value", "support_key", "support_value", "reduce")


def build(cfg, pretrained=False, split=None):
    """The model of a config; pretrained: for a training, from train.start, else with backbone.weights.

    FileNotFoundError, ValueError: weights that are not there or do not fit, no text encoder
    """
    own, model, text = cfg.backbone, cfg.model, cfg.text
    backbone = Pyramid(name=own.name, stride_in_1x1=own.stride_in_1x1, high_level=model.high_level)
    sizes = {key: model[key] for key in ("dim", "heads", "hidden", "layers", "queries", "dropout", "broadcast_anchors",
                                         "sentence")}
    affinity = {key: cfg.affinity[key] for key in ("variant", "support_frames", "query_frames", "residual")}
    network = CMA(backbone, text_dim=text.dim, inner=cfg.affinity.dim, affinity=affinity, amplified=model.amplify,
                  **sizes)
    words = TinyWords(text.dim) if text.encoder == "tiny" else RobertaWords(text.encoder, text.dropout)
    network.read_by(words, keep=not text.dropout)
    if pretrained and text.encoder != "tiny":
        words.load()
    if pretrained and cfg.train.start != "none":
        load_weights(network, load_trained(cfg.train.start, split)["model"], cfg.train.start)
    elif pretrained and own.weights != "none":
        load_pyramid(backbone, own)
    return network


def parameter_groups(model, cfg):
    """All that has gradients, at one rate; the affinity's convolutions at none where they shall not be trained.

    Their gradients count in the norm that train.clip_norm limits either way, as released.
    """
    drawn = [p for name, part in model.affinity.named_children() if name in UNTRAINED for p in part.parameters()]
    apart = {id(p) for p in drawn} if not cfg.affinity.trained else set()
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if id(p) not in apart]}]
    return groups + ([{"params": drawn, "share": 0.0}] if apart else [])


def load(model, path, cfg, split):
    """A checkpoint's weights, strictly  ->  its content; ValueError where they saw this split's test classes"""
    content = load_trained(path, split)
    load_weights(model, content["model"], path)
    return content


def compile_parts(model, backend="inductor"):
    """speed.compile: backbone and pixel decoder, which take the time."""
    for part in (model.backbone, *model.pixel_decoder.stages):
        part.compile(backend=backend)
