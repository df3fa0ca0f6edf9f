"""What processes of one run compare at their start."""
import pytest

from utils import records


@pytest.mark.parametrize("key, other", [("data", {"sha256": "1"}), ("code", "1"), ("config", {"a": 2}),
                                        ("versions", {"torch": "0"})])
def test_processes_that_differ_are_named(monkeypatch, key, other):
    monkeypatch.setattr(records, "gather_objects", lambda own: [own, own, own | {key: other}])
    with pytest.raises(ValueError, match=f"process 2 was started with another {key} than process 0: .*1|2|0"):
        records.require_agreement(data={"sha256": "0"}, config={"a": 1})


def test_one_process_agrees_with_itself():
    records.require_agreement(data={"sha256": "0"})
