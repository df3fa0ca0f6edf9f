"""YouTubeVISIndex: masks against run lengths painted by hand, and an error with a name for every kind of bad data."""
import json
from functools import partial

import numpy as np
import pytest
from material import GONE, SHARED, changed, rle_of, run_lengths
from material import box as material_box

from dataloaders.datasets.rle import rle_counts
from dataloaders.datasets.ytvis import YouTubeVISIndex
from dataloaders.images import MAX_PIXELS
from tools.workshop.fuzzing.strategies import wrapping_runs

MINI = SHARED / "data" / "mini_ytvis" / "train"
ROWS, COLS = 32, 48

box = partial(material_box, size=(ROWS, COLS))
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
        "annotations": [annotation(21, 4, 1, rle_of), annotation(11, 7, 1, run_lengths),
                        annotation(12, 7, 1, rle_of), annotation(13, 7, 2, run_lengths)],
    }


def write(root, data):
    (root / "train.json").write_text(json.dumps(data))
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path, content())


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


def test_run_lengths_of_compressed_strings():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((rng.integers(1, 40), rng.integers(1, 400))) < rng.random()
        rle = np.frombuffer(rle_of(mask)["counts"].encode(), np.uint8)
        assert rle_counts(rle).tolist() == run_lengths(mask)["counts"]


# -- bad annotations

NAMES, ANNOTATION, RLE = "videos.0.file_names", "annotations.1", "annotations.1.segmentations.0"
BAD_ANNOTATIONS = [
    ("annotations", GONE, "the top level has no 'annotations'"),
    ("annotations", None, "annotations is null, expected a list"),
    ("annotations", [], "only the train split"),
    ("videos.0.width", GONE, "video number 0 .id 7.: it has no 'width'"),
    ("videos.1", 3, "video number 1: it is an integer, expected an object"),
    ("videos.0.id", "7", "video number 0: id is text, expected an integer"),
    ("videos.0.id", 2 ** 63, "video number 0.*: id: expected an integer <="),
    ("videos.0.id", -10 ** 30, "video number 0"),
    ("videos.1.id", 7, "video 7: its id occurs twice"),
    ("videos.0.height", 0, "id 7.: height: expected an integer >= 1"),
    ("videos.0", lambda v: v | {"height": 60_000, "width": 60_000}, f"more than {MAX_PIXELS} pixels"),
    (NAMES, [], "id 7.: file_names: expected a list of length >= 1"),
    (NAMES, ["one/1.jpg", "three/2.jpg"], "id 7.: its frames lie in 2 folders"),
    (NAMES, ["one/1.jpg", "one//1.jpg"], "id 7.: a file name occurs twice"),
    ("videos.1.file_names", ["one/9.jpg"], "video 4: video 7 has the folder 'one'"),
    (NAMES, ["/etc/x.jpg"], "the file name '/etc/x.jpg' is not a name below"),
    (NAMES, ["//server/a.jpg"], "is not a name below"),
    (NAMES, ["a/../../x.jpg"], "is not a name below a folder of the images"),
    (NAMES, ["a\\..\\..\\x.jpg"], "is not a name below a folder of the images"),
    (NAMES, ["x.jpg"], "is not a name below a folder of"),
    (NAMES, ["a/\0.jpg"], r"file_names\[0\]: expected text without zero bytes"),
    (NAMES, ["a/" + "x" * 10 ** 6], r"file_names\[0\]: expected text of length"),
    ("categories.0.name", "person", "category 1: category 2 is called 'person', too"),
    ("categories.0.name", 7, "name is an integer, expected text"),
    ("categories.0.name", {"a": 1}, "name is an object, expected text"),
    ("categories.0.name", "\ud800", "no valid JSON at line 1, column"),
    (f"{ANNOTATION}.video_id", 99, "annotation 11: .* the video_id 99"),
    (f"{ANNOTATION}.category_id", 77, "annotation 11: .* the category_id 77"),
    (f"{ANNOTATION}.category_id", "y" * 10 ** 6, "category_id is text"),
    (f"{ANNOTATION}.segmentations", [None], "1 segmentations, but the video has 3"),
    (RLE, [1, 2], r"segmentations\[0\] is a list, expected an object or null"),
    (f"{RLE}.size", [COLS, ROWS], "annotation 11, video 7, frame 0: RLE of size"),
    (f"{RLE}.size", [2 ** 40, 2 ** 40], r"size\[0\]: expected an integer"),
    (f"{RLE}.counts", [10, 20], "frame 0: RLE: counts sum up to 30, not to 1536"),
    (f"{RLE}.counts", [2000, -464], "negative"),
    (f"{RLE}.counts", [1.5, 2.5], r"counts\[0\] is a number, expected an integer"),
    (f"{RLE}.counts", [int("9" * 4300)] * 2, "annotation 11|number 1"),
    (f"{RLE}.counts", "hello world", "frame 0: RLE: its string does not fill"),
    (f"{RLE}.counts", rle_of(box(2, 3, 10, 20))["counts"][:-1], "does not fill"),
]


@pytest.mark.parametrize("case", BAD_ANNOTATIONS, ids=lambda case: case[0])
def test_bad_annotations_are_named_in_few_words(tmp_path, case):
    *place, message = case
    with pytest.raises(ValueError, match=message) as error:
        YouTubeVISIndex(write(tmp_path, changed(content(), *place)))
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
    assert r"one\\00001" in text and YouTubeVISIndex(root).file_name(7, 1) == "one/00001.jpg"


def test_missing_annotation_file_tells_the_key(tmp_path):
    with pytest.raises(FileNotFoundError, match="no train.json in .*data.root") as error:
        YouTubeVISIndex(tmp_path)
    assert "Set data.root to the folder with train.json and JPEGImages/" in str(error.value)


def test_runs_that_overflow_to_the_right_sum_are_refused(tmp_path):
    """NumPy would write beyond its memory: their sum is that of the image modulo 2 ** 64."""
    runs = wrapping_runs(ROWS * COLS)
    counts = rle_counts(np.frombuffer(runs.encode(), np.uint8))
    assert counts.sum() == ROWS * COLS and counts.max() > 2 ** 50
    with pytest.raises(ValueError, match="annotation 11, video 7, frame 0: RLE: its string does not fill 32 x 48"):
        YouTubeVISIndex(write(tmp_path, changed(content(), f"{RLE}.counts", runs)))


def test_a_mask_of_a_changed_cache_is_refused_when_decoded(root):
    index = YouTubeVISIndex(root)
    index._tables["rle"] = index._tables["rle"][::-1]
    with pytest.raises(ValueError, match="annotation 21, video 4, frame 0: the runs .* do not sum up to 32 x 48"):
        index.read_mask(4, 0, 1)


# -- bad images

# -- cache

# -- real data

@pytest.mark.skipif(not MINI.is_dir(), reason="needs the mini data set in ../shared/data/mini_ytvis")
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
