"""Mask noise (Section 4.3, "Video" and "Image" of Table 6): true masks made as wrong as predictions can be.

In: true masks and a NumPy Generator. Out: masks whose IoU with the truth is spread evenly over [0, 1]. Each kind of
noise is a family of masks by strength, from 0, the mask itself, to 1, as wrong as this kind gets; a bounded search
over the strength finds the IoU that is wanted.
"""
import cv2
import numpy as np

TOLERANCE = 0.02         # an IoU this close to its target is good enough
ATTEMPTS = 6             # compositions tried for one mask; the closest is taken
MOST_KINDS = 3           # kinds of noise composed in one mask
SEARCH_STEPS = 12        # halvings of the strength: of 400 pixels a tenth of one is left
BLOBS = (6.0, 60.0)      # pixels across, of holes, islands and the waves of a jittered boundary
MAX_ROTATION = 45.0      # degrees
SCALE = (0.7, 1.5)


# -- families: (mask (H, W) bool, generator, another object's mask)  ->  strength  ->  (H, W) bool -------------------

def dilate(mask, rng, other):
    """The mask and all that is near it."""
    distance = distance_to(mask)
    return lambda strength: distance <= strength * distance.max()


def erode(mask, rng, other):
    """The mask without its rim; what lies beyond the image counts as background."""
    depth = distance_to(~np.pad(mask, 1))[1:-1, 1:-1]
    return lambda strength: mask & (depth > strength * depth.max())


def jitter(mask, rng, other):
    """A boundary in waves, outwards here and inwards there, by at most `strength` times the object's size."""
    signed = distance_to(mask) - distance_to(~mask)
    waves = blobs(mask.shape, rng) * np.sqrt(mask.sum())
    return lambda strength: mask if strength == 0 else signed < strength * waves


def holes(mask, rng, other):
    """Blobs of the object are missing."""
    missing = growing(mask, blobs(mask.shape, rng))
    return lambda strength: mask & ~missing(strength)


def islands(mask, rng, other):
    """Blobs of the background are taken for the object."""
    found = growing(~mask, blobs(mask.shape, rng))
    return lambda strength: mask | found(strength)


def cut(mask, rng, other):
    """One side of the object is missing."""
    missing = growing(mask, slope(mask.shape, rng))
    return lambda strength: mask & ~missing(strength)


def shift(mask, rng, other):
    """The mask moved by up to its own extent, turned and scaled on the way."""
    rows, cols = np.nonzero(mask)
    centre, extent = (float(cols.mean()), float(rows.mean())), np.hypot(np.ptp(rows) + 1, np.ptp(cols) + 1)
    direction, turn, scale = rng.uniform(0, 2 * np.pi), rng.uniform(-1, 1) * MAX_ROTATION, rng.uniform(*SCALE)

    def at(strength):
        motion = cv2.getRotationMatrix2D(centre, strength * turn, 1 + strength * (scale - 1))
        motion[:, 2] += strength * extent * np.array([np.cos(direction), np.sin(direction)])
        return cv2.warpAffine(mask.astype(np.uint8), motion, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0
    return at


def merge(mask, rng, other):
    """Another object, or one side of it, is taken along."""
    found = growing(other & ~mask, slope(mask.shape, rng))
    return lambda strength: mask | found(strength)


def swap(mask, rng, other):
    """Another object instead of this one: one side of each first, at last the other one alone."""
    sides = slope(mask.shape, rng)
    missing, found = growing(mask, sides), growing(other, sides)
    return lambda strength: (mask & ~missing(strength)) | found(strength)


KINDS = {"dilate": dilate, "erode": erode, "jitter": jitter, "holes": holes, "islands": islands, "cut": cut,
         "shift": shift, "merge": merge, "swap": swap}
NEED_ANOTHER = ("merge", "swap")


# -- what the families are made of ----------------------------------------------------------------------------------

def distance_to(mask):
    """Pixels to the nearest one of the mask: (H, W) bool  ->  (H, W) float32, 0 on the mask"""
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)


