"""YAML files and the command line in, one checked EasyDict out.

config/vipmt/ytvis.yaml holds every key and is the schema: names and types come from it. Other files hold
`base:` and the lines they change. All mistakes are found here, before any data or model is touched.
"""
import difflib
import math
import os
import re
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

import yaml
from easydict import EasyDict

from utils.yaml_file import parse_yaml, read_yaml, shown

SCHEMA = Path(__file__).resolve().parents[1] / "config" / "vipmt" / "ytvis.yaml"

# The alternatives in the schema's comments; tests/utils/test_config.py compares the two.
CHOICES = {
    "data.dataset": ("ytvis", "minivspw", "coco20i", "coco20i_minivspw", "coco"),
    "data.mask_resize": ("nearest", "released"),
    "data.augmentation": ("paper", "released", "none"),
    "data.portrait": ("letterbox", "transpose"),
    "data.short_video": ("distinct", "repeat"),
    "data.few_videos": ("error", "repeat"),
    "backbone.name": ("resnet50", "resnet101", "tiny"),
    "backbone.stem": ("deep", "plain"),
    "model.high_level": ("c5", "c4"),
    "model.communication": ("bidirectional", "one_way"),
    "model.memory_attention": ("separate", "joint"),
    "model.prior": ("per_frame", "cumulative"),
    "model.init": ("released", "balanced"),
    "model.degenerate_masks": ("plain", "patch"),
    "propagation.level": ("c3", "c4"),
    "memory.select": ("predicted", "random", "none", "oracle", "ground_truth"),
    "iou_net.similarity": ("dot", "pooled_cosine"),
    "iou_net.training": ("separate", "joint"),
    "iou_net.loss": ("mean", "sum_per_batch", "bce"),
    "iou_net.init": ("fan_out", "fan_in"),
    "loss.ccds": ("paper", "released", "none"),
    "train.amp": ("bf16", "fp16", "off"),
    "train.backward": ("per_clip", "once"),
    "train.memory_masks": ("ground_truth", "predicted", "noisy"),
    "validate.classes": ("base_holdout", "novel", "none"),
    "validate.memory": ("predicted", "ground_truth"),
    "checkpoint.select": ("last", "best"),
    "test.protocol": ("II", "I"),
    "test.resolution": ("input", "original"),
    "speed.amp": ("off", "bf16", "fp16"),
    "metrics.vc": ("vipmt", "tti", "vspw"),
}

# Smallest and largest value, both allowed; None: no limit.
RANGES = {
    "seed": (0, 2**32 - 1),
    "data.size": (32, None), "data.shots": (1, None), "data.clip_length": (1, None), "data.clips": (1, None),
    "data.samples_per_class": (1, None), "data.workers": (0, None),
    "backbone.width": (1, None), "backbone.cache_frames": (0, None),
    "model.dim": (4, None), "model.layers": (1, None), "model.heads": (1, None), "model.ffn_dim": (1, None),
    "model.dropout": (0, 1), "model.feature_dropout": (0, 1),
    "memory.length": (1, None), "memory.keep": (1, None), "memory.min_iou": (0, 1),
    "propagation.frames": (0, None), "propagation.top_k": (1, None), "propagation.temperature": (0.001, None),
    "propagation.radius": (0, None),
    "iou_net.dim": (1, None), "iou_net.hidden": (1, None),
    "loss.final": (0, None), "loss.initial": (0, None), "loss.aux_query": (0, None), "loss.aux_support": (0, None),
    "loss.cross_entropy": (0, None), "loss.ccds_weight": (0, None), "loss.iou_weight": (0, None),
    "train.batch_size": (1, None), "train.epochs": (1, None), "train.lr": (0, None), "train.betas": (0, 1),
    "train.weight_decay": (0, None), "train.log_every": (1, None),
    "validate.holdout": (0, 1), "validate.every": (1, None), "validate.episodes": (1, None),
    "train.spike_factor": (0, None),
    "checkpoint.every_steps": (0, None), "checkpoint.every_minutes": (0, None), "checkpoint.keep": (1, 99),
    "test.runs": (1, None), "metrics.vc_window": (1, None),
}

LONGEST_BASE = 1024          # characters
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")   # YAML 1.1 reads it as text unless written 5.0e-4
KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def load_config(paths=(), overrides=()):
    """The schema, then every file of `paths` in order, then `key.sub=value` strings  ->  EasyDict

    A file's `base:` is laid first, unless it lies there already: `--config released.yaml --config
    ablation/no_memory.yaml` keeps the released choices, though the ablation's base is the paper's file.
    Raises ValueError or FileNotFoundError that names the file, the key and the fix.
    """
    schema = _read_schema()
    config = _copy(schema)
    laid = {os.path.realpath(SCHEMA)}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        *bases, last = _chain(Path(path))
        for file, changes in [*(entry for entry in bases if os.path.realpath(entry[0]) not in laid), last]:
            _merge(config, changes, schema, str(file))
            laid.add(os.path.realpath(file))
    for text in overrides:
        _merge(config, _parse_override(text, schema), schema, f"command line, {text}")
    _check_relations(config)
    return EasyDict(config)


