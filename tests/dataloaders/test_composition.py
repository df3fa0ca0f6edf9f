"""Composition: two videos in one frame, the same layout in every frame of a clip, and nothing while it is off."""
import copy
import json

import cv2
import numpy as np
import pytest
import torch
from material import FakeIndex, small_config

from dataloaders.fewshot.composition import Composer, Composition, Layout, draw_layout, lay, pendulum
from dataloaders.fewshot.sampling import TrainEpisodes
from dataloaders.fewshot.streaming import TestEpisodes
from utils.seeds import rng_for


def disc(size, x, y, radius):
    mask = np.zeros(size, np.uint8)
    cv2.circle(mask, (x, y), radius, 1, -1)
    return mask > 0


def layout_of(**changed):
    values = {"target_laid": False, "in_front": True, "scale": 0.5, "middle": np.array([20.0, 20.0]),
              "place": np.array([60.0, 30.0]), "sway": np.zeros((2, 2))}
    return Layout(**values | changed)


def laid_by_hand(mask, layout, shape):
    """Slow: every pixel of the host asks the one pixel it came from."""
    found = np.zeros(shape, bool)
    for y in range(shape[0]):
        for x in range(shape[1]):
            source = (np.array([x, y]) - layout.place) / layout.scale + layout.middle
            column, row = source.round().astype(int)
            found[y, x] = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and mask[row, column]
    return found


@pytest.mark.parametrize("in_front", [True, False])
def test_the_one_in_front_hides_the_other(in_front):
    laid, host = disc((40, 50), 20, 20, 12), disc((60, 90), 62, 32, 8)
    layout = layout_of(in_front=in_front, middle=np.array([np.nonzero(laid)[i].mean() for i in (1, 0)]))
    image, of_host, of_laid = lay((np.full((40, 50, 3), 200, np.uint8), laid), (np.zeros((60, 90, 3), np.uint8), host),
                                  layout, 0)
    expected = laid_by_hand(laid, layout, host.shape)
    assert not (of_host & of_laid).any()
    assert ((of_host | of_laid) ^ (expected | host)).mean() < 0.01          # but for the edge
    core = cv2.erode((expected & host).astype(np.uint8), np.ones((5, 5))) > 0
    assert core.any() and (of_laid if in_front else of_host)[core].all()
    assert (abs(image[core] - (200.0 if in_front else 0)) < 20).all() and (image[~(expected | host)] < 200).all()
    assert len(np.unique(image)) > 5                                       # soft edges


def test_the_laid_object_keeps_its_motion_and_its_middle_within_the_frame():
    layout, size = layout_of(scale=1.0), (60, 90)
    for offset, x in enumerate((20, 24, 28, 90)):
        laid = disc((40, 120), x, 20, 6)
        host = np.zeros((*size, 3), np.uint8), np.zeros(size, bool)
        _, _, seen = lay((np.zeros((40, 120, 3), np.uint8), laid), host, layout, offset)
        rows, cols = np.nonzero(seen)
        assert (rows.mean(), cols.mean()) == pytest.approx((30, min(60 + x - 20, 81)), abs=0.6)


def test_a_still_moves_along_a_smooth_path():
    laid = disc((40, 50), 20, 20, 6)
    layout = layout_of(sway=np.array([[8.0, 4.0], [1.0, 2.0]]))
    ways = np.stack([layout.matrix(laid, (60, 90), offset)[:, 2] for offset in range(20)])
    steps = np.linalg.norm(np.diff(ways, axis=0), axis=1)
    assert np.ptp(ways, axis=0).min() > 2 and steps.max() < 3
    assert ways[0] == pytest.approx(layout_of().matrix(laid, (60, 90), 0)[:, 2])


def test_a_video_goes_on_to_its_end_and_back():
    assert [pendulum([3, 5, 9], step) for step in range(6)] == [3, 5, 9, 5, 3, 5] and pendulum([4], 7) == 4


