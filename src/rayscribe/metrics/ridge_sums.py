"""Ridge smoothers over any number of training studies: sums over studies in place of a weight for each.

A smoother gives training study j the weight q . x_j for an image x, with q = x A^-1 and A = X'X + lambda I. So references that
stand for several studies have the weights q T, with T the sums of x_j over the studies of each, and labels have the scores
q X'Y. Leaving studies out changes q, and takes their part out of the sums; both are exact, and no matrix of studies by studies
is made.

Shapes: J training studies, S of them that are judged, B studies, D distinct reports, L references, K components, O
observations, E entries, G studies that are left out, N numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayscribe.metrics.statistics import Floats, Ints
from rayscribe.metrics.utility import Matrix

_ROWS = 4096
_MANY = 8  # a group of more than K / 8 studies is taken out of A, a smaller one by its hat matrix: what takes less time


@dataclass(frozen=True, slots=True, kw_only=True)
class Kin:
    """Which training studies must not judge each other: those of one patient, and those with equal reports."""

    report_J: Ints
    "number of the distinct report"
    patient_J: Ints
    "number of the patient; -1 where nobody knows"
    of_report: list[Ints]
    of_patient: list[Ints]

    @classmethod
    def of(cls, report_J: Ints, patients: Sequence[str]) -> Kin:
        """`patients`: empty where the patient is not known."""
        numbers: dict[str, int] = {}
        patient_J = np.array([numbers.setdefault(one, len(numbers)) if one else -1 for one in patients], np.int64)
        return cls(
            report_J=report_J,
            patient_J=patient_J,
            of_report=members(report_J, int(report_J.max()) + 1),
            of_patient=members(patient_J, len(numbers)),
        )

    def others(self, row: int) -> Ints:
        """Studies of the patient of this study that have another report."""
        if self.patient_J[row] < 0:
            return np.zeros(0, np.int64)
        own = self.of_patient[self.patient_J[row]]
        return own[self.report_J[own] != self.report_J[row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Studies as a smoother sees them that was fitted without each study's kin."""

    queries_SK: Matrix
    rows_E: Ints
    "of the studies that are judged"
    reports_E: Ints
    "distinct reports of their kin"
    weights_E: Floats
    "what these would add to the sums"

    def weights(self, sums_KL: Floats, reference_D: Ints) -> Matrix:
        """Weights of the references (S, L); `reference_D`: the reference that each distinct report counts for."""
        found_SL = self.queries_SK @ sums_KL
        np.subtract.at(found_SL, (self.rows_E, reference_D[self.reports_E]), self.weights_E)
        return found_SL.astype(np.float32)

    def scores(self, sums_KO: Floats, values_DO: Floats) -> Matrix:
        """Weighted sums of the values of distinct reports (S, O)."""
        found_SO = self.queries_SK @ sums_KO
        for place, found_S in enumerate(found_SO.T):
            own_E = self.weights_E * values_DO[self.reports_E, place]
            found_S -= np.bincount(self.rows_E, own_E, minlength=len(found_S))
        return found_SO.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ridge:
    """The ridge of one view."""

    x_JK: Matrix
    "components; zero for studies without the view, which then count for nothing"
    matrix_KK: Floats
    inverse_KK: Floats

    @classmethod
    def fit(cls, x_JK: Matrix, gram_KK: Floats, *, strength: float) -> Ridge:
        """`gram_KK`: X'X, as `gram` has it; `strength`: lambda, in units of the mean squared component."""
        ridge = max(strength * np.trace(gram_KK) / len(gram_KK), 1e-9)  # equal features give weights of 0
        matrix_KK = gram_KK + ridge * np.eye(len(gram_KK))
        return cls(x_JK=x_JK, matrix_KK=matrix_KK, inverse_KK=np.linalg.inv(matrix_KK))

    def left_out(self, rows_S: Ints, kin: Kin) -> LeftOut:
        """Each of these training studies by the smoother without its patient's studies and without equal reports."""
        queries_SK = np.zeros((len(rows_S), len(self.matrix_KK)), np.float32)
        solved_JK = _product(self.x_JK, self.inverse_KK)
        rows, reports, weights = [], [], []
        for asked in _alike(kin.report_J[rows_S]):
            report = int(kin.report_J[rows_S[asked[0]]])
            same = kin.of_report[report]
            is_large = len(same) * _MANY > len(self.matrix_KK)
            inverse_KK = self._inverse_without(same) if is_large else None
            own_AK = solved_JK[rows_S[asked]] if inverse_KK is None else _product(self.x_JK[rows_S[asked]], inverse_KK)
            sum_K = self.x_JK[same].sum(0, dtype=np.float64)
            for places in _alike(kin.patient_J[rows_S[asked]]):
                group = asked[places]
                others = kin.others(int(rows_S[group[0]]))
                gone = np.concatenate([same, others]) if inverse_KK is None else others
                gone_GK = self.x_JK[gone]
                solved_GK = solved_JK[gone] if inverse_KK is None else gone_GK @ inverse_KK
                queries_GK = _without(own_AK[places], gone_GK, solved_GK)
                queries_SK[group] = queries_GK
                rows += [group, np.repeat(group, len(others))]
                reports += [np.full(len(group), report), np.tile(kin.report_J[others], len(group))]
                weights += [queries_GK @ sum_K, (queries_GK @ self.x_JK[others].T).ravel()]
        return LeftOut(
            queries_SK=queries_SK,
            rows_E=np.concatenate(rows),
            reports_E=np.concatenate(reports),
            weights_E=np.concatenate(weights),
        )

    def _inverse_without(self, rows: Ints) -> Floats:
        return np.asarray(np.linalg.inv(self.matrix_KK - gram(self.x_JK[rows])))


