"""Checkpoints: whole or not at all, plain data only, and a clear word for every file that is none."""
import errno
import os
import pickle
import random
import resource
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from utils import checkpoint, files
from utils.checkpoint import (
    load_checkpoint,
    load_newest,
    load_trained,
    load_weights,
    older_checkpoints,
    save_checkpoint,
)
from utils.files import fingerprint
from utils.seeds import rng_state, set_rng_state


def small_model(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


def reason(function, *arguments, kind=ValueError):
    with pytest.raises(kind) as caught:
        function(*arguments)
    return str(caught.value)


def test_saved_state_comes_back_equal(tmp_path):
    model = small_model()
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimiser.step()
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "epoch": 3, "config": {"a": [1, 2.5]},
             "best": None, "name": "x", "flag": True}
    save_checkpoint(tmp_path / "deep" / "last.pth", state)
    loaded = load_checkpoint(tmp_path / "deep" / "last.pth")
    assert loaded["config"] == {"a": [1, 2.5]} and loaded["best"] is None and loaded["flag"] is True
    torch.testing.assert_close(dict(loaded["model"]), dict(model.state_dict()), rtol=0, atol=0)
    optimiser.load_state_dict(loaded["optimiser"])
    assert os.listdir(tmp_path / "deep") == ["last.pth"]


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    save_checkpoint(path, {"epoch": 1})

    def no_space(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    text = reason(save_checkpoint, path, {"epoch": 2}, kind=OSError)
    assert str(path) in text and "No space left" in text and "Make room" in text
    monkeypatch.undo()
    assert load_checkpoint(path) == {"epoch": 1} and os.listdir(tmp_path) == ["last.pth"]


def test_disk_that_fills_while_writing_is_named(tmp_path):
    path = tmp_path / "last.pth"
    save_checkpoint(path, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        text = reason(save_checkpoint, path, {"x": torch.zeros(100_000)}, kind=OSError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in text and "File too large" in text
    assert load_checkpoint(path) == {"epoch": 1} and os.listdir(tmp_path) == ["last.pth"]


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    save_checkpoint(path, {"epoch": 1})

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.torch, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"epoch": 2})
    assert load_checkpoint(path) == {"epoch": 1} and os.listdir(tmp_path) == ["last.pth"]


@pytest.mark.parametrize("value", [np.float64(1), {1, 2}, object(), lambda: 0])
def test_only_plain_data_is_saved(tmp_path, value):
    text = reason(save_checkpoint, tmp_path / "a.pth", {"outer": [value]}, kind=TypeError)
    assert "state['outer'][0]" in text and os.listdir(tmp_path) == []


def test_missing_file_and_folder_are_told_apart(tmp_path):
    assert "does not exist" in reason(load_checkpoint, tmp_path / "no.pth", kind=FileNotFoundError)
    assert "is a folder" in reason(load_checkpoint, tmp_path, kind=FileNotFoundError)


def test_file_that_is_no_checkpoint_is_named_whatever_its_bytes(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"x": torch.randn(50), "y": [1, "two"]})
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "cut off or damaged" in reason(load_checkpoint, path)
    path.write_bytes(b"")
    assert "empty" in reason(load_checkpoint, path)
    torch.save(torch.zeros(2), path)
    assert "expected a dictionary, found Tensor" in reason(load_checkpoint, path)
    rng = random.Random(0)
    for _ in range(100):
        path.write_bytes(bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300))))
        assert str(path) in reason(load_checkpoint, path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_checkpoint_never_fails_with_a_strange_error(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"x": torch.randn(5), "y": [1, "two"]}, path, _use_new_zipfile_serialization=False)
    whole, rng = path.read_bytes(), random.Random(1)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(10):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except ValueError as error:
            assert str(path) in str(error)


class Attack:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_inside_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Attack()}, "a.pth")
    assert "could run code" in reason(load_checkpoint, "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Attack()))
    assert "b.pth" in reason(load_checkpoint, "b.pth")
    assert not (tmp_path / "hacked").exists()


def test_checkpoint_of_another_fold_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"model": {}, "fold": 2})
    assert load_trained(path, 2)["fold"] == 2
    assert "has seen the test classes of fold 1" in reason(load_trained, path, 1)
    save_checkpoint(path, {"model": {}, "fold": None})
    load_trained(path, 1)
    save_checkpoint(path, {"weights": {}})
    assert "no entry 'model'" in reason(load_trained, path, 1)


def test_weights_load_strictly():
    source, target = small_model(), small_model()
    load_weights(target, source.state_dict(), "x.pth")
    torch.testing.assert_close(dict(target.state_dict()), dict(source.state_dict()), rtol=0, atol=0)


def test_unfitting_weights_list_the_first_five_of_each_kind():
    state = small_model(6).state_dict()
    del state["0.bias"]
    state |= {f"extra.{i}": torch.zeros(1) for i in range(7)}
    text = reason(load_weights, small_model(4), state, "x.pth")
    assert text.startswith("x.pth: these weights do not fit")
    assert "1 missing: 0.bias" in text and "7 unexpected: extra.0" in text and "and 2 more" in text
    assert "extra.4" in text and "extra.5" not in text and "0.weight (6, 3), expected (4, 3)" in text


