"""Numbers of LWL's release (tests/parity/lwl, part of the golden vectors) against ours; the whole set, with training
steps and trackers: python -m tools.workshop.check_parity FOLDER
"""
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.workshop import check_parity
from tools.workshop.parity import Case, lwl

FOLDER = Path(__file__).parents[1] / "parity" / "lwl"
GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "parity" / "lwl"


def test_every_part_of_the_release_is_reproduced(capsys):
    code = check_parity.main([str(FOLDER), "--dtype", "float64"])
    printed = capsys.readouterr().out
    assert code == 0, printed
    golden = np.load(FOLDER / "units_a.npz")
    assert {line.split()[1] for line in printed.splitlines() if line.startswith("units_a ")} == set(golden.files)


def test_every_released_name_has_one_of_ours():
    fill = check_parity.load_fill(FOLDER)
    case = Case("units_a", FOLDER, fill, "float32", {})
    names = fill.official_arrays(FOLDER / lwl.SOURCES[0], box=True)
    assert len({lwl.our_name(name) for name in names}) == len(names)
    model = lwl.released_model(case, box=True)                 # strict: every name is there
    assert sum(p.numel() for name, p in model.named_parameters() if not name.startswith("box")) == 36_658_722
    with pytest.raises(ValueError, match="no such parameter"):
        lwl.our_name("decoder.other.weight")


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden vectors (../shared/parity/lwl) are not beside the project")
def test_first_frames_of_a_released_track_have_its_labels(monkeypatch):
    """Three of nine, of one object; the whole track takes a quarter of a minute."""
    fill = check_parity.load_fill(GOLDEN)
    case = check_parity.read_case("track_late", GOLDEN, fill, "float32")
    fill.TRACK_CASES["late"]["video"]["frames"] = 3
    del fill.TRACK_CASES["late"]["first"][4]
    seen = []
    monkeypatch.setattr(lwl, "compared", lambda case, watched: seen.extend(watched.labels))
    with torch.no_grad():
        lwl.tracking(case)
    assert all((ours == golden).all() for ours, golden in zip(seen, case.arrays["labels"][:3], strict=True))
