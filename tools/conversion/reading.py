"""Published checkpoints, read without their code.

Beside the weights their files hold objects of their own classes. Nothing of these is imported or run: where the safe
loader meets such a class, it gets one without content.
"""
import re
from collections import OrderedDict
from pickle import UnpicklingError

import torch

MOST = 100               # classes of theirs that a file may name
UNKNOWN = re.compile(r"GLOBAL (\S+) was not an allowed global")


class Stranger:
    """In place of a class of theirs: its objects are dictionaries, which the safe loader fills."""

    def __new__(cls, *args, **kwargs):
        return OrderedDict()


def read_released(path, entry="net"):
    """A published file, the entry of its weights  ->  {released name: tensor}

    ValueError: not a file that PyTorch reads, or one without weights
    """
    strangers = {}
    for _ in range(MOST):
        with torch.serialization.safe_globals([(one, name) for name, one in strangers.items()]):
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
                break
            except (UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
                name = UNKNOWN.search(str(error))
                if name is None or name[1] in strangers:
                    why = str(error).rpartition("error:")[2].strip().partition("\n")[0][:200] or type(error).__name__
                    raise ValueError(f"{path}: cannot be read ({why}).\n"
                                     "  Download it again from the page of the release") from None
                strangers[name[1]] = type(name[1], (Stranger,), {})
    else:
        raise ValueError(f"{path}: names more than {MOST} classes, not a checkpoint of the release")
    state = content.get(entry, content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise ValueError(f"{path}: no weights in it (entry {entry!r}).\n  Give a checkpoint of the release")
    return state
