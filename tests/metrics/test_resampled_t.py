"""The corrected resampled t-test: known values, the plain test as its limit, and how often it errs on overlapping splits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from rayscribe.metrics.resampled_t import incomplete_beta, over_splits, student_p, student_quantile


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980)]
)
def test_quantiles_are_those_of_the_printed_table(freedom: int, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, abs=5e-4)
    assert student_p(quantile, freedom) == pytest.approx(0.05, abs=2e-4)


@given(st.floats(0.01, 0.99), st.floats(0.2, 60), st.floats(0.2, 60))
def test_the_incomplete_beta_function_is_scipys(x: float, a: float, b: float) -> None:
    assert incomplete_beta(x, a, b) == pytest.approx(special.betainc(a, b, x), abs=1e-11)


@given(st.floats(-50, 50), st.integers(1, 200))
def test_p_is_scipys(t: float, freedom: int) -> None:
    assert student_p(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), abs=1e-11)


def test_a_worked_example() -> None:
    """Mean .03, s^2 .00025, k 5, n_test / n_train .25: variance (.2 + .25) .00025 = .0001125, t 2.8284, p .0474."""
    found = over_splits([0.01, 0.02, 0.03, 0.04, 0.05], test_share=0.25)
    assert found.mean == pytest.approx(0.03) and found.deviation == pytest.approx(math.sqrt(0.00025))
    assert found.p == pytest.approx(0.04742, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((0.03 - 2.77645 * 0.0106066, 0.03 + 2.77645 * 0.0106066), abs=1e-6)


def test_without_overlap_it_is_the_plain_t_test() -> None:
    values = np.random.default_rng(0).normal(0.2, 1, 8)
    assert over_splits(values, test_share=1e-12).p == pytest.approx(float(stats.ttest_1samp(values, 0).pvalue))


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(0.05, 1))
def test_p_and_interval_agree(values: list[float], share: float) -> None:
    found = over_splits(values, test_share=share)
    is_outside = found.low > 0 or found.high < 0
    assert 0 <= found.p <= 1
    assert is_outside == (found.p < 0.05) or abs(found.p - 0.05) < 1e-6 or max(map(abs, values)) < 1e-6


def test_equal_systems_have_a_p_of_1_and_a_constant_difference_one_of_0() -> None:
    assert over_splits([0.0, 0.0, 0.0], test_share=0.2).p == 1
    assert over_splits([0.1, 0.1, 0.1], test_share=0.2).p == 0


def test_on_overlapping_splits_the_plain_test_finds_too_much_and_the_corrected_one_does_not() -> None:
    """Two systems that are equal in truth; the splits of a sample are drawn from the same 100 studies."""
    random = np.random.default_rng(0)
    plain = corrected = 0
    for _ in range(300):
        difference_R = random.normal(0, 1, 100)
        means = [float(difference_R[random.permutation(100)[:20]].mean()) for _ in range(10)]
        plain += float(stats.ttest_1samp(means, 0).pvalue) < 0.05
        corrected += over_splits(means, test_share=20 / 80).p < 0.05
    assert plain > 45 and corrected < 24


@pytest.mark.parametrize(("values", "share"), [([0.1], 0.2), ([], 0.2), ([0.1, 0.2], 0.0)])
def test_what_has_no_variance_over_splits_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match=r"splits; a variance|must be positive"):
        over_splits(values, test_share=share)
