"""YouTubeVISIndex: masks against run lengths painted by hand, and an error with a name for every kind of bad data."""
import copy
import json
import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from dataloaders.datasets.rle import rle_counts
from dataloaders.datasets.ytvis import YouTubeVISIndex
from dataloaders.datasets.ytvis_json import TABLES
from dataloaders.images import MAX_PIXELS

SHARED = Path(__file__).resolve().parents[3] / "shared"
MINI = SHARED / "data" / "mini_ytvis" / "train"
ROWS, COLS = 32, 48

needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason="needs the mini data set in ../shared/data/mini_ytvis")


def run_lengths(mask):
    """Uncompressed COCO RLE, pixel by pixel down the columns."""
    counts, value = [0], 0
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def compressed(mask):
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def box(top, left, bottom, right):
    mask = np.zeros((ROWS, COLS), bool)
    mask[top:bottom, left:right] = True
    return mask


MASKS = {                                     # annotation id -> masks of the three frames of its video
    11: [box(2, 3, 10, 20), None, box(4, 4, 12, 18)],
    12: [box(8, 15, 30, 40), box(0, 0, 32, 48), np.zeros((ROWS, COLS), bool)],
    13: [None, box(20, 20, 22, 22), None],
    21: [box(5, 5, 9, 9)] * 3,
}


def content():
    """A correct annotation file: two videos; annotations 11 and 12 show one class, 13 another, in the same video."""
    def annotation(number, video, category, encode):
        masks = [None if mask is None else encode(mask) for mask in MASKS[number]]
        return {"id": number, "video_id": video, "category_id": category, "segmentations": masks}
    return {
        "videos": [{"id": number, "height": ROWS, "width": COLS,
                    "file_names": [f"{name}/{t:05d}.jpg" for t in range(3)]}
                   for number, name in ((7, "one"), (4, "two"))],
        "categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 9, "name": "never shown"}],
        "annotations": [annotation(21, 4, 1, compressed), annotation(11, 7, 1, run_lengths),
                        annotation(12, 7, 1, compressed), annotation(13, 7, 2, run_lengths)],
    }


def write(root, data):
    text = data if isinstance(data, str) else json.dumps(data)
    (root / "train.json").write_text(text)
    return root


def write_images(root, names=("one", "two")):
    rng = np.random.default_rng(0)
    for name in names:
        (root / "JPEGImages" / name).mkdir(parents=True)
        for t in range(3):
            image = rng.integers(0, 256, (ROWS, COLS, 3), np.uint8)
            cv2.imwrite(str(root / "JPEGImages" / name / f"{t:05d}.jpg"), image)
    return root


@pytest.fixture
def root(tmp_path):
    return write(write_images(tmp_path), content())


def broken(change):
    data = copy.deepcopy(content())
    change(data)
    return data


# -- what it offers

def test_index_names_classes_videos_and_frames(root):
    index = YouTubeVISIndex(root)
    assert index.class_ids == [1, 2]
    assert [index.class_name(c) for c in (1, 2)] == ["person", "dog"]
    assert index.videos(1) == [7, 4] and index.videos(2) == [7] and index.videos(9) == []
    assert index.frames(7, 1).tolist() == [0, 1, 2] and index.frames(7, 2).tolist() == [1]
    assert index.frames(4, 2).tolist() == []
    assert index.file_name(4, 2) == "two/00002.jpg" and index.video_name(4) == "two"
    assert index.size(7) == (ROWS, COLS) and index.length(7) == 3


def test_mask_is_the_union_of_all_instances_of_the_class(root):
    index = YouTubeVISIndex(root)
    for frame in range(3):
        shown = [MASKS[number][frame] for number in (11, 12) if MASKS[number][frame] is not None]
        np.testing.assert_array_equal(index.read_mask(7, frame, 1), np.any(shown, axis=0))
    np.testing.assert_array_equal(index.read_mask(7, 1, 2), MASKS[13][1])
    assert not index.read_mask(7, 0, 2).any() and index.read_mask(7, 0, 2).shape == (ROWS, COLS)


