"""Preference votes for one of two systems, and how far the readers who cast them agree.

Shapes: I items, C categories of a vote.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Votes between two systems, tested as if each vote is on a different item; statistics are None without a decided vote."""

    first: int
    same: int
    second: int
    share: float | None
    "share of the first system among the decided votes, in [0, 1]"
    low: float | None
    high: float | None
    p: float | None
    "two-sided exact sign test; ignores the votes for `same`"


def preference(first: int, same: int, second: int) -> Preference:
    """Share of the first system among the decided votes, its 95 % Wilson interval (all in [0, 1]), and the sign test."""
    decided = first + second
    low, high = wilson(first, decided) or (None, None)
    return Preference(
        first=first,
        same=same,
        second=second,
        share=first / decided if decided else None,
        low=low,
        high=high,
        p=sign_test(first, second),
    )


def sign_test(first: int, second: int) -> float | None:
    """Two-sided exact p-value of a split at least this uneven if both systems are equally likely to win. None without votes."""
    votes = first + second
    if not votes:
        return None
    tail = sum(comb(votes, count) for count in range(min(first, second) + 1))
    return min(1.0, 2 * tail / 2**votes)


def wilson(chosen: int, votes: int, *, level: float = 0.95) -> tuple[float, float] | None:
    """Wilson score interval (1927) of a share, within [0, 1] even for few votes. None without votes."""
    if not votes:
        return None
    z, share = NormalDist().inv_cdf((1 + level) / 2), chosen / votes
    shrink = 1 + z**2 / votes
    centre = (share + z**2 / (2 * votes)) / shrink
    half = z * sqrt(share * (1 - share) / votes + z**2 / (4 * votes**2)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def cohen_kappa(first_I: Counts, second_I: Counts, *, categories: int, linear: bool = False) -> float | None:
    """Cohen's kappa (1960) of two readers, at most 1; `linear` weights each disagreement by its distance (1968).

    `first_I`, `second_I`: category indices below `categories`. None where chance alone always agrees: no items, or one category
    for all of them. Raises ValueError unless both readers voted on the same number of items.
    """
    if len(first_I) != len(second_I):
        raise ValueError(f"{len(first_I)} votes against {len(second_I)}; give both readers the same items")
    if not len(first_I):
        return None
    table_CC = np.zeros((categories, categories))
    np.add.at(table_CC, (first_I, second_I), 1 / len(first_I))
    distance_CC = np.abs(np.subtract.outer(np.arange(categories), np.arange(categories)))
    if not linear:
        distance_CC = np.minimum(distance_CC, 1)
    chance = float((distance_CC * np.outer(table_CC.sum(1), table_CC.sum(0))).sum())
    return None if chance == 0 else 1 - float((distance_CC * table_CC).sum()) / chance


def pair_agreement(counts_IC: Counts) -> float:
    """Share of reader pairs who gave an item the same vote, in [0, 1]; for two readers, the share of items they agree on.

    `counts_IC`: how many readers gave each item each vote. Raises ValueError unless every item has the same number of readers,
    at least two.
    """
    readers = _readers(counts_IC)
    return float(((counts_IC**2).sum(1) - readers).mean() / (readers * (readers - 1)))


def fleiss_kappa(counts_IC: Counts) -> float | None:
    """Fleiss' kappa (1971) of several readers, at most 1; arguments of `pair_agreement`. None if all votes are one category."""
    _readers(counts_IC)
    if (counts_IC.sum(0) == counts_IC.sum()).any():
        return None
    chance = float(((counts_IC.sum(0) / counts_IC.sum()) ** 2).sum())
    return (pair_agreement(counts_IC) - chance) / (1 - chance)


def _readers(counts_IC: Counts) -> int:
    sizes = set(counts_IC.sum(1).tolist())
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(f"votes per item: {sorted(sizes)}; every item needs the same number of readers, at least two")
    return int(sizes.pop())
