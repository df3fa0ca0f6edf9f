"""The config: every mistake is found before the run, and named with file, key and fix."""
import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from utils import config
from utils.config import CHOICES, RANGES, SCHEMA, flatten, load_config, save_config, to_dict

ROOT = Path(__file__).resolve().parents[2]


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def message(*arguments):
    with pytest.raises(ValueError) as caught:
        load_config(*arguments)
    return str(caught.value)


def comments():
    """Key and comment of every line of the schema, read without the loader."""
    section = ""
    for line in SCHEMA.read_text().splitlines():
        match = re.match(r"( *)(\w+):([^#]*)(?:#\s*(.*))?$", line)
        if not match:
            continue
        indent, key, value, comment = match.groups()
        if not indent:
            section = "" if value.strip() else key + "."
        if value.strip():
            yield (section if indent else "") + key, comment or ""


def test_schema_comments_agree_with_choices():
    stated = {}
    for key, comment in comments():
        words = tuple(re.match(r"\w*", part).group() for part in comment.split(" | "))
        if len(words) > 1 and "file" not in words:   # `file`: any name will do
            stated[key] = words
    assert {k: set(v) for k, v in stated.items()} == {k: set(v) for k, v in CHOICES.items()}


def test_every_number_of_the_schema_has_a_range():
    numbers = {key for key, value in flatten(load_config()).items()
               if type(value) in (int, float) or isinstance(value, list)}
    assert numbers == set(RANGES)


def test_every_config_of_the_project_loads():
    """Private ones, config/local/, are their owner's matter; the papers' tables are no config."""
    for path in (ROOT / "config").rglob("*.yaml"):
        if path.relative_to(ROOT).parts[1] not in ("local", "paper_tables.yaml"):
            assert flatten(load_config([path])).keys() == flatten(load_config()).keys(), path


def test_memory_ablations_change_the_selection_and_nothing_else():
    """Not the name either: they are tests of the base run, whose checkpoint test.py finds by it."""
    files = sorted((ROOT / "config/vipmt/ablation").glob("memory_*.yaml"))
    changed = [config.differences(load_config(), load_config([path])) for path in files]
    assert [path.stem.removeprefix("memory_") for path in files] == [x["memory.select"][1] for x in changed]
    assert all(x.keys() == {"memory.select"} for x in changed)
    assert {x["memory.select"][1] for x in changed} | {"predicted"} == set(CHOICES["memory.select"])


def test_base_is_laid_first_and_numbers_keep_their_type(tmp_path):
    write(tmp_path, "a.yaml", "memory: {min_iou: 0.5, length: 3}\n")
    b = write(tmp_path, "b.yaml", "base: a.yaml\nmemory: {min_iou: 1}\n")
    cfg = load_config([b])
    assert cfg.memory.length == 3 and cfg.memory.min_iou == 1.0 and isinstance(cfg.memory.min_iou, float)
    assert cfg.data.shots == load_config().data.shots


def test_a_second_config_keeps_what_the_first_changed():
    cfg = load_config([ROOT / "config/vipmt/released.yaml"], ["model.frame_prototype=false"])
    assert cfg.model.prior == "cumulative" and cfg.model.frame_prototype is False
    assert load_config().model.prior == "per_frame", "a config loaded before must not change"


def test_a_shared_base_is_not_laid_over_an_earlier_file(tmp_path):
    write(tmp_path, "root.yaml", "seed: 1\nmemory: {length: 2}\n")
    first = write(tmp_path, "first.yaml", "base: root.yaml\nseed: 7\n")
    second = write(tmp_path, "second.yaml", "base: root.yaml\nmemory: {length: 4}\n")
    cfg = load_config([first, second])
    assert (cfg.seed, cfg.memory.length) == (7, 4)
    assert load_config([first, tmp_path / "root.yaml"]).seed == 1, "a file that is named itself counts"


def test_circular_base_is_refused(tmp_path):
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    b = write(tmp_path, "b.yaml", "base: a.yaml\n")
    assert "leads back to the same file" in message([b])


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*nowhere.yaml"):
        load_config([tmp_path / "nowhere.yaml"])
    a = write(tmp_path, "a.yaml", "base: gone.yaml\n")
    with pytest.raises(FileNotFoundError, match=r"a\.yaml: base: no file .*gone\.yaml"):
        load_config([a])


def test_unknown_key_suggests_the_nearest(tmp_path):
    path = write(tmp_path, "a.yaml", "memory: {min_io: 0.5}\n")
    assert message([path]) == f"{path}: memory: unknown key 'min_io'; did you mean 'min_iou'?"
    assert "unknown key 'modle'; did you mean 'model'?" in message((), ["modle.dim=3"])
    assert "did you mean 'memory.min_iou'?" in message((), ["model.min_iou=0.3"])
    assert "did you mean 'data.shots'?" in message((), ["shots=1"])


