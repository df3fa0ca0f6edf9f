"""tools/convert_released.py --method cma: every published tensor finds its place, what is not needed is left out."""
import argparse
import json
from pathlib import Path

import pytest
import torch

from tools.conversion.cma import convert

ENTRIES = json.loads(Path("tests/parity/cma/official_parameters.json").read_text())["state_dict"]


def published(path, **more):
    """A file as the release saves one, each tensor one number for all of its entries"""
    state = {one["name"]: torch.tensor(float(i)).expand(one["shape"]) for i, one in enumerate(ENTRIES)}
    torch.save({"model": state | more, "epoch": 9, "args": argparse.Namespace(lr=1e-4, batch_size=1)}, path)
    return path, state


def test_every_published_tensor_has_its_place(tmp_path):
    path, given = published(tmp_path / "checkpoint.pth", **{"text_encoder.embeddings.word.weight": torch.ones(3, 2)})
    state, cfg = convert(path)
    assert cfg.model.broadcast_anchors and not any("text_encoder" in name for name in state)
    kept = {one["name"] for one in ENTRIES if "same_as" not in one and "support_qkv.query." not in one["name"]}
    found = sorted(value.flatten()[0].item() for name, value in state.items() if "num_batches_tracked" not in name)
    assert found == sorted(given[name].flatten()[0].item() for name in kept)
    assert torch.equal(state["project.1.0.weight"], given["input_proj.1.0.weight"])
    assert torch.equal(state["decoder.boxes.3.4.bias"], given["bbox_embed.3.layers.2.bias"])


def test_another_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match="transformer.more.weight: no such parameter in the released network"):
        convert(published(tmp_path / "checkpoint.pth", **{"transformer.more.weight": torch.ones(1)})[0])
