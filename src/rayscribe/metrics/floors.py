"""Baselines that a system must beat: reports that need no image.

Shapes: C candidates, G n-grams of one order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from rayscribe.labels import OBSERVATIONS, POSITIVE, UNCERTAIN, Labeler
from rayscribe.metrics.overlap import ORDERS, bleu
from rayscribe.metrics.similarity import SentenceEncoder
from rayscribe.metrics.statistics import Ints

MOST_CANDIDATES = 5_000
"`most_similar` embeds at most this many candidates; embedding takes milliseconds per report."


def most_frequent(training: Sequence[str]) -> str:
    """The most frequent training report, the first of ties."""
    return Counter(training).most_common(1)[0][0]


def always_normal(training: Sequence[str], labeler: Labeler) -> str | None:
    """The most frequent training report with No Finding and nothing else, the first of ties; None where there is none."""
    distinct = list(dict.fromkeys(training))
    labels_CO = labeler.label(distinct)
    normal_O = np.array([name == "No Finding" for name in OBSERVATIONS])
    is_normal_C = ((labels_CO == POSITIVE) == normal_O).all(1) & ~(labels_CO == UNCERTAIN).any(1)
    if not is_normal_C.any():
        return None
    kept = {text for text, is_normal in zip(distinct, is_normal_C) if is_normal}
    return most_frequent([text for text in training if text in kept])


def random_reports(training: Sequence[str], count: int, *, seed: int = 0) -> list[str]:
    """`count` training reports drawn at random, one per study."""
    picks = np.random.default_rng(seed).integers(0, len(training), count)
    return [training[pick] for pick in picks]


def shuffled(reports: Sequence[str], *, seed: int = 0) -> list[str]:
    """The system's own reports, each moved to another study: the score that remains without the image."""
    order = np.random.default_rng(seed).permutation(len(reports))
    found = list(reports)
    for here, there in zip(order, np.roll(order, 1)):
        found[here] = reports[there]
    return found


def best_constant(candidates: Sequence[str], references: Sequence[str]) -> str:
    """The candidate with the highest BLEU-4 if written for every study, the first of ties.

    Pass training reports as candidates and validation reports as references, never the test split.
    """
    distinct = list(dict.fromkeys(candidates))
    counts_G = [_counts_by_gram(references, order) for order in range(1, ORDERS + 1)]
    matches_C4 = np.zeros((len(distinct), ORDERS))
    for row, text in enumerate(distinct):
        words = text.split()
        for order in range(ORDERS):
            for gram, count in Counter(zip(*(words[i:] for i in range(order + 1)))).items():
                if gram in counts_G[order]:
                    matches_C4[row, order] += np.minimum(counts_G[order][gram], count).sum()
    lengths_C = np.array([len(text.split()) for text in distinct])
    guesses_C4 = len(references) * np.maximum(0, lengths_C[:, None] - np.arange(ORDERS))
    wanted_C = np.full(len(distinct), sum(len(text.split()) for text in references))
    return distinct[int(bleu(matches_C4, guesses_C4, len(references) * lengths_C, wanted_C)[:, -1].argmax())]


def most_similar(candidates: Sequence[str], references: Sequence[str], encoder: SentenceEncoder) -> str:
    """The candidate with the highest mean cosine with the references, the first of ties.

    Compares a random sample of `MOST_CANDIDATES` where there are more. Pass candidates and references as to `best_constant`.
    """
    distinct = list(dict.fromkeys(candidates))
    if len(distinct) > MOST_CANDIDATES:
        picks = np.random.default_rng(0).choice(len(distinct), MOST_CANDIDATES, replace=False)
        distinct = [distinct[pick] for pick in np.sort(picks)]
    mean_D = encoder.embed(references).mean(0)
    return distinct[int((encoder.embed(distinct) @ mean_D).argmax())]


def _counts_by_gram(references: Sequence[str], order: int) -> dict[tuple[str, ...], Ints]:
    """Counts of each n-gram in every reference that contains it."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for text in references:
        words = text.split()
        for gram, count in Counter(zip(*(words[i:] for i in range(order)))).items():
            found[gram].append(count)
    return {gram: np.array(counts) for gram, counts in found.items()}