def test_a_place_is_found_where_both_objects_are_seen():
    target, partner, black = disc((96, 168), 84, 48, 20), disc((96, 168), 40, 40, 25), np.zeros((96, 168, 3), np.uint8)
    for seed in range(20):
        layout = draw_layout(target, partner, False, bool(seed % 2), rng_for(seed))
        laid, host = (target, partner) if layout.target_laid else (partner, target)
        _, of_host, of_laid = lay((black, laid), (black, host), layout, 0)
        assert of_host.sum() >= 0.45 * host.sum() and of_laid.sum() >= 0.45 * laid.sum() * layout.scale ** 2


# -- episodes

@pytest.fixture
def composed_cfg():
    cfg = small_config(compose=1.0)
    cfg.data.augmentation = "none"
    cfg.test.compose = 1.0
    return cfg


def same(a, b):
    return torch.equal(a.query_images, b.query_images) and torch.equal(a.support_images, b.support_images)


def test_off_is_what_it_was(composed_cfg):
    """The frames and supports that are drawn do not depend on composition, and without it nothing else changes."""
    index, off = FakeIndex({1: 7, 2: 7}), small_config()
    off.data.augmentation = "none"
    plain, composed = (TrainEpisodes(index, [1, 2], cfg)[0, 3, 1] for cfg in (off, composed_cfg))
    assert plain.frames == composed.frames and plain.support_frames == composed.support_frames
    assert torch.equal(plain.query_images[:, :, 0, 0].mul(255).round()[:, 0], torch.tensor(
        [float(name[-9:-4]) for name in plain.frames]))
    assert not same(plain, composed)


def test_an_episode_follows_from_its_key_and_a_pool_comes_again(composed_cfg):
    index = FakeIndex({1: 7, 2: 7})
    fresh = TrainEpisodes(index, [1, 2], composed_cfg)
    assert same(fresh[0, 3, 1], TrainEpisodes(index, [1, 2], composed_cfg)[0, 3, 1])
    assert not same(fresh[0, 3, 1], fresh[1, 3, 1])
    pooled = copy.deepcopy(composed_cfg)
    pooled.data.compose_pool = 2
    episodes = TrainEpisodes(index, [1, 2], pooled)
    seen = [episodes[epoch, 0, 1] for epoch in range(12)]
    assert len({one.query_images.numpy().tobytes() for one in seen}) == 2
    assert len({image.numpy().tobytes() for one in seen for image in one.support_images}) <= 7
    assert all(one.query_masks.flatten(1).any(1).all() for one in seen)


def test_partners_are_of_another_class_and_never_show_the_target():
    class Shared(FakeIndex):
        def videos(self, class_id):
            return super().videos(class_id) + ([200] if class_id == 1 else [])      # class 2's first shows class 1, too

    index = Shared({1: 2, 2: 2, 3: 2})
    composer = Composer(1.0, index, {c: index.videos(c) for c in (1, 2, 3)})
    drawn = [composer.draw(1, 100, 4, rng_for(seed)) for seed in range(30)]
    assert {(one.class_id, one.video) for one in drawn} == {(2, 201), (3, 300), (3, 301)}
    assert {composer.draw(1, 200, 4, rng_for(seed)).class_id for seed in range(10)} == {3}
    assert Composer(1.0, index, {1: index.videos(1)}).draw(1, 100, 4, rng_for(0)) is None
    assert {one.layout.target_laid for one in drawn} == {True, False} == {one.layout.in_front for one in drawn}


def test_the_target_keeps_its_size_in_another_hosts_frame():
    index = FakeIndex({1: 1, 2: 1})
    host = FakeIndex({2: 1}, size=(30, 100))
    laid = Composition(host, 2, 200, index.frames(200, 2), 0, 2, layout_of(target_laid=True, scale=0.5))
    image, mask = laid(index.read_image(100, 5), index.read_mask(100, 5, 1), 5)
    assert image.shape == (48, 64, 3) and mask.shape == (48, 64) and mask.sum() == pytest.approx(24 * 32 / 4, rel=0.2)


