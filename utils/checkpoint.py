"""Checkpoints: plain tensors, numbers and names in one file, written whole or not at all, loaded strictly.

Nothing here unpickles code: every file is read with torch's weights_only loader.
"""
import errno
import hashlib
import logging
import os
import shutil
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError

import torch

from utils.files import atomic_file

log = logging.getLogger(__name__)

# What torch.load raises on files that are damaged or something else; found by feeding it damaged files.
UNREADABLE = (UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, struct.error, AssertionError,
              AttributeError, TypeError, OverflowError, zipfile.BadZipFile)
CHECKSUM, MOST_KEPT = "sha256", 99
AT_LEAST = 2 ** 30           # bytes that a checkpoint may unfold to, however small its file is
RELEASED_NAMES = ("backbone.body.", "adjust_feature_qry", "adjust_feature_supp", "transformer.", "score_head.donw")


def save_checkpoint(path, state, keep=1):
    """Write `state` (nested dicts and lists of tensors, str, numbers, bool, None) to `path`, whole or not at all.

    Its checksum goes into the file. keep: of the files written so far this many stay, the newest one as `path`, the
    one before it as NAME.1.pth, and so on; at no moment there is none.
    """
    _require_plain(state, "state")
    with atomic_file(path) as file:
        torch.save(state | {CHECKSUM: content_checksum(state)}, file)
        if keep > 1:
            _step_back(Path(path), keep)


def load_checkpoint(path):
    """A file written by save_checkpoint, or any state dict  ->  dict, tensors on the CPU

    ValueError where it is damaged: cut off, or other content than its checksum says.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"checkpoint: {path} {what}.\n  Train first (python train.py --config ... --fold ...) "
                                "or name the file: --checkpoint FILE")
    if _is_inflated(path):
        raise ValueError(f"{path}: its records are packed, as torch.save never does, or lie over one another, so that "
                         "a small file fills the memory.\n  Take a file of train.py or tools/convert_released.py")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*UNREADABLE, OSError, MemoryError) as error:                   # MemoryError: a length that nobody wrote
        if isinstance(error, OSError) and error.errno != errno.EINVAL:     # a cut file can look like a bad argument
            raise
        raise ValueError(_why_unreadable(path, error) + _the_one_before(path)) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a checkpoint: expected a dictionary, found {type(content).__name__}")
    size = path.stat().st_size
    if not _fits(content, size, max(2 * size, AT_LEAST)):
        raise ValueError(f"{path}: unfolds to far more than the file's {size} bytes.\n"
                         "  Take a file of train.py or tools/convert_released.py")
    checksum = content.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum_or_none(content):
        raise ValueError(f"{path}: the file is damaged: its content is not what its checksum says. Copy it again"
                         + _the_one_before(path))
    return content


def _is_inflated(path):
    try:
        with zipfile.ZipFile(path) as file:
            records = file.infolist()
    except (zipfile.BadZipFile, *UNREADABLE):             # another format, or damaged: torch will say so
        return False
    return any(one.compress_type for one in records) or sum(one.file_size for one in records) > path.stat().st_size


def _fits(content, most_values, most_bytes):
    """Whether so many values and bytes are no less than what a walk through the content meets

    A list may hold another one twice, and that one another: forty levels of it are a file of some hundred bytes.
    """
    waiting = [content]
    while waiting and most_values >= 0 and most_bytes >= 0:
        value = waiting.pop()
        inner = ([*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple)
                 else ())
        most_values -= 1 + len(inner)
        waiting += inner if most_values >= 0 else ()
        most_bytes -= value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0
    return most_values >= 0 and most_bytes >= 0


def _checksum_or_none(content):
    """None where there are values that save_checkpoint never writes: sparse tensors, a list within itself."""
    try:
        return content_checksum(content)
    except UNREADABLE:
        return None


def load_newest(path):
    """The newest undamaged one of `path` and those before it  ->  (its path, content); damaged ones are reported."""
    damaged = []
    for candidate in older_checkpoints(path):
        try:
            return candidate, load_checkpoint(candidate)
        except (ValueError, OSError) as error:
            damaged.append(candidate)
            log.warning("%s\n  Going on with the checkpoint before it, if there is one.", error)
    if damaged:
        raise ValueError(f"{', '.join(map(str, damaged))}: every checkpoint of this run is damaged.\n"
                         "  Restore one from a backup, or train again with another --output.")
    return path, load_checkpoint(path)


def older_checkpoints(path):
    """last.pth  ->  [last.pth, last.1.pth, ...] as far as they exist, the newest first"""
    path = Path(path)
    numbered = [path.with_suffix(f".{n}{path.suffix}") for n in range(1, MOST_KEPT + 1)]
    return [file for file in (path, *numbered) if file.is_file()]


def remove_leftovers(folder, with_log=False):
    """Delete the unfinished files of processes that were killed while they wrote; with_log: also the numbers of a run
    that came to no checkpoint, which starts anew."""
    if with_log and (file := Path(folder) / "log.jsonl").is_file():
        log.warning("%s is of a run that came to no checkpoint, and removed: this one starts anew", file)
        file.unlink()
    for file in [*Path(folder).glob(".*.tmp"), *Path(folder).glob(".*.before")]:
        file.unlink(missing_ok=True)


def content_checksum(state):
    """SHA-256 over all names, numbers and tensors, in their order: text that does not depend on how they are stored."""
    digest = hashlib.sha256()
    _digest(state, digest)
    return digest.hexdigest()


def _digest(value, digest):
    if isinstance(value, dict):
        digest.update(b"{%d" % len(value))
        for key, inner in value.items():
            _digest(key, digest)
            _digest(inner, digest)
    elif isinstance(value, list | tuple):
        digest.update(b"[%d" % len(value))
        for inner in value:
            _digest(inner, digest)
    elif isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    else:
        text = repr(value).encode()
        digest.update(b"%d:" % len(text) + text)


def _step_back(path, keep):
    """last.pth becomes last.1.pth and so on; last.pth itself stays until the new one takes its name."""
    older = [path.with_suffix(f".{n}{path.suffix}") for n in range(1, keep)]
    for newer, file in reversed(list(zip(older, older[1:], strict=False))):
        if newer.exists():
            os.replace(newer, file)
    if path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.before")
        try:
            os.link(path, temporary)
        except OSError:                              # a file system without links
            shutil.copy2(path, temporary)
        os.replace(temporary, older[0])


def _the_one_before(path):
    older = [file for file in older_checkpoints(path) if file != path]
    return f".\n  The one before it is {older[0]}" if older else ""


def load_trained(path, fold):
    """A checkpoint of train.py for testing one fold  ->  dict with "model"; another fold's is refused

    A converted release has no fold of its own; None, on either side, fits all.
    """
    checkpoint = load_checkpoint(path)
    if "model" not in checkpoint:
        raise ValueError(f"{path}: no entry 'model', but {some_names(checkpoint)}: expected a checkpoint of train.py "
                         "or tools/convert_released.py")
    check_origin(checkpoint, path)
    trained = checkpoint.get("fold")
    if None not in (trained, fold) and trained != fold:
        raise ValueError(f"{path} was trained for fold {trained}, so it has seen the test classes of fold {fold}.\n"
                         f"  Test it with --fold {trained}, or name the checkpoint of fold {fold}")
    return checkpoint


def some_names(content):
    """The first keys of a file's dict, for errors"""
    return ", ".join(str(key)[:40] for key in [*content][:5]) or "nothing"


