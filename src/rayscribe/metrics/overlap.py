"""BLEU-1..4, ROUGE-L and CIDEr-D from one shared table of n-grams, as functions of per-report statistics.

Equal to pycocoevalcap 1.2 without its PTB tokeniser, which is how the papers of this field score: words are what stands
between spaces, so "." is a word. What that package calls CIDEr is CIDEr-D (clipped, with a length penalty, sigma 6); the name
`cider` is kept because it is what the field reports.

Shapes: R reports, P positions of all reports together, U distinct (report, n-gram) pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayscribe.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ORDERS = 4
_BETA = 1.2  # ROUGE-L, pycocoevalcap
_SIGMA = 6.0  # CIDEr-D, Vedantam et al. (2015)
_TINY, _SMALL = 1e-15, 1e-9  # pycocoevalcap's smoothing of BLEU


@dataclass(frozen=True, slots=True)
class Overlap:
    """Per-report statistics; every score of a set of reports is a function of their rows."""

    matches_R4: Ints
    "clipped n-gram matches"
    guesses_R4: Ints
    "n-grams of the hypothesis"
    hypothesis_words_R: Ints
    reference_words_R: Ints
    rouge_l_R: Floats
    cider_R: Floats

    def scores(self, rows: Ints | None = None) -> dict[str, float]:
        """The scores of all reports, or of those in `rows` (which may repeat, as in a bootstrap sample)."""
        pick = slice(None) if rows is None else rows
        matches, guesses = self.matches_R4[pick].sum(0), self.guesses_R4[pick].sum(0)
        ratio = (self.hypothesis_words_R[pick].sum() + _TINY) / (self.reference_words_R[pick].sum() + _SMALL)
        brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        precisions = (matches + _TINY) / (guesses + _SMALL)
        cumulative = np.cumprod(precisions) ** (1 / np.arange(1, ORDERS + 1)) * brevity
        return {
            **{f"bleu{order}": float(value) for order, value in enumerate(cumulative, start=1)},
            "rouge_l": float(self.rouge_l_R[pick].mean()),
            "cider": float(self.cider_R[pick].mean()),
        }


def overlap_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """bleu1..4, rouge_l, cider of hypothesis i against reference i; 0 to 1, CIDEr 0 to 10."""
    return overlap(hypotheses, references).scores()


def overlap(hypotheses: Sequence[str], references: Sequence[str]) -> Overlap:
    """Statistics of one hypothesis and one reference a report. An empty reference is refused; an empty hypothesis scores 0."""
    if len(hypotheses) != len(references):
        raise InputError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    if not references:
        raise InputError("no reports to score")
    if empty := sum(not reference.split() for reference in references):
        raise InputError(f"{empty} of {len(references)} references are empty; leave these studies out")
    words: dict[str, int] = {}
    hypothesis_words = [[words.setdefault(w, len(words)) for w in text.split()] for text in hypotheses]
    reference_words = [[words.setdefault(w, len(words)) for w in text.split()] for text in references]
    reports = len(references)
    tables = _ngram_tables(hypothesis_words + reference_words, len(words))
    matches_R4 = np.zeros((reports, ORDERS), np.int64)
    similarity_R4 = np.zeros((reports, ORDERS))
    for order, table in enumerate(tables):
        pair = _Pair.split(table, reports)
        matches_R4[:, order] = pair.clipped_matches(reports)
        similarity_R4[:, order] = pair.cosine(reports)
    lengths_h = np.array([len(one) for one in hypothesis_words])
    lengths_r = np.array([len(one) for one in reference_words])
    guesses_R4 = np.maximum(0, lengths_h[:, None] - np.arange(ORDERS))
    # The reference scorer counts a report's length in bigrams here.
    delta_R = np.maximum(0, lengths_h - 1) - np.maximum(0, lengths_r - 1)
    cider_R = similarity_R4.mean(1) * np.exp(-(delta_R**2) / (2 * _SIGMA**2)) * 10
    rouge_R = np.array([_rouge_l(h, r) for h, r in zip(hypothesis_words, reference_words)])
    return Overlap(matches_R4, guesses_R4, lengths_h, lengths_r, rouge_R, cider_R)


@dataclass(frozen=True, slots=True)
class _Table:
    """Counts of the n-grams of one order in every text: sorted by text, then n-gram."""

    texts_U: Ints
    grams_U: Ints
    counts_U: Ints
    grams: int


def _ngram_tables(texts: Sequence[Sequence[int]], words: int) -> list[_Table]:
    flat_P = np.array([word for text in texts for word in text], np.int64)
    text_P = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    grams_P, place_P = flat_P, np.arange(len(flat_P))
    tables = []
    for order in range(1, ORDERS + 1):
        if order > 1:
            # An n-gram is the (n-1)-gram before it and one more word of the same text.
            inside = (place_P + order - 1 < len(flat_P)) & (
                text_P[np.minimum(place_P + order - 1, len(flat_P) - 1)] == text_P[place_P]
            )
            grams_P, place_P = grams_P[inside] * words + flat_P[place_P[inside] + order - 1], place_P[inside]
        distinct, grams_P = np.unique(grams_P, return_inverse=True)
        keys_U, counts_U = np.unique(text_P[place_P] * max(1, len(distinct)) + grams_P, return_counts=True)
        texts_U, grams_U = np.divmod(keys_U, max(1, len(distinct)))
        tables.append(_Table(texts_U, grams_U, counts_U, len(distinct)))
    return tables


@dataclass(frozen=True, slots=True)
class _Pair:
    """One order's n-grams of hypotheses and references, and where the same report shares one."""

    hypothesis: _Table
    reference: _Table
    common_hypothesis: Ints
    common_reference: Ints

    @classmethod
    def split(cls, table: _Table, reports: int) -> _Pair:
        middle = int(np.searchsorted(table.texts_U, reports))
        hypothesis = _Table(table.texts_U[:middle], table.grams_U[:middle], table.counts_U[:middle], table.grams)
        reference = _Table(
            table.texts_U[middle:] - reports, table.grams_U[middle:], table.counts_U[middle:], table.grams
        )
        _, common_h, common_r = np.intersect1d(
            hypothesis.texts_U * table.grams + hypothesis.grams_U,
            reference.texts_U * table.grams + reference.grams_U,
            assume_unique=True,
            return_indices=True,
        )
        return cls(hypothesis, reference, common_h, common_r)

    def clipped_matches(self, reports: int) -> Ints:
        clipped = np.minimum(
            self.hypothesis.counts_U[self.common_hypothesis], self.reference.counts_U[self.common_reference]
        )
        sums = np.bincount(self.hypothesis.texts_U[self.common_hypothesis], clipped, minlength=reports)
        return np.rint(sums).astype(np.int64)

    def cosine(self, reports: int) -> Floats:
        """Clipped cosine of the tf-idf vectors; document frequencies are those of the references."""
        frequency = np.bincount(self.reference.grams_U, minlength=self.reference.grams)
        weight = math.log(reports) - np.log(np.maximum(1, frequency))
        vector_h = self.hypothesis.counts_U * weight[self.hypothesis.grams_U]
        vector_r = self.reference.counts_U * weight[self.reference.grams_U]
        norm_h = np.sqrt(np.bincount(self.hypothesis.texts_U, vector_h**2, minlength=reports))
        norm_r = np.sqrt(np.bincount(self.reference.texts_U, vector_r**2, minlength=reports))
        shared_h, shared_r = vector_h[self.common_hypothesis], vector_r[self.common_reference]
        dot = np.bincount(
            self.hypothesis.texts_U[self.common_hypothesis],
            np.minimum(shared_h, shared_r) * shared_r,
            minlength=reports,
        )
        norms = norm_h * norm_r
        return np.divide(dot, norms, out=np.zeros(reports), where=norms != 0)


def _rouge_l(hypothesis: Sequence[int], reference: Sequence[int]) -> float:
    common = _longest_common_subsequence(hypothesis, reference)
    if not common:
        return 0.0
    precision, recall = common / len(hypothesis), common / len(reference)
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common_subsequence(first: Sequence[int], second: Sequence[int]) -> int:
    """Length, with one bit a word of `first` (Hyyrö, 2004)."""
    places: dict[int, int] = {}
    for position, word in enumerate(first):
        places[word] = places.get(word, 0) | (1 << position)
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(first) - row.bit_count()
