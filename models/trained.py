"""A trained model out of its checkpoint, whatever its method: the config first, then the weights.

In: a file of train.py or tools/convert_released.py, or none for a method that has nothing to train.
"""
import hashlib
import json
from pathlib import Path

from models import METHODS, get_method
from utils.checkpoint import load_checkpoint, some_names
from utils.config import Affects, affected, apply_overrides, flatten, load_config, to_dict
from utils.evaluation.results import warn_of_other_config
from utils.files import fingerprint
from utils.seeds import seed_generators

GET_CHECKPOINT = """`make demo` trains a small one within minutes, for its synthetic videos: output/demo/fold1/last.pth.
  For real ones train on YouTube-VIS (python train.py --config config/vipmt/ytvis.yaml --fold 1), or convert the weights
  of the released code: python -m tools.convert_released model_best.pth ours.pth --fold 1"""


def trained_model(cfg, path, split=None):
    """->  the model, in eval mode on the CPU; content of the file, {} of none. split: whose test classes it must not
    have seen

    Weights that nothing is loaded into follow from the config's seed.
    """
    seed_generators(cfg.seed)
    method = get_method(cfg.model.method)
    model = method.build(cfg, pretrained=path is None).eval()
    return model, method.load(model, path, cfg, split) if path else {}


def read_config(path, config, overrides):
    """-> EasyDict: the checkpoint's own config unless files of another are given"""
    if path is None and any(text.startswith("model.method=") for text in overrides):
        cfg = load_config(config, overrides)
        if getattr(get_method(cfg.model.method), "UNTRAINED", False):
            return cfg
    if path is None or not Path(path).is_file():
        raise FileNotFoundError(f"--checkpoint: {'none was named' if path is None else f'no file {path}'}.\n"
                                f"  {GET_CHECKPOINT}")
    content = load_checkpoint(path)
    if not isinstance(content.get("model"), dict):
        raise ValueError(f"{path}: no entry 'model', but {some_names(content)}: no checkpoint of train.py or "
                         "tools/convert_released.py.\n"
                         f"  {GET_CHECKPOINT}")
    trained = content.get("config")
    if not config and not isinstance(trained, dict):
        raise ValueError(f"{path}: the checkpoint does not say its config.\n  Name it: --config config/....yaml")
    own = ((trained or {}).get("model") or {}).get("method")
    asked = ([text.partition("=")[2] for text in overrides if text.startswith("model.method=")] or [own])[-1]
    if own in METHODS and asked in METHODS and get_method(own).TASK != get_method(asked).TASK:
        raise ValueError(f"{path}: a checkpoint of model.method {own}, which cannot serve {asked}.\n  Leave --method "
                         "out, or name a checkpoint of that method")
    cfg = load_config(config, overrides) if config else apply_overrides(trained, overrides)
    warn_of_other_config(trained or cfg, cfg, path)
    return cfg


def weights_id(path, cfg):
    """What two models share that compute the same of a support: the file's content, the config as far as it counts"""
    keys, flat = affected(cfg, Affects.WEIGHTS), flatten(to_dict(cfg))
    known = json.dumps([fingerprint(path), {key: flat[key] for key in sorted(keys)}])
    return hashlib.sha256(known.encode()).hexdigest()
