"""PA against nested loops: prior, masked averages, merging, and the search for similarities."""
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.backbone import Features
from models.vipmt import similarity
from models.vipmt.prototype_activation import PrototypeActivation, masked_average, pool_channels
from models.vipmt.reference_frames import at_feature_size, patch_degenerate
from models.vipmt.similarity import foreground_index, gather_foreground, max_similarity, min_max

B, T, H, W, DIM = 2, 3, 4, 5, 8
CHANNELS = {"c3": 4, "c4": 6, "c5": 20}

pytestmark = pytest.mark.usefixtures("exact")


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def features_of(frames, episodes=B):
    """After a relu, as the backbone's maps are."""
    return Features(None, *(torch.randn(episodes, frames, c, H, W).relu() for c in CHANNELS.values()))


def module_of(**settings):
    return PrototypeActivation(inputs=CHANNELS["c3"] + CHANNELS["c4"], dim=DIM, dropout=0.1, feature_dropout=0.5,
                               **settings).eval()


def guide_of(module, features, masks):
    keys = module.search_keys(features.c5, at_feature_size(masks), module.pool(features, features.c5))
    return module.encode_reference(features, keys, masks)


def activate(module, features, guides):
    return module(*module.prepare(features, features.c5), guides)


def full_size(masks):
    """Masks at the input's resolution whose pixels (8i, 8j) are `masks`; the others are noise."""
    large = torch.rand(*masks.shape[:-2], 8 * H - 3, 8 * W - 5) > 0.5
    large[..., ::8, ::8] = masks
    return large


# Choices of ours

def test_the_prior_may_compare_all_channels():
    """Channels that average to the same are told apart; against cosines position by position."""
    torch.manual_seed(0)
    query, support, masks = features_of(T), features_of(2), full_size(torch.rand(B, 2, H, W) > 0.4)
    module = module_of(prior_channels=CHANNELS["c5"])
    prior = activate(module, query, [guide_of(module, support, masks)]).prior
    chosen, expected = at_feature_size(masks), []
    for s in range(2):
        keys = support.c5[0, s][:, chosen[0, s]]
        best = F.cosine_similarity(query.c5[0].flatten(2)[..., None], keys[None, :, None], dim=1).amax(-1)
        expected.append((best - best.amin(1, True)) / (best.amax(1, True) - best.amin(1, True)))
    torch.testing.assert_close(prior[0].flatten(1), torch.stack(expected).mean(0), rtol=1e-5, atol=1e-5)


def test_a_match_is_the_cosine_of_learned_features_and_its_weights_are_one_map_more():
    torch.manual_seed(0)
    plain, matching = module_of(), module_of(match=True)
    shapes = [x.merge_query.conv.weight.shape[1] for x in (plain, matching)]
    assert shapes == [2 * DIM + 1, 2 * DIM + 2] and plain.state_dict().keys() == matching.state_dict().keys()
    query, support, masks = features_of(T), features_of(2), full_size(torch.ones(B, 2, H, W, dtype=torch.bool))
    with torch.no_grad():
        matching.merge_query.conv.weight.zero_()
        matching.merge_query.conv.weight[:, -1] = 1            # what comes out is relu of the match alone
    guide = guide_of(matching, support, masks)
    reduced, _ = matching.prepare(query, query.c5)
    expected = F.cosine_similarity(reduced[0, 1, :, 2, 3], guide.prototypes[0].mean(0), dim=0).relu()
    assert activate(matching, query, [guide]).query[0, 1, :, 2, 3].allclose(expected)


# Masks

def test_feature_size_picks_every_eighth_pixel():
    for height, width in ((240, 424), (37, 50), (33, 8)):
        masks = torch.rand(2, 3, height, width) > 0.5
        found = at_feature_size(masks)
        assert found.dtype == torch.bool and found.shape[-2:] == (math.ceil(height / 8), math.ceil(width / 8))
        for i in range(found.shape[-2]):
            for j in range(found.shape[-1]):
                assert torch.equal(found[..., i, j], masks[..., 8 * i, 8 * j])


def test_degenerate_masks_are_patched_as_released():
    masks = torch.zeros(1, 3, 30, 53, dtype=torch.bool)
    masks[0, 1] = True
    masks[0, 2, 3, 4] = True
    empty, full, normal = patch_degenerate(masks)[0]
    assert empty.nonzero().tolist() == [[14, 25], [14, 26], [15, 25], [15, 26]]
    assert (~full).nonzero().tolist() == [[0, 0], [0, 52], [29, 0], [29, 52]]
    assert torch.equal(normal, masks[0, 2])


def test_guides_patch_only_what_attention_reads():
    masks = torch.zeros(B, T, H, W, dtype=torch.bool)
    for patch in (False, True):
        guide = module_of(patch_masks=patch).encode_reference(features_of(T), (None, None), full_size(masks))
        assert not guide.masks.any() and guide.attention_masks.any() == patch
        assert not guide.prototypes.any()


