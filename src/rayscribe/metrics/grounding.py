"""Does the model look at the image? Permutation tests of reports against references.

The reports are reassigned to other studies at random. If the score stays as high, the reports say nothing about their own
images, however high the score is.

Shapes: R reports, W words, O observations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rayscribe.labels import Labels
from rayscribe.metrics.clinical import is_positive
from rayscribe.metrics.statistics import Singles

PERMUTATIONS = 10_000
MOST_STUDIES = 4_000
"Larger sets are sampled, because every pair of studies is compared."
FEWEST_STUDIES = 20
"Smaller sets raise no alarm: among few reassignments chance often does as well, and a single study cannot be reassigned."


def text_grounding(hypotheses: Sequence[str], references: Sequence[str], *, seed: int = 0) -> dict[str, float]:
    """Mean TF-IDF cosine of each report with its own reference, its mean over permutations, and p = (k + 1) / (n + 1)."""
    rows = _sampled(len(references), seed)
    given, wanted = [hypotheses[row].split() for row in rows], [references[row].split() for row in rows]
    frequency = Counter(word for words in wanted for word in set(words))
    place = {word: at for at, word in enumerate(frequency)}
    weight_W = np.log(len(rows) / np.array(list(frequency.values()), np.float64))
    return _permuted(_unit_rows(given, place, weight_W) @ _unit_rows(wanted, place, weight_W).T, seed)


def finding_grounding(predicted_RO: Labels, reference_RO: Labels, *, seed: int = 0) -> dict[str, float]:
    """The same test for the mean number of positive observations that report and reference share (uncertain is negative).

    A permutation keeps the totals, so micro F1 rises and falls with that number. Both arguments: states (R, 14).
    """
    rows = _sampled(len(reference_RO), seed)
    given = is_positive(predicted_RO[rows], "negative").astype(np.float32)
    wanted = is_positive(reference_RO[rows], "negative").astype(np.float32)
    return _permuted(given @ wanted.T, seed)


def _sampled(reports: int, seed: int) -> NDArray[np.int64]:
    if reports <= MOST_STUDIES:
        return np.arange(reports)
    return np.random.default_rng(seed).choice(reports, MOST_STUDIES, replace=False)


def _unit_rows(texts: Sequence[Sequence[str]], place: dict[str, int], weight_W: NDArray[np.float64]) -> Singles:
    table_RW = np.zeros((len(texts), len(place)), np.float32)
    for row, words in enumerate(texts):
        for word, count in Counter(words).items():
            if word in place:
                table_RW[row, place[word]] = count * weight_W[place[word]]
    length_R = np.linalg.norm(table_RW, axis=1, keepdims=True)
    return np.divide(table_RW, length_R, out=table_RW, where=length_R > 0)


def _permuted(similarity_RR: Singles, seed: int) -> dict[str, float]:
    reports, random = len(similarity_RR), np.random.default_rng(seed)
    columns = np.arange(reports)
    observed = float(similarity_RR[columns, columns].mean(dtype=np.float64))
    chance = np.array(
        [similarity_RR[random.permutation(reports), columns].mean(dtype=np.float64) for _ in range(PERMUTATIONS)]
    )
    as_high = int((chance >= observed - 1e-9).sum())
    return {"value": observed, "permuted": float(chance.mean()), "p": (as_high + 1) / (PERMUTATIONS + 1)}
