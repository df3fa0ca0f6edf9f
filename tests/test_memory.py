"""Memory: what enters, what is drawn, in which order; and the noisy masks of training."""
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.backbone import Features
from models.vipmt.memory import MemoryBank, noisy_masks, reliable_frames


def clip_of(numbers):
    """Features (1, T, 1, 2, 3) and masks (1, T, 4, 6) in which every frame carries its number."""
    x = torch.tensor(numbers, dtype=torch.float32).view(1, -1, 1, 1, 1).expand(-1, -1, 1, 2, 3)
    masks = torch.arange(24).view(1, 1, 4, 6) < torch.tensor(numbers).view(1, -1, 1, 1)
    return Features(None, x, 2 * x, None), masks


def bank_of(count, length):
    bank = MemoryBank(length)
    for start in range(0, count, 4):
        numbers = list(range(start, min(start + 4, count)))
        bank.remember(*clip_of(numbers), torch.ones(len(numbers), dtype=torch.bool))
    return bank


def drawn(bank, rng):
    """The numbers of the frames drawn; features, levels and masks agree about them."""
    features, masks = bank.draw(rng)
    numbers = [int(x) for x in features.c3[0, :, 0, 0, 0]]
    assert torch.equal(features.c4, 2 * features.c3) and features.c2 is None and features.c5 is None
    assert features.c3.shape == (1, len(numbers), 1, 2, 3) and masks.shape == (1, len(numbers), 4, 6)
    assert masks[0].flatten(1).sum(1).tolist() == numbers
    return numbers


# What enters

def test_threshold_is_inclusive():
    assert reliable_frames(torch.tensor([0.79999, 0.8, 0.9, float("nan")]), 0.8).tolist() == [False, True, True, False]
    assert reliable_frames(torch.tensor([0.0, 1.0]), 0.0).all()


def test_unreliable_frame_never_enters_memory():
    bank = MemoryBank(5)
    bank.remember(*clip_of([1, 2, 3, 4]), torch.tensor([True, False, False, True]))
    bank.remember(*clip_of([5, 6]), torch.tensor([False, False]))
    assert len(bank) == 2 and drawn(bank, np.random.default_rng(0)) == [1, 4]


def test_bank_keeps_its_own_copies():
    bank, (features, masks) = MemoryBank(5), clip_of([1, 2])
    features = features.map(torch.Tensor.clone)
    bank.remember(features, masks, torch.tensor([True, True]))
    features.c3.zero_()
    masks.zero_()
    assert drawn(bank, None) == [1, 2]


# What is drawn

def test_empty_bank_gives_none():
    assert MemoryBank(5).draw(np.random.default_rng(0)) is None
    bank = MemoryBank(5)
    bank.remember(*clip_of([1]), torch.tensor([False]))
    assert bank.draw(np.random.default_rng(0)) is None


def test_length_zero_remembers_but_never_reads():
    assert bank_of(3, length=0).draw(np.random.default_rng(0)) is None


@pytest.mark.parametrize("count", [1, 3, 5])
def test_few_frames_are_all_drawn_without_a_random_number(count):
    assert drawn(bank_of(count, length=5), rng=None) == list(range(count))


@pytest.mark.parametrize("length", [1, 3, 5])
def test_many_frames_give_exactly_length_in_order(length):
    bank, rng = bank_of(14, length), np.random.default_rng(1)
    for _ in range(20):
        numbers = drawn(bank, rng)
        assert len(set(numbers)) == length and numbers == sorted(numbers)
    assert len(bank) == 14       # nothing leaves


def test_draws_are_uniform_over_all_subsets():
    bank, rng = bank_of(6, length=2), np.random.default_rng(7)
    counts = dict.fromkeys(combinations(range(6), 2), 0)
    draws = 3000
    for _ in range(draws):
        counts[tuple(drawn(bank, rng))] += 1
    expected = draws / len(counts)
    chi_square = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi_square < 36.1       # 14 degrees of freedom, one in a thousand


def test_same_generator_state_draws_the_same_frames():
    first, second = (np.random.default_rng(3) for _ in range(2))
    assert [drawn(bank_of(12, 5), first) for _ in range(5)] == [drawn(bank_of(12, 5), second) for _ in range(5)]


# Noisy masks

def square(size=60, low=20, high=40):
    masks = torch.zeros(2, 3, size, size, dtype=torch.bool)
    masks[..., low:high, low:high] = True
    return masks


def test_noisy_masks_keep_shape_and_type_and_leave_the_truth_alone():
    torch.manual_seed(0)
    masks = square()
    noisy = noisy_masks(masks)
    assert noisy.shape == masks.shape and noisy.dtype == torch.bool and noisy.device == masks.device
    assert torch.equal(masks, square()) and not torch.equal(noisy, masks)
    assert not torch.equal(noisy[0, 0], noisy[0, 1])       # every frame has its own noise


@pytest.mark.parametrize("reach", [1, 4, 8])
def test_noise_moves_no_boundary_further_than_twice_reach(reach):
    """Grown or shrunk by `reach` and moved by `reach`: inside and outside hold beyond the sum."""
    torch.manual_seed(0)
    masks, margin = square(), 2 * reach

    def dilated(x):
        return F.max_pool2d(x.flatten(0, 1).float(), 2 * margin + 1, stride=1, padding=margin).unflatten(0, (2, 3)) > 0
    for _ in range(10):
        noisy = noisy_masks(masks, reach)
        assert not (noisy & ~dilated(masks)).any()
        assert not (~noisy & ~dilated(~masks)).any()
        height = noisy.any(-1).sum(-1)
        assert (height >= 20 - 2 * reach).all() and (height <= 20 + 2 * reach).all()


def test_noise_of_reach_zero_is_the_identity():
    masks = torch.rand(2, 2, 20, 30) > 0.5
    assert torch.equal(noisy_masks(masks, reach=0), masks)


def test_noise_keeps_empty_masks_empty():
    torch.manual_seed(0)
    assert not noisy_masks(torch.zeros(1, 4, 20, 30, dtype=torch.bool)).any()


def test_what_leaves_the_frame_does_not_come_back_on_the_other_side():
    torch.manual_seed(0)
    masks = torch.zeros(1, 40, 60, 60, dtype=torch.bool)
    masks[..., :6, :6] = True
    assert not noisy_masks(masks, reach=4)[..., 30:, :].any()
