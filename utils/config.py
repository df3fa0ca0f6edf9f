"""YAML files and the command line in, one checked EasyDict out.

A key of the config is defined once, as a typed field of a Section: type, choices, range, default and what it affects.
The sections of every training and test stand here; those of a task with its data (dataloaders/TASK/config.py), those of
a method with the method (models/METHOD/config.py). All mistakes are found here, before any data or model is touched.
"""
import difflib
import functools
import importlib
import os
import re
import sys
import traceback
import typing
from contextlib import contextmanager
from enum import Flag
from io import StringIO
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from easydict import EasyDict
from msgspec import Meta
from ruamel.yaml import YAML

from utils.yaml_file import parse_yaml, read_yaml, shown

# The defaults as a file (a test holds that they are the same): as the base of a later file it would undo earlier ones.
DEFAULTS = Path(__file__).resolve().parents[1] / "config" / "vipmt" / "ytvis.yaml"


class Affects(Flag):
    """What another value of a key would change; every list of key names is derived from it.

    TRAINING: a training, which then cannot be resumed. TEST: the numbers of a test, which then cannot be continued.
    WEIGHTS: what the same weights compute, and so both of them.
    """
    NOTHING, TRAINING, TEST = 0, 1, 2
    BOTH, WEIGHTS = 3, 7


class Section(msgspec.Struct, forbid_unknown_fields=True):
    """Keys that stand together: fields with a type, a default, and their Affects where it is not TRAINING."""


Count = Annotated[int, Meta(ge=1)]
Whole = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
NOTHING, TEST, BOTH, WEIGHTS = Affects.NOTHING, Affects.TEST, Affects.BOTH, Affects.WEIGHTS


class Model(Section):
    method: Annotated[str, BOTH] = "vipmt"           # a name of models.METHODS, or your own module: package.module


class Data(Section):
    """dataset, root and annotations are the task's, which knows the data sets."""
    size: Annotated[tuple[Annotated[int, Meta(ge=32)], Annotated[int, Meta(ge=32)]], WEIGHTS] = (240, 424)   # H, W
    workers: Annotated[Whole, NOTHING] = 4           # loader processes; results do not depend on it
    patience: Annotated[Count, NOTHING] = 600        # seconds without a word of them after which a run ends


class Train(Section):
    batch_size: Count = 4        # B, over all processes
    epochs: Annotated[Count, NOTHING] = 100
    lr: Positive = 5.0e-4        # Adam; a method's parameter groups may take a share of it
    lr_drops: tuple[Count, ...] = ()                 # after so many epochs the rate falls, each time
    lr_factor: Share = 0.2       # to this share
    optimizer: Literal["adam", "adamw"] = "adam"     # adamw: weight_decay is decoupled
    clip_norm: Positive = 0.0                        # of all gradients together; 0: as large as they are
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Positive = 5.0e-4                  # of adam L2, not decoupled
    amp: Literal["bf16", "fp16", "off", "bf16_always"] = "bf16"      # on the CPU off, but for bf16_always: it pays
    #                              where the processor multiplies bf16 (AMX)
    log_every: Annotated[Count, NOTHING] = 10        # steps per JSON line
    spike_factor: Annotated[Positive, NOTHING] = 5.0     # a loss so many times the usual one is logged, 0: never


class Validate(Section):
    every: Count = 10            # epochs
    episodes: Count = 100        # at most


class Checkpoint(Section):
    select: Annotated[Literal["last", "best"], NOTHING] = "last"     # which one test.py takes where none is named
    every_steps: Annotated[Whole, NOTHING] = 0       # also save every n steps within an epoch, 0 = no
    every_minutes: Annotated[Positive, NOTHING] = 10     # also save after so many minutes, 0 = no; epochs always do
    keep: Annotated[int, Meta(ge=1, le=99), NOTHING] = 2     # checkpoints that stay: last.pth, last.1.pth, ...


