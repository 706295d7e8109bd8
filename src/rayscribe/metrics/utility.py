"""Utilities of every candidate report against every reference, as matrices: what expected utility is made from.

BLEU here is the smoothed one of single sentences, because a corpus BLEU is no mean; CIDEr-D and ROUGE-L are those of
`metrics/overlap.py`, and the clinical utility is an F-beta of positive observations (spec: expected utility, section 2).

Shapes: C candidates, J references, O observations, U distinct (text, n-gram) pairs, P pairs of them that share an n-gram.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rayscribe.errors import InputError
from rayscribe.labels import OBSERVATIONS, POSITIVE, Labeler, Labels
from rayscribe.metrics.overlap import ORDERS, ROUGE_BETA, SIGMA, NgramTable, ngram_tables
from rayscribe.metrics.statistics import Floats, Ints
from rayscribe.settings import need

Matrix = NDArray[np.float32]
UtilityName = Literal["bleu4", "cider", "rouge_l", "clinical"]
UTILITIES: tuple[UtilityName, ...] = get_args(UtilityName)

SMOOTHING = 0.1
"Of the orders 2 to 4 of sentence BLEU."
_BLOCK = 32  # candidates at once
_CANDIDATES = 2048  # whose utilities are in memory with all that they are made from
_WORD = 64  # bits


class ReportPairs:
    """Candidates and references as words and n-grams; each utility of texts is a matrix (C, J)."""

    def __init__(self, candidates: Sequence[str], references: Sequence[str], documents: Sequence[str] = ()) -> None:
        """`documents`: whose document frequencies CIDEr uses, the training reports; the references when empty.

        Raises InputError where there is no candidate or no reference.
        """
        if not candidates or not references:
            raise InputError(
                f"{len(candidates)} candidates and {len(references)} references; give at least one of each"
            )
        words: dict[str, int] = {}
        every = [
            [words.setdefault(word, len(words)) for word in text.split()]
            for text in (*candidates, *references, *documents)
        ]
        first, last = len(candidates), len(candidates) + len(references)
        self._candidates, self._references = every[:first], every[first:last]
        self._lengths_C = np.array([len(one) for one in self._candidates])
        self._lengths_J = np.array([len(one) for one in self._references])
        self._vocabulary = len(words)
        documents_from = last if documents else first
        self._documents = len(every) - documents_from
        self._tables = [_Postings(table, first, last, documents_from) for table in ngram_tables(every, len(words))]

    def bleu4(self) -> Matrix:
        """Sentence BLEU-4 in [0, 1]: clipped counts, orders 2 to 4 smoothed by .1, brevity penalty."""
        log_CJ = np.zeros((len(self._lengths_C), len(self._lengths_J)), np.float32)
        for order, table in enumerate(self._tables):
            smooth = SMOOTHING if order else 0.0
            guesses_C1 = np.maximum(0, self._lengths_C - order)[:, None]
            matches_CJ = table.sums(table.counts_c, table.counts_j, np.minimum)
            with np.errstate(divide="ignore", invalid="ignore"):
                log_CJ += np.log((matches_CJ + smooth) / (guesses_C1 + smooth)) / ORDERS
        with np.errstate(divide="ignore"):
            brevity_CJ = np.minimum(0, 1 - self._lengths_J / self._lengths_C[:, None].astype(np.float64))
        return np.nan_to_num(np.exp(log_CJ + brevity_CJ), nan=0.0).astype(np.float32)

    def cider(self) -> Matrix:
        """CIDEr-D in [0, 10], with the document frequencies of the documents."""
        total_CJ = np.zeros((len(self._lengths_C), len(self._lengths_J)))
        for table in self._tables:
            weight_G = math.log(self._documents) - np.log(np.maximum(1, table.frequency_G))
            vector_c, vector_j = (
                counts * weight_G[grams]
                for counts, grams in ((table.counts_c, table.grams_c), (table.counts_j, table.grams_j))
            )
            norm_C = np.sqrt(np.bincount(table.texts_c, vector_c**2, minlength=len(self._lengths_C)))
            norm_J = np.sqrt(np.bincount(table.texts_j, vector_j**2, minlength=len(self._lengths_J)))
            dot_CJ = table.sums(vector_c, vector_j, _clipped_product)
            norm_CJ = norm_C[:, None] * norm_J
            total_CJ += np.divide(dot_CJ, norm_CJ, out=np.zeros_like(total_CJ), where=norm_CJ != 0)
        # As the scorer does, a length is counted in bigrams.
        delta_CJ = np.maximum(0, self._lengths_C - 1)[:, None] - np.maximum(0, self._lengths_J - 1)
        return (total_CJ / ORDERS * 10 * np.exp(-(delta_CJ**2) / (2 * SIGMA**2))).astype(np.float32)

    def rouge_l(self) -> Matrix:
        """ROUGE-L in [0, 1]."""
        common_CJ = np.stack([self._common(words) for words in self._candidates])
        with np.errstate(divide="ignore", invalid="ignore"):
            precision_CJ, recall_CJ = common_CJ / self._lengths_C[:, None], common_CJ / self._lengths_J
            found_CJ = (1 + ROUGE_BETA**2) * precision_CJ * recall_CJ / (recall_CJ + ROUGE_BETA**2 * precision_CJ)
        return np.nan_to_num(found_CJ, nan=0.0).astype(np.float32)

    def _common(self, candidate: Sequence[int]) -> Ints:
        """Longest common subsequence with every reference (J,), one bit a word of the candidate (Hyyrö, 2004)."""
        blocks = max(1, -(-len(candidate) // _WORD))
        places_BV = np.zeros((blocks, self._vocabulary + 1), np.uint64)
        for at, word in enumerate(candidate):
            places_BV[at // _WORD, word] |= np.uint64(1 << (at % _WORD))
        rows_BJ = np.full((blocks, len(self._references)), ~np.uint64(0))
        for words_J in self._padded_TJ():
            carry_J = np.zeros(len(self._references), np.uint64)
            for block in range(blocks):
                row_J = rows_BJ[block]
                matched_J = row_J & places_BV[block, words_J]
                sum_J = row_J + matched_J
                over_J = sum_J < row_J
                sum_J += carry_J
                carry_J = (over_J | (sum_J < carry_J)).astype(np.uint64)
                rows_BJ[block] = sum_J | (row_J - matched_J)
        unset_BJ = ~rows_BJ
        used = [len(candidate) - _WORD * block for block in range(blocks)]
        masks_B1 = np.array([[(1 << min(_WORD, bits)) - 1] for bits in used], np.uint64)
        return np.bitwise_count(unset_BJ & masks_B1).sum(0).astype(np.int64)

    def _padded_TJ(self) -> Ints:
        """The references' words, position by position; a word of none fills the end."""
        longest = int(self._lengths_J.max())
        padded_TJ = np.full((longest, len(self._references)), self._vocabulary)
        for column, words in enumerate(self._references):
            padded_TJ[: len(words), column] = words
        return padded_TJ