def check_origin(checkpoint, path):
    """ValueError where "config" is anything but named plain values in sections, or "fold" no small number."""
    fold = checkpoint.get("fold")
    for key, good in (("config", _is_plain_section(checkpoint.get("config", {}))),
                      ("fold", fold is None or type(fold) is int and 0 <= fold < 100)):
        if not good:
            raise ValueError(f"{path}: its entry {key!r} is not what train.py writes.\n"
                             "  Take a file of train.py or tools/convert_released.py")


def _is_plain_section(value, levels=4):
    if not isinstance(value, dict) or levels == 0:
        return False
    return all(type(key) is str and (_is_plain_section(inner, levels - 1) if isinstance(inner, dict) else all(
        type(one) in (str, int, float, bool, type(None)) for one in (inner if type(inner) is list else [inner])))
        for key, inner in value.items())


def load_weights(module, state_dict, source):
    """Strict loading; `source` (a file name) is what the error names.

    Raises ValueError with the first five names of every kind of difference and the likely reason.
    """
    if not isinstance(state_dict, dict):
        raise ValueError(f"{source}: expected named weights, found {type(state_dict).__name__}")
    own = module.state_dict()
    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    shapes = [f"{name} {_shape(state_dict[name])}, expected {_shape(own[name])}"
              for name in own if name in state_dict and _shape(state_dict[name]) != _shape(own[name])]
    if missing or unexpected or shapes:
        lines = [_listing("missing", missing), _listing("unexpected", unexpected), _listing("of another shape", shapes)]
        raise ValueError(f"{source}: these weights do not fit the model.\n" + "".join(lines)
                         + "  " + _likely_reason(missing, unexpected))
    _require_same_hashes(own, state_dict, source)
    try:
        broken = [name for name, value in state_dict.items() if own[name].is_floating_point() and not (
            value.is_floating_point() and value.to(own[name].dtype).isfinite().all())]
    except UNREADABLE:
        broken = []                      # sparse or quantised: loading will say so
    if broken:
        raise ValueError(f"{source}: {len(broken)} of {len(own)} weights hold NaN, infinity or no real numbers, first "
                         f"{broken[0]} ({state_dict[broken[0]].dtype}).\n"
                         "  Its training went wrong, or the file was changed: take an earlier checkpoint")
    try:
        module.load_state_dict(state_dict, strict=True)
    except UNREADABLE as error:          # sparse or quantised tensors, odd metadata
        raise ValueError(f"{source}: these weights cannot be loaded ({_in_short(error)}).\n"
                         "  Take a file of train.py or tools/convert_released.py") from error