class Test(Section):
    runs: Annotated[Count, NOTHING] = 5
    resolution: Annotated[Literal["input", "original"], TEST] = "input"      # input: padding included, as released


class Speed(Section):
    """Of the test; benchmarks/speed.md has what each gains and costs."""
    amp: Annotated[Literal["off", "bf16", "fp16"], TEST] = "off"     # mixed precision in test and validation
    tf32: Annotated[bool, BOTH] = False              # float32 products with 10-bit mantissas on recent GPUs
    winograd: Annotated[Literal["auto", "off"], BOTH] = "auto"       # fewer products in float32 on a CPU; to rounding
    compile: Annotated[bool, NOTHING] = False        # torch.compile; the first clips of each size take minutes
    deterministic: bool = False                      # the same bits on the same GPU in every run; slower there


class Metrics(Section):
    # class: over a class's frames, then over classes | object: over an object's frames, then over objects | frame
    average: Annotated[Literal["class", "object", "frame"], TEST] = "class"
    tolerance: Annotated[Share, TEST] = 0.008        # of F's boundaries, a share of the image's diagonal, as in DAVIS
    vc: Annotated[Literal["vipmt", "tti", "vspw"], TEST] = "vipmt"
    vc_window: Annotated[Count, TEST] = 7


class Config:
    """The sections that every method has. Those of a task or method are added, or replace one that they extend."""
    name: Annotated[str, NOTHING] = "vipmt_ytvis"
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1), BOTH] = 42        # every draw of the run follows from it
    data: Data
    model: Model
    train: Train
    validate: Validate
    checkpoint: Checkpoint
    test: Test
    speed: Speed
    metrics: Metrics


def load_config(paths=(), overrides=()):
    """The defaults, then every file of `paths` in order, then `key.sub=value` strings  ->  EasyDict

    A file's `base:` is laid first, unless it lies there already: `--config released.yaml --config
    ablation/no_memory.yaml` keeps the released choices, though the ablation's base is the paper's file.
    Raises ValueError or FileNotFoundError that names the file, the key and the fix.
    """
    layers, laid = [], set()
    for path in [paths] if isinstance(paths, str | Path) else paths:
        *bases, last = _chain(Path(path))
        layers += [*(one for one in bases if os.path.realpath(one[0]) not in laid), last]
        laid |= {os.path.realpath(file) for file, _ in layers} | {os.path.realpath(DEFAULTS)}
    return _lay([(str(file), changes) for file, changes in layers] + _parsed(overrides))


def apply_overrides(values, overrides=(), source="the saved config"):
    """The values of a saved config, as plain dicts, and `key.sub=value` strings over them  ->  EasyDict, checked

    Sections of other methods, which older files hold, are left out.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{source}: expected the keys of a config, got {shown(values)}")
    layers = [(source, values), *_parsed(overrides)]
    known = schema(_method(layers)).__struct_fields__
    own = {key: value for key, value in values.items() if key in known or not isinstance(value, dict)}
    return _lay([(source, own), *layers[1:]])


@functools.cache
def schema(method):
    """Name of a method  ->  its whole config as one type: the sections above, its task's keys and its own

    The two are found by name when they are asked for, so that nothing here knows a method or a task.
    """
    module = importlib.import_module("models").get_method(method)
    task = importlib.import_module("dataloaders").get_task(module.TASK)
    parts = [typing.get_type_hints(one, include_extras=True) for one in (Config, task.Config, module.Config)]
    fields = [(key, parts[0][key], getattr(Config, key)) for key in ("name", "seed")]
    for name in dict.fromkeys(name for part in parts for name in part if name not in ("name", "seed")):
        keys = {field.name: (field.name, field.type, field.default)
                for part in parts if name in part for field in msgspec.structs.fields(part[name])}
        section = msgspec.defstruct(name, keys.values(), bases=(Section,), forbid_unknown_fields=True)
        fields.append((name, section, msgspec.field(default_factory=section)))
    return msgspec.defstruct("Config", fields, forbid_unknown_fields=True)


def affected(cfg, by):
    """Flat names of the config's keys that have all of `by`, an Affects: affected(cfg, Affects.TEST)"""
    return {key for key, (_, affects) in keys_of(schema(cfg["model"]["method"])).items() if by in affects}


