"""The t-test over random splits of one data set, whose training and test studies overlap from split to split.

Nadeau and Bengio, Inference for the generalization error, Machine Learning 52 (2003): the variance of a mean over k splits is
(1 / k + n_test / n_train) s^2, where the plain t-test takes s^2 / k, as if the splits were independent.

Shapes: S splits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LEVEL = 0.05
_SAME = 1e-12  # values that differ by rounding alone
_STEPS = 1000  # of the continued fraction; it needs about the root of the larger parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class OverSplits:
    """A mean over splits with its 95 % interval, its sample standard deviation, and the test of a mean of 0."""

    mean: float
    low: float
    high: float
    deviation: float
    p: float
    "two-sided; 1 if every value is 0, and 0 if all are the same other number"


def over_splits(values_S: Sequence[float], *, test_share: float) -> OverSplits:
    """The corrected resampled t-test of one value per split, k - 1 degrees of freedom.

    Args:
        values_S: a score, or the difference of two systems, in each split
        test_share: test studies per training study (n_test / n_train)

    Raises:
        ValueError: fewer than two splits, or a share that is not positive
    """
    count = len(values_S)
    if count < 2:
        raise ValueError(f"{count} splits; a variance over splits needs at least 2")
    if not test_share > 0:
        raise ValueError(f"{test_share} test studies per training study; must be positive")
    mean, deviation = float(np.mean(values_S)), float(np.std(values_S, ddof=1))
    error = math.sqrt(1 / count + test_share) * deviation
    half = student_quantile(1 - _LEVEL / 2, count - 1) * error
    p = student_p(mean / error, count - 1) if deviation > _SAME else float(abs(mean) <= _SAME)
    return OverSplits(mean=mean, low=mean - half, high=mean + half, deviation=deviation, p=p)


def student_p(t: float, freedom: int) -> float:
    """Probability that |T| is at least |t|, for Student's t with this many degrees of freedom."""
    # The smaller argument, which keeps its digits.
    if t * t < freedom:
        return 1 - incomplete_beta(t * t / (freedom + t * t), 0.5, freedom / 2)
    return incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def student_quantile(share: float, freedom: int) -> float:
    """The t below which this share of Student's distribution lies; `share` in (.5, 1). Found by bisection."""
    low, high = 0.0, 1.0
    while student_p(high, freedom) > 2 * (1 - share):
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, freedom) > 2 * (1 - share) else (low, middle)
    return high


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction of the other tail converges faster
        return 1 - incomplete_beta(1 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """Evaluates the continued fraction from the front (modified Lentz)."""
    tiny = 1e-300
    d = 1 - (a + b) * x / (a + 1)
    c, d = 1.0, 1 / (d or tiny)
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for part in (even, odd):
            d, c = 1 / ((1 + part * d) or tiny), (1 + part / c) or tiny
            value *= d * c
        if abs(value - before) <= 1e-15 * abs(value):
            break
    return value