def test_masked_average_equals_its_loop_and_is_zero_for_an_empty_mask():
    features, masks = torch.randn(B, T, 6, H, W), torch.rand(B, T, H, W) > 0.5
    masks[0, 1] = False
    found = masked_average(features, masks)
    for b in range(B):
        for t in range(T):
            inside = [features[b, t, :, i, j] for i in range(H) for j in range(W) if masks[b, t, i, j]]
            close(found[b, t], sum(inside, torch.zeros(6)) / (len(inside) + 0.0005))
    assert not found[0, 1].any()


# Channels, foreground, similarity

def test_channel_pooling_of_2048_to_384_has_the_released_windows():
    x = torch.randn(1, 1, 2048, 1, 2)
    found = pool_channels(x, 384)
    for i in range(384):
        window = x[:, :, math.floor(16 * i / 3):math.ceil(16 * (i + 1) / 3)]
        assert window.shape[2] == 6
        close(found[:, :, i], window.mean(2))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_channel_pooling_has_the_bits_of_a_pooling_over_planes_however_maps_lie_in_memory(layout):
    x = torch.randn(3, 2048, 4, 5, dtype=torch.float32).to(memory_format=layout)
    planes = F.adaptive_avg_pool2d(x.reshape(3, 1, 2048, 20), (384, 20)).view(1, 3, 384, 4, 5)
    assert torch.equal(pool_channels(x[None], 384), planes)


def test_channel_pooling_to_the_same_number_changes_nothing():
    x = torch.randn(2, 2, 24, 3, 4)
    assert torch.equal(pool_channels(x, 24), x)


def test_foreground_is_gathered_in_order_and_padded_with_zeros():
    features, masks = torch.randn(B, T, 6, H, W), torch.rand(B, T, H, W) > 0.6
    masks[0, 0] = False
    found, (index, valid) = gather_foreground(features, masks), foreground_index(masks)
    count = int(masks.flatten(2).sum(-1).max())
    assert found.shape == (B, T, count, 6)
    for b in range(B):
        for t in range(T):
            inside = [features[b, t, :, i, j] for i in range(H) for j in range(W) if masks[b, t, i, j]]
            assert valid[b, t].tolist() == [True] * len(inside) + [False] * (count - len(inside))
            assert index[b, t][valid[b, t]].tolist() == masks[b, t].flatten().nonzero().flatten().tolist()
            assert torch.equal(found[b, t, :len(inside)], torch.stack(inside) if inside else torch.zeros(0, 6))
            assert not found[b, t, len(inside):].any()


def test_no_foreground_at_all_still_has_one_zero_vector():
    found = gather_foreground(torch.randn(B, T, 6, H, W), torch.zeros(B, T, H, W, dtype=torch.bool))
    assert found.shape == (B, T, 1, 6) and not found.any()


@pytest.mark.parametrize("cosine", [False, True])
def test_padding_changes_no_similarity(cosine):
    query, keys = torch.rand(B, T, 6, H, W), torch.rand(B, 2, 3, 6)
    padded = torch.cat([keys, torch.zeros(B, 2, 4, 6)], dim=2)
    close(max_similarity(query, padded, cosine), max_similarity(query, keys, cosine))


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("chunk", [1, 50])
def test_chunking_changes_no_similarity(cosine, chunk, monkeypatch):
    query, keys = torch.rand(B, T, 6, H, W), torch.rand(B, 2, 3, 6)
    whole = max_similarity(query, keys, cosine)
    monkeypatch.setitem(similarity.CHUNK, "cpu", chunk)
    close(max_similarity(query, keys, cosine), whole)


def test_similarity_of_half_precision_is_computed_in_full():
    query, keys = torch.full((1, 1, 64, H, W), 60.0).half(), torch.full((1, 1, 3, 64), 60.0).half()
    found = max_similarity(query, keys, cosine=False)           # sums beyond 65504
    assert found.dtype == torch.float32 and torch.isfinite(found).all() and found.max() > 65504


def test_min_max_reaches_zero_and_one_and_takes_a_constant():
    found = min_max(torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]]))
    close(found[0], torch.tensor([0.0, 2.0, 1.0]) / (2 + 1e-7))
    assert not found[1].any()


# Prior

