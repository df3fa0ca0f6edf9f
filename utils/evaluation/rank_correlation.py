"""Spearman's rank correlation, without SciPy."""
import numpy as np


def ranks(values):
    """(N,)  ->  (N,) float, 1 for the smallest; equal values share the average of their ranks"""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[index]


def spearman(first, second):
    """Correlation of ranks: (N,) twice  ->  float in [-1, 1], NaN where one of them is constant"""
    a, b = (ranks(x) - ranks(x).mean() for x in (np.asarray(first), np.asarray(second)))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")
