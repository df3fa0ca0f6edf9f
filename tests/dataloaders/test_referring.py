"""The referring task: what an index finds, which clips are drawn and how they change, and what bad data say."""
import importlib.util
import json
import random
import shutil

import cv2
import numpy as np
import pytest
import torch
from material import SHARED
from referring_material import CLASSES, SIZE, change, squares, write_ref

from dataloaders.datasets.folds import REFYTVOS_CLASSES
from dataloaders.datasets.refytvos import RefSailVosIndex, RefYouTubeVosIndex
from dataloaders.referring import test_videos as streamed
from dataloaders.referring import train_batches, validation_videos
from dataloaders.referring.sampling import Batches, TrainSamples, draw_clip, draw_episode, read_clip, window
from dataloaders.referring.transforms import (
    Distortion,
    Shot,
    TrainTransform,
    as_floats,
    boxes_of,
    cropped,
    distorted,
    mirrored,
    resize_images,
    resized,
    restore,
    size_of,
    soft_masks,
    to_bytes,
)
from utils.config import load_config

GOLDEN = SHARED / "parity" / "cma"
needs_golden = pytest.mark.skipif(not (GOLDEN / "episodes_golden.json").is_file(),
                                  reason="the golden numbers of the release are not beside the project")
SMALL = ["model.method=tests.sentence_method", "data.workers=0", "data.test_size=24", "data.sizes=[24, 30]",
         "data.crop_from=[30]", "data.crop_sides=[16, 28]", "data.samples_per_class=2", "test.runs=2", "test.window=3"]


def config(root, *more):
    return load_config([], [*SMALL, f"data.root={root}", *more])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ref(tmp_path_factory.mktemp("ref"))


