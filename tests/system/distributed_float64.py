"""train.py in double precision, for test_distributed.py: Adam turns rounding of vanishing gradients into steps."""
import sys
from dataclasses import fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

import train  # noqa: E402
from dataloaders.episode import EpisodeBatch

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    moved = EpisodeBatch.to

    def to_double(batch, device):
        batch = moved(batch, device)
        tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
        return replace(batch, **{k: v.double() for k, v in tensors.items()
                                 if isinstance(v, torch.Tensor) and v.is_floating_point()})
    EpisodeBatch.to = to_double
    train.main()
