"""One VIPMT iteration against plain loops over Eqs. 1-14: queries, keys and values per position, one episode at a time.

Attention, refinement and mask heads are written out here. Inside QA, the convolutions and the self-attention of
models/vipmt/layers.py serve: test_layers.py proves them on their own.
"""
import math
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from models.backbone import Backbone
from models.vipmt.guidance import Guidance
from models.vipmt.layer import PrototypeAttention, VIPMTLayer, masked_attention, positions
from models.vipmt.model import VIPMT, MaskHeads

C, H, W = 16, 5, 6

pytestmark = pytest.mark.usefixtures("exact")


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


# The loops

def positions_of(features, mask):
    """features (T, C, h, w), mask (T, h, w)  ->  list of (vector, may be read)"""
    t, _, h, w = features.shape
    return [(features[a, :, i, j], bool(mask[a, i, j])) for a in range(t) for i in range(h) for j in range(w)]


def read(module, prototype, *sources):
    """MAtt, Eq. 4, one softmax over all sources  ->  one message per source"""
    q = module.to_q.weight @ prototype
    scores, values, owner = [], [], []
    for s, (features, mask) in enumerate(sources):
        for x, visible in positions_of(features, mask):
            scores.append(float(q @ (module.to_k.weight @ x)) / math.sqrt(len(q)) + (0.0 if visible else -1e4))
            values.append(module.to_v.weight @ x)
            owner.append(s)
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    total = sum(weights)
    messages = [torch.zeros_like(prototype) for _ in sources]
    for s, weight, value in zip(owner, weights, values, strict=True):
        messages[s] += weight / total * value
    return [module.proj.weight @ message for message in messages]


def normalised(norm, x):
    return (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() * norm.weight + norm.bias


def feed_forward(ffn, x):
    return x + ffn.contract.weight @ (ffn.expand.weight @ x).clamp(min=0)


def refined(refine, message, prototype):
    return normalised(refine.norm_out, feed_forward(refine.ffn, normalised(refine.norm_in, message + prototype)))


def mask_filter(head, prototype):
    return feed_forward(head.embed, normalised(head.norm, prototype))


def scored(filters, features):
    """MG, Eq. 6, before the sigmoid: (C), (T, C, h, w)  ->  (T, h, w)"""
    return torch.stack([torch.stack([torch.stack([filters @ frame[:, i, j] for j in range(W)]) for i in range(H)])
                        for frame in features])


def activated(qa, frame, prototype, position):
    """QA, Eq. 7, of one frame (C, h, w): the real concatenation, two convolutions, then the released attention."""
    joined = torch.cat([frame, prototype[:, None, None].expand_as(frame)])[None]
    x = qa.convs(F.conv2d(joined, qa.fuse.conv.weight).relu())[0].permute(1, 2, 0)
    x = x + qa.attention((x + position)[None])[0]
    out = torch.empty_like(x)
    for i in range(H):
        for j in range(W):
            out[i, j] = normalised(qa.norm_out, feed_forward(qa.ffn, normalised(qa.norm_attention, x[i, j])))
    return out.permute(2, 0, 1)


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

def randomise(module):
    """Norms and biases that matter."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))


def guidance(episodes, frames):
    masks = torch.rand(episodes, frames, H, W) > 0.5
    return Guidance(torch.randn(episodes, frames, C, H, W), masks, masks, None, None, None)


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
        if isinstance(x, Guidance):
            return Guidance(*(None if getattr(x, f.name) is None else getattr(x, f.name)[episodes] for f in fields(x)))
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


# IPMT as a setting

def test_one_frame_without_frame_prototype_and_memory_is_ipmt():
    model = VIPMT(Backbone(name="tiny", width=8), None, dim=C, num_layers=3, heads=2, ffn_dim=24,
                  frame_prototype=False).eval()
    for module in (model.layers, model.mask_heads):
        randomise(module)
    images, masks = torch.randn(1, 3, 3, 8 * H, 8 * W), torch.rand(1, 2, 8 * H, 8 * W) > 0.5
    support, query = model.guide(model.encode(images[:, :2]), masks), model.prepare(model.encode(images[:, 2:]))
    back, front = model(query, support).activation.initial_logits[0, 0]
    model.activation.initial_classifier[-1].bias[1] -= (front - back).median() + 1e-9     # half of it is object
    out = model(query, support)

    prototype, feature = model.prototype[0], out.activation.query[0]
    initial = out.activation.initial_logits[0]
    mask, head = initial[:, 1] > initial[:, 0], model.mask_heads.clip
    assert 0.3 < mask.double().mean() < 0.7
    position = positions(out.activation.query, model.level_embed)
    for layer, found in zip(model.layers, out.layers, strict=True):
        message, = read(layer.support_attention, prototype, (support.features[0], support.masks[0]))
        support_proto = refined(layer.support_refine, message, prototype)                              # Eq. 2
        message, = read(layer.clip_attention, prototype, (feature, mask))
        query_proto = refined(layer.clip_refine, message, prototype)                                   # Eq. 3
        prototype = mask_filter(head, support_proto + query_proto + prototype)                         # Eqs. 1, 6
        close(found.support_logits[0], scored(prototype, support.features[0]))                         # Eq. 5
        logits = scored(prototype, feature)
        close(found.clip_logits[0], logits)
        mask = logits >= 0
        feature = activated(layer.query_activation, feature[0], prototype, position)[None]             # Eq. 7
        close(found.query[0], feature)
        close(found.prototype[0], prototype)
