"""DAN's released numbers (tests/parity/dan, cut from those that the published code produced) against ours."""
from pathlib import Path

import numpy as np
import pytest

from tools.workshop import check_parity

FOLDER = Path(__file__).parents[1] / "parity" / "dan"
GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "parity" / "dan"


@pytest.mark.parametrize("case", ["b", "online_a"])     # seconds: the whole ResNet forwards and backwards
def test_released_numbers_are_reproduced(case, capsys):
    code = check_parity.main([str(FOLDER), "--dtype", "float32", "--cases", case])
    printed = capsys.readouterr().out
    assert code == 0, printed
    compared = {line.split()[1] for line in printed.splitlines() if line.startswith(f"{case} ")}
    assert compared == set(np.load(FOLDER / f"{case}.npz").files)       # every array was really compared


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden vectors (../shared/parity) are not beside the project")
def test_compact_set_is_cut_from_the_golden_vectors():
    for case in ("b", "online_a"):
        full, compact = np.load(GOLDEN / f"{case}.npz"), np.load(FOLDER / f"{case}.npz")
        for name in compact.files:
            value = compact[name]
            assert np.array_equal(value, full[name][:len(value)] if value.ndim else full[name]), name
