"""What ITHN draws for a step: every study together with one of its mined negatives.

A function of seed and epoch, like the order itself, so a run with pairs resumes to the same result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.config import RunConfig, TextConfig
from rayscribe.data.dataset import Index, Row, Sampler
from rayscribe.data.manifest import Manifest
from rayscribe.data.negatives import MiningConfig, mined_manifest, with_negatives
from rayscribe.data.prepared import manifest_key, prepared
from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.methods.method import Preparation, Source
from rayscribe.study import Study

_ADVICE = "write others with `rayscribe build negatives` and train on the manifest that it writes"
_TOP = 5  # negatives a study, as `rayscribe build negatives` mines


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


def prepare_negatives(run: RunConfig[Any], source: Source, preparation: Preparation) -> tuple[RunConfig[Any], Source]:
    """The manifest's own negatives, or the most similar training reports by TF-IDF, mined once and kept."""
    manifest = source.manifest
    if "negatives" in manifest.provenance:
        return run, source
    config = MiningConfig(top=max(_TOP, run.method.plug_in.candidates), text=run.text)

    def build(path: Path) -> None:
        preparation.notify("mining negatives: the most similar training reports of other patients, by TF-IDF")
        found = with_negatives(manifest, config, data=source.path, progress=preparation.progress)
        negatives = {one.id: [one.negatives, one.negative_scores] for one in found.studies if one.negatives}
        write_text(path, json.dumps({"sha256": _digest(negatives), "negatives": negatives}) + "\n")

    key = {"manifest": manifest_key(manifest), **config.about()}
    path = prepared("negatives", key, build, features=preparation.features, is_whole=_is_whole)
    kept = json.loads(path.read_text())["negatives"]
    negatives = {id_: (tuple(ids), tuple(scores)) for id_, (ids, scores) in kept.items()}
    preparation.notify(f"negatives of {len(negatives)} training studies by TF-IDF: {path}")
    return run, replace(source, manifest=mined_manifest(manifest, negatives, config.about()))


def _digest(negatives: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(negatives, sort_keys=True).encode()).hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether a file of negatives is as it was written."""
    try:
        kept = json.loads(path.read_text())
        return bool(kept["sha256"] == _digest(kept["negatives"]))
    except (ValueError, KeyError, TypeError):
        return False


def mined_partners(
    manifest: Manifest, studies: Sequence[Study], text: TextConfig, *, candidates: int, data: Path
) -> list[list[int]]:
    """For every study, the rows in `studies` of its mined negatives from the manifest `data`.

    Raises InputError if a study has none, or if they were mined for another section or cleaning: then a negative's
    report could be the study's own.
    """
    about = manifest.provenance["negatives"]
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
