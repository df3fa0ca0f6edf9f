"""Memory: what enters, what is drawn, in which order; the draws and the noisy masks of training."""
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from material import choices

from dataloaders.fewshot.sampling import draw_windows
from models.vipmt.config import NEEDS_TRUTH
from models.vipmt.memory import MemoryBank, draw_memory, noisy_masks, reliable_frames, select_frames
from models.vipmt.reference_frames import ReferenceFrames
from utils.seeds import rng_for


def guidance_of(numbers):
    """ReferenceFrames of frames that carry their number everywhere; one foreground position per frame and number."""
    x = torch.tensor(numbers, dtype=torch.float32).view(1, -1, 1, 1, 1).expand(-1, -1, 2, 2, 3)
    foreground = torch.zeros(1, len(numbers), max(numbers) + 1, 4)
    for s, number in enumerate(numbers):
        foreground[0, s, :number] = 1
    return ReferenceFrames(x, x[:, :, 0] > 0, x[:, :, 0] > 0, x[..., 0, 0], foreground, None)


def remember(bank, numbers, reliable=None):
    """The frames of a clip  ->  those whose guidance was asked for"""
    asked = []

    def encode(positions):
        asked.extend(numbers[t] for t in positions)
        return guidance_of([numbers[t] for t in positions])
    bank.remember(torch.tensor([True] * len(numbers) if reliable is None else reliable), encode)
    return asked


def bank_of(count, length, rng=None, keep=1000):
    bank = MemoryBank(length, keep, rng)
    for start in range(0, count, 4):
        remember(bank, list(range(start, min(start + 4, count))))
    return bank


def drawn(bank):
    """The numbers of the frames drawn; all parts of their guidance agree about them."""
    guidance = bank.draw()
    numbers = [int(x) for x in guidance.prototypes[0, :, 0]]
    assert guidance.features.shape == (1, len(numbers), 2, 2, 3) and guidance.masks.dtype == torch.bool
    assert [int(x) for x in guidance.features[0, :, 1, 1, 2]] == numbers
    assert guidance.prior_keys[0, :, :, 0].sum(1).tolist() == numbers and guidance.ssm_keys is None
    return numbers


def chi_square(counts):
    expected = sum(counts) / len(counts)
    return sum((n - expected) ** 2 / expected for n in counts)


# What enters

def test_threshold_is_inclusive():
    assert reliable_frames(torch.tensor([0.79999, 0.8, 0.9, float("nan")]), 0.8).tolist() == [False, True, True, False]
    assert reliable_frames(torch.tensor([0.0, 1.0]), 0.0).all()


POLICIES = choices("memory.select")


def clip_of(seed=0, frames=7):
    """Masks, truth, predicted IoU: two frames without object in the truth, one of them empty in the prediction too."""
    generator = torch.Generator().manual_seed(seed)
    masks, truth = (torch.rand(frames, 9, 11, generator=generator) > share for share in (0.3, 0.5))
    truth[2:4], masks[3], masks[5] = False, False, truth[5]
    return masks, truth, torch.rand(frames, generator=generator)


def chosen_by_hand(select, mask, truth, iou, min_iou):
    """One frame, written from the config's comments  ->  whether it enters, and with which mask"""
    if select in ("random", "none"):
        return select == "random", mask
    if select == "ground_truth":
        return True, truth
    if select == "oracle":
        both, any_ = ({p for p in range(mask.numel()) if test(mask.flatten()[p], truth.flatten()[p])}
                      for test in (lambda a, b: a and b, lambda a, b: a or b))
        iou = len(both) / len(any_) if any_ else 0.0
    return float(iou) >= min_iou, mask


