"""What ITHN draws for a step: every study together with one of its mined negatives.

A function of seed and epoch, like the order itself, so a run with pairs resumes to the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rayscribe.config import TextConfig
from rayscribe.data.dataset import Index, Row, Sampler
from rayscribe.data.manifest import Manifest
from rayscribe.errors import InputError
from rayscribe.study import Study

_ADVICE = "write them with `rayscribe mine-negatives` and train on the manifest that it writes"


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedPairs:
    """`order`, with a partner for every study: one of its first `candidates`, drawn anew every epoch.

    If the order draws pairs, the partner belongs to the first of each; a draw without a study has no partner.
    """

    order: Sampler
    seed: int
    partners: Sequence[Sequence[int]]
    "rows of every row's mined negatives, the most similar first"
    candidates: int = 1

    def rows(self, epoch: int, *, accumulate: int, rank: int, processes: int) -> list[list[tuple[Index, Row | None]]]:
        """The order's batches of the epoch, every draw paired with its partner's row."""
        batches = self.order.rows(epoch, accumulate=accumulate, rank=rank, processes=processes)
        return [[(drawn, self._partner(drawn)) for drawn in batch] for batch in batches]

    def _partner(self, drawn: Index) -> Row | None:
        row = drawn[0] if isinstance(drawn, tuple) else drawn
        if not isinstance(row, Row):
            return None
        partners = self.partners[row.study][: self.candidates]
        place = np.random.default_rng([self.seed, row.epoch, row.study, 1]).integers(len(partners))
        return replace(row, study=partners[int(place)])


def mined_partners(
    manifest: Manifest, studies: Sequence[Study], text: TextConfig, *, candidates: int, data: Path
) -> list[list[int]]:
    """For every study, the rows in `studies` of its mined negatives from the manifest `data`.

    Raises InputError if there are none, or if they were mined for another section or cleaning: then a negative's report could
    be the study's own.
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
            f"{data}: {about['top']} negatives per study were mined; --method.ithn.candidates {candidates} needs more"
        )
    rows = {study.id: row for row, study in enumerate(studies)}
    partners = [[rows[id_] for id_ in study.negatives if id_ in rows] for study in studies]
    if lacking := [study.id for study, found in zip(studies, partners, strict=True) if not found]:
        raise InputError(
            f"{data}: {len(lacking)} training studies have no mined negative, e.g. {lacking[0]}; {_ADVICE}"
        )
    return partners
