"""The config: every mistake is found before the run, and named with file, key and fix."""
import argparse
from pathlib import Path

import msgspec
import pytest

from utils import config
from utils.config import (
    Affects,
    affected,
    apply_overrides,
    flatten,
    keys_of,
    load_config,
    save_config,
    schema,
    to_dict,
)
from utils.yaml_file import read_yaml

ROOT = Path(__file__).resolve().parents[2]


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def message(*arguments):
    with pytest.raises(ValueError) as caught:
        load_config(*arguments)
    return str(caught.value)


def all_keys(method="vipmt"):
    return keys_of(schema(method))


def test_every_number_has_a_range():
    for key, (kind, _) in all_keys("propagation").items():
        found = msgspec.inspect.type_info(kind)
        for one in getattr(found, "item_types", [found]):
            if isinstance(one, msgspec.inspect.IntType | msgspec.inspect.FloatType):
                assert one.ge is not None, key


def test_every_key_says_what_it_affects():
    """The lists that a run derives from it: what a resume, a test's continuation and a checkpoint look at."""
    cfg = load_config()
    training, test, weights = (affected(cfg, what) for what in (Affects.TRAINING, Affects.TEST, Affects.WEIGHTS))
    assert weights <= training & test
    nothing = all_keys().keys() - training - test
    assert {"data.root", "data.workers", "name", "train.epochs", "test.runs", "checkpoint.keep"} <= nothing
    for key in ("data.portrait", "data.support_from_query_video", "model.init", "model.dropout", "iou_net.init",
                "train.lr", "loss.ccds", "validate.classes"):
        assert key in training - test, key
    assert {"memory.select", "test.protocol", "metrics.vc", "iou_net.replace"} <= test - training
    assert {"seed", "data.annotations", "memory.min_iou"} <= training & test - weights
    assert {"model.dim", "backbone.stem", "data.size", "iou_net.similarity"} <= weights


def test_the_papers_file_is_the_default():
    assert to_dict(load_config([ROOT / "config/vipmt/ytvis.yaml"])) == to_dict(load_config())


def test_an_old_name_is_the_file_in_its_folder():
    for old in (ROOT / "config").glob("*.yaml"):
        if old.name != "paper_tables.yaml":
            new = read_yaml(old)
            assert set(new) == {"base"}
            assert to_dict(load_config([old])) == to_dict(load_config([old.parent / new["base"]]))


def test_every_config_of_the_project_loads():
    """Private ones, config/local/, are their owner's matter."""
    for path in (ROOT / "config").rglob("*.yaml"):
        if path.relative_to(ROOT).parts[1] != "local" and path.name != "paper_tables.yaml":
            cfg = load_config([path])
            assert flatten(cfg).keys() == all_keys(cfg.model.method).keys(), path


def test_memory_ablations_change_the_selection_and_nothing_else():
    """Not the name either: they are tests of the base run, whose checkpoint test.py finds by it."""
    files = sorted((ROOT / "config/vipmt/ablation").glob("memory_*.yaml"))
    changed = [config.differences(load_config(), load_config([path])) for path in files]
    assert [path.stem.removeprefix("memory_") for path in files] == [x["memory.select"][1] for x in changed]
    assert all(x.keys() == {"memory.select"} for x in changed)
    for name in {x["memory.select"][1] for x in changed} | {"predicted"}:
        assert name in message((), ["memory.select=no such thing"])


def test_base_is_laid_first_and_numbers_keep_their_type(tmp_path):
    write(tmp_path, "a.yaml", "memory: {min_iou: 0.5, length: 3}\n")
    b = write(tmp_path, "b.yaml", "base: a.yaml\nmemory: {min_iou: 1}\n")
    cfg = load_config([b])
    assert cfg.memory.length == 3 and cfg.memory.min_iou == 1.0 and isinstance(cfg.memory.min_iou, float)
    assert cfg.data.shots == load_config().data.shots


def test_overrides_keep_what_a_file_changed():
    cfg = load_config([ROOT / "config/vipmt/released.yaml"], ["model.frame_prototype=false"])
    assert cfg.model.prior == "cumulative" and cfg.model.frame_prototype is False
    assert load_config().model.prior == "per_frame", "a config loaded before must not change"


def test_the_defaults_as_a_later_base_undo_nothing(tmp_path):
    """Neither an ablation's keys nor those of a run's own config.yaml, which both name no base."""
    vipmt = ROOT / "config/vipmt"
    assert load_config([vipmt / "ablation/clip.yaml", vipmt / "minivspw.yaml"]).loss.ccds == "none"
    save_config(load_config((), ["data.clip_length=2"]), tmp_path / "config.yaml")
    cfg = load_config([tmp_path / "config.yaml", ROOT / "config/vipmt/released.yaml"])
    assert (cfg.data.clip_length, cfg.model.prior) == (2, "cumulative")


def test_a_shared_base_is_not_laid_over_an_earlier_file(tmp_path):
    write(tmp_path, "root.yaml", "seed: 1\nmemory: {length: 2}\n")
    first = write(tmp_path, "first.yaml", "base: root.yaml\nseed: 7\n")
    second = write(tmp_path, "second.yaml", "base: root.yaml\nmemory: {length: 4}\n")
    cfg = load_config([first, second])
    assert (cfg.seed, cfg.memory.length) == (7, 4)
    assert load_config([first, tmp_path / "root.yaml"]).seed == 1, "a file that is named itself counts"