def settings(cfg, by):
    """{flat name: value} of the keys that have all of `by`"""
    keys = affected(cfg, by)
    return {key: value for key, value in flatten(to_dict(cfg)).items() if key in keys}


@functools.cache
def keys_of(section, prefix=""):
    """A Section type  ->  {flat name: (type, Affects)}"""
    found = {}
    for name, kind in typing.get_type_hints(section, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, Section):
            found |= keys_of(kind, f"{prefix}{name}.")
        else:
            marks = [mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Affects)]
            found[prefix + name] = kind, marks[-1] if marks else Affects.TRAINING
    return found


def _method(layers):
    """list of (source, changes)  ->  the last `model.method` that stands there"""
    found = [changes["model"]["method"] for _, changes in layers
             if isinstance(changes.get("model"), dict) and "method" in changes["model"]]
    return found[-1] if found and isinstance(found[-1], str) else "vipmt"


def _lay(layers):
    """list of (source, changes), the later over the earlier  ->  EasyDict, checked layer by layer and as a whole"""
    kind = schema(_method(layers))
    config = msgspec.to_builtins(kind())
    for source, changes in layers:
        checked = msgspec.to_builtins(_convert(changes, kind, source))
        _merge(config, changes, checked)
    config = EasyDict(to_dict(config))                     # tuples as the lists that YAML and checkpoints give back
    check_config(config)
    return config


def check_config(cfg, truth=True):
    """The method's own check of what one key alone cannot show; truth: whether anybody knows the true masks"""
    _of_method(cfg, "check", lambda *_: None)(cfg, truth)


def for_validation(cfg):
    """The config with which a method validates while it trains"""
    return _of_method(cfg, "for_validation", lambda cfg: cfg)(cfg)


def _of_method(cfg, name, otherwise):
    return getattr(importlib.import_module("models").get_method(cfg.model.method).Config, name, otherwise)