def test_stills_give_objects_but_none_of_a_test_class(tmp_path):
    image = {"height": 96, "width": 96}
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "1.png"), np.full((96, 96, 3), 255, np.uint8))
    box = {"image_id": 1, "iscrowd": 0, "segmentation": [[10, 10, 80, 10, 80, 80, 10, 80]], "bbox": [10, 10, 70, 70]}
    (tmp_path / "stills.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "1.png", **image}],
        "categories": [{"id": 7, "name": "kite"}, {"id": 8, "name": "class5"}],
        "annotations": [{"id": n, "category_id": c, "area": 4900, **box} for n, c in enumerate((7, 8), 1)]}))
    index = FakeIndex({1: 2, 5: 2})                                              # class 5 is tested
    composer = Composer(1.0, index, {1: index.videos(1)}, str(tmp_path / "stills.json"))
    for seed in range(5):
        drawn = composer.draw(1, 100, 4, rng_for(seed))
        assert drawn.class_name == "kite" and not drawn.layout.target_laid and drawn.layout.sway[0].any()
    image, mask = drawn(index.read_image(100, 6), index.read_mask(100, 6, 1), 6)
    assert image.max() > 200 and 0 < mask.sum() <= 24 * 32


def test_mixed_videos_are_preferred():
    class Mixed(FakeIndex):
        def videos(self, class_id):
            return super().videos(class_id) + ([100] if class_id == 2 else [])

    cfg = small_config(prefer_mixed=1.0)
    mixed = TrainEpisodes(Mixed({1: 7, 2: 7}), [1, 2], cfg)
    assert {mixed[0, n, 1].frames[0].split("/")[0] for n in range(6)} == {"v100"}
    cfg.data.prefer_mixed = 0.0
    assert len({TrainEpisodes(Mixed({1: 7, 2: 7}), [1, 2], cfg)[0, n, 1].frames[0][:4] for n in range(9)}) > 2


# -- tests

def test_test_clips_are_composed_from_the_seed_alone(composed_cfg):
    index = FakeIndex({1: 7, 5: 7})
    first, other_run = (TestEpisodes(index, [1, 5], composed_cfg, run) for run in (0, 1))
    for i in (0, 9):
        clips = [episodes.clip(i, 1) for episodes in (first, other_run, TestEpisodes(index, [1, 5], composed_cfg, 0))]
        assert all(torch.equal(clips[0].images, clip.images) for clip in clips)
        assert first.video(i).references[0].facts[0]["composed_with"] == ("class5" if i == 0 else "class1")
    off = small_config()
    assert "composed_with" not in TestEpisodes(index, [1, 5], off, 0).video(0).references[0].facts[0]


def test_swapped_supports_are_of_the_class_that_was_laid_in(composed_cfg):
    composed_cfg.test.swap_supports = True
    index = FakeIndex({1: 7, 5: 7, 9: 7})
    episodes = TestEpisodes(index, [1, 5, 9], composed_cfg, 0)
    for i in range(0, 21, 4):
        reference, = episodes.video(i).references
        facts, = reference.facts
        assert facts["swapped_class"] == facts["composed_with"] != facts["class"] and all(facts["shows_both"])
        assert all(name.startswith(f"v{facts['swapped_class'][5:]}") for name in facts["swapped_frames"])
        assert reference.swapped.images.shape == reference.images.shape and reference.swapped.masks.any()
    plain = copy.deepcopy(composed_cfg)
    plain.test.compose = 0.0
    facts, = TestEpisodes(index, [1, 5, 9], plain, 0).video(3).references[0].facts
    assert facts["swapped_class"] in ("class5", "class9") and not any(facts["shows_both"])
    alone = TestEpisodes(index, [1], plain, 0)
    with pytest.raises(ValueError, match="only test class"):
        alone.video(0)
