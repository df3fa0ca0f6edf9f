"""Broken and hostile files: each is read, or refused by one error that names it, and nothing else happens.

What hypothesis thinks of, and every bug that tools/workshop/fuzz.py has found: each has a test of its own below.
"""
import io
import json
import os
import shutil
import struct
import zipfile

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from dataloaders import build_index
from dataloaders.datasets import coco_json as coco_annotations
from dataloaders.datasets.cache import read_cache, write_cache
from dataloaders.datasets.minivspw import read_list
from dataloaders.datasets.rle import RunLengths, compressed
from dataloaders.datasets.ytvis_json import read_tables
from dataloaders.fewshot.episode_list import read_episode_list
from dataloaders.json_values import is_file_name, shown
from tools.workshop.fuzzing.sandbox import data_config, make_sandbox, training
from utils.checkpoint import load_checkpoint, load_trained, load_weights
from utils.config import load_config
from utils.records import read_json_lines


def repeatable(examples):
    """So many examples, the same ones every time."""
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None,
                    suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """The small correct files of tools/workshop/fuzz.py."""
    return make_sandbox(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture
def ytvis(sandbox, tmp_path):
    """A copy of the small data set and its annotations as Python values."""
    shutil.copytree(sandbox / "ytvis", tmp_path / "ytvis", symlinks=True, ignore=shutil.ignore_patterns("pipe", "l*"))
    return tmp_path / "ytvis", json.loads((sandbox / "ytvis" / "train.json").read_text())


def refusal(function, *arguments, kind=ValueError):
    with pytest.raises(kind) as caught:
        function(*arguments)
    return str(caught.value)


def written(path, data):
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


# -- many inputs

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["a/b.jpg", "id"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["id", "name", "height", "width", "file_names", "file_name", "video_id", "image_id", "size",
                         "category_id", "segmentations", "segmentation", "counts"]), inner, max_size=5), max_leaves=12)
records = st.lists(values, max_size=3)
documents = values | st.fixed_dictionaries(
    {"videos": records, "images": records, "categories": records, "annotations": records})


@repeatable(100)
@given(document=documents)
def test_any_json_is_read_or_refused_by_name(tmp_path_factory, document):
    path = tmp_path_factory.getbasetemp() / "any.json"
    written(path, document)
    for read in (read_tables, lambda file: coco_annotations.read_tables(file, 0)):
        assert "any.json" in refusal(read, path)              # no such document is a whole data set


@repeatable(150)
@given(counts=st.text(max_size=40) | st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=40)
       | st.lists(st.integers() | st.integers(0, 99), max_size=9), rows=st.integers(1, 20), cols=st.integers(1, 20))
def test_any_runs_are_refused_or_what_pycocotools_decodes(counts, rows, cols):
    document = json.dumps({"size": [rows, cols], "counts": counts})
    try:
        rle, area = compressed(msgspec.json.decode(document, type=RunLengths))
    except (ValueError, OverflowError):                       # what the readers of annotations expect
        return
    mask = mask_utils.decode({"size": [rows, cols], "counts": rle})
    assert mask.sum() == area and mask.shape == (rows, cols)


def test_long_values_are_shown_cut():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "list too long to show" and len(shown("x" * 1000)) < 90 and shown([1, "a"]) == "[1, 'a']"


@pytest.mark.parametrize("name, folders, good", [
    ("a/b.jpg", 1, True), ("b.jpg", 0, True), ("b.jpg", 1, False), ("/a/b.jpg", 1, False), ("//a/b.jpg", 1, False),
    ("a/../b.jpg", 1, False), ("..", 0, False), ("", 0, False), (7, 0, False), ("é/ü.jpg", 1, True)])
def test_file_names_stay_below_their_folder(name, folders, good):
    assert is_file_name(name, folders) is good


# -- bugs that were found: configs

ALIASES = "a: &a [x, x]\nb: &b [*a, *a]\nseed: *b\n"


@pytest.mark.parametrize("text, message", [
    (ALIASES, "line 2, column 8: the alias *a is not read here"), ("seed: &s [*s]\n", "the alias *s"),
    ("name: " + "[" * 600 + "]" * 600, "too deep in one another"), ("seed: " + "9" * 5000, "does not suit its tag"),
    ("seed: 0x" + "f" * 5000, "an integer of more than 64 bits"),
    ("name: 2001-99-99\n", "does not suit its tag"), ("name: !!bool x\n", "does not suit its tag"),
    ('name: "\\ud800"\n', "cannot be written"), ('data: {root: "\\0"}\n', "cannot be written"),
    ("train: {lr: .inf}\n", "expected a finite number, got inf"),
    (f"name: [{'x, ' * 999}]\n", "expected text, got ['x', 'x'"), (f"base: {'x/' * 3000}\n", "expected a file name"),
    (f"{'k' * 999}: 1\n", "unknown key 'kkk"),
    (f"test: {{protocol: {'v' * 9999}}}", "expected one of II, I, got 'vv")])