@pytest.mark.parametrize("override, parts", [
    ("train.lr=5e-4", ["expected a number, got '5e-4' (text)", "write 5.0e-4"]),
    ("train.lr=1E5", ["write 1.0e+5"]),
    ("train.lr=fast", ["expected a number, got 'fast'"]),
    ("train.lr=true", ["expected a number, got true"]),
    ("model.dim=384.0", ["model.dim: expected an integer, got 384.0"]),
    ("model.dim=true", ["expected an integer, got true (true or false)"]),
    ("backbone.trained=1", ["expected true or false, got 1"]),
    ("backbone.trained=yes", ["expected true or false, got 'yes'"]),
    ("name=3", ["expected text, got 3", "'3'"]),
    ("iou_net.weights=", ["expected text, got nothing", "none"]),
    ("data.size=240", ["expected a list of 2"]),
    ("data.size=[240]", ["expected a list of 2"]),
    ("data.size=[240, 424.0]", ["expected an integer, got 424.0"]),
    ("data.size=[240, 24]", ["data.size", "at least 32"]),
    ("memory=3", ["memory: expected a section with keys such as 'length', got 3"]),
    ("memory.min_iou=1.5", ["expected between 0 and 1, got 1.5"]),
    ("memory.min_iou=.nan", ["expected between 0 and 1, got nan"]),
    ("data.shots=0", ["expected at least 1, got 0"]),
    ("train.betas=[0.9, 2.0]", ["train.betas: expected between 0 and 1, got 2.0"]),
    ("model.prior=cumulativ", ["expected one of per_frame, cumulative, got 'cumulativ'; did you mean 'cumulative'?"]),
    ("model.dim=100", ["model.dim 100 is no multiple of model.heads 8"]),
    ("train.lr", ["cannot read 'train.lr'", "key.sub=value"]),
    ("data.root=[a", ["command line, data.root=[a"]),
])
def test_wrong_override_says_what_and_how_to_fix_it(override, parts):
    text = message((), [override])
    for part in parts:
        assert part in text


def test_dim_must_split_into_sines_and_cosines():
    assert "multiple of 4" in message((), ["model.dim=30", "model.heads=2"])


def test_trained_backbone_needs_one_graph_and_no_cache():
    assert "train.backward to once" in message((), ["backbone.trained=true"])
    assert "cache_frames" in message((), ["backbone.trained=true", "backbone.cache_frames=10"])
    assert load_config((), ["backbone.trained=true", "train.backward=once"]).backbone.trained


def test_off_is_a_word_and_not_false():
    assert load_config((), ["train.amp=off"]).train.amp == "off"


def test_duplicate_keys_are_refused_with_their_line(tmp_path):
    path = write(tmp_path, "a.yaml", "seed: 1\nname: x\nseed: 2\n")
    text = message([path])
    assert "line 3" in text and "'seed' stands here twice" in text


@pytest.mark.parametrize("content, part", [
    ("seed: [1\nname: x\n", "line 2"), ("- 1\n- 2\n", "expected lines 'key: value'"), ("base: 3\n", "base: expected"),
    ("seed: !!python/object/apply:os.getcwd []\n", "line 1"), ("model:\n", "model: expected a section")])
def test_malformed_file_is_named_with_its_line(tmp_path, content, part):
    path = write(tmp_path, "a.yaml", content)
    text = message([path])
    assert text.startswith(str(path)) and part in text


def test_binary_file_is_no_config(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    assert str(path) in message([path])


def test_edited_schema_is_checked_too(tmp_path, monkeypatch):
    text = SCHEMA.read_text()
    monkeypatch.setattr(config, "SCHEMA", write(tmp_path, "s.yaml", re.sub(r"lr: 5.0e-4", "lr: 5e-4", text)))
    assert "train.lr: YAML reads 5e-4 as text; write 5.0e-4" in message()
    monkeypatch.setattr(config, "SCHEMA", write(tmp_path, "t.yaml", re.sub(r"  min_iou:.*\n", "", text)))
    assert "memory.min_iou is missing" in message()


def test_saved_config_loads_to_the_same_values(tmp_path):
    cfg = load_config([ROOT / "config/vipmt/released.yaml"], ["train.lr=1.0e-7", "train.amp=off", "name='5e-4'"])
    save_config(cfg, tmp_path / "config.yaml")
    assert to_dict(load_config([tmp_path / "config.yaml"])) == to_dict(cfg)


def test_differences_names_the_keys_that_differ():
    changed = config.differences(load_config(), load_config((), ["memory.length=2"]))
    assert changed == {"memory.length": (5, 2)}


def test_command_line_takes_overrides_between_flags():
    parser = argparse.ArgumentParser()
    config.add_config_arguments(parser)
    parser.add_argument("--fold")
    args = parser.parse_intermixed_args(["--config", "a", "x=1", "--fold", "2", "y=2", "--config", "b"])
    assert args.config == ["a", "b"] and args.overrides == ["x=1", "y=2"] and args.fold == "2"


def test_overrides_among_files_are_told_apart():
    files, overrides = config.split_overrides(["a.pth", "lr=0.1.pth", "memory.length=2"])
    assert files == ["a.pth", "lr=0.1.pth"] and overrides == ["memory.length=2"]


@pytest.mark.parametrize("wish, shown", [("0", False), ("1", True)])
def test_users_see_a_message_instead_of_a_traceback(wish, shown):
    code = "from utils.config import *\nwith user_errors(): load_config((), ['memory.min_io=1'])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                         env={"VIPMT_TRACEBACK": wish, "PYTHONPATH": str(ROOT)})
    assert run.returncode == 2
    assert "ValueError: command line, memory.min_io=1: memory: unknown key" in run.stderr
    assert "VIPMT_TRACEBACK=1" in run.stderr and ("Traceback" in run.stderr) is shown


def test_our_own_bugs_keep_their_traceback():
    with pytest.raises(KeyError), config.user_errors():
        {}["a"]
