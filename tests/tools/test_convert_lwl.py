"""tools/convert_released.py --method lwl: published names and classes into ours, without running any of theirs."""
import json
import sys
import types
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tools.conversion.lwl import convert, our_name, read_released

NAMES = json.loads(Path("tests/parity/lwl/official_parameters.json").read_text())


def released_state(box=False):
    """Each tensor holds its place in the list; one number is stored for all of its entries"""
    return {one["name"]: torch.tensor(float(i)).expand(one["shape"]) if one["kind"] != "counter" else torch.tensor(0)
            for i, one in enumerate(NAMES) if box or not one["name"].startswith("box_label_encoder")}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Writes a file as the release does: weights beside objects of its classes"""
    module = types.ModuleType("ltr_settings")
    module.Settings = type("Settings", (), {"__module__": "ltr_settings", "__qualname__": "Settings"})
    module.Stats = type("Stats", (dict,), {"__module__": "ltr_settings", "__qualname__": "Stats"})
    monkeypatch.setitem(sys.modules, "ltr_settings", module)

    def write(state, **options):
        settings = module.Settings()
        settings.batch_size = 20
        path = tmp_path / "lwl_stage2.pth"
        content = {"epoch": 80, "settings": settings, "stats": module.Stats(loss=[1.0]), "net": state}
        torch.save(content, path, **options)
        monkeypatch.delitem(sys.modules, "ltr_settings")
        return path

    return write


@pytest.mark.parametrize("box, zipped", [(False, True), (True, False)])
def test_every_published_tensor_has_its_place(published, box, zipped):
    state, cfg = convert(published(released_state(box), _use_new_zipfile_serialization=zipped))
    assert cfg.model.box_encoder == box and cfg.backbone.flavour == "caffe2"
    for name, tensor in released_state(box).items():
        assert torch.equal(state[our_name(name)], tensor)
    assert state["decoder.levels.layer3.before.block.0.weight"].shape == (128, 128, 3, 3)


def test_foreign_code_does_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"net": {}, "settings": Trap()}, tmp_path / "trap.pth")
    with suppress(ValueError):
        read_released(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("change, message", [
    (lambda state: state | {"feature_extractor2.x": torch.zeros(1)}, "no such parameter"),
    (lambda state: {k: v for k, v in state.items() if not k.startswith("decoder.TSE")}, "missing"),
    (lambda state: {"net": 1}, "no weights")])
def test_other_files_are_refused(published, change, message):
    with pytest.raises(ValueError, match=message):
        convert(published(change(released_state())))
