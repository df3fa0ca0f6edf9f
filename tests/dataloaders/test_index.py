"""Every index: all that the protocol names, images as stored, what is missing or wrong named, a cache without risk."""
import inspect
import io
import re
import shutil
from functools import partial

import cv2
import numpy as np
import pytest
from material import ROOT, FakeIndex
from PIL import Image

from dataloaders.datasets.coco20i import Coco20iIndex
from dataloaders.datasets.index import Index
from dataloaders.datasets.minivspw import MiniVSPWIndex
from dataloaders.datasets.ytvis import YouTubeVISIndex
from tools.demo_data.coco import write_demo_coco
from tools.demo_data.minivspw import write_demo_minivspw
from tools.demo_data.ytvis import write_demo_data

METHODS = {name: method for name, method in vars(Index).items()
           if inspect.isfunction(method) and not name.startswith("_")}
VIDEOS = {"videos_per_category": 2, "size": (48, 80), "frames": (3, 3)}
LAYOUTS = {      # what writes it, its index, folder of the images, annotations, what reads these
    "ytvis": (partial(write_demo_data, **VIDEOS), YouTubeVISIndex, "JPEGImages", "train.json",
              "ytvis_json.read_tables"),
    "minivspw": (partial(write_demo_minivspw, **VIDEOS), lambda *a, **k: MiniVSPWIndex(*a, **k).of_fold(1), "data",
                 "data/*/mask/*.png", "vspw_masks.read_labels"),
    "coco": (partial(write_demo_coco, images_per_category=2, size=(144, 192)), Coco20iIndex, "train2017",
             "annotations/instances_train2017.json", "coco_json.read_tables")}


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request, tmp_path_factory):
    """A small data set of every layout"""
    LAYOUTS[request.param][0](root := tmp_path_factory.mktemp(request.param) / "demo")
    return request.param, root


@pytest.fixture
def data(written, tmp_path):
    """The same to be changed: its folder, and what opens its index"""
    layout, root = written
    shutil.copytree(root, tmp_path / "demo")
    return tmp_path / "demo", partial(LAYOUTS[layout][1], tmp_path / "demo"), LAYOUTS[layout][2:]


@pytest.fixture
def first(data):
    """An index, one of its frames (video id, frame), and the path of its image"""
    root, index_of, (images, *_) = data
    index = index_of()
    video = index.videos(index.class_ids[0])[0]
    return index, (video, 0), root / images / index.file_name(video, 0)


def shown(index):
    """All that an index says of its classes"""
    return {(index.class_name(c), index.video_name(v)): [
        (t, index.size(v), index.read_mask(v, t, c).sum()) for t in index.frames(v, c).tolist()]
        for c in index.class_ids for v in index.videos(c)}


@pytest.mark.parametrize("kind", [YouTubeVISIndex, Coco20iIndex, MiniVSPWIndex, FakeIndex])
def test_every_index_has_every_method_with_its_arguments(kind):
    assert len(METHODS) == 14
    for name, method in METHODS.items():
        assert len(inspect.signature(getattr(kind, name)).parameters) == len(inspect.signature(method).parameters), name


def test_samplers_do_not_ask_which_index_it_is():
    for path in (ROOT / "dataloaders").rglob("*.py"):
        assert not re.search(r"isinstance\([^)]*Index|(getattr|hasattr)\((self\.)?index", path.read_text()), path


# Images

def test_images_are_rgb_as_they_are_stored(first):
    """What the reader refuses is in test_images.py; here: the orientation tag is not obeyed, since masks do not."""
    index, frame, path = first
    rows, cols = index.size(frame[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (cols, rows), "red").save(path, exif=exif)
    image = index.read_image(*frame)
    assert image.dtype == np.uint8 and image.shape == (rows, cols, 3)
    assert image[..., 0].min() > 240 and image[..., 1:].max() < 15


def test_an_index_opens_no_image_and_a_missing_one_is_named(data, first):
    first[2].unlink()
    with pytest.raises(FileNotFoundError, match=f"no file .*{first[2].name}.\n  Unpack the data set"):
        data[1]().read_image(*first[1])


def cut(path):
    path.write_bytes(path.read_bytes()[:-2])


def shrink(path):
    cv2.imwrite(str(path), np.zeros((5, 6, 3), np.uint8))


def link_out(path):
    path.symlink_to(path.rename(next(p for p in path.parents if p.name == "demo").with_name("outside.jpg")))


@pytest.mark.parametrize("damage, message", [
    (cut, "is truncated"), (shrink, "has 5 x 6 pixels, but .* has {} x {}"),
    (link_out, "is a link that leads out of .*\n  Set data.root to the folder where")])
def test_wrong_images_are_named(first, damage, message):
    index, frame, path = first
    size = index.size(frame[0])
    damage(path)
    with pytest.raises(ValueError, match=f"{path.name} {message.format(*size)}"):
        index.read_image(*frame)


def test_the_folder_of_images_may_be_a_link(data, first):
    root, index_of, (images, *_) = data
    (root / images).rename(root / "elsewhere")
    (root / images).symlink_to(root / "elsewhere")
    assert index_of().read_image(*first[1]).shape[:2] == first[0].size(first[1][0])


def test_frames_beyond_a_video_are_refused(first):
    index, (video, _), _ = first
    with pytest.raises(IndexError, match=f"none at {index.length(video)}"):
        index.file_name(video, index.length(video))


# The cache

def test_what_is_cached_is_what_was_read_until_the_annotations_change(data, tmp_path, monkeypatch):
    root, index_of, (_, annotations, reader) = data
    cache = tmp_path / "cache" / "below"
    before = shown(index_of(cache_dir=cache))
    files = sorted(cache.iterdir())
    assert before == shown(index_of()) and {file.suffix for file in files} == {".npz"}    # and no temporary file
    monkeypatch.setattr(f"dataloaders.datasets.{reader}", lambda path, *_: pytest.fail(f"{path} was read again"))
    assert shown(index_of(cache_dir=cache)) == before
    monkeypatch.undo()
    for file in root.glob(annotations):
        if file.suffix == ".json":
            file.write_text(re.sub(r'("name": ")', r"\1other ", file.read_text()))
        else:
            cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[::-1] // 2 * 2)
    after = shown(index_of(cache_dir=cache))
    assert after == shown(index_of()) != before and sorted(cache.iterdir()) == files


def turned(data):
    third, half = len(data) // 3, len(data) // 2
    return data[:third] + bytes(255 - x for x in data[third:half]) + data[half:]


def pickled(data):
    """Arrays of objects in place of numbers: to read them would run whatever they name"""
    with np.load(io.BytesIO(data)) as stored:
        np.savez(file := io.BytesIO(), **{name: np.array([object()]) for name in stored} | {"key": stored["key"]})
    return file.getvalue()


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:len(b) // 2], lambda b: b"x" * len(b), turned, pickled])
def test_a_damaged_cache_or_one_with_pickled_objects_is_built_again(data, tmp_path, caplog, damage):
    before = shown(data[1](cache_dir=tmp_path / "cache"))
    for cache in (tmp_path / "cache").iterdir():
        cache.write_bytes(damage(cache.read_bytes()))
    assert shown(data[1](cache_dir=tmp_path / "cache")) == before and "damaged" in caplog.text
    caplog.clear()
    assert shown(data[1](cache_dir=tmp_path / "cache")) == before and "damaged" not in caplog.text


def test_a_cache_that_cannot_be_written_is_no_error(data, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert data[1](cache_dir=tmp_path / "file" / "cache").class_ids and "could not be written" in caplog.text