def blobs(size, rng):
    """A smooth random field in [-1, 1], (H, W) float32, whose hills are BLOBS pixels wide."""
    width = np.exp(rng.uniform(*np.log(BLOBS)))
    grid = rng.standard_normal([int(np.ceil(n / width)) + 2 for n in size]).astype(np.float32)
    field = cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC)
    return field / np.abs(field).max()


def slope(size, rng):
    """A plane that rises in a random direction, (H, W) float."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, cols = np.ogrid[:size[0], :size[1]]
    return rows * np.sin(angle) + cols * np.cos(angle)


def growing(region, field):
    """strength  ->  that share of the region, where the field is highest first; 0 is nothing, 1 all of it"""
    values = np.sort(field[region])[::-1]

    def at(strength):
        count = round(strength * len(values))
        return region & (field >= values[count - 1]) if count else np.zeros_like(region)
    return at


def iou(mask, truth):
    """(H, W) bool twice  ->  float; an empty union counts 0, as in losses.mask_iou"""
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 0.0


# -- the sampler ----------------------------------------------------------------------------------------------------

def noisy_masks(masks, rng, others=None):
    """What a model might have predicted: masks (N, H, W) bool, others: masks of other objects or None  ->  (N, H, W)

    The IoUs wanted are one random value of each of N equal parts of [0, 1], in random order.
    """
    targets = (rng.permutation(len(masks)) + rng.random(len(masks))) / max(len(masks), 1)
    others = [None] * len(masks) if others is None else others
    wrong = [degrade(*one, rng) for one in zip(masks, targets, others, strict=True)]
    return np.stack(wrong) if wrong else masks.copy()


def degrade(truth, target, other, rng):
    """truth (H, W) bool, target IoU, another object's mask (H, W) or None  ->  a mask of about that IoU, (H, W)"""
    if not truth.any():
        return without_object(truth, other, rng)
    extremes = [mask for mask in (np.zeros_like(truth), ~np.zeros_like(truth)) if near(mask, truth, target)]
    if extremes and rng.random() < 0.5:
        return extremes[0]
    found = []
    for _ in range(ATTEMPTS):
        found.append(compose(truth, target, other, rng))
        if near(found[-1], truth, target):
            return found[-1]
    return min(found, key=lambda mask: abs(iou(mask, truth) - target))


def without_object(truth, other, rng):
    """An empty truth: every IoU is 0. Nothing, everything, islands or the other object."""
    masks = [truth.copy(), ~truth, islands(truth, rng, other)(rng.random() / 4)] + ([] if other is None else [other])
    return masks[rng.integers(len(masks))]


def near(mask, truth, target):
    return abs(iou(mask, truth) - target) < TOLERANCE


def compose(truth, target, other, rng):
    """One to MOST_KINDS kinds of noise on top of each other, each taking its share of the IoU that is to be lost."""
    names = [name for name in KINDS if name not in NEED_ANOTHER or (other is not None and other.any())]
    names = rng.choice(names, rng.integers(1, MOST_KINDS + 1), replace=False)
    shares = np.sort(rng.random(len(names) - 1))
    mask = truth
    for name, goal in zip(names, [*(1 - shares * (1 - target)), target], strict=True):
        if not mask.any():
            break
        mask = search(KINDS[name](mask, rng, other), truth, goal)
    return mask


def search(family, truth, goal):
    """The mask of the family whose IoU with the truth is closest to the goal, of those that halving meets."""
    low, high, nearest, best = 0.0, 1.0, None, np.inf
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        mask = family(middle)
        miss = iou(mask, truth) - goal
        if abs(miss) < best:
            nearest, best = mask, abs(miss)
        if best < TOLERANCE / 4:
            break
        low, high = (middle, high) if miss > 0 else (low, middle)
    return nearest
