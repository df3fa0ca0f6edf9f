"""Inference against a loop that encodes everything anew for every clip, as the release does; and its promises."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.backbone import Backbone
from models.vipmt.build import compile_parts
from models.vipmt.inference import ClipSegmentation, VideoSegmenter
from models.vipmt.iou_net import IoUNet
from models.vipmt.model import VIPMT

SIZE = (36, 44)         # no multiples of 8


@pytest.fixture(autouse=True)
def exact():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def model_of(cache_frames=0, with_memory=True, high_level="c5", **settings):
    torch.manual_seed(1)
    backbone = Backbone(name="tiny", width=8, cache_frames=cache_frames, high_level=high_level)
    iou_net = IoUNet(channels=backbone.channels, maps=5, dim=4, hidden=8) if with_memory else None
    return VIPMT(backbone, iou_net, dim=16, num_layers=2, heads=2, ffn_dim=24, **settings).eval()


def episode_of(frames=11, shots=2, size=SIZE):
    generator = torch.Generator().manual_seed(5)

    def images(n):
        return torch.randn(n, 3, *size, generator=generator)

    def masks(n):
        return torch.rand(n, *size, generator=generator) > 0.6
    return SimpleNamespace(support_images=images(shots), support_masks=masks(shots), query_images=images(frames),
                           query_masks=masks(frames))


def segmenter_of(model, episode, length=3, min_iou=0.0, seed=0, keep=1000):
    return VideoSegmenter(model, episode.support_images, episode.support_masks, rng=np.random.default_rng(seed),
                          memory=SimpleNamespace(length=length, min_iou=min_iou, keep=keep))


def segment(model, episode, clip_length=4, memory_masks=None, **options):
    """The whole video, clip by clip  ->  one ClipSegmentation"""
    segmenter, clips = segmenter_of(model, episode, **options), episode.query_images.split(clip_length)
    masks = [None] * len(clips) if memory_masks is None else memory_masks.split(clip_length)
    found = [segmenter(images, known) for images, known in zip(clips, masks, strict=True)]
    return ClipSegmentation(torch.cat([x.margins for x in found]),
                            None if found[0].ious is None else torch.cat([x.ious for x in found]),
                            torch.cat([x.remembered for x in found]))


def slow(model, episode, length, min_iou, clip_length, seed, memory_masks=None):
    """Section 4.3 with the images of memory instead of its features, all encoded again for every clip."""
    rng, images, known, margins, ious = np.random.default_rng(seed), episode.query_images, [], [], []
    for start in range(0, len(images), clip_length):
        clip, memory = images[start:start + clip_length], None
        if known:
            few = len(known) <= length
            chosen = range(len(known)) if few else sorted(rng.choice(len(known), length, replace=False))
            frames, masks = zip(*(known[i] for i in chosen), strict=True)
            memory = model.guide_memory(model.encode(images[list(frames)][None]), torch.stack(masks)[None])
        support = model.guide(model.encode(episode.support_images[None]), episode.support_masks[None])
        encoded = model.prepare(model.encode(clip[None]))
        out = model(encoded, support, memory, size=SIZE)
        iou = model.predict_iou(out, encoded, support, memory)[0]
        for t in range(len(clip)):
            margins.append(out.logits[0, t, 1] - out.logits[0, t, 0])
            if memory_masks is not None or iou[t] >= min_iou:
                known.append((start + t, (margins[-1] > 0) if memory_masks is None else memory_masks[start + t]))
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


def test_given_memory_masks_replace_the_predicted_ones():
    model, episode = model_of(), episode_of()
    with torch.no_grad():
        expected = slow(model, episode, 3, 1.1, 4, 0, memory_masks=episode.query_masks)
    found = segment(model, episode, min_iou=1.1, memory_masks=episode.query_masks)      # no threshold applies to them
    assert found.remembered.all()
    assert_same(found, expected)
    assert not torch.equal(found.margins[4:], segment(model, episode).margins[4:])
    assert torch.equal(found.margins[:4], segment(model, episode).margins[:4])


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
        clip = runs[0].prepare(images)
        for run, margins in zip(runs, shared, strict=True):
            margins.append(run.segment(clip, images.shape[-2:]).margins)
    for margins, episode in zip(shared, (first, second), strict=True):
        assert torch.equal(torch.cat(margins), segment(model, episode).margins)


def test_a_bank_that_is_large_enough_changes_nothing():
    model, episode = model_of(), episode_of(frames=16)
    assert torch.equal(segment(model, episode, keep=16).margins, segment(model, episode, keep=1000).margins)


def test_memory_of_a_long_video_is_that_of_a_short_one():
    model, episode = model_of(), episode_of(frames=4)
    segmenter, sizes = segmenter_of(model, episode, keep=6), []
    for _ in range(60):
        segmenter(episode.query_images)
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
    segmenter = VideoSegmenter(model, episode.support_images, episode.support_masks, rng=np.random.default_rng(0),
                               memory=SimpleNamespace(length=3, min_iou=0.0, keep=9), amp=torch.bfloat16)
    mixed = [segmenter(images) for images in episode.query_images.split(4)]
    margins = torch.cat([x.margins for x in mixed])
    assert margins.dtype == torch.float32 and mixed[0].ious.dtype == torch.float32
    difference = (margins - plain.margins).abs()
    assert 0 < difference.max() and difference.mean() < 0.05 * plain.margins.abs().mean()


def test_compiled_parts_compute_the_same():
    model, episode = model_of(), episode_of(frames=7)
    expected = segment(model, episode)
    compile_parts(model, backend="eager")           # the graphs of torch.compile, without its code generator
    found = segment(model, episode)
    torch.testing.assert_close(found.margins, expected.margins)
    torch.testing.assert_close(found.ious, expected.ious)
