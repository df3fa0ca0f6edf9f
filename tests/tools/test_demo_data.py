"""The demo data set: same bytes for the same seed, the YouTube-VIS layout, exact masks, folds that need both cues."""
import colorsys
import json
import re

import cv2
import numpy as np
import pytest
from material import tree
from pycocotools import mask as rle

from tools.demo_data import scene as demo_scene
from tools.demo_data.folder import video_size
from tools.demo_data.scene import CATEGORIES, OUTLINES, SHAPES, SURFACES, TEXTURES, UNIT_AREA, render_video
from tools.demo_data.ytvis import MIN_VISIBLE, VERSION, write_demo_data

SETTINGS = {"seed": 3, "videos_per_category": 6, "size": (48, 80), "frames": (5, 7)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small data set: its folder and parsed train.json."""
    root = tmp_path_factory.mktemp("demo") / "train"
    assert write_demo_data(root, **SETTINGS)
    return root, json.loads((root / "train.json").read_text())


def decoded(annotation):
    """(T, H, W) bool, empty where the object is absent."""
    empty = np.zeros((annotation["height"], annotation["width"]), np.uint8)
    return np.stack([rle.decode(s) if s else empty for s in annotation["segmentations"]]) > 0


def scene_of(index, video):
    """What the renderer says about a written video, from its own generator."""
    rng = np.random.default_rng([SETTINGS["seed"], index])
    rng.integers(SETTINGS["frames"][0], SETTINGS["frames"][1] + 1)         # the draw of the length comes first
    return render_video(CATEGORIES[index % 16], video["length"], (video["height"], video["width"]), rng)


# Determinism

def test_same_seed_gives_same_bytes_with_any_number_of_processes(demo, tmp_path):
    write_demo_data(tmp_path, **SETTINGS, jobs=2)
    assert tree(tmp_path) == tree(demo[0])


def test_another_seed_gives_other_frames_and_the_same_seed_the_same_with_fewer_videos(demo, tmp_path):
    for seed in (3, 4):
        write_demo_data(tmp_path / str(seed), **{**SETTINGS, "videos_per_category": 1, "seed": seed})
    many, same, other = (tree(root / "JPEGImages") for root in (demo[0], tmp_path / "3", tmp_path / "4"))
    assert same and all(many[name] == digest for name, digest in same.items())
    assert all(many.get(name) != digest for name, digest in other.items())


@pytest.mark.parametrize("index, ids, areas", [
    (0, [1, 12], [2604, 1184]), (5, [6, 10], [1177, 881]), (10, [11, 6, 6], [1425, 1495, 1245]),
    (15, [16, 8, 11], [2077, 1995, 1949])])
def test_scenes_are_still_those_of_version_2(index, ids, areas):
    """Pixels of each object in a frame, as once written; a changed draw would move them far. Else raise VERSION."""
    rng = np.random.default_rng([0, index])
    rng.integers(12, 17)                                   # the draw of the length comes first
    _, labels, seen = render_video(CATEGORIES[index], 3, (96, 160), rng)
    assert VERSION == 2 and [c.id for c in seen] == ids
    np.testing.assert_allclose(np.bincount(labels[2].ravel())[1:], areas, atol=3)


# Layout

def test_keys_are_those_of_youtube_vis(demo):
    document = demo[1]
    assert set(document) == {"info", "licenses", "videos", "categories", "annotations"}
    assert set(document["videos"][0]) == {"id", "file_names", "width", "height", "length", "license", "date_captured",
                                          "flickr_url", "coco_url"}
    assert set(document["categories"][0]) == {"id", "name", "supercategory"}
    assert set(document["annotations"][0]) == {"id", "video_id", "category_id", "segmentations", "bboxes", "areas",
                                               "iscrowd", "height", "width", "length"}
    for kind in ("videos", "categories", "annotations"):
        assert [entry["id"] for entry in document[kind]] == list(range(1, len(document[kind]) + 1))


def test_listed_frames_are_the_frames_on_disk_in_rgb(demo):
    root, document = demo
    listed = [name for video in document["videos"] for name in video["file_names"]]
    on_disk = sorted(str(path.relative_to(root / "JPEGImages")) for path in (root / "JPEGImages").rglob("*.*"))
    assert sorted(listed) == on_disk and len(document["videos"]) == 6 * 16
    assert all(re.fullmatch(r"demo_\d{4}/\d{5}\.jpg", name) for name in listed)
    for video in document["videos"]:
        image = cv2.imread(str(root / "JPEGImages" / video["file_names"][0]))
        assert image.shape == (video["height"], video["width"], 3)
        assert SETTINGS["frames"][0] <= video["length"] == len(video["file_names"]) <= SETTINGS["frames"][1]
    video = document["videos"][0]
    frames, labels, _ = scene_of(0, video)
    vivid = labels[0] > 0                                  # the background is muted: red and blue differ little there
    stored = cv2.imread(str(root / "JPEGImages" / video["file_names"][0]))[..., ::-1][vivid].astype(float)
    right, swapped = (np.abs(colours - frames[0][vivid]).mean() for colours in (stored, stored[:, ::-1]))
    assert right < 12 and swapped > 2 * right              # the former is what JPEG costs on noise


def test_some_videos_are_upright_or_of_another_shape():
    sizes = [video_size(index, (96, 160)) for index in range(128)]
    assert sizes.count((96, 160)) > 100
    assert sizes.count((160, 96)) >= 9 and sizes.count((120, 160)) >= 9
    assert len({index % 16 for index, size in enumerate(sizes) if size == (160, 96)}) >= 9     # of many categories


# Categories and folds

def test_each_fold_tests_every_shape_and_texture_once_in_new_combinations(demo):
    assert [c.id for c in CATEGORIES] == list(range(1, 17))
    assert {c.name for c in CATEGORIES} == {f"{texture}_{shape}" for texture in TEXTURES for shape in SHAPES}
    assert [c["name"] for c in demo[1]["categories"]] == [c.name for c in CATEGORIES]
    for fold in (1, 2, 3, 4):
        novel = [c for c in CATEGORIES if (c.id - 1) % 4 == fold - 1]
        base = [c for c in CATEGORIES if c not in novel]
        assert sorted(c.shape for c in novel) == sorted(SHAPES) == sorted({c.shape for c in base})
        assert sorted(c.texture for c in novel) == sorted(TEXTURES) == sorted({c.texture for c in base})


def test_every_category_has_videos_for_five_supports_and_a_query(demo):
    annotations = demo[1]["annotations"]
    videos = {c.id: {a["video_id"] for a in annotations if a["category_id"] == c.id} for c in CATEGORIES}
    assert min(map(len, videos.values())) >= 6


def test_distractors_sometimes_share_shape_or_texture_so_that_both_are_needed():
    shape = texture = 0
    for seed in range(400):
        target = CATEGORIES[seed % 16]
        chosen = demo_scene.choose_categories(target, np.random.default_rng(seed))
        others = [c for c in chosen if c != target]
        assert 1 <= chosen.count(target) <= 2 and 1 <= len(others) <= 2
        shape += any(c.shape == target.shape for c in others)
        texture += any(c.texture == target.texture for c in others)
    assert 15 < shape < 80 and 15 < texture < 80


def test_size_and_brightness_say_nothing_about_the_category_and_hue_only_the_texture():
    things = [demo_scene.make_thing(c, np.array([48., 80.]), 14, (96, 160), np.random.default_rng(7))
              for c in CATEGORIES]
    areas = [UNIT_AREA[t.category.shape] * t.radius ** 2 for t in things]
    same = {t.category.texture: t.tones for t in things}
    for thing, area in zip(things, areas, strict=True):
        np.testing.assert_array_equal(thing.tones, same[thing.category.texture])
        np.testing.assert_allclose(thing.tones.max(axis=1), things[0].tones.max(axis=1))
        np.testing.assert_allclose(area, areas[0])
    rng = np.random.default_rng(0)
    for hue in demo_scene.HUES.values():
        drawn = [colorsys.rgb_to_hsv(*demo_scene.draw_tones(hue, rng)[0] / 255)[0] for _ in range(300)]
        away = (np.array(drawn) - hue + 0.5) % 1 - 0.5
        assert abs(away.mean()) < 0.02 and (np.abs(away) < 0.125).mean() > 0.85


# Masks

def test_written_masks_are_the_visible_pixels_of_the_scene(demo):
    document = demo[1]
    for index in range(0, 96, 7):
        video = document["videos"][index]
        _, labels, categories = scene_of(index, video)
        tracks = [a for a in document["annotations"] if a["video_id"] == video["id"]]
        assert [t["category_id"] for t in tracks] == [c.id for c in categories]
        for label, track in enumerate(tracks, start=1):
            visible = labels == label
            visible[visible.sum((1, 2)) < MIN_VISIBLE] = False
            np.testing.assert_array_equal(decoded(track), visible)
            for mask, box, area in zip(visible, track["bboxes"], track["areas"], strict=True):
                rows, cols = np.nonzero(mask)
                assert (area or 0) == len(rows) and (area is None) == (box is None)
                assert box is None or box == [cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1]


def test_nearer_object_and_bar_hide_what_is_behind():
    rng = np.random.default_rng(0)
    size = (96, 160)
    back, front = (demo_scene.make_thing(CATEGORIES[0], np.array([48., 80.]), 1, size, rng) for _ in range(2))
    back.path[:], front.path[:] = (48, 70), (48, 90)
    image, labels = np.zeros((*size, 3), np.float32), np.zeros(size, np.uint8)
    demo_scene.draw_thing(image, labels, back, 0, label=1)
    alone = labels == 1
    demo_scene.draw_thing(image, labels, front, 0, label=2)
    assert (alone & (labels == 2)).any() and not ((labels == 1) & ~alone).any()
    bar = demo_scene.Bar(np.array([0., 1.]), np.array([80.]), 5., np.array([255., 0., 0.]))
    demo_scene.draw_bar(image, labels, bar, 0)
    assert not labels[:, 76:85].any() and labels[:, :75].any() and labels[:, 86:].any()
    np.testing.assert_array_equal(image[:, 76:85], np.broadcast_to([255, 0, 0], (96, 9, 3)))


def test_objects_leave_the_frame_and_come_back(demo):
    absent = [a["segmentations"].count(None) for a in demo[1]["annotations"]]
    assert 0 < sum(absent) < 0.1 * sum(a["length"] for a in demo[1]["annotations"])


def test_star_is_the_polygon_of_its_tips_and_notches():
    angle = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.05, 0.5)
    corners = np.stack([radii * np.cos(angle), radii * np.sin(angle)], axis=1).astype(np.float32)
    points = np.random.default_rng(1).uniform(-1.2, 1.2, (500, 2))
    inside = [cv2.pointPolygonTest(corners, (float(u), float(v)), False) > 0 for u, v in points]
    np.testing.assert_array_equal(OUTLINES["star"](points[:, 0], points[:, 1], form=0.) < 0, inside)


@pytest.mark.parametrize("shape", OUTLINES)
def test_unit_area_is_the_area_of_the_shape(shape):
    v, u = np.mgrid[-1.5:1.5:600j, -1.5:1.5:600j]
    area = np.mean([(OUTLINES[shape](u, v, form) < 0).mean() * 9 for form in np.linspace(0, 0.99, 10)])
    assert area == pytest.approx(UNIT_AREA[shape], rel=0.06)


@pytest.mark.parametrize("texture", SURFACES)
def test_every_texture_has_both_tones_everywhere(texture):
    thing = demo_scene.make_thing(demo_scene.Category(1, "disc", texture), np.array([48., 80.]), 1, (96, 160),
                                  np.random.default_rng(0))
    x, y = np.meshgrid(np.arange(-30., 31.), np.arange(-30., 31.))
    blend = SURFACES[texture](x, y, thing)
    assert blend.shape == x.shape and 0 <= blend.min() < 0.1 and 0.9 < blend.max() <= 1
    assert 0.15 < blend.mean() < 0.85


def test_turning_objects_end_in_other_colours_than_they_began():
    """Front and back: the mean colour under a mask moves much further than in the same video without turning."""
    moved = {turning: [] for turning in (0.0, 1.0)}
    for turning, steps in moved.items():
        for index in range(6):
            images, labels, _ = render_video(CATEGORIES[index], 30, (96, 160), np.random.default_rng(index),
                                             leaving=0, turning=turning)
            steps += [np.abs(images[0][labels[0] == i].mean(0) - images[-1][labels[-1] == i].mean(0)).max()
                      for i in range(1, labels.max() + 1) if (labels[0] == i).any() and (labels[-1] == i).any()]
    assert np.median(moved[0.0]) < 30 < 60 < np.median(moved[1.0])
