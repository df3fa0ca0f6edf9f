"""The project root as folder, one thread, no display: what every test needs; and what many of them share."""
import os
from pathlib import Path

os.chdir(Path(__file__).resolve().parents[1])      # paths in config files are relative to the root
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")     # two processes of one thread each: waiting threads would spin

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def own_messages():
    """Handlers that a command has set up end with its test: they write to a standard error that is closed by then."""
    yield
    from utils.logger import remove_handlers
    remove_handlers()


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


@pytest.fixture
def no_pages(monkeypatch):
    """train.py and test.py without report.html; demo_run has it."""
    import test
    import train
    for script in (train, test):
        monkeypatch.setattr(script, "refresh_report", lambda *_, **__: None)


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory):
    """A small synthetic data set: 16 categories, 2 videos made for each, 8 frames of 48 x 80."""
    from tools.demo_data.ytvis import write_demo_data
    root = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(root, videos_per_category=2, size=(48, 80), frames=(8, 8))
    return root


@pytest.fixture(scope="session")
def demo_run(demo_root, tmp_path_factory):
    """The folder of train.py after two short epochs on fold 1 of demo_root, with material.TINY; to be read only."""
    from material import TINY, command

    import train
    output = tmp_path_factory.mktemp("demo_run") / "fold1"
    with pytest.MonkeyPatch.context() as patch:
        command(patch, train, "--fold", 1, "--output", output, f"data.root={demo_root}", *TINY)
    return output
