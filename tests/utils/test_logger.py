"""Logs survive interruptions and say what a run was."""
import json
import logging

import pytest

from utils.config import load_config, to_dict
from utils.logger import get_logger, setup_logger
from utils.records import JsonLines, describe_run, read_json_lines


def test_lines_are_on_disk_as_soon_as_they_are_appended(tmp_path):
    with JsonLines(tmp_path / "deep" / "a.jsonl") as log:
        for step in range(3):
            log.append({"step": step})
            assert read_json_lines(log.path)[-1] == {"step": step}


def test_torn_last_line_is_cut_off_and_the_rest_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]
    with JsonLines(path) as log:
        log.append({"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    path.write_text('{"only')
    JsonLines(path).close()
    assert path.read_text() == ""


def test_broken_line_inside_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_json_lines(path)
    with pytest.raises(FileNotFoundError):
        read_json_lines(tmp_path / "b.jsonl")


def test_messages_go_to_stderr_and_the_run_s_log(tmp_path, capsys):
    try:
        setup_logger(tmp_path).info("J %.1f", 50.6)
        logging.getLogger("dataloaders").warning("few videos")
        setup_logger(tmp_path)   # a second call adds no second handler
        get_logger().info("once")
        lines = (tmp_path / "run.log").read_text().splitlines()
        assert [line.split(" ", 2)[2] for line in lines] == ["J 50.6", "few videos", "once"]
        assert capsys.readouterr().err.count("J 50.6") == 1
        setup_logger(main=False).info("silent")
        assert "silent" not in capsys.readouterr().err
    finally:
        for handler in [h for h in logging.getLogger().handlers if getattr(h, "of_this_project", False)]:
            logging.getLogger().removeHandler(handler)
            handler.close()


def test_run_record_says_what_ran(tmp_path):
    cfg = load_config()
    record = describe_run(cfg, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == record
    assert record["seed"] == cfg.seed and record["versions"]["torch"] and record["command"]
    assert record["git"] is None or set(record["git"]) == {"commit", "dirty"}
    assert to_dict(load_config([tmp_path / "out" / "config.yaml"])) == to_dict(cfg)
