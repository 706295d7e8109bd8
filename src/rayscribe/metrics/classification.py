"""How well probabilities separate present from absent: ROC, precision and recall, calibration, with bootstrap intervals.

Every score takes one weight per study, so a bootstrap sample is one row of weights.

Shapes: R studies, S samples, T distinct probabilities, L findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rayscribe.metrics.statistics import Floats, Interval

Booleans = NDArray[np.bool_]

CLASSIFICATION_RESAMPLES = 1000
CALIBRATION_BINS = 10
"Equal-width bins of the calibration error."
_CELLS = 4_000_000  # per block of weights: 32 MB
_PRIOR = 1.0  # precision of the Gaussian prior around slope 1 and offset 0, which regularises small samples


def finding_scores(
    probability_R: Floats, is_present_R: Booleans, threshold: float, weight_SR: Floats | None = None
) -> dict[str, Floats]:
    """Scores (S,) by name, in [0, 1]; NaN where undefined. Probabilities of at least `threshold` are called present."""
    weight_SR = np.ones((1, len(probability_R))) if weight_SR is None else weight_SR
    called_R = probability_R >= threshold
    truth_R = is_present_R.astype(np.float64)
    total_S = weight_SR.sum(1)
    true_positive_S = weight_SR @ (truth_R * called_R)
    present_S, called_S = weight_SR @ truth_R, weight_SR @ called_R.astype(np.float64)
    absent_S = total_S - present_S
    true_negative_S = total_S - present_S - called_S + true_positive_S
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "accuracy": (true_positive_S + true_negative_S) / total_S,
            "f1": 2 * true_positive_S / (present_S + called_S),
            "sensitivity": true_positive_S / present_S,
            "specificity": true_negative_S / absent_S,
            **_ranking(probability_R, truth_R, weight_SR),
            "brier": weight_SR @ (probability_R - truth_R) ** 2 / total_S,
            "calibration_error": _calibration_error(probability_R, truth_R, weight_SR),
        }


def finding_intervals(
    probability_R: Floats,
    is_present_R: Booleans,
    threshold: float,
    *,
    groups: Sequence[str],
    resamples: int = CLASSIFICATION_RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every score of `finding_scores` with its 95 % percentile bootstrap interval over `groups`, each study's patient."""
    values = finding_scores(probability_R, is_present_R, threshold)
    _, group_R = np.unique(np.array(groups), return_inverse=True)
    count, generator = int(group_R.max()) + 1, np.random.default_rng(seed)
    block = max(1, _CELLS // len(probability_R))
    parts = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        picks = generator.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        weight_SG = np.bincount(picks.ravel(), minlength=size * count).reshape(size, count)
        parts.append(finding_scores(probability_R, is_present_R, threshold, weight_SG[:, group_R].astype(np.float64)))
    found = {}
    for name, value in values.items():
        sample_S = np.concatenate([part[name] for part in parts])
        sample_S = sample_S[~np.isnan(sample_S)]
        low, high = np.percentile(sample_S, [2.5, 97.5]) if len(sample_S) else (np.nan, np.nan)
        deviation = float(sample_S.std()) if len(sample_S) else float("nan")
        found[name] = Interval(value=float(value[0]), low=float(low), high=float(high), deviation=deviation)
    return found


def floors(prevalence: float) -> dict[str, float]:
    """Scores that need no image: always the more frequent answer, always "present", random order, `prevalence` for all."""
    return {
        "accuracy": max(prevalence, 1 - prevalence),
        "f1": 2 * prevalence / (1 + prevalence),
        "auroc": 0.5,
        "average_precision": prevalence,
        "brier": prevalence * (1 - prevalence),
    }


def best_f1_threshold(probability_R: Floats, is_present_R: Booleans) -> float:
    """The threshold with the best F1 on these studies, the highest of ties: probabilities of at least this are present."""
    order = np.argsort(-probability_R, kind="stable")
    sorted_R = probability_R[order]
    ends = _ends_of_ties(sorted_R)
    found_T = np.cumsum(is_present_R[order])[ends]
    f1_T = 2 * found_T / (ends + 1 + is_present_R.sum())
    return float(sorted_R[ends][int(f1_T.argmax())])


def calibration(logit_R: Floats, is_present_R: Booleans) -> tuple[float, float]:
    """Slope and offset of Platt (1999): sigmoid(slope x logit + offset) is the probability that fits these studies best.

    A unit Gaussian prior around (1, 0) regularises small samples; the slope stays positive, so the ranking does not change.
    """
    slope, offset = 1.0, 0.0
    x_R2 = np.stack([logit_R, np.ones_like(logit_R)], 1)
    for _ in range(50):
        probability_R = sigmoid(x_R2 @ np.array([slope, offset]))
        gradient_2 = x_R2.T @ (probability_R - is_present_R) + _PRIOR * np.array([slope - 1, offset])
        curvature_22 = (x_R2 * (probability_R * (1 - probability_R))[:, None]).T @ x_R2 + _PRIOR * np.eye(2)
        step_2 = np.linalg.solve(curvature_22, gradient_2)
        step_2 *= min(1.0, 1 / max(1e-12, float(np.abs(step_2).max())))
        slope, offset = max(0.05, slope - float(step_2[0])), offset - float(step_2[1])
    return slope, offset


def sigmoid(logits: Floats) -> Floats:
    """The logistic function, element by element and without overflow; in [0, 1]."""
    return np.asarray(np.where(logits >= 0, 1, np.exp(-np.abs(logits))) / (1 + np.exp(-np.abs(logits))))


def roc_curve(probability_R: Floats, is_present_R: Booleans) -> tuple[Floats, Floats]:
    """False positive rates and sensitivities (T + 1 each), from nothing called present to everything."""
    found_T, wrong_T = _called(probability_R, is_present_R)
    return np.append(0, wrong_T / wrong_T[-1]), np.append(0, found_T / found_T[-1])


def precision_recall_curve(probability_R: Floats, is_present_R: Booleans) -> tuple[Floats, Floats]:
    """Recalls and precisions (T each), from the highest probability down."""
    found_T, wrong_T = _called(probability_R, is_present_R)
    return found_T / found_T[-1], found_T / (found_T + wrong_T)


def macro(scores: Mapping[str, Mapping[str, float]], name: str) -> float:
    """Mean of the score `name` over the findings that have it; NaN if none has."""
    values = [one[name] for one in scores.values() if not np.isnan(one[name])]
    return float(np.mean(values)) if values else float("nan")


def _called(probability_R: Floats, is_present_R: Booleans) -> tuple[Floats, Floats]:
    order = np.argsort(-probability_R, kind="stable")
    ends = _ends_of_ties(probability_R[order])
    present_R = is_present_R[order].astype(np.float64)
    return np.cumsum(present_R)[ends], np.cumsum(1 - present_R)[ends]


def _ends_of_ties(sorted_R: Floats) -> NDArray[np.int64]:
    """Indices after which the value changes."""
    return np.flatnonzero(np.append(sorted_R[1:] != sorted_R[:-1], True))


def _ranking(probability_R: Floats, truth_R: Floats, weight_SR: Floats) -> dict[str, Floats]:
    """Area under the ROC curve (ties count half), and average precision as a sum over the distinct probabilities."""
    order = np.argsort(-probability_R, kind="stable")
    ends = _ends_of_ties(probability_R[order])
    ordered_SR = weight_SR[:, order]
    found_ST = np.cumsum(ordered_SR * truth_R[order], 1)[:, ends]
    wrong_ST = np.cumsum(ordered_SR * (1 - truth_R[order]), 1)[:, ends]
    more_ST, worse_ST = (np.diff(one, axis=1, prepend=0) for one in (found_ST, wrong_ST))
    area_S = (worse_ST * (found_ST - more_ST / 2)).sum(1) / (found_ST[:, -1] * wrong_ST[:, -1])
    called_ST = found_ST + wrong_ST
    precision_ST = np.divide(found_ST, called_ST, out=np.zeros_like(found_ST), where=called_ST > 0)
    precise_S = (more_ST * precision_ST).sum(1) / found_ST[:, -1]
    both_S = (found_ST[:, -1] > 0) & (wrong_ST[:, -1] > 0)
    return {
        "auroc": np.where(both_S, area_S, np.nan),
        "average_precision": np.where(both_S, precise_S, np.nan),
    }


def _calibration_error(probability_R: Floats, truth_R: Floats, weight_SR: Floats) -> Floats:
    """Mean gap between probability and observed share over equal-width bins, weighted by studies (Naeini et al., 2015)."""
    bin_R = np.minimum((probability_R * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    distance_S = np.zeros(len(weight_SR))
    for place in range(CALIBRATION_BINS):
        inside_R = bin_R == place
        distance_S += np.abs(weight_SR[:, inside_R] @ (truth_R - probability_R)[inside_R])
    return np.asarray(distance_S / weight_SR.sum(1))
