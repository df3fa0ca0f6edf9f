"""CMA's released numbers (tests/parity/cma, cut from those that the published code produced) against ours; all of them:
python -m tools.workshop.check_parity FOLDER"""
from pathlib import Path

import numpy as np
import pytest

from tools.workshop import check_parity
from tools.workshop.parity import cma

FOLDER = Path(__file__).parents[1] / "parity" / "cma"
GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "parity" / "cma"
CASES = ["train_u_fixed", "eval_a_fixed"]


@pytest.mark.parametrize("case", CASES)         # seconds: the whole ResNet and 30 M weights made by formula
def test_released_numbers_are_reproduced(case, capsys):
    code = check_parity.main([str(FOLDER), "--dtype", "float32", "--cases", case])
    printed = capsys.readouterr().out
    assert code == 0, printed
    compared = {line.split()[1] for line in printed.splitlines() if line.startswith(f"{case} ")}
    assert compared == set(np.load(FOLDER / f"{case}.npz").files) - {"limit", "min_margin"}     # nothing is left out


def test_every_released_name_has_one_of_ours():
    with pytest.raises(ValueError, match="no such parameter"):
        cma.our_name("transformer.other.weight")
    assert cma.our_name("pixel_decoder.cross_attn_4.linear2.bias") == "pixel_decoder.stages.0.block.ffn.3.bias"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden vectors (../shared/parity) are not beside the project")
def test_compact_set_is_cut_from_the_golden_vectors():
    for case in CASES:
        full, compact = np.load(GOLDEN / f"{case}.npz"), np.load(FOLDER / f"{case}.npz")
        assert all(np.array_equal(compact[name], full[name]) for name in compact.files)
