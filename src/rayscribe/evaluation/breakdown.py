"""A score file's parts beside the headline: subsets, observations, rare words; every number with its interval.

Shapes: R reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.cleaning import words_only
from rayscribe.data.manifest import Manifest
from rayscribe.evaluation.protocol import Protocol, reference_reports
from rayscribe.labels import Labels
from rayscribe.metrics.clinical import POLICIES, is_normal, observation_counts, per_observation
from rayscribe.metrics.families import Families
from rayscribe.metrics.imbalance import by_frequency, published_word_bins, word_bins
from rayscribe.metrics.statistics import Rows, intervals
from rayscribe.study import Study, coded_normal


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The bootstrap under fixed settings; a score with its bounds."""

    groups: Sequence[str] | None
    resamples: int

    def __call__(self, rows: Rows, keep: NDArray[np.bool_] | None = None) -> dict[str, dict[str, float]]:
        """Each score of the rows, or of those to keep, with its 95 % interval."""
        groups = self.groups
        if keep is not None:
            rows = rows.of(keep)
            groups = [group for group, kept in zip(groups, keep) if kept] if groups else None
        found = intervals(rows, groups=groups, resamples=self.resamples)
        return {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in found.items()}


def normal_studies(studies: Sequence[Study], labels: Labels) -> tuple[NDArray[np.bool_], str]:
    """Which studies are normal: by the source's indexers if they coded every study, else by the labeler."""
    if (coded := coded_normal(studies)) is not None:
        return np.array(coded), "the source's codes"
    return is_normal(labels), "the labeler's No Finding"


def seen_studies(
    manifest: Manifest, split: str, protocol: Protocol, training: Mapping[str, str]
) -> NDArray[np.bool_] | None:
    """Studies whose full reference occurs verbatim among the training reports; None without training reports."""
    if not training:
        return None
    full = reference_reports(manifest, split, Protocol(section=protocol.section, cleaning=protocol.cleaning))
    known = {words_only(text) for text in training.values()}
    return np.array([words_only(text) in known for text in full.values()])


def subset_scores(
    rows: Rows, normal: NDArray[np.bool_], seen: NDArray[np.bool_] | None, again: Bootstrap
) -> dict[str, Any]:
    """Scores of the normal, abnormal, seen and unseen studies; CIDEr keeps the document frequencies of the whole split."""
    parts = {"normal": normal, "abnormal": ~normal}
    if seen is not None:
        parts |= {"seen": seen, "novel": ~seen}
    return {
        name: {"studies": int(keep.sum()), "scores": again(rows, keep) if keep.any() else {}}
        for name, keep in parts.items()
    }


def observation_scores(families: Families, again: Bootstrap) -> dict[str, Any]:
    """Counts, precision, recall and F1 of each observation, with uncertain ones as negative and as positive."""
    found: dict[str, Any] = {}
    for policy in POLICIES:
        counts = observation_counts(families["clinical"], policy)
        f1 = again(per_observation(families["clinical"], policy))
        found[f"uncertain_{policy}"] = {name: counts[name] | {"f1": f1[name]} for name in counts}
    return found


def imbalance_scores(
    own: Sequence[str], wanted: Sequence[str], training: Mapping[str, str], again: Bootstrap
) -> dict[str, Any]:
    """F1 of frequent and of rare words; empty without training reports."""
    if not training:
        return {}
    vocabulary = by_frequency(list(training.values()))
    return {
        "vocabulary": len(vocabulary),
        "scores": again(word_bins(own, wanted, vocabulary)),
        "published": published_word_bins(own, wanted, vocabulary),
    }