def test_failed_loading_changes_no_weight():
    target = small_model(4)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    reason(load_weights, target, small_model(4).state_dict() | {"extra": torch.zeros(1)}, "x.pth")
    torch.testing.assert_close(dict(target.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("state, hint", [
    ({"backbone.body.conv1.weight": torch.zeros(1)}, "tools/convert_released.py"),
    ({f"module.{k}": v for k, v in small_model().state_dict().items()}, "wrapped module (model.module)"),
    ({f"_orig_mod.module.{k}": v for k, v in small_model().state_dict().items()}, "begin with '_orig_mod.module.'"),
    ({f"net.{k}": v for k, v in small_model().state_dict().items()}, "begin with 'net.'"),
    ({k.replace(".", "._orig_mod.", 1): v for k, v in small_model().state_dict().items()}, "names hold '_orig_mod.'"),
    ({"model": {}, "config": {}, "fold": 1}, "entry 'model'"),
    ({"other": torch.zeros(1)}, "--config"),
    (small_model(6).state_dict(), "model.dim"),
])
def test_unfitting_weights_name_the_likely_reason(state, hint):
    assert hint in reason(load_weights, small_model(4), state, "x.pth")


@pytest.mark.parametrize("wrong", [
    lambda x: x * np.nan, lambda x: x / 0, lambda x: x.double() * 1e300, lambda x: x.to(torch.complex64),
    lambda x: x.to(torch.int64), lambda x: x > 0], ids=["nan", "inf", "overflow", "complex", "integers", "bool"])
def test_weights_that_are_no_finite_real_numbers_are_refused(wrong):
    state = small_model().state_dict()
    state["0.weight"] = wrong(state["0.weight"])
    text = reason(load_weights, small_model(), state, "x.pth")
    assert "hold NaN, infinity or no real numbers, first 0.weight" in text
    state["0.weight"] = torch.empty(4, 3, device="meta")                     # has a shape, and no numbers at all
    assert "x.pth: these weights cannot be loaded" in reason(load_weights, small_model(), state, "x.pth")
    load_weights(small_model(), {k: v.double() for k, v in small_model().state_dict().items()}, "x.pth")


def test_random_streams_continue_after_a_restart(tmp_path):
    save_checkpoint(tmp_path / "a.pth", {"rng": rng_state()})

    def draw():
        return random.gauss(0, 1), np.random.standard_normal(3).tolist(), torch.randn(3).tolist()

    expected = [draw(), draw()]
    set_rng_state(load_checkpoint(tmp_path / "a.pth")["rng"])
    assert [draw(), draw()] == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_random_streams_of_gpus_continue(tmp_path):
    save_checkpoint(tmp_path / "a.pth", {"rng": rng_state()})
    expected = torch.randn(3, device="cuda").tolist()
    set_rng_state(load_checkpoint(tmp_path / "a.pth")["rng"])
    assert torch.randn(3, device="cuda").tolist() == expected


def test_fingerprint_is_the_content_s(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert fingerprint(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_older_checkpoints_stay_and_the_oldest_goes(tmp_path):
    path = tmp_path / "last.pth"
    for step in range(5):
        save_checkpoint(path, {"step": step}, keep=3)
    assert [load_checkpoint(file)["step"] for file in older_checkpoints(path)] == [4, 3, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.1.pth", "last.2.pth", "last.pth"]


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    """Every file with one byte changed is either refused, or still gives the very same content."""
    path, state = tmp_path / "a.pth", {"w": torch.arange(6.0), "n": [1, 2.5, "text", None, True]}
    save_checkpoint(path, state)
    healthy, rng, refused = path.read_bytes(), random.Random(0), 0
    for position in rng.sample(range(len(healthy)), 150):
        flipped = bytes([healthy[position] ^ (1 << rng.randrange(8))])
        path.write_bytes(healthy[:position] + flipped + healthy[position + 1:])
        try:
            found = load_checkpoint(path)
        except ValueError:
            refused += 1
        else:
            assert torch.equal(found["w"], state["w"]) and found["n"] == state["n"], position
    assert refused > 50


def test_other_weights_under_the_old_checksum_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"w": torch.zeros(3)})
    content = torch.load(path, weights_only=True)
    content["w"][1] = 1e-9
    torch.save(content, path)
    assert "its content is not what its checksum says" in reason(load_checkpoint, path)


def doubled(value, levels=40):
    """A list that holds the one before it twice, again and again: 2 ** levels values in some hundred bytes"""
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize("state", [
    {"x": doubled(1)}, {"config": {"a": doubled(1)}}, {"model": {"w": torch.zeros(1).expand(10 ** 12)}},
    {"model": dict.fromkeys(map(str, range(1000)), torch.zeros(10 ** 6))}],
    ids=["lists", "config", "expanded", "one storage"])
def test_a_file_that_unfolds_to_far_more_than_its_size_is_refused_at_once(tmp_path, state):
    torch.save({"sha256": "0"} | state, tmp_path / "a.pth")
    assert "unfolds to far more than the file's" in reason(load_checkpoint, tmp_path / "a.pth")


def test_packed_records_are_refused_unread(tmp_path):
    torch.save({"w": torch.zeros(10 ** 6)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b.pth", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "its records are packed" in reason(load_checkpoint, tmp_path / "b.pth")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    path = tmp_path / "last.pth"
    for step in range(2):
        save_checkpoint(path, {"step": step}, keep=2)
    path.write_bytes(path.read_bytes()[:-20])
    found, content = load_newest(path)
    assert found.name == "last.1.pth" and content["step"] == 0
    assert "last.pth" in caplog.text and "damaged" in caplog.text
    assert "The one before it is" in reason(load_checkpoint, path)
    found.write_bytes(b"")
    assert "every checkpoint of this run is damaged" in reason(load_newest, path)