def clinical_utility(
    candidates_CO: Labels,
    references_JO: Labels,
    *,
    power: float = 0.5,
    beta: float = 1.0,
    shares_J: NDArray[Any] | None = None,
) -> Matrix:
    """F-beta (C, J) in [0, 1] of the positive observations, each weighted by its prevalence in the references to the -`power`.

    Two reports without a positive observation agree: 0 / 0 is 1. "No Finding" counts as no observation. `beta` above 1
    weighs findings of the reference that the candidate lacks more than findings that it adds. `shares_J`: the share of the
    training studies that each reference stands for; the same for all where it is None.
    """
    kept = [place for place, name in enumerate(OBSERVATIONS) if name != "No Finding"]
    own_CO, wanted_JO = ((labels[:, kept] == POSITIVE).astype(np.float64) for labels in (candidates_CO, references_JO))
    shares_J = np.full(len(wanted_JO), 1 / max(1, len(wanted_JO))) if shares_J is None else shares_J
    weight_O = np.maximum(shares_J @ wanted_JO, shares_J.min()) ** -power
    both_CJ = (own_CO * weight_O) @ wanted_JO.T
    own_C1, wanted_J = (own_CO @ weight_O)[:, None], wanted_JO @ weight_O
    bottom_CJ = own_C1 + beta**2 * wanted_J
    found_CJ = np.divide((1 + beta**2) * both_CJ, bottom_CJ, out=np.ones_like(both_CJ), where=bottom_CJ > 0)
    return found_CJ.astype(np.float32)


def cosine_utility(text_CD: NDArray[Any], other_BD: NDArray[Any]) -> Matrix:
    """Cosines (C, B) in [-1, 1] of candidates' embeddings and those of images, or of other texts, in one space.

    A zero vector, such as that of a report whose words no training report has, is similar to nothing: 0.
    """
    units = [np.asarray(one, np.float64) for one in (text_CD, other_BD)]
    lengths = [np.linalg.norm(one, axis=1, keepdims=True) for one in units]
    text, other = (one / np.where(length > 0, length, 1.0) for one, length in zip(units, lengths, strict=True))
    found: Matrix = (text @ other.T).astype(np.float32)
    return found


def spread(part_CJ: Matrix, shares_J: NDArray[Any] | None = None) -> float:
    """The standard deviation over all pairs of candidates and training studies; `shares_J` as in `clinical_utility`."""
    if shares_J is None:
        return float(part_CJ.std())
    mean = float((part_CJ @ shares_J.astype(np.float32)).mean())
    return math.sqrt(float(((part_CJ - np.float32(mean)) ** 2 @ shares_J.astype(np.float32)).mean()))


