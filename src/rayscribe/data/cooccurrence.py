"""A knowledge graph that is counted in the training split: conditions and clinical words that occur together.

A fixed graph is the weak point that KIF-ISD's authors name. Two nodes are connected where they stand in the same report more
often than chance has it: often enough to be counted, with a lift above a threshold, and beyond doubt (Dunning's log-likelihood
ratio, 1993).

Shapes: R reports, O conditions, N nodes without the root.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.conditions import CONDITIONS, Conditions
from rayscribe.errors import InputError
from rayscribe.labels import POSITIVE
from rayscribe.methods.kif_graph import ROOT, Graph

_BEYOND_DOUBT = 10.83  # chi-square with one degree of freedom, p = .001


def cooccurrence_graph(
    conditions: Conditions,
    entities: Sequence[Sequence[str]],
    *,
    words: int = 40,
    least: int = 5,
    lift: float = 1.5,
) -> Graph:
    """The conditions that are positive in at least `least` reports, and the `words` most frequent other words of `entities`.

    Two of them are connected where they stand together in at least `least` reports and `lift` times as often as chance has it.
    The root is connected to all. Groups: 0 root, 1 conditions, 2 words. Raises InputError where nothing is frequent enough.
    """
    positive_RO = conditions.states_RO == POSITIVE
    kept = [place for place in range(len(CONDITIONS)) if positive_RO[:, place].sum() >= least]
    names = [CONDITIONS[place].lower() for place in kept]
    taken = {word for name in names for word in name.split()}
    counts = Counter(word for report in entities for word in set(report) if word not in taken)
    frequent = sorted((word for word in counts if counts[word] >= least), key=lambda word: (-counts[word], word))[
        :words
    ]
    if not (names or frequent):
        raise InputError(f"no condition and no word stands in {least} training reports; lower --least")
    places = {word: place for place, word in enumerate(frequent)}
    has_word_RW = np.zeros((len(entities), len(frequent)), bool)
    for row, report in enumerate(entities):
        has_word_RW[row, [places[word] for word in set(report) if word in places]] = True
    has_RN = np.hstack([positive_RO[:, kept], has_word_RW])
    together_NN, lift_NN, doubt_NN = associations(has_RN)
    is_edge_NN = (together_NN >= least) & (lift_NN >= lift) & (doubt_NN > _BEYOND_DOUBT)
    edges_NN = np.eye(len(names) + len(frequent) + 1) > 0
    edges_NN[0] = edges_NN[:, 0] = True
    edges_NN[1:, 1:] |= is_edge_NN
    found = np.argwhere(np.triu(is_edge_NN, 1)).tolist()
    return Graph(
        names=(ROOT, *names, *frequent),
        groups=(0, *[1] * len(names), *[2] * len(frequent)),
        edges_NN=edges_NN,
        source=f"co-occurrence, labels of {conditions.source}",
        counts={
            "reports": len(entities),
            "nodes": has_RN.sum(0).tolist(),
            "edges": [[a + 1, b + 1, int(together_NN[a, b]), round(float(lift_NN[a, b]), 2)] for a, b in found],
        },
    )


def associations(
    has_RN: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """For every two nodes: reports that have both, lift P(a, b) / (P(a) P(b)), log-likelihood ratio of independence."""
    has = has_RN.astype(np.float64)
    reports, counts_N = len(has), has.sum(0)
    both_NN = has.T @ has
    only_NN = counts_N[:, None] - both_NN
    expected_NN = np.outer(counts_N, counts_N) / reports
    lift_NN = np.divide(both_NN, expected_NN, out=np.zeros_like(both_NN), where=expected_NN > 0)
    rest_N = reports - counts_N
    cells = (
        (both_NN, expected_NN),
        (only_NN, np.outer(counts_N, rest_N) / reports),
        (only_NN.T, np.outer(rest_N, counts_N) / reports),
        (reports - both_NN - only_NN - only_NN.T, np.outer(rest_N, rest_N) / reports),
    )
    doubt_NN = 2 * sum((_surprise(seen, chance) for seen, chance in cells), np.zeros_like(both_NN))
    return both_NN.astype(np.int64), lift_NN, doubt_NN


def _surprise(seen: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """seen x ln(seen / chance); 0 where nothing was seen."""
    ratio = np.divide(seen, chance, out=np.ones_like(seen), where=(seen > 0) & (chance > 0))
    found: NDArray[np.float64] = seen * np.log(ratio)
    return found