def test_absurd_configs_are_refused_in_few_words(tmp_path, text, message):
    path = written(tmp_path / "a.yaml", text.encode())
    found = refusal(load_config, [path])
    assert message in found and str(path) in found and len(found) < 800
    if "base" not in text:
        key, _, value = text.partition(": ")
        assert len(refusal(load_config, (), [f"{key}={value}"])) < 2 * len(text) + 1000


def test_a_config_that_leads_to_itself_is_refused(tmp_path):
    (tmp_path / "a.yaml").symlink_to("a.yaml")
    assert "no file" in refusal(load_config, [tmp_path / "a.yaml"], kind=FileNotFoundError)


# -- bugs that were found: checkpoints

def saved(path, state):
    torch.save(state, path)
    return path


def circle():
    config = {}
    config["data"] = config
    return config


@pytest.mark.parametrize("change, message", [
    ({"config": circle()}, "unfolds to far more"), ({"config": {1: 2}}, "its entry 'config' is not"),
    ({"config": {"data": {"size": torch.ones(2)}}}, "its entry 'config' is not"),
    ({"fold": torch.ones(4, 3)}, "its entry 'fold' is not"), ({"fold": "1" * 9999}, "its entry 'fold' is not"),
    ({"sha256": "0" * 64, "x": torch.ones(3, dtype=torch.complex64).conj()}, "damaged"),
    ({"sha256": "0" * 64, "x": circle()}, "unfolds to far more")])
def test_odd_entries_of_a_checkpoint_are_refused(tmp_path, change, message):
    path = saved(tmp_path / "a.pth", {"model": {}, "fold": 1} | change)
    found = refusal(load_trained, path, 1)
    assert message in found and str(path) in found and len(found) < 500


def test_weights_that_cannot_be_copied_are_refused():
    layer = torch.nn.BatchNorm1d(4)
    weights = layer.state_dict()
    weights._metadata = {"": torch.ones(3)}
    assert "a.pth: these weights cannot be loaded" in refusal(load_weights, layer, weights, "a.pth")


@pytest.mark.parametrize("change", [
    {"optimizer": None}, {"optimizer": {}}, {"rng": 7}, {"rng": [{}]}, {"progress": {"epoch": "x"}},
    {"progress": {"epoch": -1}}, {"progress": {"nothing": 1}}, {"config": {}}])
def test_a_training_that_cannot_be_continued_names_its_checkpoint(tmp_path, change):
    before = training(tmp_path)
    before.save()
    path = tmp_path / "last.pth"
    state = load_checkpoint(path)
    training(tmp_path).resume()
    saved(path, {key: value for key, value in (state | change).items() if value is not None})
    assert str(path) in refusal(training(tmp_path).resume)


# -- bugs that were found: files

@pytest.mark.parametrize("read, kind", [
    (lambda path: load_config([path]), ValueError), (read_json_lines, ValueError), (read_episode_list, ValueError),
    (read_tables, ValueError), (read_list, ValueError),
    (lambda path: coco_annotations.read_tables(path, 0), ValueError), (load_checkpoint, ValueError)])
def test_a_file_of_a_terabyte_and_a_pipe_are_refused_by_every_reader(tmp_path, monkeypatch, read, kind):
    path, pipe = tmp_path / "a.json", tmp_path / "pipe"
    with open(path, "wb") as file:
        file.truncate(2 ** 40)
    assert str(path) in refusal(read, path, kind=kind)
    os.mkfifo(pipe)
    assert str(pipe) in refusal(read, pipe, kind=(ValueError, FileNotFoundError))


def test_results_too_deep_in_one_another_are_named(tmp_path):
    path = written(tmp_path / "a.jsonl", b"[" * 50_000 + b"]" * 50_000 + b"\n")
    assert f"{path}, line 1: not JSON" in refusal(read_json_lines, path)


def test_a_frame_that_links_to_itself_is_missing(ytvis):
    root, data = ytvis
    video = data["videos"][0]
    path = root / "JPEGImages" / video["file_names"][0]
    path.unlink()
    path.symlink_to(path.name)
    index = build_index(data_config(root.parent, "ytvis"))
    assert "no file " + str(path) in refusal(index.read_image, video["id"], 0, kind=FileNotFoundError)


def test_a_cache_that_says_it_is_encrypted_or_endless_is_built_again(tmp_path):
    path = tmp_path / "a.npz"
    write_cache(path, "key", {"x": np.arange(9)})
    assert read_cache(path, "key", ["x"])["x"].tolist() == list(range(9))
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\1\2") + 8] |= 1
    assert read_cache(written(path, bytes(data)), "key", ["x"]) is None
    with zipfile.ZipFile(path, "w") as archive:
        header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (%d,), }" % 2 ** 50
        archive.writestr("x.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)
        archive.writestr("key.npy", npy(np.array("key")))
    assert read_cache(path, "key", ["x"]) is None


def npy(array):
    """The array as a member of an .npz file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