def test_image_is_rgb(root):
    image = np.zeros((ROWS, COLS, 3), np.uint8)
    image[..., 2] = 255                                               # OpenCV writes BGR: this is red
    cv2.imwrite(str(root / "JPEGImages" / "one" / "00000.jpg"), image)
    read = YouTubeVISIndex(root).read_image(7, 0)
    assert read.dtype == np.uint8 and read.shape == (ROWS, COLS, 3)
    assert read[..., 0].min() > 240 and read[..., 1:].max() < 15


def test_index_opens_no_image(tmp_path):
    assert YouTubeVISIndex(write(tmp_path, content())).frames(7, 1).tolist() == [0, 1, 2]


def test_frame_beyond_the_video_is_refused(root):
    with pytest.raises(IndexError, match="none at 3"):
        YouTubeVISIndex(root).file_name(7, 3)


def test_run_lengths_of_compressed_strings():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((rng.integers(1, 40), rng.integers(1, 400))) < rng.random()
        rle = np.frombuffer(compressed(mask)["counts"].encode(), np.uint8)
        assert rle_counts(rle).tolist() == run_lengths(mask)["counts"]


def test_no_object_is_pickled_in_the_tables(root):
    index = YouTubeVISIndex(root)
    assert set(index._tables) == set(TABLES) and all(table.dtype != object for table in index._tables.values())


# -- bad annotations

def setting(*path, value):
    """The entry at the path gets a value"""
    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value
    return change