@pytest.mark.parametrize("min_iou", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("select", POLICIES)
def test_policy_is_that_of_a_plain_loop(select, min_iou):
    masks, truth, iou = clip_of()
    chosen, kept = select_frames(select, masks, iou, min_iou, truth if select in NEEDS_TRUTH else None)
    by_hand = [chosen_by_hand(select, *frame, min_iou) for frame in zip(masks, truth, iou, strict=True)]
    assert chosen.dtype == kept.dtype == torch.bool and chosen.device.type == "cpu" and kept.shape == masks.shape
    assert chosen.tolist() == [enters for enters, _ in by_hand]
    assert all(torch.equal(a, b) for a, (_, b) in zip(kept, by_hand, strict=True))
    if min_iou == 0.4 and select in ("predicted", "oracle"):
        assert 0 < chosen.sum() < len(chosen)


def test_choosing_changes_neither_masks_nor_truth():
    masks, truth, iou = clip_of()
    for select in POLICIES:
        select_frames(select, masks, iou, 0.5, truth if select in NEEDS_TRUTH else None)
    assert all(torch.equal(a, b) for a, b in zip((masks, truth, iou), clip_of(), strict=True))


@pytest.mark.parametrize("select", NEEDS_TRUTH)
def test_a_policy_that_needs_the_truth_gets_all_of_it(select):
    masks, truth, iou = clip_of()
    for wrong in (None, truth[1:], truth[:, ::2]):
        with pytest.raises(AssertionError, match=f"memory.select {select}"):
            select_frames(select, masks, iou, 0.5, wrong)


def test_unreliable_frame_never_enters_memory():
    bank = MemoryBank(5, 40, None)
    assert remember(bank, [1, 2, 3, 4], [True, False, False, True]) == [1, 4]
    assert remember(bank, [5, 6], [False, False]) == []
    assert len(bank) == bank.seen == 2 and drawn(bank) == [1, 4]


def test_bank_keeps_its_own_copies():
    bank, guidance = MemoryBank(5, 40, None), guidance_of([1, 2])
    for name in ("features", "prototypes"):
        setattr(guidance, name, getattr(guidance, name).clone())
    bank.remember(torch.tensor([True, True]), lambda positions: guidance)
    guidance.features.zero_()
    guidance.prototypes.zero_()
    assert drawn(bank) == [1, 2]


# What is drawn

def test_empty_bank_gives_none():
    bank = MemoryBank(5, 40, np.random.default_rng(0))
    assert bank.draw() is None
    remember(bank, [1], [False])
    assert bank.draw() is None


def test_length_zero_remembers_but_never_reads():
    assert bank_of(3, length=0).draw() is None


@pytest.mark.parametrize("count", [1, 3, 5])
def test_few_frames_are_all_drawn_without_a_random_number(count):
    assert drawn(bank_of(count, length=5, rng=None)) == list(range(count))


def test_corrected_frames_are_in_every_draw():
    bank = bank_of(14, length=3, rng=np.random.default_rng(1), keep=5)
    bank.fixed += guidance_of([101, 102]).split()
    assert all(drawn(bank)[:2] == [101, 102] and len(drawn(bank)) == 3 for _ in range(20))
    bank.fixed += guidance_of([103, 104]).split()
    assert drawn(bank) == [102, 103, 104] and len(bank) == 5          # the last T_m; what else is kept is still there


@pytest.mark.parametrize("length", [1, 3, 5])
def test_many_frames_give_exactly_length_in_order(length):
    bank = bank_of(14, length, np.random.default_rng(1))
    for _ in range(20):
        numbers = drawn(bank)
        assert len(set(numbers)) == length and numbers == sorted(numbers)
    assert len(bank) == 14       # nothing leaves


def test_draws_are_uniform_over_all_subsets():
    bank = bank_of(6, 2, np.random.default_rng(7))
    counts = dict.fromkeys(combinations(range(6), 2), 0)
    for _ in range(3000):
        counts[tuple(drawn(bank))] += 1
    assert chi_square(counts.values()) < 36.1       # 14 degrees of freedom, one in a thousand


def test_same_generator_state_draws_the_same_frames():
    first, second = (bank_of(30, 5, np.random.default_rng(3), keep=8) for _ in range(2))
    assert [drawn(first) for _ in range(5)] == [drawn(second) for _ in range(5)]


# Long videos

def test_a_draw_from_a_full_bank_is_uniform_over_all_subsets_of_the_video():
    """Three of ten frames are kept and two of them drawn: still every pair of the ten is as likely as any other."""
    counts = dict.fromkeys(combinations(range(10), 2), 0)
    for seed in range(2000):
        bank = bank_of(10, 2, np.random.default_rng(seed), keep=3)
        assert len(bank) == 3 and bank.seen == 10
        counts[tuple(drawn(bank))] += 1
    assert chi_square(counts.values()) < 78.7       # 44 degrees of freedom, one in a thousand


def test_only_frames_that_are_kept_are_ever_guided():
    bank, asked = MemoryBank(2, 5, np.random.default_rng(0)), []
    for start in range(0, 4000, 4):
        asked += remember(bank, list(range(start, start + 4)))
    assert asked[:4] == [0, 1, 2, 3] and 5 < len(asked) < 60       # 5 (1 + ln(4000 / 5)) = 38 expected
    numbers = [int(g.prototypes[0, 0, 0]) for g in bank.frames]
    assert numbers == sorted(numbers) and set(numbers) <= set(asked)


def test_a_bank_is_never_smaller_than_a_draw():
    assert len(drawn(bank_of(9, length=5, rng=np.random.default_rng(0), keep=1))) == 5


# What training draws

def test_memory_never_holds_a_frame_of_the_clip_itself():
    for n in range(7, 30):
        for seed in range(10):
            windows = draw_windows(n, 5, 3, "distinct", rng_for(seed, n))
            shown = [frame for window in windows for frame in window]
            memory = draw_memory(windows, 5, "distinct", rng_for(seed))
            assert len(memory) == 2
            for clip, positions in enumerate(memory, start=1):
                earlier = {frame for window in windows[:clip] for frame in window} - set(windows[clip])
                frames = [shown[p] for p in positions]
                assert len(positions) == 5 and max(positions) < 5 * clip and set(frames) <= earlier
                assert len(set(frames)) == min(5, len(earlier))


def test_released_memory_takes_all_of_the_first_clip_then_five_of_ten():
    windows = [[1, 2, 3, 4, 5]] * 3
    seen = set()
    for seed in range(30):
        second, third = draw_memory(windows, 5, "repeat", rng_for(seed))
        assert second == (0, 1, 2, 3, 4)
        assert list(third) == sorted(set(third)) and max(third) < 10
        seen |= set(third)
    assert seen == set(range(10))


def test_too_few_memory_frames_are_repeated_in_turn():
    assert draw_memory([[0, 1, 2], [1, 2, 3]], 4, "distinct", rng_for(0)) == ((0, 0, 0, 0),)
    assert draw_memory([[0, 1], [5, 6]], 5, "distinct", rng_for(0)) == ((0, 1, 0, 1, 0),)


def test_no_memory_where_none_is_asked_for():
    assert draw_memory([[0, 1], [5, 6]], 0, "distinct", rng_for(0)) == ()


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
