"""Inference against a loop that encodes everything anew for every clip, as the release does; and its promises."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from material import choices, episode_of, model_of, segmented, segmenter_of

import train
from dataloaders.episode import Clip, SupportSet, Video
from models.vipmt.build import compile_parts
from models.vipmt.config import NEEDS_TRUTH
from models.vipmt.inference import Segmenter
from utils.config import load_config
from utils.training.stopping import StopRequest

SIZE = (36, 44)         # no multiples of 8
POLICIES = choices("memory.select")


pytestmark = pytest.mark.usefixtures("double")


def segment(model, episode, clip_length=4, **options):
    """The whole video, true masks included"""
    return segmented(segmenter_of(model, episode, **options), episode.query_images, episode.query_masks, clip_length)


def slow(model, episode, length, min_iou, clip_length, seed, select="predicted"):
    """Section 4.3 with the images of memory instead of its features, all encoded again for every clip."""
    rng, images, known, margins, ious = np.random.default_rng(seed), episode.query_images, [], [], []
    for start in range(0, len(images), clip_length):
        clip, memory = images[start:start + clip_length], None
        if known:
            few = len(known) <= length
            chosen = range(len(known)) if few else sorted(rng.choice(len(known), length, replace=False))
            frames, masks = zip(*(known[i] for i in chosen), strict=True)
            memory = model.encode_memory(model.encode(images[list(frames)][None]), torch.stack(masks)[None])
        support = model.encode_reference(model.encode(episode.support_images[None]), episode.support_masks[None])
        encoded = model.prepare(model.encode(clip[None]))
        out = model(encoded, support, memory, size=SIZE)
        iou = model.predict_iou(out, encoded, support, memory)[0]
        for t in range(len(clip)):
            margins.append(out.logits[0, t, 1] - out.logits[0, t, 0])
            mask, truth = margins[-1] > 0, episode.query_masks[start + t]
            true_iou = int((mask & truth).sum()) / int((mask | truth).sum())
            if select != "none" and {"predicted": iou[t], "oracle": true_iou}.get(select, 1.0) >= min_iou:
                known.append((start + t, truth if select == "ground_truth" else mask))
        ious.append(iou)
    return torch.stack(margins), torch.cat(ious), {frame for frame, _ in known}


def assert_same(found, expected):
    margins, ious, remembered = expected
    torch.testing.assert_close(found.margins, margins.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.ious, ious.float(), rtol=1e-5, atol=1e-6)
    assert set(found.remembered.nonzero().flatten().tolist()) == remembered


RELEASED = {"memory_attention": "joint", "cumulative_prior": True, "memory_in_prior": True, "patch_masks": True,
            "cosine_maps": True}


@pytest.mark.parametrize("settings", [
    {}, RELEASED, RELEASED | {"cosine_maps": False}, {"high_level": "c4"}, RELEASED | {"high_level": "c4"}],
    ids=["paper", "released", "released_dot", "paper_c4", "released_c4"])
def test_video_equals_a_loop_that_encodes_everything_again(settings):
    model, episode = model_of(**settings), episode_of()
    low, high = segment(model, episode).ious.sort().values[4:6].tolist()
    arguments = {"length": 3, "min_iou": (low + high) / 2, "clip_length": 4, "seed": 0}     # some pass, some do not
    with torch.no_grad():
        expected = slow(model, episode, **arguments)
    assert 0 < len(expected[2]) < 11
    assert_same(segment(model, episode, **arguments), expected)


@pytest.mark.parametrize(("shots", "length", "clip_length", "frames"), [
    (1, 1, 1, 3), (3, 0, 2, 5), (1, 50, 4, 9), (2, 3, 20, 5), (2, 2, 4, 1)])
def test_any_number_of_shots_frames_and_memories(shots, length, clip_length, frames):
    model, episode = model_of(), episode_of(frames, shots)
    with torch.no_grad():
        expected = slow(model, episode, length, 0.0, clip_length, 0) if length else None
    found = segment(model, episode, length=length, clip_length=clip_length)
    assert found.masks.shape == (frames, *SIZE) and found.masks.dtype == torch.bool
    assert found.margins.dtype == torch.float32 and found.remembered.all()
    if expected:
        assert_same(found, expected)


def test_last_short_clip_is_segmented():
    model, episode = model_of(with_memory=False), episode_of(frames=5)
    whole = segment(model, episode, clip_length=4)
    episode.query_images = episode.query_images[4:]
    assert len(whole.masks) == 5 and torch.equal(segment(model, episode, clip_length=4).margins[0], whole.margins[4])


def test_clips_without_memory_are_independent():
    """Threshold above one: no frame is ever remembered, so the second clip knows nothing of the first."""
    model, episode = model_of(), episode_of(frames=8)
    whole = segment(model, episode, min_iou=1.1)
    episode.query_images = episode.query_images[4:]
    assert not whole.remembered.any()
    assert torch.equal(segment(model, episode, min_iou=1.1).margins, whole.margins[4:])


def test_memory_changes_later_clips_and_never_the_first():
    model, episode = model_of(), episode_of(frames=8)
    with_memory, without = segment(model, episode), segment(model, episode, min_iou=1.1)
    assert torch.equal(with_memory.margins[:4], without.margins[:4])
    assert not torch.allclose(with_memory.margins[4:], without.margins[4:])


def test_prediction_ignores_query_masks():
    model, episode = model_of(), episode_of()
    before = segment(model, episode)
    for masks in (~episode.query_masks, episode.query_masks.flip(0), torch.zeros_like(episode.query_masks), None):
        episode.query_masks = masks
        after = segment(model, episode)
        assert torch.equal(after.margins, before.margins) and torch.equal(after.ious, before.ious)


def test_each_frame_is_encoded_exactly_once():
    model, episode = model_of(), episode_of(frames=11, shots=2)
    encoded = []
    model.backbone.register_forward_hook(lambda module, inputs, output: encoded.extend(inputs[0].flatten(0, 1)))
    segment(model, episode)
    expected = [*episode.support_images, *episode.query_images]
    assert len(encoded) == 13 and all(torch.equal(a, b) for a, b in zip(encoded, expected, strict=True))


@pytest.mark.parametrize("cache_frames", [3, 100])
def test_caching_frames_changes_nothing(cache_frames):
    episode, plain, cached = episode_of(), model_of(), model_of(cache_frames=cache_frames)
    expected = segment(plain, episode)
    for _ in range(2):
        found = segment(cached, episode)
        torch.testing.assert_close(found.margins, expected.margins, rtol=0, atol=1e-6)
        assert torch.equal(found.remembered, expected.remembered)
        assert len(cached.backbone.cache.entries) <= cache_frames


# memory.select

def undecided(episode, **settings):
    """A model that calls half of the pixels of the first clip object, or true IoUs would all be 0"""
    model = model_of(**settings)
    with torch.no_grad():
        model.final_classifier[-1].bias[1] -= segment(model, episode).margins[:4].median()
    return model


def true_ious(found, episode):
    """Of every frame, (T,)"""
    return (found.masks & episode.query_masks).sum((1, 2)) / (found.masks | episode.query_masks).sum((1, 2))


@pytest.mark.parametrize("settings", [{}, RELEASED], ids=["paper", "released"])
@pytest.mark.parametrize("select", POLICIES)
def test_every_policy_equals_a_loop_that_encodes_everything_again(select, settings):
    episode = episode_of()
    model = undecided(episode, **settings)
    first = segment(model, episode)
    quality = true_ious(first, episode) if select == "oracle" else first.ious
    min_iou = quality[:8].median().item() + 1e-6         # of the first two clips some pass, some do not
    arguments = {"length": 3, "min_iou": min_iou, "clip_length": 4, "seed": 0, "select": select}
    found = segment(model, episode, **arguments)
    if select in ("random", "ground_truth"):             # no threshold applies to them
        arguments["min_iou"] = 0.0
    with torch.no_grad():
        expected = slow(model, episode, **arguments)
    assert len(expected[2]) in {"random": [11], "ground_truth": [11], "none": [0]}.get(select, range(1, 11))
    assert_same(found, expected)


def test_policies_that_let_every_frame_in_draw_the_same_frames():
    model, episode = model_of(), episode_of(frames=16)
    random, predicted, oracle = (segment(model, episode, select=x, min_iou=0.0)
                                 for x in ("random", "predicted", "oracle"))
    assert random.remembered.all() and torch.equal(random.margins, segment(model, episode, select="random").margins)
    for other in (predicted, oracle):
        assert torch.equal(other.margins, random.margins) and torch.equal(other.ious, random.ious)
        assert torch.equal(other.remembered, random.remembered)
    assert not torch.equal(random.margins, segment(model, episode, select="random", seed=1).margins)


@pytest.mark.parametrize("select", POLICIES)
def test_only_oracle_and_ground_truth_know_the_truth(select):
    episode = episode_of()
    model = undecided(episode)
    middle = true_ious(segment(model, episode), episode)[:8].median().item()
    before = segment(model, episode, select=select, min_iou=middle)
    episode.query_masks[:] = before.masks                # now every prediction is true
    after = segment(model, episode, select=select, min_iou=middle)
    assert torch.equal(after.margins[:4], before.margins[:4])
    assert torch.equal(after.margins, before.margins) != (select in NEEDS_TRUTH)


def test_without_memory_every_clip_is_the_first_one():
    model, episode = model_of(), episode_of()
    whole = segment(model, episode, select="none")
    assert not whole.remembered.any() and len(whole.ious) == 11
    for start in (0, 4, 8):
        clip = SimpleNamespace(**vars(episode) | {"query_images": episode.query_images[start:start + 4]})
        alone = segment(model, clip)
        assert torch.equal(alone.margins, whole.margins[start:start + 4])
        assert torch.equal(alone.ious, whole.ious[start:start + 4])


@pytest.mark.parametrize("length", [0, 1, 2, 3])
@pytest.mark.parametrize("select", ["random", "ground_truth"])
def test_a_clip_reads_at_most_length_memory_frames(select, length):
    model, read = model_of(), []
    model.register_forward_pre_hook(lambda module, inputs: read.append(inputs[2]))
    segment(model, episode_of(), clip_length=2, length=length, select=select)
    counts = [0 if memory is None else memory.masks.shape[1] for memory in read]
    assert counts == [min(length, 2 * clip) for clip in range(6)]


@pytest.mark.parametrize("select", POLICIES)
def test_a_policy_without_a_memory_to_fill_changes_nothing(select):
    model, episode = model_of(with_memory=False), episode_of()
    found = segment(model, episode, select=select)
    assert found.ious is None and not found.remembered.any()
    assert torch.equal(found.margins, segment(model, episode).margins)


@pytest.mark.parametrize("select", POLICIES)
def test_a_clip_without_truth_is_refused_where_it_is_needed_and_nowhere_else(select):
    episode = episode_of(frames=4)
    segmenter, needed = segmenter_of(model_of(), episode, select=select), select in NEEDS_TRUTH
    prepared = segmenter.prepare(Clip(episode.query_images))
    if needed:
        for masks in (None, episode.query_masks[None, :, 1:]):
            with pytest.raises(AssertionError, match=f"memory.select {select}.*truth"):
                segmenter(prepared, Clip(episode.query_images, masks))
    else:
        assert segmenter(prepared, Clip(episode.query_images)).masks.shape == (1, 4, *SIZE)


@pytest.mark.parametrize("memory", choices("validate.memory"))
def test_validation_fills_memory_as_its_own_key_says(memory, monkeypatch):
    """Not as memory.select, which is the test's; the rest of the section is the same."""
    cfg, seen = load_config([], [f"validate.memory={memory}", "validate.every=1", "memory.select=none"]), []
    video = Video(id="v", frames=[], original_size=SIZE, references=[SupportSet(None, None, key=(0, 1, "v"))])
    monkeypatch.setattr(train, "evaluate", lambda start, videos, *_: [start(x.references[0]) for x in videos])
    monkeypatch.setattr(train, "aggregate", lambda _: {"j": 0.0, "f": 0.0, "vc": 0.0})

    def segmenter(model, reference, settings, **_):
        seen.append(settings)
        return SimpleNamespace(prepare=None)
    progress = SimpleNamespace(epoch=1, global_step=1, best=1.0)
    train.validate(SimpleNamespace(
        cfg=cfg, split=1, part={}, model=model_of(), test_amp=None, stop=StopRequest(),
        method=SimpleNamespace(Segmenter=segmenter), state=SimpleNamespace(progress=progress),
        task=SimpleNamespace(validation_videos=lambda *_, **__: [video])), None, [])
    assert len(seen) == 1 and seen[0].memory == cfg.memory | {"select": memory} and cfg.memory.select == "none"
    assert {**seen[0], "memory": None} == {**cfg, "memory": None}


