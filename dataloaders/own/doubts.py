"""Do the supports agree? Each is looked for with the others, which tells one that shows something else."""
import statistics

from dataloaders.episode import Clip, SupportSet


def agreement(seen, start):
    """SupportSet of K, start(SupportSet): a Segmenter of models/method.py  ->  for each support the IoU with which the
    others find its object; [] of fewer than three"""
    found, numbers = [], range(len(seen.images))
    for k in numbers if len(numbers) > 2 else ():
        others = [i for i in numbers if i != k]
        one, clip = start(SupportSet(seen.images[others], seen.masks[others])), Clip(seen.images[k:k + 1])
        mask, truth = one(one.prepare(clip), clip).masks[0, 0].cpu(), seen.masks[k]
        found.append(((mask & truth).sum() / (mask | truth).sum()).item())
    return found


def doubts(names, agreement):
    """Names of supports, what `agreement` says of them  ->  sentences about outliers"""
    usual = statistics.median(agreement) if agreement else 0
    return [f"{name}: the other supports find its object with IoU {value:.2f}, theirs with {usual:.2f}: is it of the "
            "same kind, and its mask right?" for name, value in zip(names, agreement, strict=False)
            if value < usual / 2 and usual > 0.2]
