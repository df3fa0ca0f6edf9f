"""The pieces of an iteration as plain loops over positions, one episode at a time: what test_layer.py and
test_ipmt_setting.py compare with.

Inside QA, the convolutions and the self-attention of models/vipmt/layers.py serve: test_layers.py proves them.
"""
import math

import torch
import torch.nn.functional as F


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


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
    rows, cols = features.shape[-2:]
    return torch.stack([torch.stack([torch.stack([filters @ frame[:, i, j] for j in range(cols)])
                                     for i in range(rows)]) for frame in features])


def activated(qa, frame, prototype, position):
    """QA, Eq. 7, of one frame (C, h, w): the real concatenation, two convolutions, then the released attention."""
    joined = torch.cat([frame, prototype[:, None, None].expand_as(frame)])[None]
    x = qa.convs(F.conv2d(joined, qa.fuse.conv.weight).relu())[0].permute(1, 2, 0)
    x = x + qa.attention((x + position)[None])[0]
    out = torch.empty_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = normalised(qa.norm_out, feed_forward(qa.ffn, normalised(qa.norm_attention, x[i, j])))
    return out.permute(2, 0, 1)


def randomise(module):
    """Norms and biases that matter."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
