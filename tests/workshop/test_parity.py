"""The released network's numbers (tests/parity, made with the released code) against ours, in float32.

tools/workshop/check_parity.py runs the same on any folder of golden files, in float64 as well.
"""
import json
from pathlib import Path

import pytest
import torch

from tools.convert_released import convert, name_table
from tools.workshop import check_parity
from utils.checkpoint import load_checkpoint

FOLDER = Path(__file__).parents[1] / "parity"
GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "parity"


def run(folder, *arguments, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["check_parity.py", str(folder), *arguments])
    code = check_parity.main()
    return code, capsys.readouterr().out


@pytest.mark.parametrize("case", ["e", "f"])
def test_released_forward_pass_is_reproduced(case, capsys, monkeypatch):
    code, printed = run(FOLDER, "--dtype", "float32", "--cases", case, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0, printed
    for tensor in ("prior", "proto_memory", "frame_logits", "out_full", "ssm", "score", "mask"):
        assert f"{case}  {tensor}" in printed      # every part was really compared


def test_wrong_weights_are_noticed(capsys, monkeypatch):
    """The check can fail: swap two weights of the same shape and it does."""
    honest = check_parity.convert

    def swapped(state, back=False):
        state = honest(state, back)
        a, b = "layers.0.clip_attention.to_v.weight", "layers.0.frame_attention.to_v.weight"
        state[a], state[b] = state[b], state[a]
        return state
    monkeypatch.setattr(check_parity, "convert", swapped)
    code, printed = run(FOLDER, "--dtype", "float32", "--cases", "f", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 1 and "FAIL" in printed


def test_every_released_name_converts_there_and_back():
    names = [entry["name"] for entry in json.loads((FOLDER / "official_parameters.json").read_text())]
    ours = name_table(names)
    assert len(set(ours.values())) == len(names) == 565
    assert name_table(ours.values(), back=True) == {v: k for k, v in ours.items()}
    state = {name: torch.full((2,), float(i)) for i, name in enumerate(names)}
    again = convert(convert(state), back=True)
    assert list(again) == names and all(torch.equal(again[n], state[n]) for n in names)


def test_foreign_checkpoint_is_refused_by_name():
    with pytest.raises(ValueError, match="encoder.weight: not a name of a released VIPMT"):
        convert({"encoder.weight": torch.zeros(1)})


def test_conversion_writes_a_checkpoint_that_our_model_loads(tmp_path, monkeypatch):
    from models import get_method
    from tools import convert_released
    from utils.checkpoint import save_checkpoint
    from utils.config import load_config
    entries = json.loads((FOLDER / "official_parameters.json").read_text())
    small = {e["name"]: torch.zeros(e["shape"]) for e in entries}
    small["prototype.weight" if "prototype.weight" in small else "transformer.prototype.weight"] += 3
    source, target = tmp_path / "released.pth", tmp_path / "ours.pth"
    save_checkpoint(source, small)
    monkeypatch.setattr("sys.argv", ["convert_released.py", str(source), str(target), "--fold", "2"])
    convert_released.main()
    checkpoint = load_checkpoint(target)
    model = get_method("vipmt").build(load_config(["config/vipmt/released.yaml"]))
    model.load_state_dict(checkpoint["model"], strict=True)
    assert checkpoint["fold"] == 2 and (model.prototype == 3).all()

    incomplete = {k: v for k, v in small.items() if k != "cls.3.bias"}
    save_checkpoint(source, incomplete)
    with pytest.raises(ValueError, match="final_classifier.3.bias"):
        convert_released.main()


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden vectors (../shared/parity) are not beside the project")
def test_compact_set_is_cut_from_the_golden_vectors():
    import numpy as np
    full, compact = np.load(GOLDEN / "eval_f.npz"), np.load(FOLDER / "eval_f.npz")
    fill = check_parity.load_fill(GOLDEN)
    assert np.array_equal(compact["frame_logits_sample"], fill.sample(full["frame_logits"], 256))
    assert np.array_equal(compact["score"], full["score"])
