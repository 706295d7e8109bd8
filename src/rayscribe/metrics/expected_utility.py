"""Expected utility of candidate reports, by ridge smoothers over features: which report would score best, given the image.

EU(c | x) = mean_J u(c, j) + sum_j w_j(x) (u(c, j) - mean_J u(c, j)), where the weights w are those of a ridge regression on
features: one matrix product is the regression of every candidate's utility at once (spec: expected utility, section 3).
A reference may stand for several training studies: its weight is the sum of theirs, and the mean is that over the studies.

Shapes: J training studies or references, B studies, F features, K components, C candidates, O observations; of an embedding, D
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.metrics.classification import best_f1_threshold
from rayscribe.metrics.statistics import Floats
from rayscribe.metrics.utility import Matrix, cosine_utility, spread

Bools = NDArray[np.bool_]
_ROWS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Standardised principal components of one view's features."""

    centre_F: Floats
    scale_F: Floats
    components_FK: Floats

    @classmethod
    def fit(cls, x_JF: NDArray[Any], components: int) -> Space:
        """The first `components` of the standardised features, or as many as the studies allow."""
        z_JF = np.array(x_JF, np.float64)  # a copy, standardised in place: features are the largest array of a fit
        centre_F, scale_F = z_JF.mean(0), z_JF.std(0)
        scale_F = np.where(scale_F > 0, scale_F, 1.0)
        z_JF -= centre_F
        z_JF /= scale_F
        components = min(components, *z_JF.shape)
        if z_JF.shape[0] <= z_JF.shape[1]:
            values_J, vectors_JJ = np.linalg.eigh(z_JF @ z_JF.T)
            kept = np.argsort(values_J)[::-1][:components]
            lengths_K = np.sqrt(np.maximum(values_J[kept], 1e-12))
            directions_FK = z_JF.T @ (vectors_JJ[:, kept] / lengths_K)
        else:
            values_F, vectors_FF = np.linalg.eigh(z_JF.T @ z_JF)
            directions_FK = vectors_FF[:, np.argsort(values_F)[::-1][:components]]
        return cls(centre_F=centre_F, scale_F=scale_F, components_FK=directions_FK)

    def project(self, x_BF: NDArray[Any]) -> Floats:
        """Components (B, K)."""
        starts = range(0, max(1, len(x_BF)), _ROWS)  # in blocks, because features are the largest array of a fit
        blocks = (np.asarray(x_BF[start : start + _ROWS], np.float64) for start in starts)
        return np.concatenate([((block - self.centre_F) / self.scale_F) @ self.components_FK for block in blocks])


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoother:
    """The ridge smoother of one view: how much each training study counts for a new one, signed, about the mean."""

    x_JK: Floats
    rows_J: NDArray[np.int64]
    "rows of these studies among all training studies"
    solved_KJ: Floats

    @classmethod
    def fit(cls, x_JK: Floats, rows_J: NDArray[np.int64], *, strength: float) -> Smoother:
        """`strength`: lambda, in units of the mean squared component."""
        gram_KK = x_JK.T @ x_JK
        ridge = max(strength * np.trace(gram_KK) / len(gram_KK), 1e-9)  # features that are all equal give weights of 0
        solved_KJ = np.linalg.solve(gram_KK + ridge * np.eye(len(gram_KK)), x_JK.T)
        return cls(x_JK=x_JK, rows_J=rows_J, solved_KJ=solved_KJ)

    def weights(self, x_BK: Floats, studies: int) -> Matrix:
        """Weights (B, studies); 0 for training studies without this view."""
        found = np.zeros((len(x_BK), studies), np.float32)
        found[:, self.rows_J] = x_BK @ self.solved_KJ
        return found

    def left_out(self, groups_J: NDArray[np.int64], studies: int) -> Matrix:
        """Weights (studies, studies) of the smoother that was fitted without the study's group; 0 within a group.

        Exact for the ridge: (I - H_GG)^-1 H_G, with the hat matrix H. Components are those of all studies.
        """
        hat_JJ = self.x_JK @ self.solved_KJ
        groups = groups_J[self.rows_J]
        order = np.argsort(groups, kind="stable")
        found_JJ = np.zeros_like(hat_JJ)
        for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
            own = hat_JJ[np.ix_(rows, rows)]
            found_JJ[rows] = np.linalg.solve(np.eye(len(rows)) - own, hat_JJ[rows])
            found_JJ[np.ix_(rows, rows)] = 0
        found = np.zeros((studies, studies), np.float32)
        found[np.ix_(self.rows_J, self.rows_J)] = found_JJ
        return found


def joined_weights(weights: Sequence[Matrix], has_view_BV: Bools) -> Matrix:
    """The sum over the views that a study has, over the root of their number (B, J)."""
    total = np.zeros_like(weights[0])
    for view, one in enumerate(weights):
        total += np.where(has_view_BV[:, view, None], one, 0)
    return total / np.sqrt(np.maximum(1, has_view_BV.sum(1)))[:, None].astype(np.float32)


