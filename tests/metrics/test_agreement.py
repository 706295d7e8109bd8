from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from rayscribe.metrics.agreement import cohen_kappa, fleiss_kappa, pair_agreement, preference, sign_test, wilson

# Ten patients, fourteen psychiatrists, five diagnoses: the example that goes with Fleiss's kappa.
EXAMPLE = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)

counts = st.integers(0, 120)
votes = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


@given(first=counts, second=counts)
def test_the_sign_test_is_scipys_binomial_test(first: int, second: int) -> None:
    found = sign_test(first, second)
    if first + second == 0:
        assert found is None
    else:
        assert found == pytest.approx(binomtest(first, first + second).pvalue, rel=1e-9)


@given(chosen=counts, others=counts)
def test_the_interval_is_scipys_wilson_interval(chosen: int, others: int) -> None:
    found = wilson(chosen, chosen + others)
    if chosen + others == 0:
        assert found is None
    else:
        wanted = binomtest(chosen, chosen + others).proportion_ci(method="wilson")
        assert found == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@given(pairs=votes)
def test_cohens_kappa_is_sklearns(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs).T
    for linear in (False, True):
        found = cohen_kappa(first, second, categories=3, linear=linear)
        if len(set(first) | set(second)) == 1:
            assert found is None  # sklearn: not a number
        else:
            wanted = cohen_kappa_score(first, second, labels=[0, 1, 2], weights="linear" if linear else None)
            assert found == pytest.approx(wanted, abs=1e-12)


def test_fleiss_kappa_is_that_of_the_published_example() -> None:
    assert pair_agreement(EXAMPLE) == pytest.approx(0.378, abs=5e-4)
    assert fleiss_kappa(EXAMPLE) == pytest.approx(0.210, abs=5e-4)


@given(pairs=votes)
def test_for_two_readers_pairs_agree_where_the_readers_do(pairs: list[tuple[int, int]]) -> None:
    counts_IC = np.array([[int(a == c) + int(b == c) for c in range(3)] for a, b in pairs])
    assert pair_agreement(counts_IC) == pytest.approx(np.mean([a == b for a, b in pairs]))


@given(counts_IC=st.lists(st.permutations([3, 1, 0]), min_size=2, max_size=20))
def test_fleiss_kappa_depends_neither_on_the_order_of_items_nor_of_categories(counts_IC: list[list[int]]) -> None:
    table = np.array(counts_IC)
    assert fleiss_kappa(table) == pytest.approx(fleiss_kappa(table[::-1, ::-1]))


def test_readers_who_always_agree_have_kappa_one_and_who_always_disagree_less_than_zero() -> None:
    assert fleiss_kappa(np.array([[3, 0], [0, 3]])) == 1
    assert cohen_kappa(np.array([0, 2]), np.array([0, 2]), categories=3) == 1
    assert cohen_kappa(np.array([0, 2]), np.array([2, 0]), categories=3) == -1


def test_without_votes_or_with_one_category_there_is_no_kappa() -> None:
    none = np.array([], dtype=np.int64)
    assert cohen_kappa(none, none, categories=3) is None
    assert cohen_kappa(np.array([1, 1]), np.array([1, 1]), categories=3) is None
    assert fleiss_kappa(np.array([[0, 3, 0], [0, 3, 0]])) is None


def test_votes_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="2 votes against 1"):
        cohen_kappa(np.array([0, 1]), np.array([0]), categories=3)
    with pytest.raises(ValueError, match=r"votes per item: \[2, 3\]"):
        fleiss_kappa(np.array([[2, 0], [2, 1]]))
    with pytest.raises(ValueError, match=r"votes per item: \[1\]"):
        pair_agreement(np.array([[1, 0]]))


def test_votes_for_neither_change_no_share_and_no_test() -> None:
    many, none = preference(9, 90, 1), preference(9, 0, 1)
    assert (many.share, many.low, many.high, many.p) == (none.share, none.low, none.high, none.p)
    assert many.p == pytest.approx(22 / 1024)
    tied = preference(0, 5, 0)
    assert (tied.share, tied.low, tied.high, tied.p) == (None, None, None, None)


def test_the_published_votes_of_two_experts_differ_significantly_for_the_second_only() -> None:
    first, second = preference(21, 47, 32), preference(24, 26, 50)  # CMM+RL, same, JIMA
    assert first.p == pytest.approx(0.169, abs=5e-4)
    assert second.p == pytest.approx(0.0034, abs=5e-5)
    assert (first.share, second.share) == (pytest.approx(21 / 53), pytest.approx(24 / 74))
