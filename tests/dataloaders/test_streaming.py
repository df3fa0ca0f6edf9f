"""Streaming: supports that follow from their key alone, clips that come in order, few at a time, and errors in turn."""
import copy
import itertools
import multiprocessing

import pytest
import torch
from material import (
    FakeIndex,
    episode_of,
    model_of,
    numbers_of,
    segmented,
    segmenter_of,
    small_config,
    video_of,
    with_few_videos,
)

from dataloaders.fewshot.sampling import read_frames
from dataloaders.fewshot.streaming import EpisodeStream, RunsTogether, TestEpisodes

WORKERS = pytest.mark.parametrize("workers", [0, 2])


@pytest.fixture
def cfg():
    return small_config()


@pytest.fixture
def two_shots(cfg):
    cfg.data.shots = 2
    return cfg


def frames_of(clip):
    return numbers_of(clip.images)


def facts_of(video):
    """What the line of its only run says"""
    facts, = video.references[0].facts
    return facts


class Watched(FakeIndex):
    """Counts the images that are read, by whatever process; those of `broken` cannot be."""

    def __init__(self, *arguments, broken=(), **settings):
        super().__init__(*arguments, **settings)
        self.broken, self.reads = set(broken), multiprocessing.Semaphore(0)

    def read_image(self, video, frame):
        self.reads.release()
        if (video, frame) in self.broken:
            raise FileNotFoundError(f"no image {self.file_name(video, frame)}.\n  Unpack the images again")
        return super().read_image(video, frame)


# -- what is tested, with which supports

def test_every_pair_is_tested_once_with_all_its_frames(cfg):
    index = FakeIndex({1: 7, 5: 6}, length=9)
    episodes = TestEpisodes(index, [1, 5], cfg, run=2)
    assert episodes.pairs == [(1, v) for v in index.videos(1)] + [(5, v) for v in index.videos(5)]
    assert episodes.key(8) == (5, "v501") and len(episodes) == 13
    video, clips = episodes.video(8), [episodes.clip(8, n) for n in range(episodes.num_clips(8))]
    names = [f"v501/{t:05d}.jpg" for t in range(2, 11)]
    assert video.frames == facts_of(video)["frames"] == names and video.original_size == (48, 64)
    assert [facts_of(video)[key] for key in ("run", "class_id", "class", "video")] == [2, 5, "class5", "v501"]
    assert video.references[0].key == (2, 5, "v501") and video.references[0].folder == ("run2", "class5", "v501")
    assert [frames_of(clip) for clip in clips] == [[2, 3, 4, 5, 6], [7, 8, 9, 10]]
    assert clips[1].images.shape == (4, 3, 24, 32) and clips[1].masks.shape == (1, 4, 24, 32)
    assert clips[1].images.dtype == torch.float32 and clips[1].masks.dtype == torch.bool
    assert clips[1].original_masks is None


@pytest.mark.parametrize("protocol", ["I", "II"])
def test_supports_depend_on_seed_run_and_pair_only(cfg, protocol):
    """Not on memory, clips, augmentation, workers, other classes or which other pairs are tested."""
    cfg.test.protocol = protocol
    index = FakeIndex({1: 9, 5: 9})
    episodes = TestEpisodes(index, [1, 5], cfg, run=3)
    supports = {episodes.pairs[i]: episodes.plan(i).supports for i in range(len(episodes))}
    other = copy.deepcopy(cfg)
    other.memory.update(length=1, min_iou=0.1)
    other.model.memory_prototype = False
    other.data.update(workers=3, augmentation="released", clip_length=2)
    last = list(supports)[-1]
    alone = TestEpisodes(index, [5], other, run=3, only={last[1]})
    assert alone.pairs == [last] and alone.plan(0).supports == supports[last]
    assert TestEpisodes(index, [1, 5], cfg, run=4).plan(0).supports != episodes.plan(0).supports
    other.seed = 43
    assert TestEpisodes(index, [1, 5], other, run=3).plan(0).supports != episodes.plan(0).supports


def test_test_class_with_too_few_videos_stops_the_run(cfg):
    with pytest.raises(ValueError, match="has 5 usable videos"):
        TestEpisodes(FakeIndex({1: 5}), [1], cfg, run=0)


@pytest.mark.parametrize("protocol, count", [*itertools.product(["I", "II"], [1, 2, 4, 5])])
def test_few_videos_leave_a_query_in_the_test(cfg, protocol, count):
    cfg.test.protocol = protocol
    episodes = TestEpisodes(FakeIndex({1: count}), [1], with_few_videos(cfg), run=0)
    assert len(episodes) == (count if protocol == "II" else 1)
    for i in range(len(episodes)):
        facts = facts_of(episodes.video(i))
        videos = {video_of(f) for f in facts["support_frames"]}
        assert facts["supports_share_video"] and len(set(facts["support_frames"])) == 5
        assert (facts["video"] in videos) == (count == 1) and len(videos) == max(1, count - 1)


# -- the stream

