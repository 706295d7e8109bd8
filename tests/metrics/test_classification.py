"""Scores of probabilities: scikit-learn's numbers, weights that repeat studies, calibration that keeps the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from rayscribe.metrics.classification import (
    best_f1_threshold,
    calibration,
    finding_intervals,
    finding_scores,
    floors,
    precision_recall_curve,
    roc_curve,
    sigmoid,
)

STUDIES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=40).filter(
    lambda rows: 0 < sum(present for _, present in rows) < len(rows)
)


@settings(max_examples=60, deadline=None)
@given(STUDIES)
def test_scores_equal_those_of_scikit_learn_with_ties(rows: list[tuple[int, bool]]) -> None:
    probability, present = np.array([value / 6 for value, _ in rows]), np.array([flag for _, flag in rows])
    found = {name: value[0] for name, value in finding_scores(probability, present, 0.5).items()}
    called = probability >= 0.5
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(present, probability))
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(present, probability))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(present, called))
    assert found["f1"] == pytest.approx(metrics.f1_score(present, called))
    assert found["sensitivity"] == pytest.approx(metrics.recall_score(present, called))
    assert found["specificity"] == pytest.approx(metrics.recall_score(~present, ~called))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(present, probability))
    wrong, right = roc_curve(probability, present)
    assert metrics.auc(wrong, right) == pytest.approx(found["auroc"])
    recall, precision = precision_recall_curve(probability, present)
    assert (np.diff(recall, prepend=0) * precision).sum() == pytest.approx(found["average_precision"])


@settings(max_examples=40, deadline=None)
@given(STUDIES, st.randoms(use_true_random=False))
def test_a_weight_of_two_is_a_study_that_stands_twice(rows: list[tuple[int, bool]], random: object) -> None:
    probability, present = np.array([value / 6 for value, _ in rows]), np.array([flag for _, flag in rows])
    counts = np.array([random.randint(0, 2) for _ in rows])  # type: ignore[attr-defined]
    weighted = finding_scores(probability, present, 0.4, counts[None].astype(float))
    if not counts[present].any() or not counts[~present].any():
        assert np.isnan(weighted["auroc"][0])
        return
    repeated = finding_scores(np.repeat(probability, counts), np.repeat(present, counts), 0.4)
    for name, value in repeated.items():
        assert weighted[name][0] == pytest.approx(value[0]), name


def test_the_threshold_has_the_best_f1_of_all() -> None:
    generator = np.random.default_rng(0)
    present = generator.random(80) < 0.3
    probability = np.round(np.clip(0.3 * present + generator.random(80) * 0.7, 0, 1), 2)
    best = best_f1_threshold(probability, present)
    everyone = [metrics.f1_score(present, probability >= value) for value in np.unique(probability)]
    assert metrics.f1_score(present, probability >= best) == pytest.approx(max(everyone))


def test_calibration_undoes_a_stretch_and_keeps_the_order() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=20_000)
    present = generator.random(20_000) < sigmoid(logits)
    slope, offset = calibration(4 * logits + 2, present)
    assert slope == pytest.approx(0.25, abs=0.02) and offset == pytest.approx(-0.5, abs=0.05)
    raw, mended = (
        finding_scores(one, present, 0.5)["calibration_error"][0]
        for one in (sigmoid(4 * logits + 2), sigmoid(slope * (4 * logits + 2) + offset))
    )
    assert mended < 0.02 < raw
    assert calibration(-logits, present)[0] > 0  # never turns the order round


def test_intervals_hold_their_value_and_grow_with_patients_instead_of_studies() -> None:
    generator = np.random.default_rng(2)
    present = np.repeat(generator.random(60) < 0.4, 5)
    probability = np.repeat(np.clip(generator.normal(0.4, 0.2, 60), 0, 1), 5) + 0.1 * present
    by_study = finding_intervals(probability, present, 0.5, groups=[str(row) for row in range(300)], resamples=400)
    by_patient = finding_intervals(
        probability, present, 0.5, groups=[str(row // 5) for row in range(300)], resamples=400
    )
    for name in ("auroc", "accuracy", "f1"):
        assert by_study[name].low <= by_study[name].value <= by_study[name].high
        assert by_patient[name].deviation > 1.5 * by_study[name].deviation


def test_floors_are_what_constant_answers_reach() -> None:
    present = np.array([True] * 3 + [False] * 7)
    all_present = {name: value[0] for name, value in finding_scores(np.ones(10), present, 0.5).items()}
    base = floors(0.3)
    assert base["f1"] == pytest.approx(all_present["f1"])
    assert base["auroc"] == all_present["auroc"] == 0.5
    assert base["average_precision"] == pytest.approx(all_present["average_precision"])
    assert base["accuracy"] == pytest.approx(finding_scores(np.zeros(10), present, 0.5)["accuracy"][0])
    prevalence = finding_scores(np.full(10, 0.3), present, 0.5)
    assert base["brier"] == pytest.approx(prevalence["brier"][0]) and prevalence["calibration_error"][0] < 1e-12