NAMES, RLE = ("videos", 0, "file_names"), ("annotations", 1, "segmentations", 0)
BAD_ANNOTATIONS = {
    "no annotations": (lambda d: d.pop("annotations"), "the top level has no 'annotations'"),
    "annotations null": (setting("annotations", value=None), "annotations is null, expected a list"),
    "no annotation": (setting("annotations", value=[]), "only the train split"),
    "video without width": (lambda d: d["videos"][0].pop("width"), "video number 0 .id 7.: it has no 'width'"),
    "video without frames": (setting(*NAMES, value=[]), "id 7.: file_names: expected a list of length >= 1"),
    "height zero": (setting("videos", 0, "height", value=0), "id 7.: height: expected an integer >= 1"),
    "absurd size": (lambda d: d["videos"][0].update(height=60_000, width=60_000), f"more than {MAX_PIXELS} pixels"),
    "annotation without masks": (lambda d: d["annotations"][1].pop("segmentations"), "it has no 'segmentations'"),
    "record is no object": (lambda d: d["videos"].append(3), "video number 2: it is an integer, expected an object"),
    "id is text": (setting("videos", 0, "id", value="7"), "video number 0: id is text, expected an integer"),
    "id beyond 64 bits": (setting("videos", 0, "id", value=2 ** 63), "video number 0.*: id: expected an integer <="),
    "id far below 64 bits": (setting("videos", 0, "id", value=-10 ** 30), "video number 0"),
    "category's id": (setting("categories", 0, "id", value=2 ** 64), "category number 0"),
    "video twice": (setting("videos", 1, "id", value=7), "video 7: its id occurs twice"),
    "annotation twice": (setting("annotations", 0, "id", value=12), "annotation 12: its id occurs twice"),
    "category twice": (setting("categories", 0, "id", value=1), "category 1: its id occurs twice"),
    "name twice": (setting("categories", 0, "name", value="person"), "category 1: category 2 is called 'person', too"),
    "name is a number": (setting("categories", 0, "name", value=7), "name is an integer, expected text"),
    "half a character": (lambda d: d["categories"][0].update(name="\ud800"), "no valid JSON at line 1, column"),
    "endless name": (setting("categories", 0, "name", value="x" * 10 ** 6), "name: expected text of length <= 1024"),
    "name is an object": (setting("categories", 0, "name", value={"a": 1}), "name is an object, expected text"),
    "folder twice": (setting("videos", 1, "file_names", value=["one/9.jpg"]), "video 4: video 7 has the folder 'one'"),
    "two folders": (setting(*NAMES, value=["one/1.jpg", "three/2.jpg"]), "id 7.: its frames lie in 2 folders"),
    "file twice": (setting(*NAMES, value=["one/1.jpg", "one//1.jpg"]), "id 7.: a file name occurs twice"),
    "unknown video": (setting("annotations", 1, "video_id", value=99), "annotation 11: .* the video_id 99"),
    "unknown category": (setting("annotations", 1, "category_id", value=77), "annotation 11: .* the category_id 77"),
    "category is text": (setting("annotations", 1, "category_id", value="y" * 10 ** 6), "category_id is text"),
    "too few masks": (lambda d: d["annotations"][1]["segmentations"].pop(), "2 segmentations, but the video has 3"),
    "mask is a polygon": (setting(*RLE, value=[1, 2]), r"segmentations\[0\] is a list, expected an object or null"),
    "mask of another size": (setting("annotations", 2, "segmentations", 0, "size", value=[COLS, ROWS]),
                             "annotation 12, video 7, frame 0: RLE of size"),
    "size missing": (setting(*RLE, "size", value=None), r"segmentations\[0\].size is null, expected a list"),
    "absurd mask": (setting(*RLE, "size", value=[2 ** 40, 2 ** 40]), r"size\[0\]: expected an integer"),
    "counts sum to less": (setting(*RLE, "counts", value=[10, 20]), "frame 0: RLE: counts sum up to 30, not to 1536"),
    "counts negative": (setting(*RLE, "counts", value=[2000, -464]), "negative"),
    "counts are floats": (setting(*RLE, "counts", value=[1.5, 2.5]), r"counts\[0\] is a number, expected an integer"),
    "counts are endless": (setting(*RLE, "counts", value=[int("9" * 4300)] * 2), "annotation 11|number 1"),
    "counts are no RLE": (setting(*RLE, "counts", value="hello world"), "frame 0: RLE: its string does not fill"),
    "counts are cut": (setting(*RLE, "counts", value=compressed(box(2, 3, 10, 20))["counts"][:-1]), "does not fill"),
    "absolute file name": (setting(*NAMES, value=["/etc/x.jpg"]), "the file name '/etc/x.jpg' is not a name below"),
    "server": (setting(*NAMES, value=["//server/a.jpg"]), "is not a name below"),
    "file name leaves": (setting(*NAMES, value=["a/../../x.jpg"]), "is not a name below a folder of the images"),
    "Windows leaves": (setting(*NAMES, value=["a\\..\\..\\x.jpg"]), "is not a name below a folder of the images"),
    "file name without folder": (setting(*NAMES, value=["x.jpg"]), "is not a name below a folder of"),
    "zero byte": (setting(*NAMES, value=["a/\0.jpg"]), r"file_names\[0\]: expected text without zero bytes"),
    "endless file name": (setting(*NAMES, value=["a/" + "x" * 10 ** 6]), r"file_names\[0\]: expected text of length"),
}


@pytest.mark.parametrize("case", BAD_ANNOTATIONS)
def test_bad_annotations_are_named_in_few_words(tmp_path, case):
    change, message = BAD_ANNOTATIONS[case]
    with pytest.raises(ValueError, match=message) as error:
        YouTubeVISIndex(write(tmp_path, broken(change)))
    assert "train.json: " in str(error.value) and "Download the file again" in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("text, message", [
    ('{\n"videos": [,]}', "no valid JSON at line 2, column 12: invalid character"), ("", "no valid JSON at line 1"),
    ('{"videos": [{"id": NaN}]}', "NaN and Infinity are not JSON"), ('{"videos": ' + "[" * 100_000, "too deep"),
    ("[]", "the top level is a list, expected an object"), ("3", "top level"), ('{"videos": []}x', "top level"),
    ('{"videos": ' + "9" * 5000 + "}", "videos: number out of range"), ("\xff", "no valid JSON")])