# Repetition, precision, length

def test_same_seed_gives_the_same_video():
    model, episode = model_of(), episode_of(frames=16)
    first, again, other = (segment(model, episode, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.margins, again.margins) and torch.equal(first.ious, again.ious)
    assert not torch.equal(first.margins, other.margins)       # sixteen frames, three remembered: draws differ


def test_torchs_own_random_stream_is_not_touched():
    model, episode = model_of(), episode_of()
    state = torch.get_rng_state()
    segment(model, episode)
    assert torch.equal(torch.get_rng_state(), state)


def test_model_without_memory_prototype_never_draws():
    model, episode = model_of(with_memory=False), episode_of()
    found = segment(model, episode)
    assert found.ious is None and not found.remembered.any() and found.masks.shape == (11, *SIZE)


def test_empty_support_and_empty_predictions_stay_finite():
    model, episode = model_of(), episode_of()
    episode.support_masks[:] = False
    with torch.no_grad():
        model.final_classifier[-1].bias.copy_(torch.tensor([1e4, -1e4]))       # nothing is ever found
    found = segment(model, episode)
    assert not found.masks.any() and torch.isfinite(found.margins).all() and torch.isfinite(found.ious).all()


def test_no_gradient_is_recorded():
    assert not segment(model_of(), episode_of()).margins.requires_grad


def test_one_prepared_clip_serves_several_runs():
    model, first, second = model_of(), episode_of(), episode_of(shots=3)
    second.query_images = first.query_images
    runs = [segmenter_of(model, episode) for episode in (first, second)]
    shared = [[], []]
    for images in first.query_images.split(4):
        clip = Clip(images)
        prepared = runs[0].prepare(clip)
        for run, margins in zip(runs, shared, strict=True):
            margins.append(run(prepared, clip).margins[0])
    for margins, episode in zip(shared, (first, second), strict=True):
        assert torch.equal(torch.cat(margins), segment(model, episode).margins)


def test_a_bank_that_is_large_enough_changes_nothing():
    model, episode = model_of(), episode_of(frames=16)
    assert torch.equal(segment(model, episode, keep=16).margins, segment(model, episode, keep=1000).margins)


def test_memory_of_a_long_video_is_that_of_a_short_one():
    model, episode = model_of(), episode_of(frames=4)
    segmenter, sizes = segmenter_of(model, episode, keep=6), []
    for _ in range(60):
        segmented(segmenter, episode.query_images)
        kept = segmenter.bank.frames
        storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
                    for g in kept for x in vars(g).values() if x is not None}
        sizes.append(sum(storages.values()))
    assert len(segmenter.bank) == 6 and segmenter.bank.seen == 240
    assert len(set(sizes[2:])) == 1