def apply_overrides(values, overrides=(), source="the saved config"):
    """The values of a saved config, as plain dicts, and `key.sub=value` strings over them  ->  EasyDict, checked"""
    if not isinstance(values, dict):
        raise ValueError(f"{source}: expected the keys of a config, got {_describe(values)}")
    schema = _read_schema()
    config = _copy(schema)
    _merge(config, values, schema, source)
    for text in overrides:
        _merge(config, _parse_override(text, schema), schema, f"command line, {text}")
    _check_relations(config)
    return EasyDict(config)


def save_config(cfg, path):
    """Write the resolved config as a file that `--config` reads back to the same values."""
    text = yaml.safe_dump(to_dict(cfg), sort_keys=False)
    Path(path).write_text("# Resolved config of one run, every key.\n" + text)


def to_dict(cfg):
    """EasyDict  ->  plain dicts and lists, which YAML, JSON and checkpoints take"""
    if isinstance(cfg, dict):
        return {key: to_dict(value) for key, value in cfg.items()}
    return [to_dict(value) for value in cfg] if isinstance(cfg, list | tuple) else cfg


def flatten(cfg, prefix=""):
    """{'data': {'shots': 5}}  ->  {'data.shots': 5}"""
    flat = {}
    for key, value in cfg.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def differences(first, second):
    """Two configs  ->  {key: (value in first, value in second)} of the keys whose values differ"""
    first, second = flatten(to_dict(first)), flatten(to_dict(second))
    return {key: (first.get(key), second.get(key)) for key in (first | second) if first.get(key) != second.get(key)}


def add_config_arguments(parser):
    """--config FILE (repeatable) and key.sub=value ...; use parser.parse_intermixed_args()."""
    parser.add_argument("--config", action="append", default=[], metavar="FILE",
                        help="YAML file; repeat it to lay one over the other (none: config/vipmt/ytvis.yaml)")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes one key, e.g. train.lr=1.0e-4")


def split_overrides(texts):
    """Files and key=value mixed, as `--checkpoint FILE key.sub=value` gives them  ->  (files, overrides)"""
    keys = flatten(_read_schema())
    overrides = [text for text in texts if "=" in text and text.partition("=")[0] in keys]
    return [text for text in texts if text not in overrides], overrides


@contextmanager
def user_errors():
    """Print the user's mistakes as 'Type: message' and exit with 2; VIPMT_TRACEBACK=1 prints the traceback first."""
    try:
        yield
    except (ValueError, FloatingPointError, OSError) as error:   # FileNotFoundError is an OSError
        if os.environ.get("VIPMT_TRACEBACK") == "1":
            traceback.print_exc()
        print(f"{type(error).__name__}: {error}\n(VIPMT_TRACEBACK=1 shows where this was raised.)", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("Interrupted; the same command continues where it can.", file=sys.stderr)
        raise SystemExit(130) from None


def _read_schema():
    schema = _read(SCHEMA)
    flat = flatten(schema)
    for key in [*CHOICES, *RANGES]:
        if key not in flat:
            raise ValueError(f"{SCHEMA}: the key {key} is missing; this file holds every key, so put it back")
    for key, value in flat.items():   # an edited value may not change a key's type unnoticed
        if isinstance(value, str) and EXPONENT.fullmatch(value):
            raise ValueError(f"{SCHEMA}: {key}: YAML reads {value} as text; write {_with_point(value)}")
    _merge(_copy(schema), schema, schema, str(SCHEMA))
    return schema


def _read(path):
    """YAML file  ->  dict, errors with file and line"""
    if not path.is_file():
        near = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml"))) if path.parent.is_dir() else ""
        raise FileNotFoundError(f"config: no file {path}." + (f"\n  In {path.parent}: {near}" if near else ""))
    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected lines 'key: value', got {_describe(content)}")
    return content


def _chain(path, children=()):
    """A file and its bases, the lowest first  ->  list of (path, changes)"""
    if os.path.realpath(path) in map(os.path.realpath, children):   # Path.resolve stops at links in a circle
        circle = " -> ".join(str(p) for p in (*children, path))
        raise ValueError(f"{path}: `base:` leads back to the same file: {circle}; remove one of them")
    changes = _read(path)
    base = changes.pop("base", None)
    if base is None:
        return [(path, changes)]
    if not isinstance(base, str) or len(base) > LONGEST_BASE:
        raise ValueError(f"{path}: base: expected a file name relative to this file, got {_describe(base)}")
    if not (path.parent / base).is_file():
        raise FileNotFoundError(f"{path}: base: no file {path.parent / base}; the name is relative to {path.parent}")
    return [*_chain(path.parent / base, (*children, path)), (path, changes)]


def _parse_override(text, schema):
    """'train.lr=0.1'  ->  {'train': {'lr': 0.1}}"""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"command line: cannot read '{text}'; write key.sub=value, e.g. train.batch_size=2")
    if "." not in key and key not in schema:
        owners = [name for name in flatten(schema) if name.endswith(f".{key}")]
        if owners:
            raise ValueError(f"command line, {text}: unknown key '{key}'; did you mean '{' or '.join(owners)}'?")
    changes = parse_yaml(value, f"command line, {text}")
    for part in reversed(key.split(".")):
        changes = {part: changes}
    return changes


