"""Sampling: the released windows, supports that follow from their key alone, and the loaders of all of it."""
import copy
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from material import DEMO, SHARED, TINY, FakeIndex, numbers_of, small_config, video_of, with_few_videos

from dataloaders import build_index
from dataloaders.datasets.folds import split_classes
from dataloaders.fewshot.loaders import held_out, test_videos, train_batches, validation_videos
from dataloaders.fewshot.sampling import (
    DistinctClassBatchSampler,
    TrainEpisodes,
    draw_supports,
    draw_windows,
    holdout_videos,
    training_windows,
)
from dataloaders.fewshot.streaming import TestEpisodes
from utils.config import load_config
from utils.seeds import rng_for

GOLDEN = SHARED / "parity" / "preprocess_golden.json"

needs_golden = pytest.mark.skipif(not GOLDEN.is_file(), reason="needs the golden numbers")


@pytest.fixture
def cfg():
    return small_config()


@pytest.fixture
def demo_cfg(demo_root):
    """Real files: 12 base classes of 2 samples each per epoch, test classes 1, 5, 9 and 13"""
    return load_config([DEMO], [*TINY, f"data.root={demo_root}", "validate.classes=base_holdout"])


def query_of(episode):
    """The folder of its query frames"""
    video, = {video_of(file) for file in episode.frames}
    return video


# -- random draws

def test_draw_follows_from_its_key_alone():
    """A fixed number: the same on any machine and in any process; strings and integers are told apart."""
    assert rng_for(42, "test", 0, 1, "v1").integers(1 << 30, size=3).tolist() == [638153713, 1058274392, 916578503]
    streams = {tuple(rng_for(*key).integers(1 << 30, size=4)) for key in
               [(1,), ("1",), (1, 0), (0, 1), (1, 0, 0), (10,), ("1", "0"), (-1,), (1 << 40,), ("test", 1)]}
    assert len(streams) == 10
    assert rng_for(np.int64(3), "a").random() == rng_for(3, "a").random()


