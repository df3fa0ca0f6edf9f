"""Objects of a category: their numbers stay, by hand-made masks that move, meet, leave and come."""
import numpy as np
import pytest

from models.instances import APART, FORGOTTEN, PATIENCE, Instances, components, nearest

SIZE = 64, 96


def scene(*squares):
    """(row, column, side, colour or number) of squares, a later one above  ->  image (H, W, 3), labels of categories"""
    rng = np.random.default_rng(0)
    image, labels = rng.integers(90, 110, (*SIZE, 3)).astype(np.uint8), np.zeros(SIZE, np.uint8)
    for row, col, side, category in squares:
        place = slice(max(row, 0), max(row + side, 0)), slice(max(col, 0), max(col + side, 0))
        texture = rng.integers(0, 255, (side, side, 3))[-labels[place].shape[0]:, :labels[place].shape[1]]
        image[place], labels[place] = texture, category
    return image, labels


def numbers_of(scenes, instances=None, trusted=(1, 2)):
    instances = instances or Instances()
    ids = [instances.step(*one, trusted) for one in scenes]
    return [instances.numbered(one) for one in ids], instances


def at(labels, row, col):
    return int(labels[row, col])


def test_numbers_stay_while_objects_move_and_categories_never_mix():
    found, instances = numbers_of([scene((10, 5 + 3 * t, 12, 1), (40, 70 - 3 * t, 12, 1), (24, 40, 12, 2))
                                   for t in range(8)])
    for t, labels in enumerate(found):
        one = at(labels, 15, 10 + 3 * t), at(labels, 45, 75 - 3 * t), at(labels, 30, 45)
        assert one == (1, 2, 3) and (labels > 0).sum() == 3 * 144
    assert instances.categories == {1: 1, 2: 1, 3: 2}


def test_a_small_component_is_no_object_but_stays_part_of_one():
    image, labels = scene((10, 10, 20, 1))
    labels[50, 50:53] = 1                                                     # 3 of 6144 pixels: below 0.001
    found, _ = numbers_of([(image, labels)])
    assert set(np.unique(found[0])) == {0, 1} and not found[0][50].any()
    cut = labels.copy()
    cut[:, 27] = 0                                                            # two columns come off the square
    found, _ = numbers_of([(image, labels), (image, cut)])
    assert at(found[1], 15, 29) == 1 == at(found[1], 15, 12)


def test_what_leaves_keeps_its_number_and_what_comes_gets_a_new_one():
    here, other = (20, 10, 14, 1), (40, 70, 14, 1)
    found, instances = numbers_of([scene(here), scene(here), scene(), scene(other), scene(here, other)])
    assert [np.unique(labels).tolist() for labels in found] == [[0, 1], [0, 1], [0], [0, 2], [0, 1, 2]]
    assert at(found[4], 25, 15) == 1                                          # found again where it was
    found, _ = numbers_of([scene(here)] + [scene()] * (FORGOTTEN + 1) + [scene(here)])
    assert np.unique(found[-1]).tolist() == [0, 2]


def test_objects_that_touch_are_told_apart_by_where_they_are_expected():
    found, _ = numbers_of([scene((20, 10 + 5 * t, 14, 1), (20, 60 - 5 * t, 14, 1)) for t in range(5)])
    touching = found[4]                                                       # columns 30 to 44 and 40 to 54
    assert at(touching, 25, 32) == 1 and at(touching, 25, 51) == 2
    assert components((touching > 0).astype(np.uint8))[1].tolist() == [24 * 14]


def test_pieces_become_objects_once_they_are_apart_for_long():
    scenes = [scene((20, 30, 16, 1), (20, 46, 16, 1))] + [scene((20, 30 - t, 16, 1), (20, 46 + t, 16, 1))
                                                          for t in range(1, APART + 3)]
    found, _ = numbers_of(scenes)
    assert all(np.unique(labels).tolist() == [0, 1] for labels in found[:APART])
    assert np.unique(found[-1]).tolist() == [0, 1, 2]


def test_without_a_trusted_frame_an_object_is_what_is_seen_several_times_in_a_row():
    steady, flash = (10, 10, 16, 1), (40, 60, 16, 1)
    instances = Instances()
    ids = [instances.step(*scene(steady, *([flash] if t == 1 else [])), ()) for t in range(PATIENCE)]
    assert instances.categories == {1: 1}
    assert all(np.unique(instances.numbered(one)).tolist() == [0, 1] for one in ids)      # the first frames as well
    assert ids[1][45, 65] and not instances.numbered(ids[1])[45, 65]


def test_a_follower_stands_in_where_the_mask_is_not_trusted():
    class Fixed:
        def __init__(self, image, mask):
            self.mask = mask

        def propagate(self, image):
            return np.where(self.mask, 1.0, -1.0)
    a, b = scene((10, 10, 16, 1)), scene((12, 14, 16, 1))
    instances = Instances(Fixed)
    first, second, third = (instances.numbered(instances.step(*one, trusted)) for one, trusted in (
        (a, {1}), (b, set()), (b, {1})))
    assert np.array_equal(first, a[1]) and np.array_equal(second, a[1]) and np.array_equal(third, b[1])


def test_nearest_and_components_equal_slow_loops():
    rng = np.random.default_rng(1)
    labels = np.zeros((20, 30), np.int32)
    labels[rng.integers(0, 20, 5), rng.integers(0, 30, 5)] = [1, 2, 3, 4, 5]
    found, sources = nearest(labels), np.argwhere(labels)
    for row, col in np.ndindex(labels.shape):
        distances = np.hypot(*(sources - (row, col)).T)
        chosen = distances[labels[tuple(sources.T)] == found[row, col]].min()
        assert chosen <= 1.05 * distances.min() + 1e-6                        # OpenCV's distance is an approximation
    blobs = (rng.random((20, 30)) < 0.3).astype(np.uint8) * rng.integers(1, 3, (20, 30)).astype(np.uint8)
    parts, areas, centres, category = components(blobs)
    for k in range(len(areas)):
        mask = parts == k + 1
        assert mask.sum() == areas[k] and set(blobs[mask]) == {category[k]}
        assert np.argwhere(mask).mean(axis=0) == pytest.approx(centres[k])
    for row, col in np.argwhere(blobs):                                       # neighbours of a category are one part
        near = blobs[max(row - 1, 0):row + 2, max(col - 1, 0):col + 2] == blobs[row, col]
        assert set(parts[max(row - 1, 0):row + 2, max(col - 1, 0):col + 2][near]) == {parts[row, col]}


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 31)])
def test_frames_of_any_size_are_taken(size):
    instances, image = Instances(), np.zeros((*size, 3), np.uint8)
    for labels in (np.ones(size, bool), np.zeros(size, bool), np.ones(size, bool)):
        found = instances.numbered(instances.step(image, labels))
        assert np.array_equal(found > 0, labels)


def test_a_palettes_numbers_are_not_exceeded():
    labels = np.zeros((64, 96), np.uint8)
    labels[::3, ::3] = 1                                                      # 704 single pixels
    instances = Instances(least=0)
    found = instances.numbered(instances.step(np.zeros((64, 96, 3), np.uint8), labels))
    assert np.unique(found).tolist() == list(range(256))
