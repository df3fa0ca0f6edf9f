"""Composition for sentences: two objects in every clip, each with its own sentences; nothing while it is off."""
import pytest
import torch
from referring_material import SIZE, change, write_ref

from dataloaders.datasets.refytvos import RefYouTubeVosIndex
from dataloaders.referring import test_videos as streamed
from dataloaders.referring.composition import SentenceComposer
from dataloaders.referring.sampling import TrainSamples
from utils.config import load_config
from utils.seeds import rng_for

SMALL = ["model.method=tests.sentence_method", "data.workers=0", "data.test_size=36", "data.sizes=[36]", "data.crop=0",
         "data.photometric=none", "data.mirror=0", "data.frames=3", "test.runs=2", "test.window=3"]


def config(root, *more):
    return load_config([], [*SMALL, f"data.root={root}", *more])


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Every video has sentences of its own"""
    root = write_ref(tmp_path_factory.mktemp("ref"))
    change(root, lambda videos: [one.update(exp=f"{one['exp']} of {name}") for name, video in videos.items()
                                 for one in video["expressions"].values()])
    return RefYouTubeVosIndex(root)


def samples(index, *more):
    return TrainSamples(index, [2, 3, 4], config(index.root, *more))


def test_training_clips_gain_a_second_object_and_nothing_else_changes(index):
    for number in range(6):
        key = 0, number, 2 + number % 3
        plain, composed, again = (samples(index, *more)[key] for more in ([], *[["data.compose=1"]] * 2))
        assert plain.query_text == composed.query_text and torch.equal(plain.support_images, composed.support_images)
        assert torch.equal(composed.query_images, again.query_images)
        assert not torch.equal(plain.query_images, composed.query_images) and composed.query_masks[0].any()
        colour = (204, 26) if "red" in composed.query_text else (26, 204)       # the target keeps its looks
        inner = composed.query_images[0, :2].permute(1, 2, 0)[composed.query_masks[0]].median(0).values * 255
        assert inner.tolist() == pytest.approx(colour, abs=40)


@pytest.mark.parametrize("partners", ["other", "same", "any"])
def test_partners_have_the_category_that_is_wanted_and_sentences_of_their_own(index, partners):
    videos = {c: index.videos(c) for c in (2, 3, 4)}
    composer = SentenceComposer(1.0, index, videos, partners)
    drawn = [composer.draw(2, ("dog0", 1), 0, rng_for(seed)) for seed in range(40)]
    classes = [one.class_id for one in drawn]
    assert set(classes) == {"other": {3, 4}, "same": {2}, "any": {2, 3, 4}}[partners]
    assert partners != "any" or 10 < classes.count(2) < 30
    assert all(one.video[0] in videos[one.class_id] and one.video[0] != "dog0" for one in drawn)
    composer.sentences = {name: index.sentences("dog0", 2) for name in index.sentences_of}        # all say the same
    assert composer.draw(2, ("dog0", 1), 0, rng_for(0)) is None


def test_test_clips_show_both_objects_and_ask_for_either_with_one_support(index):
    cfg = config(index.root, "test.compose=1", "test.swap_sentences=true")
    for video in streamed(cfg, index, 1):
        first, rest = video.references[0].facts[0], torch.cat([clip.masks for clip in video.clips], dim=1)
        target, partner = video.id.partition("/")[2].split("+")
        own, other = ([one.text for one in index.sentences_of[name[:-2]] if one.object == int(name[-1])]
                      for name in (target, partner))
        for run in {one.key[0] for one in video.references}:
            lines = [one for one in video.references if one.key[0] == run]
            assert [one.query_text for one in lines] == own + other and len({one.text for one in lines}) == 1
            assert [one.row for one in lines] == [0] * len(own) + [1] * len(other)
            fits = [one.facts[0]["of_class"] for one in lines]
            assert fits == [[True, False]] * len(own) + [[False, True]] * len(other)
            assert first["support_frames"][0].split("/")[0] not in (target[:-2], partner[:-2])
        assert rest.shape == (2, len(video.frames), *SIZE) and not (rest[0] & rest[1]).any()
        assert rest.flatten(2).any(2).float().mean() > 0.8 and len({frame.split("/")[0] for frame in video.frames}) == 1
    keys = streamed(cfg, index, 1).episodes.keys()
    assert len(set(keys)) == len(keys) and all("+" in key[2] for key in keys)


def test_of_one_category_the_support_cannot_tell_the_objects_apart(index):
    cfg = config(index.root, "test.compose=1", "data.compose_with=same")
    facts = [one.facts[0] for video in streamed(cfg, index, 1) for one in video.references]
    assert facts and all(one["of_class"] == [True, True] for one in facts)
    seen = [video.id for video in streamed(cfg, index, 1)]
    assert seen == [video.id for video in streamed(cfg, index, 1)]
