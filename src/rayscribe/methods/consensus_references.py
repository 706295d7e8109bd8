"""What training reports say, for consensus: bounded numbers of candidates and of references that stand for all studies.

Below the bounds every distinct report is both, and nothing is approximated. Above them a study counts for the reference that is
nearest to its report: a report of the training studies nearest to the centre of its cluster (k-means of TF-IDF vectors after a
singular value decomposition). Candidates are these, and others by the pattern of their labels: rare patterns are kept whole,
and of frequent ones the most frequent reports.

Shapes: J training studies, D distinct reports, C candidates, L references, M numbers of a vector, O observations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.retrieval_building import report_vectors
from rayscribe.labels import POSITIVE, Labeler
from rayscribe.metrics.ridge_sums import members
from rayscribe.metrics.statistics import Floats, Ints

_WIDTH = 64  # of the vectors that are clustered
_ROUNDS = 8  # of k-means
_BLOCK = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The first L of the candidates are the references."""

    candidates: list[str]
    shares_L: Floats
    "the share of the training studies that each reference stands for"
    report_J: Ints
    "the distinct report of each study"
    reference_D: Ints
    candidate_D: Ints
    "-1 where the report is no candidate"
    is_positive_DO: NDArray[np.bool_]
    is_positive_CO: NDArray[np.bool_]

    @classmethod
    def of(cls, reports: Sequence[str], labeler: Labeler, *, candidates: int, references: int) -> References:
        """Of the reports of all training studies, with at most so many candidates and references."""
        places: dict[str, int] = {}
        report_J = np.array([places.setdefault(text, len(places)) for text in reports])
        distinct, counts_D = list(places), np.bincount(report_J)
        is_positive_DO = labeler.label(distinct) == POSITIVE
        picks_L, reference_D = _landmarks(distinct, counts_D, references)
        picks_C = _stratified(distinct, counts_D, is_positive_DO, picks_L, candidates)
        candidate_D = np.full(len(distinct), -1)
        candidate_D[picks_C] = np.arange(len(picks_C))
        return cls(
            candidates=[distinct[at] for at in picks_C],
            shares_L=np.bincount(reference_D, counts_D, minlength=len(picks_L)) / len(reports),
            report_J=report_J,
            reference_D=reference_D,
            candidate_D=candidate_D,
            is_positive_DO=is_positive_DO,
            is_positive_CO=is_positive_DO[picks_C],
        )

    @property
    def texts(self) -> list[str]:
        """The references."""
        return self.candidates[: len(self.shares_L)]

    @property
    def reference_J(self) -> Ints:
        """The reference that each study counts for."""
        return self.reference_D[self.report_J]


def _landmarks(distinct: Sequence[str], counts_D: Ints, most: int) -> tuple[Ints, Ints]:
    """The reports that are references, and the reference of every distinct report (its place among them)."""
    everybody = np.arange(len(distinct))
    if len(distinct) <= most:
        return everybody, everybody
    vectors_DM = report_vectors(distinct, (), _WIDTH)[0].numpy()
    centres_LM = vectors_DM[np.sort(_order(distinct, counts_D)[:most])]
    for _ in range(_ROUNDS):
        nearest_D, _cosines = _nearest(vectors_DM, centres_LM)
        centres_LM = np.stack([counts_D[rows] @ vectors_DM[rows] for rows in _filled(nearest_D)])
        centres_LM = (centres_LM / np.linalg.norm(centres_LM, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)
    nearest_D, cosines_D = _nearest(vectors_DM, centres_LM)
    picks_L = np.array([rows[cosines_D[rows].argmax()] for rows in _filled(nearest_D)])
    reference_D, _cosines = _nearest(vectors_DM, vectors_DM[picks_L])
    reference_D[picks_L] = np.arange(len(picks_L))
    return picks_L, reference_D


def _filled(nearest_D: Ints) -> list[Ints]:
    """The members of each cluster that has any."""
    return [rows for rows in members(nearest_D, int(nearest_D.max()) + 1) if len(rows)]


def _nearest(vectors_DM: NDArray[np.float32], centres_LM: NDArray[np.float32]) -> tuple[Ints, NDArray[np.float32]]:
    """The centre of highest cosine for each vector, and the cosine."""
    places, cosines = [], []
    for start in range(0, len(vectors_DM), _BLOCK):
        cosines_BL = vectors_DM[start : start + _BLOCK] @ centres_LM.T
        places.append(cosines_BL.argmax(1))
        cosines.append(cosines_BL.max(1))
    return np.concatenate(places), np.concatenate(cosines)


def _stratified(
    distinct: Sequence[str], counts_D: Ints, is_positive_DO: NDArray[np.bool_], first: Ints, most: int
) -> Ints:
    """`first`, then others up to `most`, as many of every pattern of labels as there are, or equally many."""
    if len(distinct) <= most:
        return np.concatenate([first, np.setdiff1d(np.arange(len(distinct)), first)])
    patterns_D = np.unique(is_positive_DO, axis=0, return_inverse=True)[1].reshape(-1)
    is_taken_D = np.isin(np.arange(len(distinct)), first)
    order = _order(distinct, counts_D)
    order = order[np.argsort(~is_taken_D[order], kind="stable")]  # those that are taken come first in their pattern
    rank_D = np.zeros(len(distinct), np.int64)
    for rows in members(patterns_D[order], int(patterns_D.max()) + 1):
        rank_D[order[rows]] = np.arange(len(rows))
    others = order[len(first) :]
    return np.concatenate([first, others[np.argsort(rank_D[others], kind="stable")][: most - len(first)]])


def _order(distinct: Sequence[str], counts_D: Ints) -> Ints:
    """The most frequent first, ties by a hash."""
    hashes = [hashlib.sha256(text.encode()).digest() for text in distinct]
    return np.array(sorted(range(len(distinct)), key=lambda at: (-counts_D[at], hashes[at])))