@pytest.mark.parametrize("workers", [0, 1, 2])
def test_episodes_and_clips_come_in_order_whatever_the_workers(two_shots, workers):
    episodes = TestEpisodes(FakeIndex({1: 4, 2: 3}, length=12), [1, 2], two_shots, run=1)
    stream, order = EpisodeStream(episodes, [5, 0, 2], workers), [5, 0, 2]
    assert len(stream) == 3 and stream.frames == 36
    for i, video in zip(order, stream, strict=True):
        alone = episodes.video(i)
        assert (video.id, facts_of(video)) == (alone.id, facts_of(alone))
        assert torch.equal(video.references[0].images, alone.references[0].images) and video.references[0].masks.any()
        assert [frames_of(clip) for clip in video.clips] == [[2, 3, 4, 5, 6], [7, 8, 9, 10, 11], [12, 13]]


def test_clips_laid_end_to_end_are_the_whole_video(two_shots):
    two_shots.test.resolution = "original"
    index = FakeIndex({1: 3}, length=11)
    episodes = TestEpisodes(index, [1], two_shots, run=0)
    clips = list(next(iter(EpisodeStream(episodes, [1]))).clips)
    frames, masks = read_frames(index, 1, [(101, frame) for frame in range(2, 13)])
    images, input_masks = episodes.transform(frames, masks)
    assert torch.equal(torch.cat([clip.images for clip in clips]), images) and len(images) == 11
    assert torch.equal(torch.cat([clip.masks[0] for clip in clips]), input_masks)
    assert torch.cat([clip.original_masks[0] for clip in clips]).tolist() == [mask.tolist() for mask in masks]


@WORKERS
def test_clips_nobody_took_are_passed_over(two_shots, workers):
    episodes = TestEpisodes(FakeIndex({1: 4}, length=12), [1], two_shots, run=0)
    for taken, video in zip((1, 0, 3, 2), EpisodeStream(episodes, range(4), workers), strict=True):
        clips = [frames_of(clip) for clip in itertools.islice(video.clips, taken)]
        assert clips == [[2, 3, 4, 5, 6], [7, 8, 9, 10, 11], [12, 13]][:taken]
        assert video.id == f"class1/v10{[1, 0, 3, 2].index(taken)}"


def shown_until_error(stream):
    """[(video, frames of a clip)] and the message of the error in the end"""
    seen = []
    try:
        for video in stream:
            for clip in video.clips:
                seen.append((facts_of(video)["video"], frames_of(clip)))
    except FileNotFoundError as error:      # not kept: its traceback would keep the loader's workers
        return seen, str(error)
    raise AssertionError(f"no error after {seen}")


@WORKERS
def test_a_file_that_cannot_be_read_raises_when_its_clip_is_due(two_shots, workers):
    """With its own message, and no worker's traceback around it."""
    index = Watched({1: 4}, length=12, broken=[(101, 8)])
    episodes = TestEpisodes(index, [1], two_shots, run=0)
    order = [i for i in range(4) if (101, 8) not in episodes.plan(i).supports and i != 1]
    seen, message = shown_until_error(EpisodeStream(episodes, [*order, 1, 0], workers))
    videos = [*(f"v10{i}" for i in order for _ in range(3)), "v101"]
    assert [video for video, _ in seen] == videos and seen[-1][1] == [2, 3, 4, 5, 6]
    assert message == "no image v101/00008.jpg.\n  Unpack the images again"


@WORKERS
def test_a_support_that_cannot_be_read_raises_after_the_videos_before_it(two_shots, workers):
    episodes = TestEpisodes(FakeIndex({1: 5}, length=6), [1], two_shots, run=0)
    *before, last = (set(episodes.plan(i).supports) for i in range(5))
    video, frame = min(last - set().union(*before))
    episodes.index = Watched({1: 5}, length=6, broken=[(video, frame)])
    order = [i for i in range(5) if i != video - 100]        # it is not among the queries
    seen, message = shown_until_error(EpisodeStream(episodes, order, workers))
    assert [name for name, _ in seen] == [f"v10{i}" for i in order[:-1] for _ in range(2)]
    assert message.startswith(f"no image v{video}/{frame:05d}.jpg")


@WORKERS
def test_reading_stays_a_few_items_ahead_of_a_long_video(two_shots, workers):
    index = Watched({1: 3}, length=400)
    episodes = TestEpisodes(index, [1], two_shots, run=0)
    ahead = (2 * workers + 1) * two_shots.data.clip_length if workers else 0
    for number, video in enumerate(EpisodeStream(episodes, [0, 1], workers)):
        shown = number * 402 + two_shots.data.shots
        for clip in video.clips:
            shown += len(clip.images)
            assert shown <= index.reads.get_value() <= shown + ahead
        assert shown == (number + 1) * 402