def mixed(parts: Mapping[str, Matrix], weights: Mapping[str, float], shares_J: NDArray[Any] | None = None) -> Matrix:
    """The weighted sum (C, J) of utilities, each divided by its `spread`.

    Raises InputError for a weight of a utility that is not among the parts.
    """
    if unknown := [name for name in weights if name not in parts]:
        raise InputError(f"no utility {unknown[0]!r}; there are {', '.join(parts)}")
    total: Matrix | None = None
    for name, weight in weights.items():
        deviation = spread(parts[name], shares_J)
        part = parts[name] * np.float32(weight / deviation if deviation > 0 else 0.0)
        total = part if total is None else total + part
    if total is None:
        raise InputError("a utility needs at least one part, such as clinical=1")
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTexts:
    """What candidates are compared with."""

    references: Sequence[str]
    shares_J: NDArray[Any]
    "the share of the training studies that each reference stands for"
    documents: Sequence[str]
    "whose document frequencies CIDEr uses"

    @classmethod
    def of(cls, reports: Sequence[str]) -> TrainingTexts:
        """Every report for itself, repeats included."""
        return cls(references=reports, shares_J=np.full(len(reports), 1 / len(reports)), documents=reports)


def utilities(
    candidates: Sequence[str], texts: TrainingTexts, labeler: Labeler, *, beta: float, names: Sequence[str]
) -> dict[str, Matrix]:
    """The named utilities of every candidate against every reference (C, J); `beta`: of the clinical one."""
    shape = (len(candidates), len(texts.references))
    found = {name: np.zeros(shape, np.float32) for name in names}
    wanted_JO = labeler.label(texts.references)
    for start in range(0, len(candidates), _CANDIDATES):
        part = candidates[start : start + _CANDIDATES]
        pairs = ReportPairs(part, texts.references, texts.documents)
        makers: dict[str, Callable[[], Matrix]] = {
            "bleu4": pairs.bleu4,
            "cider": pairs.cider,
            "rouge_l": pairs.rouge_l,
            "clinical": partial(clinical_utility, labeler.label(part), wanted_JO, beta=beta, shares_J=texts.shares_J),
        }
        for name, matrix_CJ in found.items():
            matrix_CJ[start : start + len(part)] = makers[name]()
    return found


def utility_weights(text: str, flag: str, more: Sequence[str] = ()) -> dict[str, float]:
    """Weights by utility, from text such as `bleu4=1,cider=1,clinical=2`. Raises InputError that names `flag` otherwise.

    `more`: names that are known beside those of `UTILITIES`.
    """
    found: dict[str, float] = {}
    known = (*UTILITIES, *more)
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        try:
            found[name] = float(weight)
        except ValueError:
            found[name] = math.nan
        fits = name in known and math.isfinite(found[name]) and found[name] >= 0
        need(fits, flag, text, f"write weights such as bleu4=1,clinical=2 of {', '.join(known)}")
    need(any(found.values()), flag, text, "give at least one weight above 0")
    return found


class _Postings:
    """N-grams of one order: those of the candidates, and for every n-gram the references that hold it."""

    def __init__(self, table: NgramTable, first: int, last: int, documents_from: int) -> None:
        own = table.texts_U < first
        there = (table.texts_U >= first) & (table.texts_U < last)
        self.texts_c, self.grams_c, self.counts_c = (
            part[own] for part in (table.texts_U, table.grams_U, table.counts_U)
        )
        order = np.argsort(table.grams_U[there], kind="stable")
        self.texts_j = table.texts_U[there][order] - first
        self.grams_j, self.counts_j = table.grams_U[there][order], table.counts_U[there][order]
        self.starts_G = np.searchsorted(self.grams_j, np.arange(table.grams + 1))
        self.frequency_G = np.bincount(table.grams_U[table.texts_U >= documents_from], minlength=table.grams)
        self.shape = (first, last - first)

    def sums(self, values_c: Floats | Ints, values_j: Floats | Ints, combine: Callable[[Any, Any], Any]) -> Floats:
        """Of `combine` over the n-grams that a candidate and a reference share (C, J)."""
        candidates, references = self.shape
        found_CJ = np.zeros(self.shape)
        bounds = np.searchsorted(self.texts_c, np.arange(0, candidates + _BLOCK, _BLOCK))
        for block, (start, end) in enumerate(pairwise(bounds)):
            grams = self.grams_c[start:end]
            counts = self.starts_G[grams + 1] - self.starts_G[grams]
            # For every n-gram of a candidate the stretch of its postings.
            place_P = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            place_P += np.repeat(self.starts_G[grams], counts)
            rows_P = np.repeat(self.texts_c[start:end] - block * _BLOCK, counts)
            values_P = combine(np.repeat(values_c[start:end], counts), values_j[place_P])
            keys_P = rows_P * references + self.texts_j[place_P]
            size = min(_BLOCK, candidates - block * _BLOCK)
            sums = np.bincount(keys_P, values_P, minlength=size * references)
            found_CJ[block * _BLOCK : block * _BLOCK + size] = sums.reshape(size, references)
        return found_CJ


def _clipped_product(own: Floats, wanted: Floats) -> Floats:
    return np.minimum(own, wanted) * wanted