def prior_by_loops(high, support_high, masks, cumulative):
    """high (T, P, h, w), support_high (S, P, h, w), masks (S, h, w), numpy  ->  (T, h, w)"""
    def pooled(x):
        size = x.shape[1]
        return np.stack([x[:, i * size // DIM:-(-(i + 1) * size // DIM)].mean(1) for i in range(DIM)], axis=1)
    query, support = pooled(high), pooled(support_high * masks[:, None])        # masked before pooling
    frames = []
    for t in range(len(query)):
        total = np.zeros((H, W))
        for s in range(len(support)):
            best = np.zeros((H, W))
            for i in range(H):
                for j in range(W):
                    x, values = query[t, :, i, j], []
                    for y in support[s].reshape(DIM, -1).T:
                        values.append(x @ y / (np.linalg.norm(x) * np.linalg.norm(y) + 1e-7))
                    best[i, j] = max(values)
            total += (best - best.min()) / (best.max() - best.min() + 1e-7)
        frames.append(total / len(support))
    return np.stack([np.mean(frames[:t + 1], axis=0) if cumulative else frames[t] for t in range(len(frames))])


@pytest.mark.parametrize("cumulative", [False, True], ids=["per_frame", "cumulative"])
def test_prior_equals_four_nested_loops(cumulative):
    module, support, query = module_of(cumulative_prior=cumulative), features_of(2), features_of(T)
    masks = torch.rand(B, 2, H, W) > 0.5
    masks[0, 1] = False                                        # an empty mask gives a map of zeros, which counts
    guide = guide_of(module, support, full_size(masks))
    found = activate(module, query, [guide])
    for b in range(B):
        expected = prior_by_loops(query.c5[b].numpy(), support.c5[b].numpy(), masks[b].numpy(), cumulative)
        close(found.prior[b], torch.from_numpy(expected))


def test_memory_in_the_prior_counts_as_further_supports():
    module, support, query = module_of(), features_of(4), features_of(T)
    masks = full_size(torch.rand(B, 4, H, W) > 0.5)
    split = [guide_of(module, support.frames(part), masks[:, part])
             for part in (slice(0, 3), slice(3, 4))]
    one, two = activate(module, query, [guide_of(module, support, masks)]), activate(module, query, split)
    for name in ("prior", "query", "initial_logits", "similarity"):
        close(getattr(two, name), getattr(one, name))


def test_order_of_query_frames_matters_only_for_the_cumulative_prior():
    support, query, masks = features_of(2), features_of(T), full_size(torch.rand(B, 2, H, W) > 0.5)
    flipped = query.map(lambda x: x.flip(1))
    for cumulative in (False, True):
        module = module_of(cumulative_prior=cumulative)
        guide = guide_of(module, support, masks)
        forward, backward = (activate(module, x, [guide]).prior for x in (query, flipped))
        assert torch.allclose(backward.flip(1), forward) != cumulative


# The module

def test_guide_and_query_are_merged_by_real_concatenations():
    module, support, query = module_of(), features_of(2), features_of(T)
    masks = torch.rand(B, 2, H, W) > 0.5
    guide = guide_of(module, support, full_size(masks))
    found, weight = activate(module, query, [guide]), SimpleNamespace(**dict(module.named_children()))

    def reduced(conv, features):
        x = torch.cat([features.c3, features.c4], dim=2).flatten(0, 1)
        return F.conv2d(x, conv.weight).relu()

    def spread(vectors):
        return vectors[:, :, None, None].expand(-1, -1, H, W)

    x = reduced(weight.reduce_support, support)
    prototypes = masked_average(x.unflatten(0, (B, 2)), masks)
    close(guide.prototypes, prototypes)
    joined = torch.cat([x, spread(prototypes.flatten(0, 1))], dim=1)                  # own prototype of every frame
    close(guide.features.flatten(0, 1), F.conv2d(joined, weight.merge_support.conv.weight).relu())

    x = reduced(weight.reduce_query, query)
    close(module.prepare(query, query.c5)[0].flatten(0, 1), x)
    mean = prototypes.mean(1).repeat_interleave(T, 0)                                 # over all supports
    joined = torch.cat([x, spread(mean), found.prior.flatten(0, 1)[:, None]], dim=1)
    merged = F.conv2d(joined, weight.merge_query.conv.weight).relu()
    close(found.query.flatten(0, 1), merged)
    close(found.initial_logits.flatten(0, 1), weight.initial_classifier(weight.initial_refine(merged)))


def test_guide_keeps_high_level_features_only_where_they_are_read():
    features, masks = features_of(2), full_size(torch.rand(B, 2, H, W) > 0.5)
    assert guide_of(module_of(), features, masks).ssm_keys.shape[-1] == CHANNELS["c5"]
    assert guide_of(module_of(keep_high=False), features, masks).ssm_keys is None
    without = module_of().encode_reference(features, (None, None), masks)
    assert without.prior_keys is None and without.ssm_keys is None


def test_feature_dropout_drops_whole_channels():
    module, features = module_of(), features_of(T)
    without = module.reduce(module.reduce_query, features)
    with_dropout = module.train().reduce(module.reduce_query, features)
    kept = with_dropout.flatten(3).ne(0).any(-1)
    assert 0 < kept.sum() < without.flatten(3).ne(0).any(-1).sum()
    close(with_dropout, 2 * without * kept[..., None, None])