def test_reading_goes_on_across_videos_while_nobody_asks(two_shots):
    index = Watched({1: 3}, length=10)
    stream = iter(EpisodeStream(TestEpisodes(index, [1], two_shots, run=0), [0, 1], workers=2))
    list(next(stream).clips)
    for _ in range(2 * 12):                                     # both videos with their two supports
        assert index.reads.acquire(timeout=60)
    assert not index.reads.acquire(block=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@WORKERS
def test_images_for_a_gpu_are_pinned(two_shots, workers):
    episodes = TestEpisodes(FakeIndex({1: 3}, length=7), [1], two_shots, run=0)
    video = next(iter(EpisodeStream(episodes, [1], workers, pin_memory=True)))
    assert video.references[0].images.is_pinned()
    for number, clip in enumerate(video.clips):
        assert clip.images.is_pinned() and torch.equal(clip.images, episodes.clip(1, number).images)


# -- K from 1 to 10, five runs

@pytest.mark.parametrize("protocol, shots", [*itertools.product(["I", "II"], range(1, 11))])
def test_one_to_ten_shots_in_five_runs_that_all_differ(cfg, protocol, shots):
    cfg.test.protocol, cfg.data.shots = protocol, shots
    index, drawn = FakeIndex({1: 14, 5: 11}, length=30), set()
    for run in range(5):
        episodes = TestEpisodes(index, [1, 5], cfg, run)
        plans = [episodes.plan(i) for i in range(len(episodes))]
        for plan in plans:
            videos = {video for video, _ in plan.supports}
            assert len(plan.supports) == len(videos) == shots and plan.video not in videos
            assert all(v // 100 == plan.class_id and frame in index.frames(v, v // 100) for v, frame in plan.supports)
        assert index.read == []
        for class_id, count in index.counts.items():          # I: one draw, the other videos; II: one for every video
            supports = [plan.supports for plan in plans if plan.class_id == class_id]
            assert len(supports) == count - shots * (protocol == "I")
            assert (len(set(supports)) == 1) == (protocol == "I")
        drawn.add(tuple(plan.supports for plan in plans))
    assert len(drawn) == 5
    loaded, = next(iter(EpisodeStream(episodes, [0]))).references
    assert loaded.images.shape == (shots, 3, 24, 32) and loaded.masks.flatten(1).any(dim=1).all()
    assert loaded.facts[0]["support_frames"] == [index.file_name(*support) for support in plans[0].supports]


@pytest.mark.usefixtures("exact")
def test_ten_copies_of_a_support_say_what_one_says():
    """Averages over supports, nothing that grows with K: prototype, prior, similarity maps and IoUNet."""
    model, episode = model_of(), episode_of(frames=4, shots=1)
    one = segmented(segmenter_of(model, episode), episode.query_images, clip_length=2)
    episode.support_images = episode.support_images.repeat(10, 1, 1, 1)
    episode.support_masks = episode.support_masks.repeat(10, 1, 1)
    ten = segmented(segmenter_of(model, episode), episode.query_images, clip_length=2)
    assert torch.allclose(one.margins, ten.margins, atol=1e-6) and torch.allclose(one.ious, ten.ious, atol=1e-9)
    assert one.margins.std() > 0


# Several runs over one video

@pytest.mark.parametrize("protocol", ["I", "II"])
def test_runs_together_hold_every_episode_of_every_run_once(cfg, protocol):
    cfg.test.protocol = protocol
    runs = [TestEpisodes(FakeIndex({1: 12, 5: 8}), [1, 5], cfg, run) for run in (0, 1, 2)]
    together = RunsTogether(runs)
    found = [(episodes.run, number) for group in together.groups for episodes, number in group]
    assert sorted(found) == [(e.run, i) for e in runs for i in range(len(e))]
    for group in together.groups:
        assert len({episodes.pairs[number] for episodes, number in group}) == 1
        assert [episodes.run for episodes, _ in group] == sorted(episodes.run for episodes, _ in group)


def test_what_is_done_already_is_left_out_run_by_run(cfg):
    runs = [TestEpisodes(FakeIndex({1: 7}), [1], cfg, run) for run in (0, 1)]
    done = {(0, 1, "v100"), (0, 1, "v101"), (1, 1, "v101")}
    together = RunsTogether(runs, done)
    rest = {(e.run, *e.key(i)) for group in together.groups for e, i in group}
    assert rest == {(run, 1, f"v{100 + n}") for run in (0, 1) for n in range(7)} - done
    assert len(together) == 6         # v101 is complete


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_is_read_once_for_all_runs(two_shots, workers):
    index = FakeIndex({1: 4}, length=7)
    runs = [TestEpisodes(index, [1], two_shots, run) for run in (0, 1, 2)]
    stream = EpisodeStream(RunsTogether(runs), range(4), workers)
    assert stream.frames == 3 * 28 and len(stream) == 4
    for number, video in enumerate(stream):
        assert [run.facts[0]["run"] for run in video.references] == [0, 1, 2] and video.id == f"class1/v{100 + number}"
        for run, episodes in zip(video.references, runs, strict=True):
            alone = episodes.reference(number)
            assert run.facts == alone.facts and torch.equal(run.images, alone.images)
        assert sum(clip.masks.shape[1] for clip in video.clips) == 7
    if workers == 0:
        supports = [name for i in range(4) for e in runs for name in e.reference(i).facts[0]["support_frames"]]
        index.read.clear()
        list(map(list, (video.clips for video in stream)))
        assert len(index.read) == 28 + len(supports)