def _require_same_hashes(own, state_dict, source):
    """A tensor NAME.sha256 stands for frozen public weights that no checkpoint holds: they have to be the same."""
    for name in own:
        there = state_dict[name]
        if name.endswith(".sha256") and not (there.dtype is torch.uint8 and there.layout is torch.strided
                                             and torch.equal(own[name].cpu(), there)):
            here = bytes(own[name].tolist()).hex()[:12]
            raise ValueError(f"{source}: its {name} is another one than that of backbone.name and backbone.weights "
                             f"here ({here}...): it was trained on other frozen weights, which checkpoints leave out.\n"
                             "  Name the network and the weights of its training (config.yaml beside it)")


def _require_plain(value, where):
    """Our own mistake, found when saving rather than when somebody resumes."""
    if type(value) in (dict, OrderedDict):
        for key, inner in value.items():
            _require_plain(key, f"{where}, a key")
            _require_plain(inner, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, inner in enumerate(value):
            _require_plain(inner, f"{where}[{index}]")
    elif not (isinstance(value, torch.Tensor) or type(value) in (str, int, float, bool, type(None))):
        raise TypeError(f"{where} is a {type(value).__name__}; checkpoints hold dicts, lists, tensors, text and "
                        "numbers only (utils.config.to_dict turns a config into dicts)")


def _why_unreadable(path, error):
    with open(path, "rb") as file:
        start = file.read(4)
    if not start:
        return f"{path}: the file is empty; it was not written to its end. Copy or train it again"
    if start.startswith(b"PK") and not _is_whole_zip(path):
        return f"{path}: the file is cut off or damaged (its end is missing). Copy or download it again"
    if isinstance(error, UnpicklingError) and "unsupported global" in str(error).lower():
        return (f"{path}: the file holds Python objects besides weights, which could run code; it is not loaded.\n"
                "  Save its state_dict() alone, or take a file from a source that does")
    return f"{path}: not a checkpoint, or a damaged one ({type(error).__name__} while reading). Copy it again"


def _in_short(error):
    return f"{type(error).__name__}: {error}"[:300]


def _is_whole_zip(path):
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:           # Python raises it here for some damaged endings
        return False


def _shape(value):
    return tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__


def _listing(kind, names, most=5):
    if not names:
        return ""
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return f"  {len(names)} {kind}: {', '.join(map(str, names[:most]))}{rest}\n"


def _likely_reason(missing, unexpected):
    if any(str(name).endswith(".sha256") for name in unexpected):
        return ("The checkpoint leaves out a frozen backbone with public weights: give its backbone.name, and "
                "backbone.weights=timm or its file")
    if any(str(name).endswith(".sha256") for name in missing):
        return "The checkpoint holds its backbone itself: give its backbone.name, and backbone.weights=none"
    if any(str(name).startswith(RELEASED_NAMES) for name in unexpected):
        return "The names are those of the released code: convert the file with tools/convert_released.py"
    found, first = list(map(str, unexpected)), str(next(iter(missing), ""))
    prefix = next((name.removesuffix(first) for name in found if first and name.endswith(first)), "")
    if prefix and all(name.startswith(prefix) for name in found):
        wrapped = prefix.rstrip(".")[:80]
        return f"The names begin with '{prefix[:80]}': save the state_dict() of the wrapped module (model.{wrapped})"
    for mark in ("_orig_mod.", "module."):
        if missing and {name.replace(mark, "") for name in found} == set(missing):
            return f"The names hold '{mark}': save the state_dict() of the model before parts of it are wrapped"
    if {"model", "config"} <= set(map(str, unexpected)):
        return "This is a whole checkpoint: the weights are its entry 'model'"
    if missing or unexpected:
        return "They belong to another model or config: give the --config they were trained with"
    return "The names fit, the sizes do not: give the --config they were trained with (model.dim, data.size, ...)"