def gram(x_JK: Matrix) -> Floats:
    """X'X, summed in double precision."""
    found_KK = np.zeros((x_JK.shape[1], x_JK.shape[1]))
    for start in range(0, len(x_JK), _ROWS):
        block = x_JK[start : start + _ROWS].astype(np.float64)
        found_KK += block.T @ block
    return found_KK


def group_sums(x_JK: Matrix, rows_of: Sequence[Ints]) -> Floats:
    """The sums of x over the studies of each group (K, L)."""
    return np.stack([x_JK[rows].sum(0, dtype=np.float64) for rows in rows_of], axis=1)


def weighted_sums(x_JK: Matrix, values_JO: Floats) -> Floats:
    """X'Y (K, O), summed in double precision."""
    found_KO = np.zeros((x_JK.shape[1], values_JO.shape[1]))
    for start in range(0, len(x_JK), _ROWS):
        found_KO += x_JK[start : start + _ROWS].T.astype(np.float64) @ values_JO[start : start + _ROWS]
    return found_KO


def members(numbers_N: Ints, count: int) -> list[Ints]:
    """The places of each number from 0 to below `count`; numbers below 0 are nobody's."""
    order = np.argsort(numbers_N, kind="stable")
    return np.split(order, np.searchsorted(numbers_N[order], np.arange(count + 1)))[1:-1]


def _alike(numbers_N: Ints) -> list[Ints]:
    """The places of each distinct number."""
    order = np.argsort(numbers_N, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers_N[order])) + 1)


def _product(x_JK: Matrix, inverse_KK: Floats) -> Matrix:
    """In double precision, rounded at the end."""
    found_JK = np.empty_like(x_JK)
    for start in range(0, len(x_JK), _ROWS):
        found_JK[start : start + _ROWS] = x_JK[start : start + _ROWS] @ inverse_KK
    return found_JK


def _without(own_BK: Matrix, gone_GK: Matrix, solved_GK: Floats | Matrix) -> Floats:
    """x (A - G'G)^-1 from x A^-1 and G A^-1, by the formula of Woodbury (B, K)."""
    if not len(gone_GK):
        return own_BK.astype(np.float64)
    gone_GK, solved_GK = gone_GK.astype(np.float64), solved_GK.astype(np.float64)
    rest_GG = np.eye(len(gone_GK)) - gone_GK @ solved_GK.T  # symmetric, as A is
    return np.asarray(own_BK + np.linalg.solve(rest_GG, gone_GK @ own_BK.T).T @ solved_GK)
