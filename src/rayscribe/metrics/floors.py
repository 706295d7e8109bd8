"""What a system must beat: scores that need no image.

Shapes: R references, G n-grams of one order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from rayscribe.metrics.overlap import ORDERS, Overlap


def best_constant(candidates: Sequence[str], references: Sequence[str]) -> str:
    """The candidate that, written for every study, has the highest BLEU-4 against the references (the first of equals).

    Give training reports as candidates and validation reports as references, never the test split.
    """
    distinct = list(dict.fromkeys(candidates))
    reports = len(references)
    counts_GR = [_counts_by_gram(references, order) for order in range(1, ORDERS + 1)]
    lengths_R = np.array([len(text.split()) for text in references])
    best, best_score = distinct[0], -1.0
    for text in distinct:
        words = text.split()
        matches_R4 = np.zeros((reports, ORDERS), np.int64)
        for order in range(1, ORDERS + 1):
            for gram, count in Counter(zip(*(words[i:] for i in range(order)))).items():
                if gram in counts_GR[order - 1]:
                    rows, seen = counts_GR[order - 1][gram]
                    matches_R4[rows, order - 1] += np.minimum(seen, count)
        guesses_R4 = np.tile(np.maximum(0, len(words) - np.arange(ORDERS)), (reports, 1))
        unused = np.zeros(reports)
        table = Overlap(matches_R4, guesses_R4, np.full(reports, len(words)), lengths_R, unused, unused)
        score = table.scores()["bleu4"]
        if score > best_score:
            best, best_score = text, score
    return best


def _counts_by_gram(
    references: Sequence[str], order: int
) -> dict[
    tuple[str, ...], tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]
]:
    found: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for row, text in enumerate(references):
        words = text.split()
        for gram, count in Counter(zip(*(words[i:] for i in range(order)))).items():
            found[gram].append((row, count))
    return {
        gram: (np.array([row for row, _ in pairs]), np.array([count for _, count in pairs]))
        for gram, pairs in found.items()
    }
