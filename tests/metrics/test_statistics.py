from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscribe.metrics.overlap import overlap
from rayscribe.metrics.statistics import Rows, differences, holm, intervals, joined


def mean_rows(values: np.ndarray) -> Rows:
    table = np.stack([values, np.ones(len(values))], axis=1)
    return Rows(("value", "reports"), table, lambda sums: {"mean": sums[:, 0] / sums[:, 1]})


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = intervals(mean_rows(values))["mean"]
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.02)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.02)
    assert found.deviation == pytest.approx(error, rel=0.03)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    random = np.random.default_rng(1)
    held = 0
    for seed in range(300):
        found = intervals(mean_rows(random.normal(0, 1, 60)), resamples=400, seed=seed)["mean"]
        held += found.low <= 0 <= found.high
    assert 0.90 <= held / 300 <= 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    rows = mean_rows(np.arange(50.0))
    assert intervals(rows, seed=3) == intervals(rows, seed=3)
    assert intervals(rows, seed=3) != intervals(rows, seed=4)


def test_studies_of_one_patient_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(2).normal(0, 1, 40), 10)
    patients = [str(i // 10) for i in range(400)]
    alone, together = intervals(mean_rows(values))["mean"], intervals(mean_rows(values), groups=patients)["mean"]
    assert together.value == pytest.approx(alone.value)
    assert together.deviation == pytest.approx(alone.deviation * 10**0.5, rel=0.1)


def test_a_system_does_not_differ_from_itself() -> None:
    rows = mean_rows(np.random.default_rng(3).normal(0, 1, 80))
    found = differences([rows], [rows])["mean"]
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_randomisation_test_finds_a_shift_and_is_fair_without_one() -> None:
    random = np.random.default_rng(4)
    base = random.normal(0, 1, 200)
    better = differences([mean_rows(base + 0.3 + random.normal(0, 0.5, 200))], [mean_rows(base)])["mean"]
    assert better.p == pytest.approx(1 / 10_001)
    assert better.low > 0
    p = [
        differences(
            [mean_rows(random.normal(0, 1, 30))], [mean_rows(random.normal(0, 1, 30))], resamples=199, seed=seed
        )["mean"].p
        for seed in range(300)
    ]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.09


def test_all_swaps_of_three_studies_give_the_exact_p_value() -> None:
    first, second = mean_rows(np.array([3.0, 2.0, 4.0])), mean_rows(np.array([1.0, 1.0, 1.0]))
    # Of 8 swaps only two are as far from zero as what was seen.
    assert differences([first], [second])["mean"].p == pytest.approx(2 / 8, abs=0.01)


def test_the_detectable_difference_is_found_in_four_of_five_trials() -> None:
    random = np.random.default_rng(5)
    spread = differences([mean_rows(random.normal(0, 1, 300))], [mean_rows(np.zeros(300))])["mean"]
    found = [
        differences(
            [mean_rows(random.normal(spread.detectable, 1, 300))], [mean_rows(np.zeros(300))], resamples=499, seed=i
        )["mean"].p
        <= 0.05
        for i in range(100)
    ]
    assert 0.68 <= np.mean(found) <= 0.92


def test_seeds_are_averaged() -> None:
    low, high, zero = mean_rows(np.full(20, 1.0)), mean_rows(np.full(20, 3.0)), mean_rows(np.zeros(20))
    assert differences([low, high], [zero, zero])["mean"].difference == pytest.approx(2)
    with pytest.raises(ValueError, match="the same number"):
        differences([low, high], [zero])


def test_holm_gives_the_textbook_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= raw and a <= 1 for a, raw in zip(adjusted, p))
    for i in range(len(p)):
        for j in range(len(p)):
            assert p[i] <= p[j] or adjusted[i] >= adjusted[j] - 1e-12


def test_joined_families_score_as_they_do_alone() -> None:
    texts = ["the heart is normal .", "no effusion .", "lungs clear ."]
    rows, other = overlap(texts, texts[::-1]), mean_rows(np.array([1.0, 2.0, 6.0]))
    assert joined([rows, other]).scores() == pytest.approx(rows.scores() | {"mean": 3})
