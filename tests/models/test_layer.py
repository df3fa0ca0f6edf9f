"""One VIPMT iteration against plain loops over Eqs. 1-14, whose pieces are those of slow_layer.py."""
import math
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from slow_layer import activated, close, mask_filter, positions_of, randomise, read, refined, scored

from models.vipmt.layer import PrototypeAttention, VIPMTLayer, masked_attention
from models.vipmt.model import MaskHeads
from models.vipmt.reference_frames import ReferenceFrames

C, H, W = 16, 5, 6

pytestmark = pytest.mark.usefixtures("exact")


# The loops

def guides_of(layer, prototype, support, memory):
    """Eqs. 2 and 13 of one episode: G^s and G^m (or None), separate or joint."""
    sources = [support] if memory is None else [support, memory]
    if layer.joint:
        messages = read(layer.support_attention, prototype, *sources)
    else:
        messages = [read(layer.support_attention, prototype, source)[0] for source in sources]
    protos = [refined(layer.support_refine, message, prototype) for message in messages]
    return (*protos, None)[:2]


def iteration(layer, heads, prototype, query, mask, support, memory, position):
    """Eqs. 2, 8, 10-14 of one episode; support, memory: (features, mask). Keys as LayerOutput's fields."""
    support_proto, memory_proto = guides_of(layer, prototype, support, memory)
    clip_proto = refined(layer.clip_refine, *read(layer.clip_attention, prototype, (query, mask)), prototype)   # Eq. 8
    total = clip_proto + support_proto + prototype + (0 if memory_proto is None else memory_proto)
    clip_inter = mask_filter(heads.clip, total)                                                     # Eqs. 9, 14
    clip_logits = scored(clip_inter, query)
    out = {"support_proto": support_proto, "memory_proto": memory_proto, "clip_proto": clip_proto,
           "clip_inter": clip_inter, "clip_logits": clip_logits, "frame_inter": None, "frame_logits": None,
           "support_logits": torch.cat([scored(clip_inter, g[0]) for g in (support, memory) if g is not None])}
    prototypes, mask = [clip_inter] * len(query), clip_logits >= 0
    if layer.frame_prototype:
        prototypes = []
        for t in range(len(query)):                                                                  # Eq. 10
            message, = read(layer.frame_attention, clip_inter, (query[t:t + 1], mask[t:t + 1]))
            prototypes.append(mask_filter(heads.frame, refined(layer.frame_refine, message, clip_inter) + clip_inter))
        frame_logits = torch.cat([scored(u, query[t:t + 1]) for t, u in enumerate(prototypes)])      # Eq. 12
        mask = frame_logits >= 0
        out |= {"frame_inter": torch.stack(prototypes), "frame_logits": frame_logits}
    mean = sum(prototypes) / len(prototypes)                                                         # Eq. 11
    query = torch.stack([activated(layer.query_activation, frame, u, position)
                         for frame, u in zip(query, prototypes, strict=True)])
    return out | {"prototype": clip_inter if layer.one_way else mean, "mask": mask, "query": query}


# Inputs

def guidance(episodes, frames):
    masks = torch.rand(episodes, frames, H, W) > 0.5
    return ReferenceFrames(torch.randn(episodes, frames, C, H, W), masks, masks, None, None, None)


def layer_and_inputs(episodes=2, frames=2, with_memory=True, **settings):
    layer = VIPMTLayer(dim=C, heads=2, ffn_dim=24, dropout=0.1, **settings).eval()
    heads = MaskHeads(C, 0.1, settings.get("frame_prototype", True)).eval()
    for module in (layer, heads):
        randomise(module)
    return layer, SimpleNamespace(
        prototype=torch.randn(episodes, C), query=torch.randn(episodes, frames, C, H, W),
        mask=torch.rand(episodes, frames, H, W) > 0.6, support=guidance(episodes, 2),
        memory=guidance(episodes, 3) if with_memory else None, heads=heads, position=torch.randn(H, W, C))


def run(layer, inputs, episodes=slice(None)):
    def some(x):
        if isinstance(x, ReferenceFrames):
            values = (getattr(x, f.name) for f in fields(x))
            return ReferenceFrames(*(None if value is None else value[episodes] for value in values))
        return None if x is None else x[episodes]
    x = inputs
    return layer(some(x.prototype), some(x.query), some(x.mask), some(x.support), some(x.memory), x.heads, x.position)


# MAtt, Eq. 4

def test_masked_attention_is_a_softmax_over_the_visible_positions():
    q, features, mask = torch.randn(2, C), torch.randn(2, 3, C, H, W), torch.rand(2, 3, H, W) > 0.5
    found = masked_attention(q, features, mask)
    for b in range(2):
        visible = [x for x, may in positions_of(features[b], mask[b]) if may]
        weights = [math.exp(float(q[b] @ x) / math.sqrt(C)) for x in visible]
        close(found[b], sum(w * x for w, x in zip(weights, visible, strict=True)) / sum(weights))


