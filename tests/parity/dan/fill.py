"""Deterministic weights and inputs of the DAN golden vectors (numpy only; torch wraps at the very end).

Every number is rounded to float32 before it is cast, so that a float32 and a float64 model receive the same numbers.  Weights depend
on the official state-dict name only (crc32 seeds ``numpy.random.default_rng``).
"""
import json
import math
import re
import zlib

import numpy as np

# ------------------------------------------------------------------------------------------------- weights

# first match wins: (regular expression on the whole name, gain instead of sqrt(2))
GAIN = [
    (r'(support|query)_qkv\.(query|Key)\.weight', 3.0),        # attention that is neither flat nor one-hot
    (r'(support|query)_qkv\.Value\.weight', 2.0),
    (r'conv_q\.weight', 0.5),
    (r'Decoder\.RF\d\.convFS\.weight', 0.5),             # skip connections
    (r'Decoder\.(RF\d\.)?Res\w+\.conv2\.weight', 0.5),         # end of a residual branch
    (r'Decoder\.pred2\.weight', 4.0),
]
LOGIT_SHIFT = -0.3


def _fill_one(name, shape, kind):
    n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if kind == 'conv':
        gain = math.sqrt(2.0)
        for pattern, value in GAIN:
            if re.fullmatch(pattern, name):
                gain = value
                break
        w = n * (gain / math.sqrt(np.prod(shape[1:])))
        if shape[1] > 3:                                        # centre: relu features have a positive mean
            w -= w.reshape(shape[0], -1).mean(axis=1).reshape(-1, 1, 1, 1)
        return w
    if kind == 'bn_weight':
        w = np.clip(1.0 + 0.1 * n, 0.5, 1.5)
        return w * 0.4 if re.search(r'layer[123]\.\d+\.bn3\.', name) else w      # end of a residual branch
    if kind in ('bn_bias', 'bn_mean'):
        return 0.05 * n
    if kind == 'bn_var':
        return 1.0 + 0.1 * np.abs(n)
    if kind == 'bias':
        return 0.05 * n + (LOGIT_SHIFT if name == 'Decoder.pred2.bias' else 0.0)
    raise ValueError(f'{name}: no rule for kind {kind!r}')


def official_arrays(path_to_json):
    """Ordered dict: official name -> float32 array, for every floating-point entry of official_parameters.json."""
    with open(path_to_json) as f:
        entries = json.load(f)
    return {e['name']: np.ascontiguousarray(_fill_one(e['name'], tuple(e['shape']), e['kind']), np.float32)
            for e in entries if e['kind'] != 'counter'}


def official_state_dict(path_to_json, dtype=None):
    import torch
    return {k: torch.from_numpy(v).to(dtype or torch.float32) for k, v in official_arrays(path_to_json).items()}


# ------------------------------------------------------------------------------------------------- inputs

def _upsample(a, hw):
    """Bilinear (corners aligned) upsampling of a [..., h, w] array, elementwise operations only."""
    for axis, size in ((-2, hw[0]), (-1, hw[1])):
        n = a.shape[axis]
        pos = np.arange(size) * ((n - 1) / (size - 1))
        lo = np.minimum(pos.astype(np.int64), n - 2)
        f = pos - lo
        f = f[:, None] if axis == -2 else f
        a = np.take(a, lo, axis) * (1 - f) + np.take(a, lo + 1, axis) * f
    return a


def _texture(rng, hw):
    return (_upsample(rng.standard_normal((3, 5, 8)), hw) + 0.5 * _upsample(rng.standard_normal((3, 16, 26)), hw)
            + 0.2 * rng.standard_normal((3,) + tuple(hw)))


def _ellipse(hw, centre, radii):
    y = np.arange(hw[0])[:, None] + 0.5
    x = np.arange(hw[1])[None] + 0.5
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1


def inputs(case):
    """query_img [B, Q, 3, h, w], query_mask [B, Q, 1, h, w], support_img [B, S, 3, h, w], support_mask [B, S, 1, h, w], float32.

    Images are "already normalised" (zero mean, unit spread); support frames are unrelated scenes with an object of the same look,
    query frames show one scene in which the object drifts.
    """
    c = CASES[case]
    rng = np.random.default_rng(c['seed'])
    h, w = c['hw']
    out = {k: [] for k in ('query_img', 'query_mask', 'support_img', 'support_mask')}
    for _ in range(c['batch']):
        look = rng.uniform(-1.8, 1.8, 3)[:, None, None] + 0.5 * _texture(rng, c['hw'])
        part = {k: [] for k in out}

        def add(where, scene, centre, radii):
            mask = _ellipse(c['hw'], centre, radii)
            noise = 0.1 * rng.standard_normal((3, h, w))
            part[where + '_img'].append((np.where(mask, look, scene) + noise).astype(np.float32))
            part[where + '_mask'].append(mask[None].astype(np.float32))

        for _ in range(c['support']):
            add('support', _texture(rng, c['hw']), rng.uniform(0.25, 0.75, 2) * (h, w), rng.uniform(0.12, 0.35, 2) * h)
        scene, centre, radii = _texture(rng, c['hw']), rng.uniform(0.3, 0.7, 2) * (h, w), rng.uniform(0.15, 0.35, 2) * h
        step = rng.uniform(-0.04, 0.04, 2) * h
        for t in range(c['query']):
            add('query', scene, centre + t * step, radii)
        for k in out:
            out[k].append(np.stack(part[k]))
    return {k: np.stack(v) for k, v in out.items()}


CASES = {
    'a': dict(seed=401, batch=2, query=5, support=5, hw=(81, 129)),
    'b': dict(seed=402, batch=1, query=5, support=5, hw=(65, 113)),
    'c': dict(seed=403, batch=1, query=4, support=5, hw=(89, 145)),        # even number of query frames: "middle" is index 2
    'd': dict(seed=404, batch=1, query=1, support=3, hw=(121, 105)),

    'online_a': dict(seed=407, batch=1, query=5, support=5, hw=(49, 73)),
    'online_b': dict(seed=408, batch=1, query=3, support=3, hw=(57, 49)),
}
# online learning: rounds that are run (here the first of the six) and the J at which it stops (released: 21 and 0.5)
ONLINE = {'online_a': dict(rounds=1, stop=0.99), 'online_b': dict(rounds=1, stop=0.99)}


# ------------------------------------------------------------------------------------------------- summaries

def sample_index(n, k=64):
    """k fixed, scattered positions of a flat array of n elements."""
    return (np.arange(k, dtype=np.int64) * 2654435761 + 12345) % n


def summary(a):
    """[mean, population standard deviation, L2 norm] in float64."""
    a = np.asarray(a, np.float64).ravel()
    return np.array([a.mean(), a.std(), np.sqrt((a * a).sum())])


def sample(a, k=64):
    a = np.asarray(a).ravel()
    return np.asarray(a[sample_index(a.size, k)], np.float64)
