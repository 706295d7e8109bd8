"""Ridge smoothers, what they expect, and the term that aims at findings."""

from __future__ import annotations

import numpy as np
import pytest

from rayscribe.metrics.expected_utility import (
    FindingsTerm,
    ImageTerm,
    Smoother,
    Space,
    best_thresholds,
    expected,
    joined_weights,
)
from rayscribe.metrics.groups import groups_of

RANDOM = np.random.default_rng(0)
X_JK = RANDOM.standard_normal((30, 6))


def test_components_rebuild_what_they_span() -> None:
    x_JF = RANDOM.standard_normal((20, 4)) @ RANDOM.standard_normal((4, 50)) + 3.0
    space = Space.fit(x_JF, 10)
    z_JF = (x_JF - x_JF.mean(0)) / x_JF.std(0)
    found = space.project(x_JF) @ space.components_FK.T
    assert found == pytest.approx(z_JF, abs=1e-6)
    few = Space.fit(RANDOM.standard_normal((40, 5)), 400)
    assert few.components_FK.shape == (5, 5)


def test_the_smoother_is_ridge_regression() -> None:
    y_J = RANDOM.standard_normal(30)
    smoother = Smoother.fit(X_JK, np.arange(30), strength=0.5)
    gram = X_JK.T @ X_JK
    beta = np.linalg.solve(gram + 0.5 * np.trace(gram) / 6 * np.eye(6), X_JK.T @ y_J)
    assert smoother.weights(X_JK, 30) @ y_J == pytest.approx(X_JK @ beta, abs=1e-5)


def test_leaving_a_group_out_is_fitting_without_it() -> None:
    y_J, groups_J = RANDOM.standard_normal(30), np.arange(30) // 3
    left_out = Smoother.fit(X_JK, np.arange(30), strength=0.5).left_out(groups_J, 30)
    gram = X_JK.T @ X_JK
    ridge = 0.5 * np.trace(gram) / 6 * np.eye(6)
    for group in range(10):
        kept = groups_J != group
        beta = np.linalg.solve(X_JK[kept].T @ X_JK[kept] + ridge, X_JK[kept].T @ y_J[kept])
        assert left_out[~kept] @ y_J == pytest.approx(X_JK[~kept] @ beta, abs=1e-4)
    assert not left_out[groups_J[:, None] == groups_J].any()


def test_a_missing_view_counts_for_nothing() -> None:
    weights = [np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)]
    found = joined_weights(weights, np.array([[True, False], [True, True]]))
    assert found == pytest.approx(np.array([[1.0] * 3, [3 / np.sqrt(2)] * 3]))


def test_without_weights_the_mean_is_expected() -> None:
    values = RANDOM.standard_normal((30, 4))
    assert expected(np.zeros((2, 30), np.float32), values) == pytest.approx(np.stack([values.mean(0)] * 2), abs=1e-6)


def test_thresholds_have_the_best_f1() -> None:
    scores, is_positive = RANDOM.standard_normal((40, 3)), RANDOM.random((40, 3)) < [0.1, 0.5, 0.0]
    found = best_thresholds(scores, is_positive)

    def f1(column: int, threshold: float) -> float:
        called = scores[:, column] >= threshold
        return 2 * (called & is_positive[:, column]).sum() / max(1, called.sum() + is_positive[:, column].sum())

    for column in (0, 1):
        assert f1(column, found[column]) == max(f1(column, one) for one in scores[:, column])
    assert (scores[:, 2] < found[2]).all(), "what nobody has is never called"


def test_the_term_prefers_the_candidate_that_names_what_passes() -> None:
    scores, is_positive = RANDOM.standard_normal((40, 2)), RANDOM.random((40, 2)) < 0.5
    term = FindingsTerm.fit(scores, is_positive, gamma=1.0)
    candidates = np.array([[True, False], [False, True], [False, False]])
    high = term.thresholds_O + np.array([5, -5])
    assert term.of(high[None], candidates)[0].argmax() == 0
    assert not FindingsTerm.fit(scores, is_positive, gamma=0.0).of(high[None], candidates).any()


def test_groups_reach_through_shared_keys() -> None:
    groups = groups_of(["p", "p", "", "", "q"], ["a", "b", "b", "c", "d"])
    assert groups[0] == groups[1] == groups[2]
    assert len({groups[0], groups[3], groups[4]}) == 3


def test_the_image_term_is_the_cosine_with_the_embedding_that_is_expected() -> None:
    text_CD, own_J = RANDOM.standard_normal((6, 4)), RANDOM.integers(0, 6, 30)
    term = ImageTerm.fit(text_CD, own_J, weight=2.0)
    assert term.pairs().std() == pytest.approx(2.0, rel=1e-5)  # as every utility: in standard deviations over all pairs
    weights_BJ = RANDOM.standard_normal((3, 30)).astype(np.float32)
    text_JD = text_CD[own_J]
    for weights_J, found_C in zip(weights_BJ, term.of(weights_BJ), strict=True):
        image_D = text_JD.mean(0) + weights_J @ (text_JD - text_JD.mean(0))
        for candidate, text_D in enumerate(text_CD):
            cosine = text_D @ image_D / np.linalg.norm(text_D) / np.linalg.norm(image_D)
            assert found_C[candidate] == pytest.approx(term.scale * cosine, abs=1e-4)
            rest = term.scale * (text_D @ text_JD.mean(0)) / np.linalg.norm(text_D) / np.linalg.norm(image_D)
            assert rest + weights_J @ term.slopes(weights_J, candidate) == pytest.approx(found_C[candidate], abs=1e-4)
