"""Spearman's correlation against a slow loop."""
import numpy as np
import pytest

from utils.evaluation.rank_correlation import ranks, spearman


def slow_spearman(first, second):
    """Ranks by counting, correlation by its definition."""
    def rank(values):
        return [sum(y < x for y in values) + (sum(y == x for y in values) + 1) / 2 for x in values]
    a, b = rank(first), rank(second)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    together = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    alone = [sum((x - m) ** 2 for x in values) for values, m in ((a, mean_a), (b, mean_b))]
    return together / (alone[0] * alone[1]) ** 0.5


@pytest.mark.parametrize("levels", [3, 10, 10 ** 6], ids=["many ties", "some ties", "no ties"])
def test_spearman_equals_the_slow_loop(levels):
    rng = np.random.default_rng(levels)
    for _ in range(5):
        first = rng.integers(0, levels, 40)
        second = first // 2 + rng.integers(0, levels, 40)
        assert spearman(first, second) == pytest.approx(slow_spearman(first.tolist(), second.tolist()), abs=1e-12)


def test_equal_values_share_their_rank():
    assert ranks(np.array([0.5, 0.1, 0.5, 0.9])).tolist() == [2.5, 1, 2.5, 4]


def test_order_is_all_that_counts():
    values = np.linspace(0, 1, 20)
    assert spearman(values, values ** 5) == pytest.approx(1) and spearman(values, -np.exp(values)) == pytest.approx(-1)
    assert np.isnan(spearman(values, np.full(20, 0.3)))