def test_missing_files_and_circles_are_named(tmp_path):
    write(tmp_path, "c.yaml", "base: b.yaml\n")
    assert "leads back to the same file" in message([write(tmp_path, "b.yaml", "base: c.yaml\n")])
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
    ("train.lr=fast", ["expected a number, got 'fast'"]),
    ("train.lr=true", ["expected a number, got true"]),
    ("model.dim=384.0", ["model.dim: expected an integer, got 384.0"]),
    ("model.dim=true", ["expected an integer, got true"]),
    ("backbone.trained=1", ["expected true or false, got 1"]),
    ("backbone.trained=yes", ["expected true or false, got 'yes'"]),
    ("name=3", ["expected text, got 3", "'3'"]),
    ("iou_net.weights=", ["expected text, got nothing", "none"]),
    ("data.size=240", ["expected a list, got 240"]),
    ("data.size=[240]", ["expected a list of length 2"]),
    ("data.size=[240, 424.0]", ["expected an integer, got 424.0"]),
    ("data.size=[240, 24]", ["data.size", ">= 32"]),
    ("memory=3", ["memory: expected a section with keys, got 3"]),
    ("memory.min_iou=1.5", ["expected a number <= 1.0, got 1.5"]),
    ("memory.min_iou=.nan", ["memory.min_iou: expected a number", "got nan"]),
    ("train.lr=.inf", ["train.lr: expected a finite number, got inf"]),
    ("data.shots=0", ["expected an integer >= 1, got 0"]),
    ("train.betas=[0.9, 2.0]", ["train.betas: expected a number <= 1.0, got 2.0"]),
    ("model.prior=cumulativ", ["expected one of per_frame, cumulative, got 'cumulativ'; did you mean 'cumulative'?"]),
    ("model.dim=100", ["model.dim 100 is no multiple of model.heads 8"]),
    ("train.lr", ["cannot read 'train.lr'", "key.sub=value"]),
    ("data.root=[a", ["command line, data.root=[a"]),
])
def test_wrong_override_says_what_and_how_to_fix_it(override, parts):
    text = message((), [override])
    for part in parts:
        assert part in text


def test_what_one_key_alone_cannot_show_is_checked():
    """A dimension that splits into sines and cosines; a trained backbone has one graph and no cache."""
    assert "multiple of 4" in message((), ["model.dim=30", "model.heads=2"])
    assert "train.backward to once" in message((), ["backbone.trained=true"])
    assert "cache_frames" in message((), ["backbone.trained=true", "backbone.cache_frames=10"])
    assert load_config((), ["backbone.trained=true", "train.backward=once"]).backbone.trained


@pytest.mark.parametrize("content, part", [
    ("seed: 1\nname: x\nseed: 2\n", "line 3"), ("seed: 1\nname: x\nseed: 2\n", "duplicate key"),
    ("seed: [1\nname: x\n", "line 2"), ("- 1\n- 2\n", "expected lines 'key: value'"), ("base: 3\n", "base: expected"),
    ("seed: !!python/object/apply:os.getcwd []\n", "line 1"), ("model:\n", "model: expected a section"),
    (b"\xff\xfe\x00\x81", "")])
def test_malformed_file_is_named_with_its_line(tmp_path, content, part):
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    text = message([path])
    assert text.startswith(str(path)) and part in text


def test_numbers_may_be_written_with_an_exponent_and_off_is_a_word():
    for text in ("5e-4", "5.0e-4", "0.0005"):
        assert load_config((), [f"train.lr={text}"]).train.lr == 0.0005
    assert load_config((), ["train.amp=off"]).train.amp == "off"


def test_a_saved_config_of_before_takes_new_keys_by_default_and_leaves_other_methods_out():
    saved = to_dict(load_config((), ["memory.length=3"])) | {"propagation": {"plug": "matching"}}
    del saved["iou_net"]["replace"]
    cfg = apply_overrides(saved, ["seed=7"])
    assert (cfg.memory.length, cfg.seed, cfg.iou_net.replace) == (3, 7, "none") and "propagation" not in cfg
    with pytest.raises(ValueError, match="unknown key 'min_io'"):
        apply_overrides(saved | {"memory": {"min_io": 1}})


def test_a_method_brings_its_own_keys():
    assert "propagation" not in load_config()
    assert load_config((), ["propagation.top_k=3", "model.method=propagation"]).propagation.top_k == 3
    assert "unknown key 'propagation'" in message((), ["propagation.top_k=3"])
    assert "Choose one of: vipmt" in message((), ["model.method=vipnt"])


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


@pytest.mark.parametrize("wish", ["0", "1"])
def test_users_see_a_message_and_our_own_bugs_keep_their_traceback(wish, monkeypatch, capsys):
    monkeypatch.setenv("VIPMT_TRACEBACK", wish)
    with pytest.raises(SystemExit) as ended, config.user_errors():
        load_config((), ["memory.min_io=1"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "ValueError: command line, memory.min_io=1: memory: unknown key" in said
    assert "VIPMT_TRACEBACK=1" in said and ("Traceback" in said) is (wish == "1")
    with pytest.raises(KeyError), config.user_errors():
        {}["a"]
