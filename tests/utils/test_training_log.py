"""What a training writes down: events have the numbers of log.jsonl, and pages are written seldom."""
import logging
import sys

import pytest

from utils.records import JsonLines, read_json_lines
from utils.training import log as events


def test_drawing_is_due_at_the_end_and_every_few_minutes(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    with events.TrainingLog(tmp_path / "log.jsonl") as log, events.TrainingLog(None) as other_process:
        assert not log.drawing_is_due(at_end=False) and log.drawing_is_due(at_end=True)
        now[0] += 60 * events.MINUTES
        assert log.drawing_is_due(at_end=False) and not log.drawing_is_due(at_end=False)
        assert not other_process.drawing_is_due(at_end=True)


class Writer:
    """Stands for TensorBoard's SummaryWriter."""
    made = []

    def __init__(self, folder, purge_step=None):
        self.folder, self.purge_step, self.scalars = folder, purge_step, []
        self.made.append(self)

    def add_scalar(self, name, value, step):
        if name == "train/broken":
            raise OSError("disk full")
        self.scalars.append((name, value, step))

    def flush(self):
        pass

    close = flush


@pytest.fixture
def writers(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", type(sys)("fake"))
    sys.modules["torch.utils.tensorboard"].SummaryWriter = Writer
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def test_events_have_loss_terms_rate_and_validation(tmp_path, writers):
    with events.TrainingLog(tmp_path / "log.jsonl") as log:
        log.append({"step": 3, "epoch": 0, "losses": {"a": 1.0, "b": 2.0}, "iou": 0.5, "lr": 0.1, "grad_norm": None})
        log.append({"step": 4, "epoch": 1, "videos": 9, "validation": {"j": 0.7}})
    assert writers[0].scalars == [("loss/a", 1.0, 3), ("loss/b", 2.0, 3), ("loss/sum", 3.0, 3), ("train/iou", 0.5, 3),
                                  ("train/lr", 0.1, 3), ("validation/j", 0.7, 4)]
    with events.TrainingLog(tmp_path / "log.jsonl"):
        pass
    assert writers[0].purge_step is None and writers[1].purge_step == 5       # continued: what comes later is replaced


def test_events_that_fail_leave_the_log_whole(tmp_path, writers, caplog):
    with events.TrainingLog(tmp_path / "log.jsonl") as log:
        log.append({"step": 1, "broken": 1})
        log.append({"step": 2, "lr": 1})
    assert len(read_json_lines(tmp_path / "log.jsonl")) == 2
    assert not writers[0].scalars and caplog.text.count("no more events") == 1


def test_without_tensorboard_or_path_there_are_no_events(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    caplog.set_level(logging.INFO)
    with events.TrainingLog(tmp_path / "log.jsonl") as log, events.TrainingLog(None) as none:
        log.append({"step": 1})
        none.append({"step": 1})
    assert not caplog.records and [file.name for file in tmp_path.iterdir()] == ["log.jsonl"]


def test_tensorboard_reads_the_events(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with events.TrainingLog(tmp_path / "log.jsonl") as log:
        log.append({"step": 3, "losses": {"a": 1.5}})
    found = reader.EventAccumulator(str(tmp_path / events.FOLDER)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss/a")] == [(3, 1.5)]
    assert isinstance(log, JsonLines)


def test_log_file_gets_a_line_a_minute_where_the_bar_is_hidden(monkeypatch, caplog):
    caplog.set_level("INFO", "vipmt")
    with events.StepBar(0, "fold 1", main=True) as bar:
        bar.of(20)
        bar.step({"losses": {"final": 1.0}, "iou": 0.5}, 8.0)
        monkeypatch.setattr(bar.minute, "over", lambda: True)
        bar.step({"losses": {"final": 0.5, "initial": 0.25}, "iou": 0.5}, 8.0)
    assert [r.message for r in caplog.records] == ["fold 1: step 2 of 20, loss 0.750, iou 0.500, 8.0 samples/s"]
