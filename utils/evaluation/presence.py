"""Is the object there at all? A few-shot network marks something in every frame; two things tell when it should not.

How certain it is of what it marks, and whether halves of the supports lead to the same mask.
"""
from dataclasses import replace

import torch

# Below it an object counts as absent: the best balance on base classes of the demo (benchmarks/people.md). Another
# network needs another one.
AUTO = 0.86


def limit_of(absent):
    """--absent: never, auto, a number  ->  None, or the presence below which an object counts as absent"""
    try:
        limit = {"never": None, "auto": AUTO}[absent] if absent in ("never", "auto") else float(absent)
    except (TypeError, ValueError):
        limit = 0
    if limit is not None and not 0 < limit < 1:
        raise ValueError(f"--absent {absent}: expected auto, never, or a number between 0 and 1")
    return limit


def judged(start, supports, rng, limit, most):
    """start(SupportSet, rng): a Segmenter of these supports  ->  it, within Presence unless limit is None"""
    whole = start(supports, rng)
    if limit is None:
        return whole
    half = len(supports.images) // 2
    parts = [slice(0, half), slice(half, None)] if half else []
    return Presence(whole, [start(replace(supports, images=supports.images[part], masks=supports.masks[part],
                                          encoded={})) for part in parts], limit, most)


class Presence:
    """A Segmenter of the contract around others of one video: whole, with all supports, and two with half of them each.

    per_frame gains presence (T,) in [0, 1]: mean probability within the mask times the IoU of the halves' masks, both
    means over the clip. Without halves, as of a single support, the first alone. And present (T,): whether that reaches
    the limit; where it does not, no margin is above `most`.
    """

    def __init__(self, whole, halves=(), limit=0.0, most=0.0):
        self.whole, self.halves, self.limit, self.most = whole, halves, limit, most

    def prepare(self, clip):
        return self.whole.prepare(clip)

    def recall(self, clip, fixed):
        return all([hasattr(one, "recall") and one.recall(clip, fixed) for one in (self.whole, *self.halves)])

    @torch.inference_mode()
    def __call__(self, prepared, clip):
        prediction = self.whole(prepared, clip)
        score = certainty(prediction.margins[0])
        if self.halves:
            score = score * overlap(*(half(prepared, clip).masks[0] for half in self.halves))
        presence = score.mean().expand(len(score)).cpu()
        here = bool(presence[0] >= self.limit)
        margins = prediction.margins if here else prediction.margins.clamp(max=self.most)
        return replace(prediction, margins=margins, per_frame=prediction.per_frame | {
            "presence": presence, "present": torch.full_like(presence, here, dtype=torch.bool)})


def certainty(margins):
    """(T, H, W)  ->  (T,): mean probability of what is marked, 0 where nothing is"""
    marked = margins > 0
    return (margins.sigmoid() * marked).sum((1, 2)) / marked.sum((1, 2)).clamp(min=1)


def overlap(a, b):
    """Masks (T, H, W) bool  ->  IoUs (T,), 0 where both are empty"""
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp(min=1)
