"""Draws of two things for one step: a study beside one of its mined negatives (ITHN); two tasks' own choices of studies (JIMA).

Functions of seed and epoch like the order itself, and of what the task chose for the epoch, which is part of the training
state; so a run with pairs resumes to the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from rayscribe.config import TextConfig
from rayscribe.data.dataset import Index, Order, Row, Sampler
from rayscribe.data.manifest import Manifest
from rayscribe.errors import InputError
from rayscribe.study import Study

_ADVICE = "write them with `rayscribe mine-negatives` and train on the manifest that it writes"


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedPairs:
    """`order`, with a partner for every study: one of its first `candidates`, drawn anew every epoch.

    Where the order draws two things, the partner is that of the first of them; what has no study has no partner.
    """

    order: Sampler
    seed: int
    partners: Sequence[Sequence[int]]
    "rows of the mined negatives of every row, the most alike first"
    candidates: int = 1

    def rows(self, epoch: int, *, accumulate: int, rank: int, processes: int) -> list[list[tuple[Index, Row | None]]]:
        batches = self.order.rows(epoch, accumulate=accumulate, rank=rank, processes=processes)
        return [[(drawn, self._partner(drawn)) for drawn in batch] for batch in batches]

    def _partner(self, drawn: Index) -> Row | None:
        row = drawn[0] if isinstance(drawn, tuple) else drawn
        if not isinstance(row, Row):
            return None
        partners = self.partners[row.study][: self.candidates]
        place = np.random.default_rng([self.seed, row.epoch, row.study, 1]).integers(len(partners))
        return replace(row, study=partners[int(place)])


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTasks:
    """Batches of the studies that each of two tasks chose for the epoch: (first task's, second task's).

    An epoch is one visit to every study of the larger choice; those of the smaller one are drawn equally often. Joint steps
    hold a batch of each; alternating ones a batch of one, in turn.
    """

    order: Order
    "of the first task: batches of similar report length, counted in tokens"
    chosen: Callable[[], tuple[Sequence[int], Sequence[int]]]
    "asked at the start of every epoch"
    alternating: bool

    def rows(
        self, epoch: int, *, accumulate: int, rank: int, processes: int
    ) -> list[list[tuple[Row | None, Row | None]]]:
        second = replace(
            self.order,
            lengths=[2] * len(self.order.lengths),  # one answer a study, whatever the length of its report
            bucket=False,
            seed=self.order.seed + 1,
        )
        orders, chosen = (self.order, second), self.chosen()
        draws = max(map(len, chosen))
        first, other = (
            order.shares(
                order.batches(epoch, _repeated(studies, draws, [order.seed, epoch, 2])),
                epoch,
                accumulate=accumulate,
                rank=rank,
                processes=processes,
            )
            for order, studies in zip(orders, chosen, strict=True)
        )
        if self.alternating:
            return list(chain.from_iterable(zip(_paired(first, None), _paired(None, other))))
        return [list(zip_longest(*pair)) for pair in zip(first, other, strict=True)]


def _repeated(studies: Sequence[int], draws: int, seed: Sequence[int]) -> Sequence[int]:
    """As many draws as asked for, every study equally often, or once more than another."""
    shuffled = np.random.default_rng(seed).permutation(np.asarray(studies))
    return [int(study) for study in np.resize(shuffled, draws)]


def _paired(
    first: Iterable[list[Row]] | None, second: Iterable[list[Row]] | None
) -> Iterable[list[tuple[Row | None, Row | None]]]:
    """Batches of one task, the other one left empty."""
    for batch in first or second or ():
        yield [(row, None) if second is None else (None, row) for row in batch]


def mined_partners(
    manifest: Manifest, studies: Sequence[Study], text: TextConfig, *, candidates: int, data: Path
) -> list[list[int]]:
    """For every study the rows of its mined negatives in `studies`, which are from the manifest `data`.

    Raises InputError when there are none, or when they were mined for another section or cleaning: then a negative's report
    could be the study's own.
    """
    about = manifest.provenance.get("negatives")
    if about is None:
        raise InputError(f"{data}: no mined negatives; {_ADVICE}")
    wanted = {"section": text.section, "cleaning": text.cleaning}
    if differing := [name for name, value in wanted.items() if about[name] != value]:
        raise InputError(
            f"{data}: the negatives were mined for {differing[0]} {about[differing[0]]!r}, this run reads "
            f"{wanted[differing[0]]!r}; mine them again with --{differing[0]} {wanted[differing[0]]}"
        )
    if candidates > about["top"]:
        raise InputError(
            f"{data}: {about['top']} negatives a study were mined; --ithn.candidates {candidates} needs more"
        )
    rows = {study.id: row for row, study in enumerate(studies)}
    partners = [[rows[id_] for id_ in study.negatives if id_ in rows] for study in studies]
    if lacking := [study.id for study, found in zip(studies, partners, strict=True) if not found]:
        raise InputError(
            f"{data}: {len(lacking)} training studies have no mined negative, e.g. {lacking[0]}; {_ADVICE}"
        )
    return partners
