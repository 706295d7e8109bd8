"""Composes a report from training sentences, so that it can say two findings that nobody wrote together.

Local search from a whole training report: a move adds a sentence in place of those that speak of the same observations, or
removes one, and the move with the highest expected utility is taken until none raises it. A text's utility is exact: an n-gram
that the text has already counts once, and n-grams across sentences count (spec: expected utility, section 3).

Shapes: J references (training reports), S sentences, O observations, P postings.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayscribe.labels import NOT_MENTIONED, OBSERVATIONS, POSITIVE, Labeler
from rayscribe.metrics.expected_utility import FindingsTerm, expected
from rayscribe.metrics.overlap import ORDERS, SIGMA
from rayscribe.metrics.statistics import Floats, Ints
from rayscribe.metrics.utility import SMOOTHING, Matrix, TrainingTexts

COMPOSED = frozenset(("bleu4", "cider"))
"Utilities that a composed report can be aimed at."
Gram = tuple[str, ...]

_COMMON = 2  # reports that a sentence of the pool is in
_LIKELY = 25  # sentences that are tried for a study, beside those for its findings
_EACH = 3  # sentences that are tried for each finding
_KEPT = 12  # of these, the best of the first step are tried in the later ones
_STEPS = 12
_UNLABELLED = 2  # sentences that name no observation
_NO_FINDING = OBSERVATIONS.index("No Finding")


class ReferenceIndex:
    """BLEU-4 and CIDEr-D of any text against each of J references; equal to `ReportPairs`."""

    def __init__(self, references: Sequence[str], documents: Sequence[str] = ()) -> None:
        """`documents`: whose document frequencies CIDEr uses; the references when empty."""
        words, others = [text.split() for text in references], [text.split() for text in documents]
        self._lengths_J = np.array([len(one) for one in words], np.float64)
        self._orders = [
            _Order.of([_grams(one, order) for one in words], [_grams(one, order) for one in others])
            for order in range(1, ORDERS + 1)
        ]

    def utilities(self, text: str) -> dict[str, NDArray[np.float64]]:
        """`bleu4` and `cider` of a text that has words (J,)."""
        words, count = text.split(), len(self._lengths_J)
        log_J, cosine_J = np.zeros(count), np.zeros(count)
        for number, order in enumerate(self._orders):
            smooth = SMOOTHING if number else 0.0
            matches_J, own_cosine_J = order.against(_grams(words, number + 1), count)
            with np.errstate(divide="ignore"):
                log_J += np.log((matches_J + smooth) / (max(0, len(words) - number) + smooth)) / ORDERS
            cosine_J += own_cosine_J / ORDERS
        brevity_J = np.minimum(0, 1 - self._lengths_J / len(words))
        delta_J = max(0, len(words) - 1) - np.maximum(0, self._lengths_J - 1)
        return {"bleu4": np.exp(log_J + brevity_J), "cider": 10 * cosine_J * np.exp(-(delta_J**2) / (2 * SIGMA**2))}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """N-grams of one length in the references."""

    number: dict[Gram, int]
    starts_G: Ints
    reports_P: Ints
    counts_P: Floats
    idf_G: Floats
    norm_J: Floats
    documents: int

    @classmethod
    def of(cls, grams: Sequence[Counter[Gram]], documents: Sequence[Counter[Gram]]) -> _Order:
        """`documents`: the references when empty."""
        postings: dict[Gram, list[tuple[int, int]]] = defaultdict(list)
        for report, counter in enumerate(grams):
            for gram, count in counter.items():
                postings[gram].append((report, count))
        frequency = Counter(gram for counter in documents or grams for gram in counter)
        for gram in frequency:
            postings[gram]  # an n-gram of a document alone has a frequency, and no reference
        count_of_documents = len(documents or grams)
        sizes = [len(one) for one in postings.values()]
        flat = np.array([pair for one in postings.values() for pair in one], np.int64).reshape(-1, 2)
        idf_G = math.log(count_of_documents) - np.log(np.maximum(1, [frequency[gram] for gram in postings]))
        vector_P = flat[:, 1] * np.repeat(idf_G, sizes)
        return cls(
            number={gram: at for at, gram in enumerate(postings)},
            starts_G=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            reports_P=flat[:, 0],
            counts_P=flat[:, 1].astype(np.float64),
            idf_G=idf_G,
            norm_J=np.sqrt(np.bincount(flat[:, 0], vector_P**2, minlength=len(grams))),
            documents=count_of_documents,
        )

    def against(self, own: Counter[Gram], count: int) -> tuple[Floats, Floats]:
        """Clipped matches and clipped cosines with each reference (J,)."""
        known = [(self.number[gram], times) for gram, times in own.items() if gram in self.number]
        unknown = sum(times**2 for gram, times in own.items() if gram not in self.number)
        grams = np.array([gram for gram, _ in known], np.int64)
        times = np.array([number for _, number in known], np.float64)
        sizes = self.starts_G[grams + 1] - self.starts_G[grams] if len(grams) else np.zeros(0, np.int64)
        place_P = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        place_P += np.repeat(self.starts_G[grams], sizes) if len(grams) else 0
        reports_P, counts_P = self.reports_P[place_P], self.counts_P[place_P]
        clipped_P, idf_P = np.minimum(np.repeat(times, sizes), counts_P), np.repeat(self.idf_G[grams], sizes)
        matches_J: Floats = np.bincount(reports_P, clipped_P, minlength=count).astype(np.float64)
        dot_J = np.bincount(reports_P, clipped_P * counts_P * idf_P**2, minlength=count)
        # An n-gram that no reference has weighs as if one had it.
        norm = math.sqrt(float(((times * self.idf_G[grams]) ** 2).sum()) + unknown * math.log(self.documents) ** 2)
        norms_J = norm * self.norm_J
        cosine_J: Floats = np.divide(dot_J, norms_J, out=np.zeros(count), where=norms_J != 0)
        return matches_J, cosine_J


@dataclass(frozen=True, kw_only=True)
class Composer:
    """A pool of training sentences, and the references that texts are scored against."""

    index: ReferenceIndex
    shares_J: NDArray[np.float64]
    "the share of the training studies that each reference stands for"
    scale: Mapping[str, float]
    "weights of bleu4 and cider over their standard deviations"
    sentences: list[str]
    mentions_SO: NDArray[np.bool_]
    positive_SO: NDArray[np.bool_]
    position_S: Floats
    "mean place in the reports that hold it, 0 first to 1 last: the order of a composed report"
    contains_JS: NDArray[np.float32]

    @classmethod
    def of(cls, texts: TrainingTexts, scale: Mapping[str, float], labeler: Labeler) -> Composer:
        """The pool of the documents: their sentences that occur in at least two, or that alone name a finding."""
        parts = [report_sentences(report) for report in texts.documents]
        holders: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for report, sentences in enumerate(parts):
            for at, sentence in enumerate(sentences):
                holders[sentence].append((report, at / max(1, len(sentences) - 1)))
        every = list(holders)
        states_SO = labeler.label(every)
        named_S = (states_SO[:, [at for at in range(len(OBSERVATIONS)) if at != _NO_FINDING]] == POSITIVE).sum(1) == 1
        kept = [at for at, text in enumerate(every) if len(holders[text]) >= _COMMON or named_S[at]]
        contains_JS = np.zeros((len(texts.references), len(kept)), np.float32)
        place_of = {every[at]: place for place, at in enumerate(kept)}
        for report, text in enumerate(texts.references):
            contains_JS[report, [place_of[one] for one in report_sentences(text) if one in place_of]] = 1
        mentions_SO, positive_SO = _states(states_SO[kept])
        return cls(
            index=ReferenceIndex(texts.references, texts.documents),
            shares_J=texts.shares_J,
            scale=scale,
            sentences=[every[at] for at in kept],
            mentions_SO=mentions_SO,
            positive_SO=positive_SO,
            position_S=np.array([np.mean([place for _, place in holders[every[at]]]) for at in kept]),
            contains_JS=contains_JS,
        )

    def composed(self, start: str, weights_J: Matrix, scores_O: Matrix, term: FindingsTerm) -> str:
        """The report that the search ends with; `start`: a training report, `weights_J`, `scores_O`: the study's.

        Sentences of the start that are not in the pool are left out.
        """
        place = {text: at for at, text in enumerate(self.sentences)}
        chosen = frozenset(place[text] for text in report_sentences(start) if text in place)
        tried = self._tried(weights_J, scores_O, term)
        value = self._valued(weights_J, scores_O, term)
        best = value(chosen)
        for step in range(_STEPS):
            adding = {at: self._with(chosen, at) for at in tried if at not in chosen}
            if step == 0:  # later steps try the best of the first
                tried = sorted(adding, key=lambda at: -value(adding[at]))[:_KEPT]
            moves = [*adding.values(), *(chosen - {at} for at in sorted(chosen))]
            move = max(moves, key=value, default=chosen)
            if value(move) <= best:
                break
            chosen, best = move, value(move)
        return self._text(chosen) or start

    def _tried(self, weights_J: Matrix, scores_O: Matrix, term: FindingsTerm) -> list[int]:
        """Sentences that the study's reports are likely to hold, and the likeliest for each finding above its threshold."""
        likely_S = expected(weights_J[None], self.contains_JS, self.shares_J)[0]
        order = np.argsort(-likely_S, kind="stable")
        found = dict.fromkeys(order[:_LIKELY].tolist())
        for at in np.flatnonzero(scores_O >= term.thresholds_O):
            if at != _NO_FINDING:
                found |= dict.fromkeys(order[self.positive_SO[order, at]][:_EACH].tolist())
        return list(found)

    def _with(self, chosen: frozenset[int], sentence: int) -> frozenset[int]:
        """The sentences with one more, without those that speak of the same observations."""
        rest = {at for at in chosen if not (self.mentions_SO[at] & self.mentions_SO[sentence]).any()}
        bare = [at for at in rest if not self.mentions_SO[at].any()]
        if not self.mentions_SO[sentence].any() and len(bare) >= _UNLABELLED:
            rest -= {bare[0]}
        return frozenset(rest | {sentence})

    def _valued(self, weights_J: Matrix, scores_O: Matrix, term: FindingsTerm) -> Callable[[frozenset[int]], float]:
        known: dict[frozenset[int], float] = {}

        def value(chosen: frozenset[int]) -> float:
            if chosen not in known:
                known[chosen] = self._value(chosen, weights_J, scores_O, term)
            return known[chosen]

        return value

    def _value(self, chosen: frozenset[int], weights_J: Matrix, scores_O: Matrix, term: FindingsTerm) -> float:
        if not chosen:
            return -math.inf
        parts = self.index.utilities(self._text(chosen))
        utility_J = sum((self.scale[name] * parts[name] for name in self.scale), np.zeros(len(weights_J)))
        mean = float(self.shares_J @ utility_J)
        positive_O: NDArray[np.bool_] = np.asarray(self.positive_SO[list(chosen)].any(axis=0))
        positive_O[_NO_FINDING] = not positive_O.any()
        return mean + float(weights_J @ (utility_J - mean)) + float(term.of(scores_O[None], positive_O[None])[0, 0])

    def _text(self, chosen: frozenset[int]) -> str:
        return " ".join(self.sentences[at] for at in sorted(chosen, key=lambda at: (self.position_S[at], at)))


def report_sentences(report: str) -> list[str]:
    """The sentences of a cleaned report, each with its full stop."""
    return [f"{part.strip()} ." for part in report.split(" .") if part.strip()]


def _states(labels_SO: NDArray[np.int8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What is mentioned and what is positive, without No Finding, which follows from the rest."""
    mentions_SO, positive_SO = labels_SO != NOT_MENTIONED, labels_SO == POSITIVE
    mentions_SO[:, _NO_FINDING] = positive_SO[:, _NO_FINDING] = False
    return mentions_SO, positive_SO


def _grams(words: Sequence[str], order: int) -> Counter[Gram]:
    return Counter(zip(*(words[at:] for at in range(order))))