def test_prototype_attention_equals_queries_keys_and_values_per_position():
    attention = PrototypeAttention(C, dropout=0.1).eval()
    prototype, features, mask = torch.randn(2, C), torch.randn(2, 2, C, H, W), torch.rand(2, 2, H, W) > 0.5
    expected = [read(attention, prototype[b], (features[b], mask[b]))[0] for b in range(2)]
    close(attention(prototype, features, mask), torch.stack(expected))


def test_hidden_positions_are_not_read():
    q, features, mask = torch.randn(1, C), torch.randn(1, 2, C, H, W), torch.rand(1, 2, H, W) > 0.5
    changed = torch.where(mask[:, :, None], features, torch.randn_like(features))
    assert torch.equal(masked_attention(q, features, mask), masked_attention(q, changed, mask))


def test_empty_mask_reads_everywhere():
    q, features = torch.randn(2, C), torch.randn(2, 2, C, H, W)
    nothing = torch.zeros(2, 2, H, W, dtype=torch.bool)
    close(masked_attention(q, features, nothing), masked_attention(q, features, ~nothing))


def test_joint_softmax_is_the_softmax_over_the_real_concatenation():
    attention, prototype = PrototypeAttention(C, dropout=0.1).eval(), torch.randn(1, C)
    support, memory = ((torch.randn(1, n, C, H, W), torch.rand(1, n, H, W) > 0.5) for n in (2, 3))
    found = attention.joint(prototype, [support, memory])
    expected = read(attention, prototype[0], *((features[0], mask[0]) for features, mask in (support, memory)))
    for a, b in zip(found, expected, strict=True):
        close(a[0], b)
    joined = attention(prototype, *(torch.cat(pair, dim=1) for pair in zip(support, memory, strict=True)))
    close(found[0] + found[1], joined)       # the two parts share a total weight of one


def test_joint_softmax_over_one_source_is_plain_attention():
    attention, prototype = PrototypeAttention(C, dropout=0.1).eval(), torch.randn(2, C)
    features, mask = torch.randn(2, 2, C, H, W), torch.rand(2, 2, H, W) > 0.5
    close(attention.joint(prototype, [(features, mask)])[0], attention(prototype, features, mask))


def test_separate_attention_is_two_independent_softmaxes():
    layer, inputs = layer_and_inputs(memory_attention="separate")
    with_memory = run(layer, inputs)
    inputs.memory = None
    close(with_memory.support_proto, run(layer, inputs).support_proto)      # memory takes nothing from the support
    assert run(layer, inputs).memory_proto is None


# The iteration

@pytest.mark.parametrize("settings", [
    {}, {"with_memory": False}, {"memory_attention": "joint"}, {"communication": "one_way"},
    {"frame_prototype": False}, {"memory_attention": "joint", "with_memory": False, "frame_prototype": False}], ids=str)
def test_layer_equals_a_plain_loop_over_the_equations(settings):
    layer, x = layer_and_inputs(**settings)
    found = run(layer, x)
    for b in range(2):
        guides = [None if g is None else (g.features[b], g.attention_masks[b]) for g in (x.support, x.memory)]
        expected = iteration(layer, x.heads, x.prototype[b], x.query[b], x.mask[b], *guides, x.position)
        for name, value in expected.items():
            if value is None:
                assert getattr(found, name) is None, name
            else:
                close(getattr(found, name)[b], value)


def test_attention_reads_attention_masks():
    """`degenerate_masks: patch` changes what is read, nothing else: masks itself stays true."""
    layer, x = layer_and_inputs(with_memory=False)
    before = run(layer, x)
    x.support.masks = ~x.support.masks
    close(run(layer, x).prototype, before.prototype)
    x.support.attention_masks = ~x.support.attention_masks
    assert not torch.allclose(run(layer, x).prototype, before.prototype)


@pytest.mark.parametrize("attention", ["separate", "joint"])
def test_episodes_do_not_see_each_other(attention):
    layer, inputs = layer_and_inputs(episodes=3, memory_attention=attention)
    together = run(layer, inputs)
    for b in range(3):
        alone = run(layer, inputs, slice(b, b + 1))
        for field in fields(together):
            close(getattr(alone, field.name), getattr(together, field.name)[b:b + 1])


def test_order_of_support_frames_is_irrelevant():
    layer, x = layer_and_inputs()
    before = run(layer, x).query
    for name in ("features", "masks", "attention_masks"):
        setattr(x.support, name, getattr(x.support, name).flip(1))
    close(run(layer, x).query, before)