def test_global_generators_are_left_alone(cfg):
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    episodes = TrainEpisodes(FakeIndex({1: 7}), [1], cfg)
    first = episodes[0, 0, 1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(1)
    assert torch.equal(episodes[0, 0, 1].query_images, first.query_images)


# -- windows

@needs_golden
def test_repeated_windows_are_the_released_ones():
    table = json.loads(GOLDEN.read_text())["training_windows"]["table"]
    assert {"1", "5", "6", "10", "11", "15", "16", "21"} <= table.keys()
    for n, row in table.items():
        windows = training_windows(int(n), 5, 3, "repeat")
        distinct = sorted({tuple(w) for w in windows})
        assert [list(w) for w in distinct] == row["windows"]
        assert len(windows) == max(3, len(distinct))
        assert len(set(itertools.combinations([tuple(w) for w in windows], 3))) == row["n_triples"]


@pytest.mark.parametrize("clip_length, clips", [(5, 3), (1, 2), (3, 4), (4, 1)])
def test_distinct_windows_never_repeat(clip_length, clips):
    for n in range(1, 30):
        windows = training_windows(n, clip_length, clips, "distinct")
        if n < clip_length + clips - 1:
            assert windows == []
        elif n < 1 + clips * clip_length:
            assert windows == [[s + t for t in range(clip_length)] for s in range(n - clip_length + 1)]
        else:
            assert windows == training_windows(n, clip_length, clips, "repeat")
            assert len({t for w in windows for t in w}) == len(windows) * clip_length
        assert len({tuple(w) for w in windows}) == len(windows)


@pytest.mark.parametrize("mode", ["distinct", "repeat"])
def test_clips_come_in_temporal_order(mode):
    for n in range(7, 40):
        for seed in range(5):
            drawn = draw_windows(n, 5, 3, mode, rng_for(seed, n))
            assert len(drawn) == 3 and drawn == sorted(drawn)
            if mode == "distinct":
                assert len({tuple(w) for w in drawn}) == 3


def test_any_window_of_a_video_may_serve():
    """data.windows: any; a video that is too short is refused or padded, as with blocks."""
    assert training_windows(40, 5, 1, "distinct", "any") == [list(range(s, s + 5)) for s in range(36)]
    assert training_windows(5, 5, 1, "repeat", "any") == [[0, 1, 2, 3, 4]]
    assert training_windows(4, 5, 1, "distinct", "any") == []
    assert training_windows(4, 5, 1, "repeat", "any") == [[0, 1, 2, 3, 3]]
    rng = rng_for(1)
    assert {w[0][-1] for w in (draw_windows(9, 5, 1, "distinct", rng, "any") for _ in range(99))} == {4, 5, 6, 7, 8}


def test_every_triple_of_windows_is_drawn():
    rng = rng_for(0)
    seen = {tuple(w[0] for w in draw_windows(21, 5, 3, "repeat", rng)) for _ in range(200)}
    assert seen == set(itertools.combinations([1, 6, 11, 16], 3))


# -- supports

@pytest.mark.parametrize("videos, length, shots, distinct", [(2, 20, 5, 5), (1, 3, 5, 3), (3, 1, 5, 3), (2, 2, 4, 4)])
def test_shared_videos_give_distinct_frames_as_far_as_possible(videos, length, shots, distinct):
    index = FakeIndex({1: videos}, length=length)
    supports = draw_supports(index, 1, index.videos(1), shots, rng_for(1))
    assert len(supports) == shots and len(set(supports)) == distinct
    assert len({video for video, _ in supports}) == videos


# -- training episodes

def test_training_episode_has_the_promised_shapes(cfg):
    index = FakeIndex({1: 7})
    episode = TrainEpisodes(index, [1], cfg)[0, 3, 1]
    assert episode.support_images.shape == (5, 3, 24, 32) and episode.support_masks.shape == (5, 24, 32)
    assert episode.query_images.shape == (15, 3, 24, 32) and episode.query_masks.shape == (15, 24, 32)
    assert episode.query_images.dtype == torch.float32 and episode.query_masks.dtype == torch.bool
    assert episode.class_id == 1 and episode.id == f"class1/{query_of(episode)}" and episode.key == ("train", 0, 3)
    assert len(episode.frames) == len(episode.query_frames) == 15 and len(episode.support_frames) == 5
    assert len({video_of(f) for f in episode.support_frames} | {query_of(episode)}) == 6
    assert not episode.supports_share_video
    assert len(index.read) == len(set(index.read)) == 20           # only what was drawn, and nothing twice


def test_images_belong_to_the_frames_named(cfg):
    cfg.data.augmentation = "none"
    episode = TrainEpisodes(FakeIndex({1: 7}), [1], cfg)[1, 2, 1]
    for images, names in ((episode.query_images, episode.frames), (episode.support_images, episode.support_frames)):
        assert numbers_of(images) == [int(name[-9:-4]) for name in names]
    assert numbers_of(episode.query_images) == episode.query_frames


def test_supports_avoid_the_query_video_unless_asked_otherwise(cfg):
    index = FakeIndex({1: 6})

    def overlaps(config):
        episodes = TrainEpisodes(index, [1], config)
        drawn = [episodes[0, n, 1] for n in range(12)]
        return [query_of(e) in {video_of(f) for f in e.support_frames} for e in drawn], drawn

    assert not any(overlaps(cfg)[0])
    released = copy.deepcopy(cfg)
    released.data.support_from_query_video = True
    overlap, drawn = overlaps(released)
    assert any(overlap) and not all(overlap)
    assert [e.supports_share_video for e in drawn] == overlap


def test_episode_depends_on_its_key_only(cfg):
    """Not on other classes and episodes, and its frames not on memory and augmentation."""
    index, other = FakeIndex({1: 8, 2: 8}), copy.deepcopy(cfg)
    other.memory.length, other.data.augmentation = 3, "released"
    a, b, c = TrainEpisodes(index, [1, 2], cfg), TrainEpisodes(index, [1], cfg), TrainEpisodes(index, [1], other)
    _ = a[0, 5, 2]
    assert torch.equal(a[3, 7, 1].query_images, b[3, 7, 1].query_images)
    drawn = [(one.frames, one.support_frames) for one in (a[3, 7, 1], b[3, 7, 1], c[3, 7, 1], a[4, 7, 1])]
    assert drawn[0] == drawn[1] == drawn[2] != drawn[3]


def test_held_out_videos_are_never_seen(cfg):
    index = FakeIndex({1: 9})
    held = {100, 104}
    episodes = TrainEpisodes(index, [1], cfg, exclude=held)
    for n in range(30):
        _ = episodes[0, n, 1]
    assert not held & {video for video, _ in index.read}


def test_class_with_too_few_videos_stops_the_run(cfg):
    with pytest.raises(ValueError, match="class1 .id 1. has 5 usable videos, .*need 6") as error:
        TrainEpisodes(FakeIndex({1: 5}), [1], cfg)
    assert "data.few_videos=repeat" in str(error.value)
    cfg.data.support_from_query_video = True
    TrainEpisodes(FakeIndex({1: 5}), [1], cfg)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_videos_may_share_supports_and_say_so(cfg, count):
    episodes = TrainEpisodes(FakeIndex({1: count}), [1], with_few_videos(cfg))
    for n in range(6):
        episode = episodes[0, n, 1]
        assert episode.supports_share_video and len(set(episode.support_frames)) == 5
        assert (query_of(episode) in {video_of(f) for f in episode.support_frames}) == (count == 1)


def test_short_video_gives_supports_but_no_query(cfg):
    index = FakeIndex({1: 8})
    index.frames = lambda video, class_id: np.arange(6 if video == 100 else 20)
    episodes = TrainEpisodes(index, [1], cfg)
    drawn = [episodes[0, n, 1] for n in range(40)]
    assert "v100" not in {query_of(e) for e in drawn}
    assert "v100" in {video_of(f) for e in drawn for f in e.support_frames}


def test_class_with_only_short_videos_stops_the_run(cfg):
    index = FakeIndex({1: 8}, length=6)
    with pytest.raises(ValueError, match="no video of class class1 .* in 7 frames") as error:
        TrainEpisodes(index, [1], cfg)
    assert "data.short_video=repeat" in str(error.value)
    assert TrainEpisodes(index, [1], with_few_videos(cfg, short_video="repeat"))[0, 0, 1].query_images.shape[0] == 15


def test_support_that_loses_its_object_is_taken_without_augmentation(cfg, monkeypatch):
    from dataloaders.transforms import TrainTransform

    def lose_the_object(self, frames, masks, rng):
        images, out = self.clean(frames, masks)
        out[1] = False
        return images + 9, out

    clean = copy.deepcopy(cfg)
    clean.data.augmentation = "none"
    wanted = TrainEpisodes(FakeIndex({1: 7}), [1], clean)[0, 0, 1]
    monkeypatch.setattr(TrainTransform, "__call__", lose_the_object)
    episode = TrainEpisodes(FakeIndex({1: 7}), [1], cfg)[0, 0, 1]
    assert episode.support_frames == wanted.support_frames and episode.support_masks.flatten(1).any(1).all()
    assert torch.equal(episode.support_images[1], wanted.support_images[1])
    assert torch.equal(episode.support_images[0], wanted.support_images[0] + 9)


@pytest.mark.parametrize("kind", ["train", "test"])
def test_support_too_small_for_the_input_is_replaced_by_a_frame_of_its_video(cfg, kind):
    cfg.data.augmentation = "none"

    def first_supports(index):
        """Their masks and file names"""
        if kind == "test":
            reference = TestEpisodes(index, [1], cfg, run=0).reference(0)
            return reference.masks, reference.facts[0]["support_frames"]
        episode = TrainEpisodes(index, [1], cfg)[0, 0, 1]
        return episode.support_masks, episode.support_frames

    _, before = first_supports(FakeIndex({1: 7}))
    video, frame = int(video_of(before[2])[1:]), int(before[2][-9:-4])
    masks, found = first_supports(FakeIndex({1: 7}, tiny=[(video, frame)]))
    assert masks.flatten(1).any(1).all() and video_of(found[2]) == f"v{video}" and found[2] != before[2]
    assert [found[k] for k in (0, 1, 3, 4)] == [before[k] for k in (0, 1, 3, 4)]
    assert first_supports(FakeIndex({1: 7}, tiny=[(video, frame)]))[1] == found


def test_object_too_small_everywhere_is_an_error(cfg):
    tiny = [(video, frame) for video in range(100, 107) for frame in range(2, 22)]
    with pytest.raises(ValueError, match="class class1 in video v10. is too small to be a support"):
        TrainEpisodes(FakeIndex({1: 7}, tiny=tiny), [1], cfg)[0, 0, 1]


# -- batches

def test_every_batch_has_distinct_classes_and_every_class_its_share():
    for classes, size in ((30, 4), (7, 3), (4, 4), (5, 4), (6, 1)):
        sampler = DistinctClassBatchSampler(range(10, 10 + classes), 20, size, seed=1, epoch=0)
        batches = list(sampler)
        assert len(batches) == len(sampler) == classes * 20 // size
        assert all(len({c for _, _, c in batch}) == size for batch in batches)
        counts = np.bincount([c for batch in batches for _, _, c in batch])[10:]
        assert counts.min() >= 19 and counts.max() <= 20 and len(counts) == classes


def test_order_follows_from_seed_and_epoch_and_a_start_skips_the_first_batches():
    def batches(seed, epoch, start=0):
        return list(DistinctClassBatchSampler(range(8), 5, 4, seed, epoch, start))
    whole = batches(1, 4)
    assert [key[:2] for batch in whole for key in batch] == [(4, n) for n in range(40)]
    assert whole == batches(1, 4) and batches(1, 4, 7) == whole[7:] and batches(1, 4, 10) == []
    classes = [[key[2] for batch in order for key in batch] for order in (whole, batches(1, 0), batches(2, 4))]
    assert classes[0] != classes[1] and classes[0] != classes[2]


def test_batch_larger_than_the_classes_is_refused():
    with pytest.raises(ValueError, match="train.batch_size is 4, but the fold trains on 3 classes.*\n.*batch_size=3"):
        DistinctClassBatchSampler([1, 2, 3], 10, 4, 0, 0)


# -- hold-out

def test_holdout_takes_its_share_and_leaves_every_class_usable(cfg):
    counts = {1: 40, 2: 100, 3: 6, 4: 7, 5: 12}
    index = FakeIndex(counts)
    held = holdout_videos(index, index.class_ids, 0.05, 42, cfg.data)
    taken = {c: len(held & set(index.videos(c))) for c in counts}
    assert taken == {1: 2, 2: 5, 3: 0, 4: 1, 5: 1}
    assert held == holdout_videos(index, index.class_ids, 0.05, 42, cfg.data)
    assert held != holdout_videos(index, index.class_ids, 0.05, 43, cfg.data)
    assert not holdout_videos(index, index.class_ids, 0, 42, cfg.data)
    everything = holdout_videos(index, index.class_ids, 1.0, 42, cfg.data)
    assert all(counts[c] - len(everything & set(index.videos(c))) == 6 for c in counts)
    TrainEpisodes(index, index.class_ids, cfg, exclude=everything)


def test_holdout_spares_classes_that_share_a_video(cfg):
    """All but one of class 2's videos also show class 1: holding them out for class 1 must not use up class 2."""
    index = FakeIndex({1: 20, 2: 7})
    index.videos = {1: list(range(20)), 2: [*range(6), 50]}.__getitem__
    for seed in range(10):
        held = holdout_videos(index, [1, 2], 0.9, seed, cfg.data)
        assert len(set(range(20)) - held) >= 6 and len({*range(6), 50} - held) >= 6


def test_holdout_leaves_a_query_in_training(cfg):
    index = FakeIndex({1: 10})
    index.frames = lambda video, class_id: np.arange(20 if video == 103 else 6)
    for seed in range(10):
        assert 103 not in holdout_videos(index, [1], 0.4, seed, cfg.data)


# -- loaders

def test_unknown_dataset_lists_what_exists():
    with pytest.raises(ValueError, match="'davis'.\n.*Choose one of: ytvis"):
        build_index(SimpleNamespace(data=SimpleNamespace(dataset="davis")))


def summary(batch):
    return batch.ids, batch.class_ids, batch.query_images.sum().item(), batch.query_frames, batch.keys


def test_workers_change_nothing(demo_cfg):
    def seen(workers):
        demo_cfg.data.workers = workers
        tested = itertools.islice(test_videos(demo_cfg, index, 1), 2)
        return ([summary(batch) for batch in train_batches(demo_cfg, index, 1, epoch=3)],
                [[run.facts[0]["support_frames"] for run in video.references] for video in tested])

    index = build_index(demo_cfg)
    alone = seen(0)
    assert seen(2) == alone and len(alone[0]) == 6


def test_resumed_epoch_continues_where_it_stopped(demo_cfg):
    index = build_index(demo_cfg)
    whole = [summary(b) for b in train_batches(demo_cfg, index, 2, epoch=0)]
    assert [summary(b) for b in train_batches(demo_cfg, index, 2, epoch=0, start=1)] == whole[1:] and len(whole) == 6


def test_train_batches_show_base_classes_and_fit_together(demo_cfg):
    for batch in train_batches(demo_cfg, build_index(demo_cfg), 1, epoch=0):
        assert len(set(batch.class_ids)) == 4 and not {1, 5, 9, 13} & set(batch.class_ids)
        assert batch.query_images.shape == (4, 6, 3, 48, 80) and batch.support_masks.shape == (4, 2, 48, 80)
        assert [len(shown) for shown in batch.query_frames] == [6] * 4 and len(set(batch.keys)) == 4
        assert torch.isfinite(batch.query_images).all() and batch.support_masks.flatten(2).any(2).all()


def test_validation_uses_held_out_videos_only_as_queries(demo_cfg):
    index = build_index(demo_cfg)
    held = {index.video_name(v) for v in held_out(demo_cfg, index, split_classes(index.class_ids, 1)[0])}
    facts = [video.references[0].facts[0] for video in validation_videos(demo_cfg, index, 1)]
    assert {one["video"] for one in facts} == held and len(held) > 0
    assert not held & {video_of(f) for one in facts for f in one["support_frames"]}
    trained = train_batches(demo_cfg, index, 1, 0).dataset.dataset.videos.values()
    assert not held & {index.video_name(v) for videos in trained for v in videos}


def test_validation_on_novel_classes_is_spread_evenly(demo_cfg):
    demo_cfg.validate.update(classes="novel", episodes=5)
    index = build_index(demo_cfg)
    stream = validation_videos(demo_cfg, index, 1)
    last = len(stream.episodes) - 1
    assert stream.order == [round(last * share) for share in (0, 0.25, 0.5, 0.75, 1)] and last > 8
    assert {c for c, _ in stream.episodes.pairs} == {1, 5, 9, 13}
    assert held_out(demo_cfg, index, [2, 3]) == frozenset()


def test_no_validation_where_none_is_wanted_or_possible(demo_cfg, caplog):
    index = build_index(demo_cfg)
    demo_cfg.validate.classes = "none"
    assert validation_videos(demo_cfg, index, 1) is None
    demo_cfg.validate.update(classes="base_holdout", holdout=0)
    assert validation_videos(demo_cfg, index, 1) is None
    assert "no validation" in caplog.text