def _convert(changes, kind, source):
    try:
        checked = msgspec.convert(changes, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{source}: {_explain(str(error), changes, kind)}") from None
    for key, value in flatten(changes).items():
        if any(isinstance(one, float) and one - one != 0 for one in (value if isinstance(value, list) else [value])):
            raise ValueError(f"{source}: {key}: expected a finite number, got {value}")
    return checked


def _explain(message, changes, kind):
    """msgspec's message  ->  ours: the key as people write it, the value, and what may have been meant"""
    what, _, place = message.partition(" - at `$")
    path = re.findall(r"\w+", place)
    names = [part for part in path if not part.isdigit()]
    value = functools.reduce(lambda v, part: v[int(part) if part.isdigit() else part], path, changes)
    key = f"{'.'.join(names)}: " if names else ""
    unknown = re.search(r"unknown field `(.*)`", what, re.S)
    if unknown:
        return f"{key}unknown key '{unknown[1][:200]}'{_meant(unknown[1], names, kind)}"
    pattern = re.search(r"matching regex '\^\((.*)\)\$'", what)          # names, and beginnings of names
    if pattern or what.startswith("Invalid enum"):
        listed = keys_of(kind)[".".join(names)][0]
        listed = (pattern[1].replace(r"[\\w.-]+", "NAME").split("|") if pattern else
                  typing.get_args(listed.__origin__ if hasattr(listed, "__metadata__") else listed))
        near = difflib.get_close_matches(str(value)[:200], listed, n=1)
        return (f"{key}expected one of {', '.join(listed)}, got {shown(value)}"
                + (f"; did you mean '{near[0]}'?" if near else ""))
    expected = what.partition(",")[0].replace("`", "").removeprefix("Expected ")
    expected = functools.reduce(lambda text, pair: text.replace(*pair), WORDS.items(), expected)
    hint = ""
    if expected == "text":
        hint = "\n  Write none, as a word, for nothing" if value is None else f"\n  Put it in quotes: '{shown(value)}'"
    return f"{key}expected {expected}, got {shown(value)}{hint}"


WORDS = {"object": "a section with keys", "array": "a list", "int": "an integer", "float": "a number", "str": "text",
         "bool": "true or false"}


def _meant(name, sections, kind):
    """An unknown key  ->  '; did you mean ...'"""
    flat = keys_of(kind)
    prefix = ".".join([*sections, ""])
    here = list(dict.fromkeys(key.removeprefix(prefix).partition(".")[0] for key in flat if key.startswith(prefix)))
    near = difflib.get_close_matches(name[:200], here, n=1) or [key for key in flat if key.rpartition(".")[2] == name]
    return f"; did you mean '{near[0]}'?" if near else f"; known here: {', '.join(here)}"


def _merge(config, changes, checked):
    for key, value in changes.items():
        if isinstance(value, dict):
            _merge(config[key], value, checked[key])
        else:
            config[key] = checked[key]


def _chain(path, children=()):
    """A file and its bases, the lowest first  ->  list of (path, changes)"""
    if os.path.realpath(path) in map(os.path.realpath, children):   # Path.resolve stops at links in a circle
        circle = " -> ".join(str(p) for p in (*children, path))
        raise ValueError(f"{path}: `base:` leads back to the same file: {circle}; remove one of them")
    if not path.is_file():
        near = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml"))) if path.parent.is_dir() else ""
        raise FileNotFoundError(f"config: no file {path}." + (f"\n  In {path.parent}: {near}" if near else ""))
    changes = {} if (content := read_yaml(path)) is None else content
    if not isinstance(changes, dict):
        raise ValueError(f"{path}: expected lines 'key: value', got {shown(changes)}")
    base = changes.pop("base", None)
    if base is None:
        return [(path, changes)]
    if not isinstance(base, str) or len(base) > 1024:
        raise ValueError(f"{path}: base: expected a file name relative to this file, got {shown(base)}")
    if not (path.parent / base).is_file():
        raise FileNotFoundError(f"{path}: base: no file {path.parent / base}; the name is relative to {path.parent}")
    return [*_chain(path.parent / base, (*children, path)), (path, changes)]


def _parsed(overrides):
    """['train.lr=0.1']  ->  [('command line, train.lr=0.1', {'train': {'lr': 0.1}})]"""
    layers = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"command line: cannot read '{text}'; write key.sub=value, e.g. train.batch_size=2")
        changes = parse_yaml(value, f"command line, {text}")
        for part in reversed(key.split(".")):
            changes = {part: changes}
        layers.append((f"command line, {text}", changes))
    return layers


def save_config(cfg, path):
    """Write the resolved config as a file that `--config` reads back to the same values."""
    writer, text = YAML(typ="safe", pure=True), StringIO()
    writer.default_flow_style, writer.sort_base_mapping_type_on_output = None, False
    writer.dump(to_dict(cfg), text)
    Path(path).write_text("# Resolved config of one run, every key.\n" + text.getvalue(), encoding="utf-8")


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
                        help="YAML file; repeat it to lay one over the other (none: the defaults, VIPMT's paper)")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="changes one key, e.g. train.lr=1.0e-4")


def split_overrides(texts):
    """Files and key=value mixed, as `--checkpoint FILE key.sub=value` gives them  ->  (files, overrides)"""
    overrides = [text for text in texts if re.fullmatch(r"(name|seed|[a-z_]+(\.[a-z_]+)+)=.*", text, re.S)
                 and not Path(text).exists()]
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
