"""What check_parity asks of a method: a file of this folder under the method's name, with three names in it.

CASES    {regular expression of a golden file's name, without suffix: function(Case) -> {golden name: Found}}
INPUTS   regular expressions of golden names that are inputs or facts about them: not results, so not compared
SOURCES  files of the folder that the functions themselves read

A function gives whole arrays; check_parity samples them, sums them up, unpacks masks and compares.
"""
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limit:
    """Largest deviation of each element: rms * (the golden array's rms) + value * |golden element|

    flips: instead, how many elements may differ; of a Found with a threshold: how many may lie on its other side
    """
    rms: float = 0.0
    value: float = 0.0
    flips: int = 0


@dataclass
class Found:
    """What a method computes under a golden name.

    value: array or tensor, whole, also where the file holds NAME_sample or NAME_summary of it; limit: a Limit
    keep: positions that count, of value's shape; scale: another rms to measure by; threshold: what is compared, too, is
    which elements reach it
    """
    value: object
    limit: Limit
    keep: object = None
    scale: float = None
    threshold: float = None
    sampled: bool = False


def take_inputs_as_they_are(backbone, dtype):
    """Golden images are what the first convolution sees: a models.backbone.Backbone that no longer normalises"""
    import torch  # only here: check_parity answers --help before PyTorch is loaded
    backbone.mean, backbone.std = torch.zeros(1, dtype=dtype), torch.ones(1, dtype=dtype)


@dataclass
class Case:
    """One golden case: `arrays` of NAME.npz, and the numbers of NAME.json as arrays under their paths"""
    name: str
    folder: Path
    fill: object
    dtype: str
    arrays: dict

    @property
    def letter(self):
        """'a' of eval_a"""
        return self.name.partition("_")[2]
