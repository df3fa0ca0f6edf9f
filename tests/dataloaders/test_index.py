"""Every index offers all that the protocol names, so that nobody asks which index it is."""
import inspect
import re
from pathlib import Path

import pytest
from material import FakeIndex

from dataloaders.datasets.coco20i import Coco20iIndex
from dataloaders.datasets.index import Index
from dataloaders.datasets.minivspw import MiniVSPWIndex
from dataloaders.datasets.ytvis import YouTubeVISIndex

ROOT = Path(__file__).resolve().parents[2]
METHODS = {name: method for name, method in vars(Index).items()
           if inspect.isfunction(method) and not name.startswith("_")}


@pytest.mark.parametrize("kind", [YouTubeVISIndex, Coco20iIndex, MiniVSPWIndex, FakeIndex])
def test_every_index_has_every_method_with_its_arguments(kind):
    assert len(METHODS) == 12
    for name, method in METHODS.items():
        assert len(inspect.signature(getattr(kind, name)).parameters) == len(inspect.signature(method).parameters), name


def test_samplers_do_not_ask_which_index_it_is():
    for path in (ROOT / "dataloaders").rglob("*.py"):
        assert not re.search(r"isinstance\([^)]*Index|(getattr|hasattr)\((self\.)?index", path.read_text()), path
