"""Logistic regressions of all findings at once: L2, unknown labels left out, strength by cross-validation. No images here.

The loss of a finding is the mean over the rows where it is known, plus strength / 2 x (mean squared component) x (squared
length of its weights); the intercept is free. It is convex, so the result does not depend on where the search starts.

Shapes: R rows (images), S studies, C components, L findings, K places of an image in its study, A strengths, F folds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

_Floats = NDArray[np.float64]
_Map = tuple[_Floats, _Floats]
_STEPS = 500
PRECISE, ROUGH = 1e-6, 1e-4
"Tolerances of the gradient: of a model, and of the many fits of a cross-validation, whose losses they change by about 1e-5."


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRows:
    """Rows of one study after the other, by the place of an image in its study."""

    x_RC: list[_Floats]
    "components of every place's images"
    study_R: list[NDArray[np.int64]]
    "the studies of these images"

    def logits(self, weights: Sequence[_Map], studies: int) -> _Floats:
        """Means over the images of a study (S, L); `weights`: (C, L) and (L,) for every place. NaN for studies without any."""
        total_SL = np.zeros((studies, weights[0][1].shape[0]))
        count_S = np.zeros(studies)
        for x_RC, study_R, (weight_CL, bias_L) in zip(self.x_RC, self.study_R, weights):
            np.add.at(total_SL, study_R, x_RC @ weight_CL + bias_L)
            np.add.at(count_S, study_R, 1)
        with np.errstate(invalid="ignore"):
            found: _Floats = total_SL / count_S[:, None]
        return found

    def of_studies(self, is_in_S: NDArray[np.bool_]) -> PlacedRows:
        """Only the images of these studies."""
        kept = [is_in_S[study_R] for study_R in self.study_R]
        return PlacedRows(
            x_RC=[x_RC[one] for x_RC, one in zip(self.x_RC, kept)],
            study_R=[study_R[one] for study_R, one in zip(self.study_R, kept)],
        )

    def fit(
        self, known_SL: _Floats, strength_L: _Floats, *, start: Sequence[_Map] | None = None, tolerance: float = PRECISE
    ) -> list[_Map]:
        """For every place the weights (C, L) and intercepts (L,); `start`: those of another strength."""
        starts: Sequence[_Map | None] = start or [None] * len(self.x_RC)
        return [
            logistic(x_RC, known_SL[study_R], strength_L, start=one, tolerance=tolerance)
            for x_RC, study_R, one in zip(self.x_RC, self.study_R, starts, strict=True)
        ]


def logistic(
    x_RC: _Floats, known_RL: _Floats, strength_L: _Floats, *, start: _Map | None = None, tolerance: float = PRECISE
) -> _Map:
    """Weights (C, L) and intercepts (L,); labels are 1, 0 or NaN where unknown.

    A finding without rows of both kinds has weights of 0 and the intercept of its prevalence, (present + .5) / (known + 1).
    `start`: where the search begins; `tolerance`: of the gradient, in directions whose curvature is near 1.
    """
    is_known_RL = ~np.isnan(known_RL)
    count_L, present_L = is_known_RL.sum(0), np.nansum(known_RL, 0)
    prevalence_L = (present_L + 0.5) / (count_L + 1)
    bias_L = np.log(prevalence_L / (1 - prevalence_L))
    weight_CL = np.zeros((x_RC.shape[1], known_RL.shape[1]))
    both = np.flatnonzero((present_L > 0) & (present_L < count_L))
    if len(both):
        first = (weight_CL, bias_L) if start is None else start
        begin = (first[0][:, both], first[1][both])
        weight_CL[:, both], bias_L[both] = _minimised(x_RC, known_RL[:, both], strength_L[both], begin, tolerance)
    return weight_CL, bias_L


def _minimised(x_RC: _Floats, known_RL: _Floats, strength_L: _Floats, begin: _Map, tolerance: float) -> _Map:
    """By L-BFGS, with components scaled so that the curvature is near 1 in every direction."""
    x = torch.from_numpy(x_RC)
    share_RL = torch.from_numpy(~np.isnan(known_RL) / (~np.isnan(known_RL)).sum(0))
    target_RL = torch.from_numpy(np.nan_to_num(known_RL))
    square_C = (x**2).mean(0)
    ridge_L = torch.from_numpy(strength_L) * square_C.mean().clamp(min=1e-9)
    rate_L = (share_RL * target_RL).sum(0)
    scale_CL = (square_C[:, None] * (rate_L * (1 - rate_L)) + ridge_L).rsqrt()
    bias_scale_L = (rate_L * (1 - rate_L)).rsqrt()
    moved_CL = (torch.from_numpy(begin[0]) / scale_CL).contiguous().requires_grad_()
    shift_L = (torch.from_numpy(begin[1]) / bias_scale_L).requires_grad_()
    search = torch.optim.LBFGS(
        [moved_CL, shift_L],
        max_iter=_STEPS,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        search.zero_grad()
        weight_CL = moved_CL * scale_CL
        logits_RL = x @ weight_CL + bias_scale_L * shift_L
        cost = ((F.softplus(logits_RL) - logits_RL * target_RL) * share_RL).sum()
        cost = cost + (ridge_L / 2 * (weight_CL**2).sum(0)).sum()
        cost.backward()
        return cost

    search.step(loss)
    with torch.no_grad():
        return (moved_CL * scale_CL).numpy(), (bias_scale_L * shift_L).numpy()


def chosen_strengths(
    rows: PlacedRows, known_SL: _Floats, groups: Sequence[str], *, strengths: Sequence[float], folds: int, seed: int
) -> tuple[_Floats, _Floats]:
    """For every finding the strength with the lowest loss on studies whose group was left out (L,); the losses (A, L).

    Folds are drawn by a hash of seed and group, so that they do not depend on the order of the studies.
    """
    fold_S = fold_of_groups(groups, folds, seed)
    studies, findings = known_SL.shape
    is_known_SL = ~np.isnan(known_SL)
    logits_ASL = np.zeros((len(strengths), studies, findings))
    for fold in range(int(fold_S.max()) + 1):
        is_out_S = fold_S == fold
        inside, outside = rows.of_studies(~is_out_S), rows.of_studies(is_out_S)
        weights: list[_Map] | None = None
        for place in np.argsort(strengths)[::-1]:  # from the strongest on, each from the last one's weights
            strength_L = np.full(findings, strengths[place])
            weights = inside.fit(known_SL, strength_L, start=weights, tolerance=ROUGH)
            logits_ASL[place, is_out_S] = outside.logits(weights, studies)[is_out_S]
    loss_ASL = np.logaddexp(0, logits_ASL) - logits_ASL * np.nan_to_num(known_SL)
    loss_AL = (loss_ASL * is_known_SL).sum(1) / is_known_SL.sum(0)
    return np.array(strengths)[loss_AL.argmin(0)], loss_AL


def fold_of_groups(groups: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of every study (S,): at most `folds`, of nearly equal numbers of groups."""
    order = sorted(set(groups), key=lambda one: hashlib.sha256(f"{seed} {one}".encode()).digest())
    fold = {group: place % folds for place, group in enumerate(order)}
    return np.array([fold[group] for group in groups])