@pytest.fixture(scope="module")
def fill():
    spec = importlib.util.spec_from_file_location("cma_fill", GOLDEN / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden(name):
    return json.loads((GOLDEN / f"{name}_golden.json").read_text())


# -- golden numbers of the release ----------------------------------------------------------------------------------

def shot_of(index, clip, released=False):
    frames, labels = read_clip(index, clip.video, clip.frames)
    masks = torch.from_numpy(labels == clip.sentence.object)
    return Shot(torch.from_numpy(frames).permute(0, 3, 1, 2), masks, boxes_of(masks, released), clip.sentence.text)


def assert_drawn(index, clip, expected):
    assert (clip.video, list(clip.frames), clip.sentence.text, clip.sentence.object) == tuple(
        expected[key] for key in ("video", "frames", "caption", "object"))
    assert [clip.sentence.object, clip.sentence.number] in expected["candidates"]
    shot = shot_of(index, clip)
    assert shot.masks.sum((1, 2)).tolist() == expected["area"] and list(shot.size) == expected["size"]
    assert shot.valid.int().tolist() == expected["valid"] and shot.boxes.tolist() == expected["boxes"]
    assert shot_of(index, clip, released=True).boxes.tolist() == expected["boxes_released"]


@pytest.fixture(scope="module")
def tiny(fill, tmp_path_factory):
    """->  the golden episodes, the index of the data set that they are drawn from"""
    if not GOLDEN.is_dir():
        pytest.skip("the golden numbers are not beside the project")
    expected, place = golden("episodes"), tmp_path_factory.mktemp("tiny")
    fill.tiny_dataset(str(place), expected["dataset"])
    return expected, RefYouTubeVosIndex(place)


@needs_golden
def test_training_episodes_are_those_of_the_release(tiny):
    expected, index = tiny
    base, seed = index.side(expected["fold"], "train"), None
    data = load_config([], ["model.method=tests.sentence_method"]).data
    assert base == expected["train_class_list"] and len(Batches(base, data, 1, 0, 0)) == expected["train_length"]
    assert {str(c): index.videos(c) for c in base} == expected["videos_per_class"]
    for one in expected["train"]:
        if one["seed"] != seed:
            random.seed(seed := one["seed"])
        class_id = base[one["index"] // 100]
        query, support = draw_episode(index, class_id, index.videos(class_id), (5, 5), random.choice)
        assert class_id == one["class_id"]
        assert_drawn(index, query, one["query"])
        assert_drawn(index, support, one["support"])


@needs_golden
def test_test_episodes_are_those_of_the_release_with_sorted_supports(tiny):
    expected, index = tiny
    for test in expected["test"]:
        random.seed(test["seed"])
        classes, clips = index.side(expected["fold"], "test"), {}
        videos = {c: random.choice(index.videos(c)) for c in classes}
        assert classes == test["class_list"] and list(videos.values()) == test["support_videos"]
        order = [(c, v, one) for c in classes for v in index.videos(c) if v != videos[c]
                 for one in index.sentences(v, c)]
        assert [[v, one.object, one.number] for _, v, one in order] == test["order"]
        items = {item["index"]: item for item in test["items"]}
        for k, (c, video, one) in enumerate(order):
            clips[c] = clips.get(c) or draw_clip(index, c, videos[c], 5, random.choice)
            random.choice(index.frames(video))              # the release draws a frame of the query, and ignores it
            item = items.get(k, {})
            if "support" in item:
                assert_drawn(index, clips[c], item["support"])
            if "query" in item:
                assert item["query"] == {"video": video, "object": one.object, "expression": one.number,
                                         "frames": index.frames(video), "caption": one.text}


@needs_golden
def test_transforms_are_those_of_the_release(fill):
    g, rng = golden("transforms"), fill.rng("transforms/shared")
    frames = np.stack([rng.integers(0, 256, (g["height"], g["width"], 3)).astype(np.uint8) for _ in range(g["frames"])])
    masks = torch.zeros(g["frames"], g["height"], g["width"], dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, g["boxes"], strict=True):
        mask[y0:y1 + 1, x0:x1 + 1] = True
    shot = Shot(torch.from_numpy(frames).permute(0, 3, 1, 2), masks, boxes_of(masks), g["crop_then_check"]["caption"])
    assert shot.boxes.tolist() == g["boxes"]
    crop = cropped(shot, *g["crop_then_check"]["region"]).checked()
    cases = [(mirrored(shot, released=True), g["hflip"]), (crop, g["crop_then_check"])]
    cases += [(resized(shot, size_of(shot.size, one["size_arg"], one["max_size"])), one) for one in g["resize"]]
    for found, one in cases:
        assert found.boxes.numpy() == pytest.approx(np.array(one["boxes"]), abs=1e-5)
        assert list(found.size) == one["size"] and found.masks.sum((1, 2)).tolist() == one["mask_area"]
        assert (found.text, found.valid.int().tolist()) == (one["caption"], one["valid"])
        assert np.abs(fill.sample(found.images.permute(0, 2, 3, 1), 200) - one["sample"]).max() <= 1
    one = g["crop_resize_check_normalize"]
    last = resized(crop, size_of(crop.size, one["size_arg"], one["max_size"]))
    low, high = last.boxes[:, :2] / torch.tensor(last.size[::-1]), last.boxes[:, 2:] / torch.tensor(last.size[::-1])
    assert torch.cat([(low + high) / 2, high - low], dim=1).numpy() == pytest.approx(np.array(one["boxes"]), abs=1e-6)
    assert last.masks.sum((1, 2)).tolist() == one["mask_area"] and last.valid.int().tolist() == one["valid"]
    assert all(list(size_of((h, w), size, 640)) == out for w, h, size, out in g["train_sizes"]["rows"])
    assert all(list(size_of((h, w), 360)) == out for w, h, out in g["test_sizes"]["rows"])
    one = g["test_preprocess"]
    image = as_floats(resize_images(shot.images[:1], size_of(shot.size, one["short_side"])))[0]
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert np.abs(fill.sample((image - mean) / std, 200) - one["sample"]).max() < 1.01 / 255 / 0.224
    for one in g["photometric"]["cases"]:
        draw = Distortion(*(one[key] for key in ("brightness", "contrast", "saturation", "hue")),
                          tuple(one["channels"]), one["contrast_last"])
        found = distorted(frames[0], draw)[:6, :7]
        assert found.ravel() == pytest.approx(np.array(one["float_result"]), abs=1e-3)
        assert ((found < 0) | (found > 255)).sum() == one["outside_0_255"]


# -- clips ----------------------------------------------------------------------------------------------------------

def test_a_window_ends_at_its_anchor_or_is_the_first():
    frames = list("abcdefgh")
    assert ["".join(window(frames, anchor, 5)) for anchor in range(8)] == ["abcde"] * 5 + ["bcdef", "cdefg", "defgh"]
    assert window(["a", "b"], 1, 4) == ("a", "b", "b", "b")


def test_objects_are_drawn_by_their_sentences(root):
    index, rng = RefYouTubeVosIndex(root), random.Random(0)
    drawn = [draw_clip(index, 1, "cat2", 3, rng.choice).sentence for _ in range(600)]
    shares = [sum(one.number == n for one in drawn) / 600 for n in range(3)]     # object 1 has two of three sentences
    assert shares == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=0.06)
    assert drawn[0].text == drawn[0].text.lower() and "  " not in index.sentences("cat2", 1)[0].text


def test_folds_and_whose_sentences_are_a_class_s(tmp_path):
    write_ref(tmp_path, videos=2)
    change(tmp_path, things=lambda videos: videos["cat0"]["objects"]["2"].update(category="dog"))
    change(tmp_path, sentences=lambda videos: videos["cat0"]["expressions"].update({"2": {"exp": "x", "obj_id": "2"}}))
    last, each = (RefYouTubeVosIndex(tmp_path, members) for members in ("last", "each"))
    assert last.side(1, "test") == [1, 5] and last.side(1, "train") == [2, 3, 4]
    assert last.videos(2) == ["cat0", "dog0", "dog1"] and last.videos(1) == ["cat1"]
    assert len(last.sentences("cat0", 2)) == 3
    assert each.videos(1) == ["cat0", "cat1"] and [one.number for one in each.sentences("cat0", 1)] == [0]
    assert len(REFYTVOS_CLASSES) == 48 and all(len([c for c in REFYTVOS_CLASSES if (c - 1) % 4 == g]) == 12
                                               for g in range(4))


def test_boxes_hold_their_object_whatever_the_shape_and_the_flip():
    masks = torch.zeros(2, 20, 50, dtype=torch.bool)
    masks[0, 3:6, 40:48] = True
    assert boxes_of(masks).tolist() == [[40, 3, 47, 5], [0, 0, 0, 0]]
    assert boxes_of(masks, released=True).tolist() == [[20, 3, 20, 5], [0, 0, 0, 0]]
    shot = Shot(torch.zeros(2, 3, 20, 50, dtype=torch.uint8), masks, boxes_of(masks), "left of the rightmost")
    turned = mirrored(shot)
    assert turned.boxes[0].tolist() == boxes_of(turned.masks)[0].tolist() == [2, 3, 9, 5]
    assert turned.text == "right of the leftmost" and mirrored(shot, words=False).text == shot.text
    assert turned.checked().boxes[1].tolist() == [0, 0, 0, 0] and turned.checked().valid.tolist() == [True, False]


def test_a_training_clip_is_moved_as_one_and_boxes_fit_its_masks(root):
    data = config(root, "data.photometric=none").data
    frames, labels = np.zeros((3, *SIZE, 3), np.uint8), np.stack([squares(t) for t in range(3)])
    frames[..., 0] = 255 * (labels == 2)
    for seed in range(20):
        shot = TrainTransform(data)(frames, labels == 2, "on the left", np.random.default_rng(seed))
        assert shot.images.shape[-2:] == shot.masks.shape[-2:] and min(shot.size) in (24, 30) and max(shot.size) <= 640
        seen = shot.images[:, 0] > 127                                # image and mask go the same way
        assert (seen ^ shot.masks).float().mean() < 0.06
        for mask, box, valid in zip(shot.masks, shot.boxes, shot.valid, strict=True):
            exact = boxes_of(mask[None])[0]
            assert not valid or (box - exact).abs().max() <= 3      # of a crop of 16 rows that fills 30
            assert valid == bool(mask.any()) or mask.sum() < 40
    assert TrainTransform(config(root, "data.mirror=1.0").data)(
        frames, labels == 2, "on the left", np.random.default_rng(0)).text == "on the right"


def test_distorted_values_are_cut_or_wrap_as_released():
    image = np.array([[-3.7, 12.9, 260.2]])
    assert to_bytes(image).tolist() == [[0, 12, 255]] and to_bytes(image, released=True).tolist() == [[253, 12, 4]]


def test_truth_is_scaled_softly_and_probabilities_are_scaled_back():
    masks = np.random.default_rng(0).random((2, 9, 14)) < 0.5
    for mask, found in zip(masks, soft_masks(torch.from_numpy(masks), (6, 11)), strict=True):
        expected = cv2.resize(mask.astype(np.float32), (11, 6), interpolation=cv2.INTER_LINEAR) > 0.5
        assert (found.numpy() != expected).mean() < 0.02              # OpenCV rounds its weights
    margins = torch.randn(2, 6, 11)
    expected = [cv2.resize(one.sigmoid().numpy(), (14, 9), interpolation=cv2.INTER_LINEAR) for one in margins]
    assert restore(margins, (9, 14)).sigmoid().numpy() == pytest.approx(np.stack(expected), abs=1e-5)


# -- loaders --------------------------------------------------------------------------------------------------------

def test_an_epoch_is_the_same_for_any_number_of_processes_and_after_a_stop(root):
    cfg, index = config(root, "train.batch_size=2"), RefYouTubeVosIndex(root)

    def samples(start=0, part=(0, 1)):
        return [one for batch in train_batches(cfg, index, 1, 3, start, part) for one in batch.samples]

    whole = samples()
    assert len(whole) == 3 * 2 and sorted(one.key[3] for one in whole) == [2, 2, 3, 3, 4, 4]
    assert [one.key for one in samples(start=1)] == [one.key for one in whole[2:]]
    halves = [samples(part=(rank, 2)) for rank in (0, 1)]
    assert [one.key for pair in zip(*halves, strict=True) for one in pair] == [one.key for one in whole]
    assert all(torch.equal(a.query_images, b.query_images) for a, b in zip(halves[0], whole[::2], strict=True))
    one = whole[0]
    assert one.query_images.shape[:2] == (5, 3) and one.query_boxes.shape == (5, 4) and one.query_valid.shape == (5,)
    assert one.support_images.shape[-2:] == one.support_masks.shape[-2:] and 0 <= one.query_images.max() <= 1
    in_order = Batches([2, 3], config(root, "data.shuffle=false").data, 1, 0, 0)
    assert [batch[0][2] for batch in in_order] == [2, 2, 3, 3]


def test_test_videos_have_windows_truth_and_a_support_that_is_no_query(root):
    index, cfg = RefYouTubeVosIndex(root), config(root)
    videos = list(streamed(cfg, index, 1))
    assert streamed(cfg, index, 1).episodes.keys() == [one.key for video in videos for one in video.references]
    for video in streamed(cfg, index, 1):
        name = video.id.split("/")[1]
        clips = list(video.clips)
        assert [len(clip.images) for clip in clips][:-1] == [3] * (len(clips) - 1)
        assert sum(len(clip.images) for clip in clips) == len(video.frames) == len(index.frames(name))
        assert clips[0].images.shape[-2:] == (24, 42) and clips[0].masks.shape[0] == 2
        for one in video.references:
            assert one.facts[0]["support_frames"][0].split("/")[0] != name and one.masks.shape == (5, *SIZE)
            assert one.row == one.facts[0]["object"] - 1
        truth = torch.cat([clip.masks for clip in clips], dim=1)
        assert not truth[1, 3].any() and truth[1, 2].any()            # object 2 is gone in frame 3
    whole = next(iter(streamed(config(root, "test.window=0"), index, 1)))
    assert len(list(whole.clips)) == 1
    done = frozenset(streamed(cfg, index, 1).episodes.keys()[1:])
    assert [len(video.references) for video in streamed(cfg, index, 1, done=done)] == [1]


def test_sentences_of_a_run_share_their_support_also_when_it_is_pinned(root, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    video = next(iter(streamed(config(root, "data.workers=1"), RefYouTubeVosIndex(root), 1)))
    first = video.references[0]
    for one in (video, video.pin_memory()):
        runs = {}
        for reference in one.references:
            assert runs.setdefault(reference.key[0], reference.images) is reference.images
            assert torch.equal(reference.images, first.images) or reference.key[0] != 0
    batch = next(iter(train_batches(config(root, "train.batch_size=1"), RefYouTubeVosIndex(root), 1, 0)))
    assert batch.pin_memory().samples[0].query_images.data_ptr() != batch.samples[0].query_images.data_ptr()
    assert batch.to("cpu").ids == batch.ids and "from" in batch.ids[0]


def test_supports_depend_on_the_run_alone_and_validation_has_videos_of_its_own(root):
    index, cfg = RefYouTubeVosIndex(root), config(root)
    first, again = (list(streamed(cfg, index, 1)) for _ in range(2))
    assert [[one.facts for one in video.references] for video in first] == [
        [one.facts for one in video.references] for video in again]
    held = {video.id.split("/")[1] for video in validation_videos(cfg, index, 1)}
    assert held and all(name.startswith(("dog", "bus", "car")) for name in held)
    samples = TrainSamples(index, [2, 3, 4], cfg, exclude=held)
    assert not held & {name for names in samples.videos.values() for name in names}
    assert validation_videos(config(root, "validate.classes=none"), index, 1) is None


def test_other_names_of_folders_and_files_and_the_synthetic_data(tmp_path):
    place = write_ref(tmp_path / "mini-ref-youtube-vos", videos=2)
    (place / "meta_expressions/train/meta_expressions.json").rename(place / "meta_expressions/train/train.json")
    (place / "train/meta.json").rename(place / "train/train.json")
    assert RefYouTubeVosIndex(tmp_path).class_ids == RefYouTubeVosIndex(place).class_ids == [1, 2, 3, 4, 5]
    write_ref(tmp_path / "Mini-Ref-SAIL-VOS", videos=2, sail=True, classes=("dog", "car", "person"))
    index = RefSailVosIndex(tmp_path)
    image, labels = index.read("dog0", "00000")
    assert index.side(2, "test") == [28, 37, 48] and set(np.unique(labels)) == {0, 1} and image.shape == (*SIZE, 3)
    assert image[10, 10].tolist() == [204, 26, 26]
    with pytest.raises(ValueError, match="it is tested, and nothing is trained on it"):
        index.side(1, "train")


# -- bad input ------------------------------------------------------------------------------------------------------

def expression(**changes):
    return lambda videos: videos["cat0"]["expressions"]["1"].update(changes)


@pytest.mark.parametrize(("sentences", "things", "words"), [
    (expression(obj_id="7"), None, "video 'cat0', sentence 1: it is about object '7', which .*meta.json does not have"),
    (expression(obj_id="../1"), None, "is about object '../1'"),
    (expression(exp=" \t"), None, "video 'cat0', sentence 1: it is empty"),
    (lambda v: v["cat0"]["expressions"].pop("1"), None, r"have the ids \['0', '2'\], which are not 0 to 1"),
    (lambda v: v["cat0"].update(expressions={}), None, "video 'cat0': it has no expressions"),
    (lambda v: v["cat0"].pop("frames"), None, "video 'cat0': it has no frames"),
    (lambda v: v["cat0"]["frames"].append("../../x"), None, "its name, or that of a frame, is none"),
    (lambda v: v.update({"a/b": v.pop("cat0")}), None, "its name, or that of a frame, is none"),
    (None, lambda v: v.pop("cat0"), "video 'cat0': .*meta.json does not know it"),
    (None, lambda v: v["cat0"]["objects"]["1"].update(category="yeti"), "object 1 has the unknown category 'yeti'")])
def test_bad_files_are_told_in_one_error(tmp_path, sentences, things, words):
    write_ref(tmp_path, videos=1, classes=CLASSES[:1])
    change(tmp_path, sentences, things)
    with pytest.raises(ValueError, match=words):
        RefYouTubeVosIndex(tmp_path)


def test_missing_files_are_told_with_the_place_where_they_were_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*meta_expressions.json, nor one of"):
        RefYouTubeVosIndex(tmp_path)
    write_ref(tmp_path, videos=2, classes=CLASSES[:2])
    index, cfg = RefYouTubeVosIndex(tmp_path), config(tmp_path, "data.crop=0")
    (tmp_path / "train/JPEGImages/dog0/00000.png").unlink()
    with pytest.raises(FileNotFoundError, match="lists a frame that has no file .*dog0/00000.jpg"):
        read_clip(index, "dog0", index.frames("dog0"))
    (tmp_path / "train/Annotations/dog1/00000.png").unlink()
    with pytest.raises(FileNotFoundError, match="has no file .*Annotations/dog1/00000.png"):
        list(train_batches(config(tmp_path, "train.batch_size=1"), index, 1, 0))
    shutil.rmtree(tmp_path / "train/Annotations")
    with pytest.raises(FileNotFoundError, match="no folder .*train/Annotations"):
        RefYouTubeVosIndex(tmp_path)
    write_ref(tmp_path / "one", videos=1, classes=CLASSES[:2])
    with pytest.raises(ValueError, match="class 'cat' has 1 videos to draw from, an episode needs 2"):
        streamed(cfg, RefYouTubeVosIndex(tmp_path / "one"), 1)
