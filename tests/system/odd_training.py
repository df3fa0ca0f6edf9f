"""train.py for test_distributed.py, as environment variables say.

DOUBLE: in double precision, since Adam turns the rounding of vanishing gradients into steps
OTHER: a word that the last process has more on its command line
KILL_AT: the last process kills itself before its n-th step, in the first start of torchrun only
"""
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

import train  # noqa: E402
from dataloaders.episode import Batch

if __name__ == "__main__":
    moved, honest, steps = Batch.to, train.optimise, []

    def to_double(batch, device):
        batch = moved(batch, device)
        return replace(batch, support_images=batch.support_images.double(), query_images=batch.query_images.double())

    def killed(*arguments):
        steps.append(1)
        if len(steps) == int(os.environ["KILL_AT"]) and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(*arguments)

    if "DOUBLE" in os.environ:
        torch.set_default_dtype(torch.float64)
        Batch.to = to_double
    if "KILL_AT" in os.environ and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        train.optimise = killed
    if os.environ.get("RANK") == "1":
        sys.argv += os.environ.get("OTHER", "").split()
    train.refresh_report = lambda *_: None
    train.main()
