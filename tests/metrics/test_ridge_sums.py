"""Ridge smoothers by sums over studies: the same numbers as weights of single studies, and fits without a study's kin."""

from __future__ import annotations

import numpy as np
import pytest

from rayscribe.metrics.expected_utility import Smoother
from rayscribe.metrics.groups import groups_of
from rayscribe.metrics.ridge_sums import Kin, LeftOut, Ridge, gram, group_sums, members, weighted_sums

RANDOM = np.random.default_rng(0)
STUDIES, WIDTH, REPORTS, REFERENCES = 60, 6, 25, 9
X_JK = RANDOM.standard_normal((STUDIES, WIDTH)).astype(np.float32)
REPORT_J = np.concatenate([np.arange(REPORTS), RANDOM.integers(0, 4, STUDIES - REPORTS)])
REFERENCE_D = RANDOM.integers(0, REFERENCES, REPORTS)
ROWS_OF = members(REFERENCE_D[REPORT_J], REFERENCES)
VALUES_DO = RANDOM.standard_normal((REPORTS, 3))
NOBODY = [""] * STUDIES
PATIENTS = [f"p{row // 3}" if row % 4 else "" for row in range(STUDIES)]


def left_out(patients: list[str], strength: float = 0.5) -> LeftOut:
    ridge = Ridge.fit(X_JK, gram(X_JK), strength=strength)
    return ridge.left_out(np.arange(STUDIES), Kin.of(REPORT_J, patients))


def by_reference(weights_SJ: np.ndarray) -> np.ndarray:
    return np.stack([weights_SJ[:, rows].sum(1) for rows in ROWS_OF], axis=1)


@pytest.mark.parametrize("width", [WIDTH, 400])
def test_without_patients_the_weights_are_those_of_smoothers_that_left_groups_out(width: int) -> None:
    """Small groups, which the hat matrix takes out, and large ones, which are taken out of X'X."""
    x_JK = RANDOM.standard_normal((STUDIES, width)).astype(np.float32)
    ridge = Ridge.fit(x_JK, gram(x_JK), strength=0.5)
    found = ridge.left_out(np.arange(STUDIES), Kin.of(REPORT_J, NOBODY))
    groups_J = groups_of([str(one) for one in REPORT_J])
    wanted_JJ = Smoother.fit(x_JK.astype(np.float64), np.arange(STUDIES), strength=0.5).left_out(groups_J, STUDIES)
    weights_SL = found.weights(group_sums(x_JK, ROWS_OF), REFERENCE_D)
    assert weights_SL == pytest.approx(by_reference(wanted_JJ), abs=1e-5)
    scores_SO = found.scores(weighted_sums(x_JK, VALUES_DO[REPORT_J]), VALUES_DO)
    assert scores_SO == pytest.approx(wanted_JJ @ VALUES_DO[REPORT_J], abs=1e-5)


def test_a_study_is_judged_by_the_ridge_without_its_patient_and_equal_reports() -> None:
    found = left_out(PATIENTS)
    weights_SL = found.weights(group_sums(X_JK, ROWS_OF), REFERENCE_D)
    matrix_KK = gram(X_JK)
    ridge_KK = 0.5 * np.trace(matrix_KK) / WIDTH * np.eye(WIDTH)
    for row in range(STUDIES):
        is_kin = REPORT_J[row] == REPORT_J
        if PATIENTS[row]:
            is_kin |= np.array([one == PATIENTS[row] for one in PATIENTS])
        rest_JK = np.where(is_kin[:, None], 0, X_JK).astype(np.float64)
        weights_J = X_JK[row] @ np.linalg.solve(rest_JK.T @ rest_JK + ridge_KK, rest_JK.T)
        assert weights_SL[row] == pytest.approx(by_reference(weights_J[None])[0], abs=1e-5)


def test_kin_do_not_reach_through_others() -> None:
    """Else nearly all studies of a large collection would be kin, through normal reports that many patients share."""
    kin = Kin.of(np.array([0, 0, 1, 1]), ["a", "b", "b", "c"])
    assert kin.others(0).tolist() == [] and kin.of_report[0].tolist() == [0, 1]
    assert kin.others(1).tolist() == [2]
    assert len(set(groups_of(["0", "0", "1", "1"], ["a", "b", "b", "c"]))) == 1


def test_some_of_the_studies_are_judged_as_among_all() -> None:
    kin, ridge = Kin.of(REPORT_J, PATIENTS), Ridge.fit(X_JK, gram(X_JK), strength=1.0)
    rows_S = np.array([3, 50, 7])
    some, every = ridge.left_out(rows_S, kin), ridge.left_out(np.arange(STUDIES), kin)
    sums_KL = group_sums(X_JK, ROWS_OF)
    assert some.weights(sums_KL, REFERENCE_D) == pytest.approx(every.weights(sums_KL, REFERENCE_D)[rows_S], abs=1e-6)


def test_members_are_the_places_of_a_number() -> None:
    found = members(np.array([2, -1, 0, 2, -1]), 4)
    assert [one.tolist() for one in found] == [[2], [], [0, 3], []]
    assert members(np.array([-1, -1]), 0) == []
