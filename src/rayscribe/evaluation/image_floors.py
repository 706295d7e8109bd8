"""Baselines that a system with images must beat: floors that see a thumbnail, without learned features.

    nearest_image   the report of the training study with the most similar 32 x 32 picture
    template        a linear classifier on the thumbnail, whose findings fill stock sentences

Shapes: R studies, P pixels of a thumbnail, O observations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rayscribe.labels import NEGATIVE, OBSERVATIONS, POSITIVE, Labeler, Labels
from rayscribe.metrics.composing import report_sentences
from rayscribe.metrics.statistics import Singles

RIDGE = 100.0
"Weight decay over the mean eigenvalue. Mean AUROC on the IU X-Ray validation split at .1, 1, 10, 100: .608, .658, .681, .684."
_NO_FINDING = OBSERVATIONS.index("No Finding")


def nearest_reports(queries_RP: Singles, training_RP: Singles, reports: Sequence[str]) -> list[str]:
    """The report of the most similar training thumbnail, for each query."""
    return [reports[row] for row in (queries_RP @ training_RP.T).argmax(1)]


def templates(
    train: tuple[Singles, Sequence[str]],
    val: tuple[Singles, Sequence[str]],
    queries_RP: Singles,
    *,
    constant: str,
    labeler: Labeler,
) -> list[str]:
    """Reports from a classifier's findings. `train`, `val`: thumbnails and cleaned reports; `queries_RP`: studies to write for.

    A report is the constant one without its sentences that negate a finding, plus for each finding the training sentence that
    most often states it alone. A study has a finding if its linear score exceeds the threshold that as many val studies exceed
    as have it.
    """
    wanted_RO = labeler.label(train[1]) == POSITIVE
    weights_PO, offset_O = _ridge(train[0], wanted_RO)
    threshold_O = _thresholds(val[0] @ weights_PO + offset_O, labeler.label(val[1]) == POSITIVE)
    found_RO = queries_RP @ weights_PO + offset_O > threshold_O
    return filled_templates(found_RO, train[1], constant=constant, labeler=labeler)


def filled_templates(
    found_RO: NDArray[np.bool_], training: Sequence[str], *, constant: str, labeler: Labeler
) -> list[str]:
    """The same from given findings (R, O), such as a classifier's; `training`: cleaned reports."""
    found_RO = found_RO.copy()
    found_RO[:, _NO_FINDING] = False  # the constant report says so already
    stock = _stock_sentences(training, labeler)
    ground = report_sentences(constant)
    ground_labels = labeler.label(ground)
    return [_filled(row_O, ground, ground_labels, stock) for row_O in found_RO]


def _ridge(pixels_RP: Singles, wanted_RO: NDArray[np.bool_]) -> tuple[Singles, Singles]:
    middle_P, rate_O = pixels_RP.mean(0), wanted_RO.mean(0).astype(np.float32)
    centred_RP = pixels_RP - middle_P
    gram_PP = centred_RP.T @ centred_RP
    decay_PP = RIDGE * gram_PP.trace() / len(gram_PP) * np.eye(len(gram_PP))
    weights_PO = np.linalg.solve(gram_PP + decay_PP, centred_RP.T @ (wanted_RO - rate_O)).astype(np.float32)
    return weights_PO, rate_O - middle_P @ weights_PO


def _thresholds(scores_RO: Singles, wanted_RO: NDArray[np.bool_]) -> Singles:
    """Per observation, the score that as many studies exceed as have it. (The best F1 gives rare findings to nearly all.)"""
    found = []
    for scores_R, wanted_R in zip(np.sort(scores_RO, axis=0).T, wanted_RO.T):
        count = int(wanted_R.sum())
        found.append(np.nextafter(scores_R[-count], -np.inf) if count else np.inf)
    return np.array(found, np.float32)


def _stock_sentences(training: Sequence[str], labeler: Labeler) -> dict[int, str]:
    """For each observation, the most frequent training sentence with that as its only positive finding."""
    counts = Counter(sentence for report in training for sentence in report_sentences(report))
    sentences = [sentence for sentence, _ in counts.most_common()]
    positive_RO: NDArray[np.bool_] = labeler.label(sentences) == POSITIVE
    positive_RO[:, _NO_FINDING] = False
    alone_R = positive_RO.sum(1) == 1
    stock: dict[int, str] = {}
    for row in map(int, np.flatnonzero(alone_R)):
        stock.setdefault(int(positive_RO[row].argmax()), sentences[row])
    return stock


def _filled(found_O: NDArray[np.bool_], ground: Sequence[str], ground_labels: Labels, stock: dict[int, str]) -> str:
    kept = [sentence for sentence, states_O in zip(ground, ground_labels) if not (states_O[found_O] == NEGATIVE).any()]
    added = [stock[place] for place in map(int, np.flatnonzero(found_O)) if place in stock]
    return " ".join([*added, *kept])
