"""The project root on the path, one thread, no display: what every test needs."""
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.chdir(ROOT)      # paths in config files are relative to the root
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")     # two processes of one thread each: waiting threads would spin

import pytest  # noqa: E402


@pytest.fixture
def double():
    """Double precision, from one seed."""
    import torch
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def exact(double):
    """The same without gradients: for comparisons with loops written from the equations."""
    import torch
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory):
    """A small synthetic data set: 16 categories, 2 videos made for each, 8 frames of 48 x 80."""
    from tools.demo_data.ytvis import write_demo_data
    root = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(root, videos_per_category=2, size=(48, 80), frames=(8, 8))
    return root
