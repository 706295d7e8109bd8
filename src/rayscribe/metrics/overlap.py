"""BLEU-1..4, ROUGE-L and CIDEr from one shared table of n-grams, as functions of per-report statistics.

Identical to pycocoevalcap 1.2 without its PTB tokeniser, which is how papers in this field score: words are separated by
spaces, so "." is a word. What that package calls CIDEr is CIDEr-D (clipped, with a length penalty, sigma 6): `cider` is the
name used in the field, `cider_d` the same number under its proper name, `cider_plain` the unclipped cosine without the
length penalty (Vedantam et al., 2015, equation 1, words instead of stems).

Shapes: R reports, S samples, K columns, P positions of all reports together, U distinct (report, n-gram) pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayscribe.errors import InputError
from rayscribe.metrics.statistics import Floats, Ints, Rows

ORDERS = 4
ROUGE_BETA = 1.2  # ROUGE-L, pycocoevalcap
SIGMA = 6.0  # CIDEr-D, Vedantam et al. (2015)
_DENSE = 1 << 22  # largest number of possible n-grams for which a table of all is used
_TINY, _SMALL = 1e-15, 1e-9  # pycocoevalcap's smoothing of BLEU

OVERLAP_COLUMNS = (
    *(f"matches{order}" for order in range(1, ORDERS + 1)),
    *(f"guesses{order}" for order in range(1, ORDERS + 1)),
    "hypothesis_words",
    "reference_words",
    "rouge_l",
    "cider",
    "cider_plain",
    "reports",
)


def overlap_score(sums_SK: Floats) -> dict[str, Floats]:
    """bleu1..4, rouge_l, cider, cider_d, cider_plain (S,) from summed rows: in [0, 1], CIDEr in [0, 10]."""
    matches, guesses = sums_SK[:, :ORDERS], sums_SK[:, ORDERS : 2 * ORDERS]
    hypothesis, reference, rouge, cider, plain, reports = sums_SK[:, 2 * ORDERS :].T
    cumulative_S4 = bleu(matches, guesses, hypothesis, reference)
    return {
        **{f"bleu{order + 1}": cumulative_S4[:, order] for order in range(ORDERS)},
        "rouge_l": rouge / reports,
        "cider": cider / reports,
        "cider_d": cider / reports,
        "cider_plain": plain / reports,
    }


def bleu(matches_S4: Floats, guesses_S4: Floats, hypothesis_words_S: Floats, reference_words_S: Floats) -> Floats:
    """Cumulative BLEU-1..4 (S, 4), in [0, 1], from summed counts; the closest reference length is that of the one reference."""
    ratio_S = (hypothesis_words_S + _TINY) / (reference_words_S + _SMALL)
    brevity_S = np.exp(np.minimum(0, 1 - 1 / ratio_S))
    precisions = (matches_S4 + _TINY) / (guesses_S4 + _SMALL)
    return np.cumprod(precisions, axis=1) ** (1 / np.arange(1, ORDERS + 1)) * brevity_S[:, None]


def overlap_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """The scores of `overlap_score` for hypothesis i against reference i. Raises InputError as `overlap` does."""
    return overlap(hypotheses, references).scores()


def overlap(hypotheses: Sequence[str], references: Sequence[str]) -> Rows:
    """Sufficient statistics of `overlap_score`: one hypothesis and one reference per report; an empty hypothesis scores 0.

    Raises InputError for no reports, unequal numbers of them, or an empty reference.
    """
    if len(hypotheses) != len(references):
        raise InputError(f"{len(hypotheses)} hypotheses for {len(references)} references; give one per reference")
    if not references:
        raise InputError("no reports to score")
    if empty := sum(not reference.split() for reference in references):
        raise InputError(f"{empty} of {len(references)} references are empty; exclude these studies")
    words: dict[str, int] = {}
    hypothesis_words = [[words.setdefault(w, len(words)) for w in text.split()] for text in hypotheses]
    reference_words = [[words.setdefault(w, len(words)) for w in text.split()] for text in references]
    reports = len(references)
    tables = ngram_tables(hypothesis_words + reference_words, len(words))
    matches_R4 = np.zeros((reports, ORDERS), np.int64)
    clipped_R4, plain_R4 = np.zeros((reports, ORDERS)), np.zeros((reports, ORDERS))
    for order, table in enumerate(tables):
        pair = _Pair.split(table, reports)
        matches_R4[:, order] = pair.clipped_matches(reports)
        clipped_R4[:, order], plain_R4[:, order] = pair.cosines(reports)
    lengths_h = np.array([len(one) for one in hypothesis_words])
    lengths_r = np.array([len(one) for one in reference_words])
    guesses_R4 = np.maximum(0, lengths_h[:, None] - np.arange(ORDERS))
    # The reference scorer measures a report's length in bigrams here.
    delta_R = np.maximum(0, lengths_h - 1) - np.maximum(0, lengths_r - 1)
    cider_R = clipped_R4.mean(1) * np.exp(-(delta_R**2) / (2 * SIGMA**2)) * 10
    rouge_R = np.array([_rouge_l(h, r) for h, r in zip(hypothesis_words, reference_words)])
    ones_R = np.ones(reports)
    singles = (lengths_h, lengths_r, rouge_R, cider_R, plain_R4.mean(1) * 10, ones_R)
    return Rows(OVERLAP_COLUMNS, np.hstack([matches_R4, guesses_R4, np.stack(singles, axis=1)]), overlap_score)


@dataclass(frozen=True, slots=True)
class NgramTable:
    """N-gram counts of one order in every text, sorted by text, then n-gram."""

    texts_U: Ints
    grams_U: Ints
    counts_U: Ints
    grams: int


def ngram_tables(texts: Sequence[Sequence[int]], words: int) -> list[NgramTable]:
    """Counts of every n-gram of orders 1 to 4; `texts` hold numbers below `words`."""
    flat_P = np.array([word for text in texts for word in text], np.int64)
    text_P = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    grams_P, place_P, distinct = flat_P, np.arange(len(flat_P)), 1
    tables = []
    for order in range(1, ORDERS + 1):
        if order > 1:
            # An n-gram is an (n-1)-gram plus the next word of the same text.
            inside = (place_P + order - 1 < len(flat_P)) & (
                text_P[np.minimum(place_P + order - 1, len(flat_P) - 1)] == text_P[place_P]
            )
            grams_P, place_P = grams_P[inside] * words + flat_P[place_P[inside] + order - 1], place_P[inside]
        distinct, grams_P = _numbered(grams_P, distinct * words)
        keys_U, counts_U = np.unique(text_P[place_P] * max(1, distinct) + grams_P, return_counts=True)
        texts_U, grams_U = np.divmod(keys_U, max(1, distinct))
        tables.append(NgramTable(texts_U, grams_U, counts_U, distinct))
    return tables


def _numbered(keys_P: Ints, limit: int) -> tuple[int, Ints]:
    """The number of distinct keys, and every key as an index below it."""
    if limit > _DENSE:
        distinct, numbers_P = np.unique(keys_P, return_inverse=True)
        return len(distinct), numbers_P
    # Marking a table of all possible keys is several times faster than sorting the keys that occur.
    seen = np.zeros(limit, np.bool_)
    seen[keys_P] = True
    return int(seen.sum()), (np.cumsum(seen, dtype=np.int64) - 1)[keys_P]


@dataclass(frozen=True, slots=True)
class _Pair:
    """N-grams of one order in hypotheses and references, and where both reports of a study share one."""

    hypothesis: NgramTable
    reference: NgramTable
    common_hypothesis: Ints
    common_reference: Ints

    @classmethod
    def split(cls, table: NgramTable, reports: int) -> _Pair:
        middle = int(np.searchsorted(table.texts_U, reports))
        hypothesis = NgramTable(table.texts_U[:middle], table.grams_U[:middle], table.counts_U[:middle], table.grams)
        reference = NgramTable(
            table.texts_U[middle:] - reports, table.grams_U[middle:], table.counts_U[middle:], table.grams
        )
        keys_h = hypothesis.texts_U * table.grams + hypothesis.grams_U
        keys_r = reference.texts_U * table.grams + reference.grams_U  # both are sorted
        place_U = np.searchsorted(keys_r, keys_h)
        common_h = np.flatnonzero(np.append(keys_r, -1)[place_U] == keys_h)
        return cls(hypothesis, reference, common_h, place_U[common_h])

    def clipped_matches(self, reports: int) -> Ints:
        clipped = np.minimum(
            self.hypothesis.counts_U[self.common_hypothesis], self.reference.counts_U[self.common_reference]
        )
        sums = np.bincount(self.hypothesis.texts_U[self.common_hypothesis], clipped, minlength=reports)
        return np.rint(sums).astype(np.int64)

    def cosines(self, reports: int) -> tuple[Floats, Floats]:
        """Clipped and plain cosine of the tf-idf vectors; document frequencies come from the references."""
        frequency = np.bincount(self.reference.grams_U, minlength=self.reference.grams)
        weight = math.log(reports) - np.log(np.maximum(1, frequency))
        vector_h = self.hypothesis.counts_U * weight[self.hypothesis.grams_U]
        vector_r = self.reference.counts_U * weight[self.reference.grams_U]
        norm_h = np.sqrt(np.bincount(self.hypothesis.texts_U, vector_h**2, minlength=reports))
        norm_r = np.sqrt(np.bincount(self.reference.texts_U, vector_r**2, minlength=reports))
        norms = norm_h * norm_r
        shared_h, shared_r = vector_h[self.common_hypothesis], vector_r[self.common_reference]
        rows_U = self.hypothesis.texts_U[self.common_hypothesis]

        def cosine(products_U: Floats) -> Floats:
            dot = np.bincount(rows_U, products_U, minlength=reports)
            return np.divide(dot, norms, out=np.zeros(reports), where=norms != 0)

        return cosine(np.minimum(shared_h, shared_r) * shared_r), cosine(shared_h * shared_r)


def _rouge_l(hypothesis: Sequence[int], reference: Sequence[int]) -> float:
    common = _longest_common_subsequence(hypothesis, reference)
    if not common:
        return 0.0
    precision, recall = common / len(hypothesis), common / len(reference)
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _longest_common_subsequence(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common subsequence, with one bit per word of `first` (Hyyrö, 2004)."""
    places: dict[int, int] = {}
    for position, word in enumerate(first):
        places[word] = places.get(word, 0) | (1 << position)
    full = row = (1 << len(first)) - 1
    for matches in map(places.get, second):
        if matches is not None:
            matched = row & matches
            row = (row + matched) | (row - matched)  # carries beyond the last bit are masked at the end
    return len(first) - (row & full).bit_count()