def test_mixed_precision_changes_little_and_says_float32():
    torch.set_default_dtype(torch.float32)
    model, episode = model_of(), episode_of(frames=8)
    plain = segment(model, episode)
    mixed = segment(model, episode, keep=9, amp=torch.bfloat16)
    assert mixed.margins.dtype == torch.float32 and mixed.ious.dtype == torch.float32
    difference = (mixed.margins - plain.margins).abs()
    assert 0 < difference.max() and difference.mean() < 0.05 * plain.margins.abs().mean()


def test_compiled_parts_compute_the_same():
    model, episode = model_of(), episode_of(frames=7)
    expected = segment(model, episode)
    compile_parts(model, backend="eager")           # the graphs of torch.compile, without its code generator
    found = segment(model, episode)
    torch.testing.assert_close(found.margins, expected.margins)
    torch.testing.assert_close(found.ious, expected.ious)


def test_supports_that_bring_what_was_computed_of_them_are_not_encoded_again():
    model, episode, seen = model_of(), episode_of(), []
    first = segmenter_of(model, episode)
    reference = SupportSet(episode.support_images, episode.support_masks, encoded=first.encoded())
    model.backbone.register_forward_hook(lambda *_: seen.append(1))
    cfg = SimpleNamespace(memory=SimpleNamespace(length=3, select="predicted", min_iou=0.0, keep=1000))
    again = Segmenter(model, reference, cfg, rng=np.random.default_rng(0))
    assert not seen
    a, b = (segmented(one, episode.query_images) for one in (first, again))
    assert torch.equal(a.margins, b.margins)
    for wrong in ({}, {"masks": ~first.encoded()["masks"]}, {"features": first.encoded()["features"][:, :1]}):
        reference.encoded = {"features": first.encoded()["features"]} if not wrong else first.encoded() | wrong
        with pytest.raises(ValueError, match="are not theirs"):
            Segmenter(model, reference, cfg, rng=np.random.default_rng(0))