def _merge(config, changes, schema, source, prefix=""):
    """Lay `changes` over `config`, in place, every key and value checked against the schema."""
    for key, value in changes.items():
        if key not in schema:
            raise ValueError(_unknown(key, schema, source, prefix))
        name = prefix + key
        if not isinstance(schema[key], dict):
            config[key] = _checked(value, schema[key], name, source)
        elif isinstance(value, dict):
            _merge(config[key], value, schema[key], source, name + ".")
        else:
            raise ValueError(f"{source}: {name}: expected a section with keys such as "
                             f"'{next(iter(schema[key]))}', got {_describe(value)}")


def _unknown(key, schema, source, prefix):
    section = f" {prefix[:-1]}:" if prefix else ""
    near = difflib.get_close_matches(str(key)[:200], schema, n=1)
    elsewhere = [] if near else [n for n in flatten(_read(SCHEMA)) if n.rpartition(".")[2] == key]
    hint = f"did you mean '{(near or elsewhere)[0]}'?" if near or elsewhere else f"known here: {', '.join(schema)}"
    return f"{source}:{section} unknown key '{str(key)[:200]}'; {hint}"


def _checked(value, example, name, source):
    """The value, if it has the type of the schema's `example`, is one of CHOICES and lies in RANGES."""
    if isinstance(example, list):
        if not isinstance(value, list) or len(value) != len(example):
            raise ValueError(f"{source}: {name}: expected a list of {len(example)} like {example}, "
                             f"got {_describe(value)}")
        return [_checked(v, e, name, source) for v, e in zip(value, example, strict=True)]
    value = _typed(value, type(example), name, source)
    if name in CHOICES and value not in CHOICES[name]:
        near = difflib.get_close_matches(value[:200], CHOICES[name], n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"{source}: {name}: expected one of {', '.join(CHOICES[name])}, got {shown(value)}{hint}")
    low, high = RANGES.get(name, (None, None))
    if (low is not None and not value >= low) or (high is not None and not value <= high):   # `not`: NaN fails too
        limit = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{source}: {name}: expected {limit}, got {value}")
    if value in (math.inf, -math.inf) or value != value:
        raise ValueError(f"{source}: {name}: expected a finite number, got {value}")
    return value


def _typed(value, kind, name, source):
    """The value as `kind`; an integer serves as a number, true and false never do."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    hint = ""
    if isinstance(value, str) and EXPONENT.fullmatch(value):
        hint = f"\n  YAML reads {value} as text; write {_with_point(value)}"
    elif value is None and kind is str:
        hint = "\n  Write none, as a word, for nothing"
    elif kind is str:
        hint = f"\n  Put it in quotes: '{value}'" if len(shown(value)) < 80 else ""
    raise ValueError(f"{source}: {name}: expected {KINDS[kind]}, got {_describe(value)}{hint}")


def _with_point(text):
    """'5e-4'  ->  '5.0e-4', '1e5' -> '1.0e+5': YAML wants the point and the sign"""
    mantissa, exponent = text.lower().split("e")
    mantissa += "" if "." in mantissa else ".0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def _describe(value):
    if value is None:
        return "nothing"
    words = {bool: "true or false", int: "integer", float: "number", str: "text", list: "list", dict: "section"}
    text = str(value).lower() if isinstance(value, bool) else shown(value)
    return f"{text} ({words.get(type(value), type(value).__name__)})"


def _check_relations(config):
    """What one key alone cannot show."""
    model, backbone = config["model"], config["backbone"]
    if model["dim"] % model["heads"]:
        raise ValueError(f"config: model.dim {model['dim']} is no multiple of model.heads {model['heads']}; change one")
    if model["dim"] % 4:
        raise ValueError(f"config: model.dim {model['dim']}: expected a multiple of 4, "
                         "since sine and cosine of rows and columns share the channels")
    if backbone["trained"] and backbone["cache_frames"]:
        raise ValueError("config: backbone.cache_frames needs a frozen backbone: "
                         "set it to 0 or backbone.trained to false")
    if backbone["trained"] and config["train"]["backward"] == "per_clip":
        raise ValueError("config: backbone.trained needs one graph over all clips: set train.backward to once")


def _copy(config):
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in config.items()}
