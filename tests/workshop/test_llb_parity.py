"""Numbers of LLB's release (tests/parity/llb, part of the golden vectors) against ours; the whole set, with training
steps and trackers: python -m tools.workshop.check_parity FOLDER
"""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.llb.build import parameter_groups
from tools.workshop import check_parity
from tools.workshop.parity import llb, lwl

FOLDER = Path(__file__).parents[1] / "parity" / "llb"
GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "parity" / "llb"


def test_every_module_of_the_release_is_reproduced(capsys):
    code = check_parity.main([str(FOLDER), "--dtype", "float64"])
    printed = capsys.readouterr().out
    assert code == 0, printed
    golden = np.load(FOLDER / "modules.npz")
    assert {line.split()[1] for line in printed.splitlines() if line.startswith("modules ")} == set(golden.files)


def test_every_released_name_has_one_of_ours_and_stages_train_the_same():
    entries = [one for one in json.loads((FOLDER / llb.SOURCES[0]).read_text()) if one["kind"] != "counter"]
    names = llb.our_names(one["name"] for one in entries)
    assert {one["name"] for one in entries} - set(names) == {
        one["name"] for one in entries if one.get("unused") or ".WV." in one["name"]}
    with torch.device("meta"):
        own = llb.LLB(llb.Pyramid(trained=True))
    state = {name for name in own.state_dict() if not name.endswith("num_batches_tracked")}
    assert set(names.values()) == state
    for stage, count in ((1, 421), (2, 547)):
        own.backbone.requires_grad_(False)
        for part in own.backbone.stages[1:] if stage == 2 else ():
            getattr(own.backbone.body, part).requires_grad_(True)
        ours = {p for group in parameter_groups(own, llb.settings()) for p in group["params"]}
        trained = {names[one["name"]] for one in entries if stage in one["trained_in_stage"]}
        assert len(trained) == count and {own.get_parameter(name) for name in trained} == ours


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden vectors (../shared/parity/llb) are not beside the project")
def test_first_frames_of_a_released_track_have_its_labels(monkeypatch):
    """Four of nine, of one object, the third into memory; the whole track takes a quarter of a minute."""
    fill = check_parity.load_fill(GOLDEN)
    case = check_parity.read_case("track_late", GOLDEN, fill, "float32")
    fill.TRACK_CASES["late"]["video"]["frames"] = 4
    del fill.TRACK_CASES["late"]["first"][4]
    seen = []
    monkeypatch.setattr(lwl, "compared", lambda case, watched, *_: seen.extend(watched.labels))
    with torch.no_grad():
        llb.tracking(case)
    assert all((ours == golden).mean() > 0.9995 for ours, golden in zip(seen, case.arrays["labels"][:4], strict=True))
