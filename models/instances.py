"""Instances: the mask of a category becomes objects whose numbers stay over time. Nothing here is trained.

Components of the mask are objects. In the next frame each is expected where the motion of the pictures takes it, or
where a propagator finds it (models/propagation), and what overlaps that place is the same object. Where the mask is not
trusted, what the propagator finds is taken instead.
"""
from dataclasses import dataclass

import cv2
import numpy as np

LEAST = 0.001                # of a frame's pixels: a smaller component is no object, unless it belongs to one
HELD = 0.3                   # of an expected object: a component with so much of it is its own
TOUCHED = 0.1                # of the smaller of both: enough where no other component has more of the object
COVERED = 0.5                # of a component, by an expected object: it is a part of that one
PATIENCE = 3                 # frames in a row with a component, until it is an object without a trusted frame
APART = 5                    # frames in a row with an object in pieces, until these are objects
PIECE = 0.2                  # of the largest: a smaller piece is none of its own
REACH, GROWTH = 1.5, 3       # times the root of its area, an object moves at most without overlap; times, its area
FORGOTTEN = 30               # frames without an object, after which what comes is another one
NUMBERS = 255                # that a palette has beside the background
SIDE, SMALLEST = 256, 32     # pixels of the longer side at which motion is measured; of the shorter, or it is not


@dataclass(eq=False)
class Track:
    """An object, or what may become one. crop (h, w) bool: as it was last seen; corner, centre, velocity: row, column

    id: of every track; seen, missed, apart: frames in a row; follower: expects it, instead of its motion
    """
    id: int
    category: int
    crop: np.ndarray
    corner: np.ndarray
    centre: np.ndarray
    velocity: np.ndarray | float = 0.0
    seen: int = 1
    missed: int = 0
    apart: int = 0
    follower: object = None


class Instances:
    """One video. step(...) for every frame. numbers: {id of a track: number of the object that it is}, from its second
    or third frame on; categories: {number of an object: that of its category}.

    start(image, mask (H, W) bool): a follower of this object, whose propagate(image) gives margins (H, W), > 0 is
    object; None: objects are followed by their motion. least: share of a frame's pixels, see LEAST
    """

    patience = PATIENCE

    def __init__(self, start=None, least=LEAST):
        self.start, self.least, self.before, self.last_id = start, least, None, 0
        self.tracks, self.numbers, self.categories = [], {}, {}

    def step(self, image, labels, trusted=(1,)):
        """The next frame  ->  ids of tracks (H, W) int32, 0: none

        image (H, W, 3) uint8 RGB; labels (H, W), bool or numbers of categories; trusted: those whose masks are good, so
        that objects may begin at once
        """
        parts, areas, centres, category = components(np.asarray(labels, np.uint8))
        least = self.least * labels.size
        expected = self.expect(image)
        owners = self.owners(parts, areas, category, expected)
        self.find_lost(owners, areas, centres, category, least)
        fresh = [*np.flatnonzero(~owners.any(axis=0) & (areas >= least)), *self.pieces(owners, areas, least)]
        found = self.found(parts, owners, expected, trusted)
        self.update(found)
        for k in fresh:
            self.last_id += 1
            self.tracks.append(Track(self.last_id, int(category[k]), *place_of(parts == k + 1)))
            found[parts == k + 1] = len(self.tracks)
        for track in self.tracks:
            if track.id not in self.numbers and (track.category in trusted and track.seen or track.seen >= PATIENCE):
                self.begin(track, image)
        ids = np.array([0, *(track.id for track in self.tracks)], np.int32)[found]
        self.tracks = [track for track in self.tracks if track.missed <= FORGOTTEN * (track.id in self.numbers)]
        return ids

    def numbered(self, ids):
        """What `step` gave  ->  numbers of objects (H, W) uint8, 0 where it has become none"""
        table = np.zeros(self.last_id + 1, np.uint8)
        table[list(self.numbers)] = list(self.numbers.values())
        return table[ids]

    def expect(self, image):
        """->  (H, W) int: 1 + position in self.tracks where a track is expected, 0 elsewhere"""
        self.measure_motion(image)
        canvas, order = np.zeros(image.shape[:2], np.int32), sorted(enumerate(self.tracks, start=1), key=lambda one: (
            -one[1].missed, -one[1].crop.sum()))                        # what is seen, and what is small, lies above
        margins = {o: track.follower.propagate(image) for o, track in order if track.follower}
        margins = {o: margin for o, margin in margins.items() if (margin > 0).any()}
        for o, track in order:
            track.corner, track.centre = track.corner + track.velocity, track.centre + track.velocity
            if o not in margins:
                paint(canvas, track, o)
        if margins:
            stack = np.stack(list(margins.values()))
            canvas = np.where(stack.max(axis=0) > 0, np.array(list(margins))[stack.argmax(axis=0)], canvas)
        return canvas

    def measure_motion(self, image):
        """Each track's velocity: the median of the optical flow where it was; one that is missed keeps its own"""
        factor = min(1, SIDE / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        before, self.before = self.before, cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        visible, last = [track for track in self.tracks if not track.missed], np.array(small.shape[:2]) - 1
        if visible and last.min() >= SMALLEST:
            flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, self.before, None)
            for track in visible:
                rows, cols = ((np.argwhere(track.crop) + track.corner) * factor).clip(0, last).astype(int).T
                track.velocity = np.median(flow[rows, cols, ::-1], axis=0) / factor

    def owners(self, parts, areas, category, expected):
        """->  (O, K) bool: which tracks each component shows"""
        size = len(self.tracks) + 1, len(areas) + 1
        shared = np.bincount((expected * size[1] + parts).ravel(), minlength=size[0] * size[1]).reshape(size)[1:]
        own, shared = shared.sum(axis=1, keepdims=True), shared[:, 1:]
        most = (shared == shared.max(axis=1, keepdims=True, initial=0)) & (shared >= TOUCHED * np.minimum(own, areas))
        same = np.array([track.category for track in self.tracks], int)[:, None] == category
        return same & (shared > 0) & ((shared >= HELD * own) | most | (shared >= COVERED * areas))

    def find_lost(self, owners, areas, centres, category, least):
        """In place: tracks without a component get the nearest free one of about their size; the smallest step first"""
        lost, free = np.flatnonzero(~owners.any(axis=1)), np.flatnonzero(~owners.any(axis=0) & (areas >= least))
        pairs = []
        for o in lost:
            track, area = self.tracks[o], self.tracks[o].crop.sum()
            steps = np.hypot(*(centres[free] - track.centre).T) / np.sqrt(area)
            fits = (category[free] == track.category) & (steps <= REACH) & (
                np.maximum(areas[free] / area, area / areas[free]) <= GROWTH)
            pairs += [(step, o, k) for step, k in zip(steps[fits], free[fits], strict=True)]
        for _, o, k in sorted(pairs):
            if not owners[o].any() and not owners[:, k].any():
                owners[o, k] = True

    def pieces(self, owners, areas, least):
        """Components that become objects, since another one has been in pieces for long; they leave `owners`"""
        found, alone = [], owners & (owners.sum(axis=0) == 1)
        for o, track in enumerate(self.tracks):
            mine = np.flatnonzero(alone[o])
            large = mine[areas[mine] >= max(least, PIECE * areas[mine].max(initial=0))]
            track.apart = track.apart + 1 if len(large) > 1 else 0
            if track.apart >= APART:
                smaller = large[np.argsort(areas[large])[:-1]]
                owners[o, smaller], track.apart = False, 0
                found += smaller.tolist()
        return found

    def found(self, parts, owners, expected, trusted):
        """->  (H, W) int as `expect`: components given to their owners, between several to the nearest"""
        count = owners.sum(axis=0)
        found = np.array([0, *np.where(count == 1, owners.argmax(axis=0) + 1 if len(owners) else 0, 0)])[parts]
        for k in np.flatnonzero(count > 1):
            left, top, cols, rows = cv2.boundingRect((parts == k + 1).view(np.uint8))
            place = slice(top, top + rows), slice(left, left + cols)
            near = nearest(np.where(np.isin(expected[place], np.flatnonzero(owners[:, k]) + 1), expected[place], 0))
            found[place] = np.where(parts[place] == k + 1, near, found[place])
        by_follower = np.array([False, *(bool(one.follower) and one.category not in trusted for one in self.tracks)])
        return np.where(by_follower[expected], expected, np.where(by_follower[found], 0, found))

    def update(self, found):
        for o, track in enumerate(self.tracks):
            mask = found == o + 1
            if mask.any():
                track.crop, track.corner, track.centre = place_of(mask)
                track.seen, track.missed = track.seen + 1, 0
            else:
                track.seen, track.missed = 0, track.missed + 1

    def begin(self, track, image):
        """A track becomes an object, with the next number"""
        if len(self.numbers) < NUMBERS:
            self.numbers[track.id] = len(self.numbers) + 1
            self.categories[self.numbers[track.id]] = track.category
            if self.start:
                canvas = np.zeros(image.shape[:2], np.int32)
                paint(canvas, track, 1)
                track.follower = self.start(image, canvas > 0)


