"""Checkpoints for tools/workshop/fuzz.py: a correct one in, a hostile or broken one out, as in fuzz_mutations.py."""
import builtins
import io
import os
import pickle
import zipfile
from collections import OrderedDict

import torch

from tools.workshop.fuzzing.mutations import any_bytes, change_somewhere


def any_checkpoint(rng, data):
    """Other bytes, a pickle that runs code or was damaged, or a whole checkpoint with other content"""
    kind = rng.randrange(4)
    if kind == 0:
        return any_bytes(rng, data)
    if kind == 1:
        file = io.BytesIO()
        torch.save(torch.load(io.BytesIO(data), weights_only=True), file, _use_new_zipfile_serialization=False)
        how, content = any_bytes(rng, file.getvalue())
        return f"old format, {how}", content
    if kind == 2:
        codes = [*code_pickles(), deep_pickle(rng.choice((100, 5000, 100_000)))]
        number = rng.randrange(2 * len(codes))
        if number < len(codes):
            return f"code {number}", rng.choice((codes[number], with_pickle(data, codes[number])))
        how, content = any_bytes(rng, pickle_of(data))
        return f"its pickle: {how}", with_pickle(data, content)
    return odd_content(rng, data)


TENSORS = (
    lambda: torch.zeros(4, 4), lambda: torch.zeros(1).expand(100_000, 100_000), lambda: torch.zeros(4, 3).to_sparse(),
    lambda: torch.zeros(4, 3, device="meta"), lambda: torch.zeros(4, 3, dtype=torch.complex64),
    lambda: torch.quantize_per_tensor(torch.zeros(4, 3), 0.1, 0, torch.qint8), lambda: torch.zeros(()),
    lambda: torch.zeros(4, 3, dtype=torch.bool), lambda: torch.full((4, 3), float("nan")),
    lambda: torch.zeros(4, 3, dtype=torch.float8_e4m3fn), lambda: torch.zeros(1).expand(4, 3))


def odd_content(rng, data):
    """A whole checkpoint that says something else: wrong types, shapes and kinds of tensors."""
    state = torch.load(io.BytesIO(data), weights_only=True)
    state.pop("sha256", None)
    circle = {}
    circle["model"] = circle
    values = (None, 5, "text", [], {}, [1, 2], circle, OrderedDict(), b"bytes", 1 + 2j, {1: 2}, torch.Size([1]))
    weights, how = state["model"], rng.choice(("weight", "entry", "key", "metadata", "extra", "config", "checksum",
                                               "anywhere", "anywhere"))
    value = rng.choice(TENSORS)() if rng.random() < 0.6 else rng.choice(values)
    if how == "weight":
        weights[rng.choice(list(weights))] = value
    elif how == "key":
        weights[rng.choice((1, None, "0.weight ", "module.0.weight", ("a",)))] = value
    elif how == "metadata":
        weights._metadata = rng.choice((value, {"": value}, {"": {"version": value}}))
    elif how == "anywhere":
        how = change_somewhere(rng, state)
    elif how == "config":
        state["config"] = rng.choice(({"data": value}, {"memory": {"length": value}}, value))
    elif how == "checksum":
        state["sha256"] = rng.choice((value, "0" * 64))
    else:
        state[rng.choice(list(state)) if how == "entry" else rng.choice(("x", 1, ""))] = value
    file = io.BytesIO()
    torch.save(rng.choice((state, state, state, value)), file)
    return f"{how}: {type(value).__name__}", file.getvalue()


# -- pickles ---------------------------------------------------------------------------------------------------------

class Code:
    """Whoever unpickles this calls the function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def with_pickle(data, content):
    """A file of torch.save with its pickle replaced by the bytes `content`."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for entry in source.infolist():
            archive.writestr(entry.filename, content if entry.filename.endswith("data.pkl") else source.read(entry))
    return target.getvalue()


def pickle_of(data):
    """The pickle in a file of torch.save"""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def deep_pickle(levels):
    """{"model": [[[...]]]}, which pickle itself would not write"""
    return b"\x80\x02}X\x05\0\0\0model" + b"]" * levels + b"a" * (levels - 1) + b"s."


def code_pickles(mark="../outside/code"):
    """Pickles that write the file `mark` when they are loaded by one who runs code."""
    return [pickle.dumps({"model": Code(*call)}, protocol=2) for call in (
        (os.system, f"touch {mark}"), (builtins.exec, f"open({mark!r}, 'w')"), (builtins.eval, f"open({mark!r}, 'w')"),
        (open, mark, "w"), (os.mkdir, mark))] + [
        b"cos\nsystem\n(S'touch " + mark.encode() + b"'\ntR.", b"\x80\x02cbuiltins\nexec\n(X\x01\0\0\0xtR."]
