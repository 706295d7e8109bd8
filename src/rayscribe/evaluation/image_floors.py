"""What a system must beat with the image: floors that read it as a thumbnail, with no learned features.

    nearest_image   the report of the training study whose 32 x 32 picture is most alike
    template        a linear classifier on the thumbnail; its findings filled into stock sentences

Shapes: R studies, P pixels of a thumbnail, O observations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayscribe.data.images import read_image
from rayscribe.labels import NEGATIVE, OBSERVATIONS, POSITIVE, Labeler, Labels
from rayscribe.metrics.statistics import Singles
from rayscribe.progress import ProgressBar
from rayscribe.study import Study, is_frontal

THUMBNAIL_SIDE = 32
RIDGE = 100.0
"Weight decay over the mean eigenvalue. Mean AUROC on IU X-Ray's val at .1, 1, 10, 100: .608, .658, .681, .684."
_NO_FINDING = OBSERVATIONS.index("No Finding")


def thumbnails(studies: Sequence[Study], *, progress: ProgressBar = iter) -> Singles:
    """Every study's first frontal image (its first image where views are unknown) as unit vectors of 32 x 32 pixels."""
    with ThreadPoolExecutor() as pool:
        pixels_RP = np.stack(list(progress(pool.map(_thumbnail, studies))))
    pixels_RP -= pixels_RP.mean(1, keepdims=True)
    return np.asarray(pixels_RP / np.maximum(1e-6, np.linalg.norm(pixels_RP, axis=1, keepdims=True)))


def nearest_reports(queries_RP: Singles, training_RP: Singles, reports: Sequence[str]) -> list[str]:
    """The report of the most similar training thumbnail."""
    return [reports[row] for row in (queries_RP @ training_RP.T).argmax(1)]


def templates(
    train: tuple[Singles, Sequence[str]],
    val: tuple[Singles, Sequence[str]],
    queries_RP: Singles,
    *,
    constant: str,
    labeler: Labeler,
) -> list[str]:
    """Reports from a classifier's findings: thumbnails and cleaned reports of train and val, thumbnails to write for.

    The constant report, without the sentences that deny a finding, and for every finding the training sentence that most often
    states it alone. A finding is taken where its linear score passes the threshold that as many val studies pass as have it.
    """
    wanted_RO = labeler.label(train[1]) == POSITIVE
    weights_PO, offset_O = _ridge(train[0], wanted_RO)
    threshold_O = _thresholds(val[0] @ weights_PO + offset_O, labeler.label(val[1]) == POSITIVE)
    found_RO = queries_RP @ weights_PO + offset_O > threshold_O
    return filled_templates(found_RO, train[1], constant=constant, labeler=labeler)


def filled_templates(
    found_RO: NDArray[np.bool_], training: Sequence[str], *, constant: str, labeler: Labeler
) -> list[str]:
    """The same from findings that are known already, such as a classifier's; `training`: cleaned reports."""
    found_RO = found_RO.copy()
    found_RO[:, _NO_FINDING] = False  # the constant says that already
    stock = _stock_sentences(training, labeler)
    ground = _sentences(constant)
    ground_labels = labeler.label(ground)
    return [_filled(row_O, ground, ground_labels, stock) for row_O in found_RO]


def _thumbnail(study: Study) -> Singles:
    frontal = [path for path, view in zip(study.images, study.views) if is_frontal(view)]
    grey = read_image((frontal or list(study.images))[0], at_least=THUMBNAIL_SIDE)
    return np.asarray(
        Image.fromarray(grey).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX), np.float32
    ).ravel()


def _ridge(pixels_RP: Singles, wanted_RO: NDArray[np.bool_]) -> tuple[Singles, Singles]:
    middle_P, rate_O = pixels_RP.mean(0), wanted_RO.mean(0).astype(np.float32)
    centred_RP = pixels_RP - middle_P
    gram_PP = centred_RP.T @ centred_RP
    decay_PP = RIDGE * gram_PP.trace() / len(gram_PP) * np.eye(len(gram_PP))
    weights_PO = np.linalg.solve(gram_PP + decay_PP, centred_RP.T @ (wanted_RO - rate_O)).astype(np.float32)
    return weights_PO, rate_O - middle_P @ weights_PO


def _thresholds(scores_RO: Singles, wanted_RO: NDArray[np.bool_]) -> Singles:
    """By observation, what as many studies pass as have it. (The best F1 would give rare findings to nearly every study.)"""
    found = []
    for scores_R, wanted_R in zip(np.sort(scores_RO, axis=0).T, wanted_RO.T):
        count = int(wanted_R.sum())
        found.append(np.nextafter(scores_R[-count], -np.inf) if count else np.inf)
    return np.array(found, np.float32)


def _sentences(report: str) -> list[str]:
    return [part.strip() for part in report.split(" .") if part.strip()]


def _stock_sentences(training: Sequence[str], labeler: Labeler) -> dict[int, str]:
    """For every observation the most frequent training sentence whose one positive finding it is."""
    counts = Counter(sentence for report in training for sentence in _sentences(report))
    sentences = [sentence for sentence, _ in counts.most_common()]
    positive_RO: NDArray[np.bool_] = labeler.label([f"{sentence} ." for sentence in sentences]) == POSITIVE
    positive_RO[:, _NO_FINDING] = False
    alone_R = positive_RO.sum(1) == 1
    stock: dict[int, str] = {}
    for row in map(int, np.flatnonzero(alone_R)):
        stock.setdefault(int(positive_RO[row].argmax()), sentences[row])
    return stock


def _filled(found_O: NDArray[np.bool_], ground: Sequence[str], ground_labels: Labels, stock: dict[int, str]) -> str:
    kept = [sentence for sentence, states_O in zip(ground, ground_labels) if not (states_O[found_O] == NEGATIVE).any()]
    added = [stock[place] for place in map(int, np.flatnonzero(found_O)) if place in stock]
    return " . ".join([*added, *kept]) + " ."
