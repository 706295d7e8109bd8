"""METEOR 1.5 for English, without Java, as a function of per-report statistics.

Source: Denkowski and Lavie, "Meteor Universal: Language Specific Translation Evaluation for Any Target Language", 2014,
parameters of the task "rank"; identical to the released program with the options -l en -norm, which is how papers in this
field compute it through pycocoevalcap. The synonyms and paraphrases come from that package where it is installed.

Shapes: R reports, S samples, K columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rayscribe.errors import InputError
from rayscribe.metrics.meteor_align import Matchers, align, chunks
from rayscribe.metrics.meteor_resources import (
    PHRASE_WORDS,
    MeteorResources,
    Paraphrases,
    Words,
    find_resources,
    read_lexicon,
    read_paraphrases,
    tokens,
)
from rayscribe.metrics.statistics import Floats
from rayscribe.progress import ProgressBar

__all__ = ["METEOR_COLUMNS", "MeteorResources", "find_resources", "meteor_name", "meteor_score", "meteor_statistics"]

_MATCHERS = ("exact", "stem", "synonym", "paraphrase")
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # per matcher, in their order
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75

METEOR_COLUMNS = (
    "hypothesis_words",
    "reference_words",
    "hypothesis_function_words",
    "reference_function_words",
    *(
        f"{matcher}_{side}_{kind}"
        for matcher in _MATCHERS
        for kind in ("content", "function")
        for side in ("hypothesis", "reference")
    ),
    "chunks",
)


def meteor_name(resources: MeteorResources) -> str:
    """The score's name: "meteor" with all four matchers, otherwise with those in use, such as "meteor_exact_stem"."""
    active = ["exact", "stem"]
    if resources.jar is not None:
        active.append("synonym")
    if resources.paraphrases is not None:
        active.append("paraphrase")
    return "meteor" if len(active) == len(_MATCHERS) else "_".join(["meteor", *active])


def meteor_statistics(
    hypotheses: Sequence[str],
    references: Sequence[str],
    resources: MeteorResources,
    *,
    progress: ProgressBar = iter,
) -> Floats:
    """Statistics (R, K) of hypothesis i against reference i, in the columns `METEOR_COLUMNS`; rows add up.

    A hypothesis that matches its whole reference in one chunk counts no chunk, as in METEOR: it is not fragmented. Raises
    InputError unless there is one hypothesis per reference.
    """
    if len(hypotheses) != len(references):
        raise InputError(f"{len(hypotheses)} hypotheses for {len(references)} references; give one per reference")
    lexicon = read_lexicon(resources.jar)
    words = {text: tokens(text, lexicon.abbreviations) for text in {*hypotheses, *references}}
    pairs = [(words[hypothesis], words[reference]) for hypothesis, reference in zip(hypotheses, references)]
    matchers = Matchers(lexicon, _paraphrases(pairs, resources))
    rows: dict[tuple[Words, Words], list[int]] = {}
    for pair in progress(pairs):
        if pair not in rows:
            hypothesis_words, reference_words = pair
            rows[pair] = _row(hypothesis_words, reference_words, matchers)
    return np.array([rows[pair] for pair in pairs], np.float64).reshape(len(pairs), len(METEOR_COLUMNS))


def meteor_score(sums_SK: Floats) -> Floats:
    """METEOR (S,) from summed rows, in [0, 1]; one report's row gives that report's score. Without any match it is 0."""
    lengths_S2, functions_S2, chunks_S = sums_SK[:, 0:2], sums_SK[:, 2:4], sums_SK[:, -1]
    matches_S422 = sums_SK[:, 4:-1].reshape(-1, len(_MATCHERS), 2, 2)  # matcher, content or function, side
    kinds = np.array([_DELTA, 1 - _DELTA])
    weighted_S2 = np.einsum("smkb,m,k->sb", matches_S422, _WEIGHTS, kinds)
    lengths_S2 = _DELTA * (lengths_S2 - functions_S2) + (1 - _DELTA) * functions_S2
    matches_S = matches_S422.sum((1, 2, 3)) / 2
    precision_S, recall_S = (weighted_S2 / np.where(lengths_S2 > 0, lengths_S2, 1)).T
    product_S = precision_S * recall_S
    mean_S = product_S / np.where(product_S > 0, (1 - _ALPHA) * recall_S + _ALPHA * precision_S, 1)
    fragmentation_S = chunks_S / np.where(matches_S > 0, matches_S, 1)
    return mean_S * (1 - _GAMMA * fragmentation_S**_BETA)


def _paraphrases(pairs: Sequence[tuple[Words, Words]], resources: MeteorResources) -> Paraphrases:
    if resources.paraphrases is None:
        return {}
    hypotheses, references = ({pair[side] for pair in pairs} for side in (0, 1))
    return read_paraphrases(resources.paraphrases, _phrases(hypotheses), _phrases(references))


def _phrases(texts: Iterable[Words]) -> set[Words]:
    return {
        text[start:end]
        for text in texts
        for start in range(len(text))
        for end in range(start + 1, min(start + PHRASE_WORDS, len(text)) + 1)
    }


def _row(hypothesis: Words, reference: Words, matchers: Matchers) -> list[int]:
    matches = align(hypothesis, reference, matchers)
    function_words = matchers.lexicon.function_words
    is_function = [[word in function_words for word in text] for text in (hypothesis, reference)]
    counts = [0] * (4 * len(_MATCHERS))
    for match in matches:
        spans = (match.hypothesis, match.hypothesis_words), (match.reference, match.reference_words)
        for side, (start, words) in enumerate(spans):
            for function in is_function[side][start : start + words]:
                counts[4 * match.matcher + 2 * function + side] += 1
    count = chunks(matches)
    complete = (sum(counts[0::2]), sum(counts[1::2])) == (len(hypothesis), len(reference))
    return [
        len(hypothesis),
        len(reference),
        *map(sum, is_function),
        *counts,
        0 if complete and count == 1 else count,
    ]
