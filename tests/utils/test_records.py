"""What processes of one run compare at their start."""
import json

import pytest

from utils import records
from utils.config import load_config


@pytest.mark.parametrize("key, other", [("data", {"sha256": "1"}), ("code", "1"), ("config", {"a": 2}),
                                        ("versions", {"torch": "0"})])
def test_processes_that_differ_are_named(monkeypatch, key, other):
    monkeypatch.setattr(records, "gather_objects", lambda own: [own, own, own | {key: other}])
    with pytest.raises(ValueError, match=f"process 2 was started with another {key} than process 0: .*1|2|0"):
        records.require_agreement(data={"sha256": "0"}, config={"a": 1})


def test_one_process_agrees_with_itself():
    records.require_agreement(data={"sha256": "0"})


@pytest.mark.parametrize("content", [b"[]", b"1", b"null", b"\xff", b'{"a":' * 3000, b'{"earlier": 1}'])
def test_a_run_json_that_is_something_else_is_written_anew(tmp_path, content):
    cfg = load_config(["config/demo/ytvis.yaml"])
    (tmp_path / "run.json").write_bytes(content)
    assert records.describe_run(cfg, tmp_path)["earlier"] == []
    assert json.loads((tmp_path / "run.json").read_text())["name"] == cfg.name
