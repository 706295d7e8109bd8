"""Frequent versus rare words: overlap of words by their frequency in the training reports (JIMA, section 4).

Shapes: R reports, S samples, K columns, N bins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rayscribe.metrics.statistics import Floats, Rows

SHARES = (8, 6, 4)
"The most frequent 1/n of the words count as frequent (JIMA, tables 3 and 4)."
DECILES = 10
_COUNTS = ("clipped matches", "hypothesis words", "reference words")


def by_frequency(training: Sequence[str]) -> list[str]:
    """The words of the training reports by falling frequency, ties in code-point order."""
    counts = Counter(word for report in training for word in report.split())
    return sorted(counts, key=lambda word: (-counts[word], word))


def word_bins(hypotheses: Sequence[str], references: Sequence[str], vocabulary: Sequence[str]) -> Rows:
    """Clipped multiset overlap of words by bin: `token_f1_{freq,infreq}_{8,6,4}` and `token_f1_decile_{1..10}`.

    `vocabulary`: from `by_frequency`. With n bins, each holds the next 1/n of its words; words unseen in training fall in the
    last bin. freq is the first bin, infreq all others together.
    """
    rank = {word: place for place, word in enumerate(vocabulary)}
    parts = []
    for bins in (*SHARES, DECILES):
        size = max(1, len(vocabulary) // bins)
        place = {word: min(at // size, bins - 1) for word, at in rank.items()}
        table_R3N = np.array([_counts(h, r, place, bins) for h, r in zip(hypotheses, references)], np.float64)
        if bins != DECILES:
            table_R3N = np.stack([table_R3N[:, :, 0], table_R3N[:, :, 1:].sum(2)], axis=2)
        parts.append(table_R3N.reshape(len(references), -1))
    columns = tuple(
        f"{count} {name}" for group in _names() for count in _COUNTS for name in group
    )  # the order of the reshaped tables
    return Rows(columns, np.hstack(parts), word_bins_score)


def word_bins_score(sums_SK: Floats) -> dict[str, Floats]:
    """F1 (S,) of every bin from summed counts, in [0, 1]; 0 / 0 is 0."""
    found: dict[str, Floats] = {}
    start = 0
    for group in _names():
        width = len(group)
        matches, given, wanted = (sums_SK[:, start + i * width : start + (i + 1) * width] for i in range(3))
        total = given + wanted
        f1 = np.divide(2 * matches, total, out=np.zeros_like(matches), where=total > 0)
        found |= {f"token_f1_{name}": f1[:, place] for place, name in enumerate(group)}
        start += 3 * width
    return found


def published_word_bins(
    hypotheses: Sequence[str], references: Sequence[str], vocabulary: Sequence[str]
) -> dict[str, float]:
    """JIMA's numbers as its released script computes them: `token_f1_{freq,infreq}_{8,6,4}_published`.

    The last two words of the vocabulary are dropped, matches are reference words that occur anywhere in the hypothesis
    (so precision can exceed 1), and infreq is the SUM of the other bins' F1, without the last partial bin.
    """
    kept = list(vocabulary[:-2])
    found = {}
    for bins in SHARES:
        size = max(1, len(kept) // bins)
        place = {word: at // size for at, word in enumerate(kept)}
        count = max(place.values(), default=0) + 1
        right, given, wanted = np.zeros(count), np.zeros(count), np.zeros(count)
        for hypothesis, reference in zip(hypotheses, references):
            written = hypothesis.split()
            seen = set(written)
            for word in reference.split():
                if word in place:
                    wanted[place[word]] += 1
                    right[place[word]] += word in seen
            for word in written:
                if word in place:
                    given[place[word]] += 1
        total = given + wanted  # 2PR / (P + R) with P = right / given, R = right / wanted
        f1 = np.divide(2 * right, total, out=np.zeros(count), where=total > 0)
        found[f"token_f1_freq_{bins}_published"] = float(f1[0])
        found[f"token_f1_infreq_{bins}_published"] = float(f1[1:bins].sum())
    return found


def _names() -> list[list[str]]:
    return [
        *([f"freq_{bins}", f"infreq_{bins}"] for bins in SHARES),
        [f"decile_{number}" for number in range(1, DECILES + 1)],
    ]


def _counts(hypothesis: str, reference: str, place: dict[str, int], bins: int) -> list[list[int]]:
    """Clipped matches, hypothesis words and reference words per bin."""
    given, wanted = Counter(hypothesis.split()), Counter(reference.split())
    table = [[0] * bins for _ in range(3)]
    for row, counts in enumerate((given & wanted, given, wanted)):
        for word, count in counts.items():
            table[row][place.get(word, bins - 1)] += count
    return table