def expected(weights_BJ: Matrix, values_JX: NDArray[Any], shares_J: NDArray[Any] | None = None) -> Matrix:
    """Expected values (B, X): the mean over training studies plus the weights times the deviations from it.

    `shares_J`: the share of the training studies that each row of `values_JX` stands for; the same for all where it is None.
    """
    if shares_J is None:
        shares_J = np.full(len(values_JX), 1 / len(values_JX))
    mean_X = shares_J.astype(np.float32) @ values_JX
    found_BX = weights_BJ @ values_JX - weights_BJ.sum(1, keepdims=True) * mean_X
    found: Matrix = (mean_X + found_BX).astype(np.float32)
    return found


def best_thresholds(scores_JO: NDArray[Any], is_positive_JO: Bools) -> Floats:
    """For every observation the threshold with the best F1 (O,): at least this is positive. Above every score where none is."""
    scores_JO = np.asarray(scores_JO, np.float64)
    return np.array(
        [
            best_f1_threshold(scores_J, is_positive_J)
            if is_positive_J.any()
            else scores_J.max() + scores_J.std() + 1e-6
            for scores_J, is_positive_J in zip(scores_JO.T, is_positive_JO.T)
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingsTerm:
    """What is added to the expected utility so that a report names the findings whose scores reach their thresholds.

    gamma sum_o (2 c_o - 1) (s_o - t_o) / sd_o / O, with the candidate's labels c and the study's scores s (spec, section 10).
    """

    thresholds_O: Floats
    spread_O: Floats
    gamma: float

    @classmethod
    def fit(cls, scores_JO: NDArray[Any], is_positive_JO: Bools, *, gamma: float) -> FindingsTerm:
        """From scores of training studies by smoothers that were fitted without them."""
        spread_O = np.asarray(scores_JO, np.float64).std(0)
        return cls(
            thresholds_O=best_thresholds(scores_JO, is_positive_JO),
            spread_O=np.where(spread_O > 0, spread_O, 1.0),
            gamma=gamma,
        )

    def of(self, scores_BO: NDArray[Any], is_positive_CO: Bools) -> Matrix:
        """The term for every study and candidate (B, C)."""
        excess_BO = (np.asarray(scores_BO, np.float64) - self.thresholds_O) / self.spread_O / len(self.spread_O)
        signs_CO = 2.0 * is_positive_CO - 1.0
        found: Matrix = (self.gamma * excess_BO @ signs_CO.T).astype(np.float32)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTerm:
    """What is added to the expected utility for the cosine of a candidate's and the image's embeddings in the texts' space.

    An image's embedding is what the smoothers expect its report's to be. As every utility, the cosine is divided by its
    standard deviation over all pairs of candidates and training reports.
    """

    text_CD: NDArray[Any]
    own_J: NDArray[np.int64]
    "the candidate that is each training study's report"
    scale: float
    "weight over standard deviation"
    shares_J: NDArray[Any] | None = None
    "as in `expected`"

    @classmethod
    def fit(
        cls,
        text_CD: NDArray[Any],
        own_J: NDArray[np.int64],
        *,
        weight: float,
        shares_J: NDArray[Any] | None = None,
    ) -> ImageTerm:
        """`weight`: in the sum of utilities."""
        deviation = spread(cosine_utility(text_CD, text_CD[own_J]), shares_J)
        scale = weight / deviation if deviation > 0 else 0.0
        return cls(text_CD=text_CD, own_J=own_J, scale=scale, shares_J=shares_J)

    def pairs(self) -> Matrix:
        """What the term is for a training study whose embedding is known (C, J): that of its own report."""
        found: Matrix = (self.scale * cosine_utility(self.text_CD, self.text_CD[self.own_J])).astype(np.float32)
        return found

    def cosines(self, weights_BJ: Matrix) -> Matrix:
        """Of every image's embedding and every candidate's (B, C)."""
        return cosine_utility(self.text_CD, self._image_BD(weights_BJ)).T

    def of(self, weights_BJ: Matrix) -> Matrix:
        """The term for every study and candidate (B, C)."""
        found: Matrix = (self.scale * self.cosines(weights_BJ)).astype(np.float32)
        return found

    def slopes(self, weights_J: Matrix, candidate: int) -> Floats:
        """What a weight of 1 of each training study adds to the term (J,); the length of the image's embedding is held."""
        text_JD = self.text_CD[self.own_J].astype(np.float64)
        text_D = self.text_CD[candidate].astype(np.float64)
        length = np.linalg.norm(self._image_BD(weights_J[None])[0]) * np.linalg.norm(text_D)
        mean_D = np.average(text_JD, axis=0, weights=self.shares_J)
        found: Floats = self.scale * ((text_JD - mean_D) @ text_D) / max(length, 1e-12)
        return found

    def _image_BD(self, weights_BJ: Matrix) -> Matrix:
        return expected(weights_BJ, self.text_CD[self.own_J].astype(np.float32), self.shares_J)