def components(labels):
    """labels (H, W) uint8  ->  parts (H, W) int32: 1 to K; of each area, centre (row, column), category"""
    parts, areas, centres, category = np.zeros(labels.shape, np.int32), [], [], []
    for number in np.unique(labels[labels > 0]):
        count, own, about, middle = cv2.connectedComponentsWithStats((labels == number).view(np.uint8), connectivity=8)
        parts = np.where(own > 0, own + len(areas), parts)
        areas += about[1:, cv2.CC_STAT_AREA].tolist()
        centres += middle[1:, ::-1].tolist()
        category += [int(number)] * (count - 1)
    return parts, np.array(areas, int), np.array(centres).reshape(-1, 2), np.array(category, int)


def place_of(mask):
    """mask (H, W) bool, not empty  ->  crop, corner and centre of a Track"""
    left, top, cols, rows = cv2.boundingRect(mask.view(np.uint8))
    crop, corner = mask[top:top + rows, left:left + cols].copy(), np.array([top, left], float)
    return crop, corner, corner + np.argwhere(crop).mean(axis=0)


def paint(canvas, track, value):
    """In place: the track at its corner, as far as it lies within the canvas (H, W)"""
    first = np.rint(track.corner).astype(int)
    here = [slice(max(a, 0), max(a + n, 0)) for a, n in zip(first, track.crop.shape, strict=True)]
    target = canvas[tuple(here)]
    crop = track.crop[max(-first[0], 0):, max(-first[1], 0):][:target.shape[0], :target.shape[1]]
    target[crop] = value


def nearest(labels):
    """labels (H, W) int, some > 0  ->  each pixel's nearest one"""
    _, cells = cv2.distanceTransformWithLabels((labels == 0).view(np.uint8), cv2.DIST_L2, 5,
                                               labelType=cv2.DIST_LABEL_PIXEL)
    names = np.zeros(cells.max() + 1, labels.dtype)
    names[cells[labels > 0]] = labels[labels > 0]
    return names[cells]