def test_what_is_no_annotation_file_is_named(tmp_path, text, message):
    (tmp_path / "train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as error:
        YouTubeVISIndex(tmp_path)
    assert "train.json: " in str(error.value)


def test_a_byte_order_mark_and_the_separators_of_windows_are_read(root):
    text = (root / "train.json").read_text().replace("one/", "one\\\\")
    (root / "train.json").write_text(text, encoding="utf-8-sig")
    assert r"one\\00001" in text and YouTubeVISIndex(root).read_image(7, 1).shape == (ROWS, COLS, 3)


def test_missing_annotation_file_tells_the_key(tmp_path):
    with pytest.raises(FileNotFoundError, match="no train.json in .*data.root") as error:
        YouTubeVISIndex(tmp_path)
    assert "Set data.root to the folder with train.json and JPEGImages/" in str(error.value)


def wrapping_runs(pixels):
    """A compressed RLE whose runs sum up to `pixels` only because 64 bits are left behind."""
    runs, text = [2 ** 53 - 1] * 2048 + [2048 + pixels], ""                # 2^64 + pixels
    for i, run in enumerate(runs):
        value, more = run - (runs[i - 2] if i > 2 else 0), True
        while more:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text += chr(digit + 32 * more + 48)
    return text


def test_runs_that_overflow_to_the_right_sum_are_refused(tmp_path):
    """NumPy would write beyond its memory: their sum is that of the image modulo 2 ** 64."""
    runs = wrapping_runs(ROWS * COLS)
    counts = rle_counts(np.frombuffer(runs.encode(), np.uint8))
    assert counts.sum() == ROWS * COLS and counts.max() > 2 ** 50
    with pytest.raises(ValueError, match="annotation 11, video 7, frame 0: RLE: its string does not fill 32 x 48"):
        YouTubeVISIndex(write(tmp_path, broken(setting(*RLE, "counts", value=runs))))


def test_a_mask_of_a_changed_cache_is_refused_when_decoded(root):
    index = YouTubeVISIndex(root)
    index._tables["rle"] = index._tables["rle"][::-1]
    with pytest.raises(ValueError, match="annotation 21, video 4, frame 0: the runs .* do not sum up to 32 x 48"):
        index.read_mask(4, 0, 1)


# -- bad images

def test_missing_image_is_named(root):
    (root / "JPEGImages" / "one" / "00001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="video 7, frame 1 of .*: no file .*one/00001.jpg"):
        YouTubeVISIndex(root).read_image(7, 1)


def test_images_are_read_by_the_one_reader(root):
    """What it refuses is in test_images.py; here: the file is named, and the orientation tag is not obeyed."""
    path = root / "JPEGImages" / "two" / "00000.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    assert YouTubeVISIndex(root).read_image(4, 0).shape == (ROWS, COLS, 3)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="two/00000.jpg is truncated"):
        YouTubeVISIndex(root).read_image(4, 0)


def test_image_of_another_size_is_refused(root):
    cv2.imwrite(str(root / "JPEGImages" / "two" / "00000.jpg"), np.zeros((COLS, ROWS, 3), np.uint8))
    with pytest.raises(ValueError, match="48 x 32 pixels, but video 4, frame 0 of .*train.json has 32 x 48"):
        YouTubeVISIndex(root).read_image(4, 0)


def test_link_out_of_the_data_folder_is_refused(root, tmp_path_factory):
    outside = write_images(tmp_path_factory.mktemp("outside"), ["one"])
    link = root / "JPEGImages" / "one"
    for file in link.iterdir():
        file.unlink()
    link.rmdir()
    link.symlink_to(outside / "JPEGImages" / "one")
    with pytest.raises(ValueError, match="is a link that leads out of .*\n.*Set data.root to the folder where"):
        YouTubeVISIndex(root).read_image(7, 0)


def test_linked_image_folder_is_fine(root):
    (root / "JPEGImages").rename(root / "elsewhere")
    (root / "JPEGImages").symlink_to(root / "elsewhere")
    assert YouTubeVISIndex(root).read_image(7, 0).shape == (ROWS, COLS, 3)


# -- cache

def assert_same_index(a, b):
    for name in TABLES:
        np.testing.assert_array_equal(a._tables[name], b._tables[name])


def no_reading(monkeypatch):
    def fail(path):
        raise AssertionError(f"{path} was read although the cache is good")
    monkeypatch.setattr("dataloaders.datasets.ytvis_json.read_tables", fail)


def test_cached_index_equals_the_parsed_one(root, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "below"
    first = YouTubeVISIndex(root, cache_dir=cache)
    assert [file.suffix for file in cache.iterdir()] == [".npz"]      # and no temporary file
    no_reading(monkeypatch)
    second = YouTubeVISIndex(root, cache_dir=cache)
    assert_same_index(first, second)
    np.testing.assert_array_equal(first.read_mask(7, 0, 1), second.read_mask(7, 0, 1))


def test_changed_annotations_replace_the_cache(root, tmp_path):
    YouTubeVISIndex(root, cache_dir=tmp_path / "cache")
    write(root, broken(lambda d: d["categories"][0].update(name="cat")))
    stat = (root / "train.json").stat()
    os.utime(root / "train.json", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert YouTubeVISIndex(root, cache_dir=tmp_path / "cache").class_name(2) == "cat"
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("damage", [
    lambda b: b"", lambda b: b[:len(b) // 2], lambda b: b"x" * len(b),
    lambda b: b[:len(b) // 3] + bytes(255 - x for x in b[len(b) // 3:len(b) // 2]) + b[len(b) // 2:]])
def test_damaged_cache_is_built_again(root, tmp_path, caplog, damage):
    good = YouTubeVISIndex(root, cache_dir=tmp_path / "cache")
    cache = next((tmp_path / "cache").iterdir())
    cache.write_bytes(damage(cache.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert_same_index(good, YouTubeVISIndex(root, cache_dir=tmp_path / "cache"))
    assert "damaged" in caplog.text
    caplog.clear()
    YouTubeVISIndex(root, cache_dir=tmp_path / "cache")
    assert "damaged" not in caplog.text


def test_cache_with_pickled_objects_is_not_opened(root, tmp_path, caplog):
    YouTubeVISIndex(root, cache_dir=tmp_path / "cache")
    cache = next((tmp_path / "cache").iterdir())
    with np.load(cache) as stored:
        tables = dict(stored)
    tables["file_name"] = np.array([object()], dtype=object)
    np.savez(cache, **tables)
    assert YouTubeVISIndex(root, cache_dir=tmp_path / "cache").file_name(7, 0) == "one/00000.jpg"
    assert "damaged" in caplog.text


def test_cache_that_cannot_be_written_is_no_error(root, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert YouTubeVISIndex(root, cache_dir=tmp_path / "file" / "cache").class_ids == [1, 2]
    assert "could not be written" in caplog.text


# -- real data

@needs_mini
@pytest.mark.parametrize("annotations, classes", [("train.json", 19), ("train_merged.json", 8)])
def test_mini_data_agrees_with_its_own_areas(annotations, classes):
    """Every mask of single-instance pairs has the area that the file states; all frames without null are found."""
    index = YouTubeVISIndex(MINI, annotations)
    data = json.loads((MINI / annotations).read_text())
    assert len(index.class_ids) == classes
    pairs = [(a["video_id"], a["category_id"]) for a in data["annotations"]]
    for annotation in data["annotations"]:
        pair = (annotation["video_id"], annotation["category_id"])
        if pairs.count(pair) > 1:
            continue
        areas = {t: area for t, area in enumerate(annotation["areas"]) if area}
        assert index.frames(*pair).tolist() == list(areas)
        frame = list(areas)[len(areas) // 2]
        assert index.read_mask(pair[0], frame, pair[1]).sum() == areas[frame]


@needs_mini
def test_mini_images_have_their_stated_size():
    index = YouTubeVISIndex(MINI, "train_merged.json")
    for video in index.videos(1):
        assert index.read_image(video, 0).shape == (*index.size(video), 3)
