"""Studies with their known findings: 1 present, 0 absent, NaN where unknown.

Shapes: R studies, L findings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rayscribe.classifiers.config import CohortConfig
from rayscribe.data.label_tables import read_labels
from rayscribe.data.manifest import Manifest
from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.labels import NEGATIVE, NOT_MENTIONED, OBSERVATIONS, POSITIVE, UNCERTAIN, Labels
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.study import Study, is_frontal

_Known = NDArray[np.float32]

RULE_LABELS, CODES = "rules", "codes"


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The studies of one split with at least one known finding."""

    studies: list[Study]
    known_RL: _Known
    findings: tuple[str, ...]
    source: str
    "name of the labeler or of the table, for the protocol"
    left_out: dict[str, int]
    "number of excluded studies, by reason"

    def of(self, findings: Sequence[str]) -> Cohort:
        """The same for some findings; excludes studies for which none of them is known."""
        places = [self.findings.index(name) for name in findings]
        known_RL = self.known_RL[:, places]
        kept = np.flatnonzero(~np.isnan(known_RL).all(1))
        unknown = len(self.studies) - len(kept)
        return replace(
            self,
            studies=[self.studies[row] for row in kept],
            known_RL=known_RL[kept],
            findings=tuple(findings),
            left_out=self.left_out | ({"no known finding": unknown} if unknown else {}),
        )

    def counts(self, finding: str) -> tuple[int, int]:
        """Numbers of studies with and without the finding."""
        column_R = self.known_RL[:, self.findings.index(finding)]
        return int((column_R == 1).sum()), int((column_R == 0).sum())


def read_cohort(manifest: Manifest, split: str, config: CohortConfig) -> Cohort:
    """The split under the rules of `config`. Raises InputError that names a finding or a study without labels."""
    studies, left_out = _chosen(manifest.split(split), config)
    if not studies:
        raise InputError(
            f"no study of split {split} remains ({_told(left_out)}); the manifest must state views and subjects for "
            "--cohort.views and --cohort.one-per-subject"
        )
    studied = studies
    if config.labels == RULE_LABELS:
        names, states_RL, source = _by_rules(studies)
    elif config.labels == CODES:
        studies = [study for study in studies if study.problems]  # without codes the findings are unknown
        names, states_RL, source = _coded(studies, manifest)
    else:
        path = Path(config.labels)
        table = read_labels(path)
        studies = [study for study in studies if study.id in table]
        states_RL = np.array([table[study.id] for study in studies], np.int8)
        names, source = OBSERVATIONS, f"{path.name} {sha256_of(path)[:12]}"
    if not studies:
        raise InputError(f"{source}: has no labels for split {split}, e.g. none for {studied[0].id}")
    if len(studies) < len(studied):
        left_out |= {"no row in the labels": len(studied) - len(studies)}
    whole = Cohort(
        studies=studies,
        known_RL=_known(states_RL, config),
        findings=tuple(names),
        source=source,
        left_out=left_out,
    )
    return whole.of(_named(config.findings, names) if config.findings else names)


def as_in_training(studies: Sequence[Study], config: CohortConfig) -> tuple[list[Study], int]:
    """Every study, reduced to the views that the classifier learned from, or with all its images if it has none of those; and
    the number of such studies."""
    seen = [_seen(study, config.views) for study in studies]
    return [study if one is None else one for one, study in zip(seen, studies, strict=True)], seen.count(None)


def cohort_digest(manifest: Manifest, config: CohortConfig) -> str:
    """Digest of everything that decides who counts as what: images, texts, patients, views, codes, the table of labels."""
    about = [[one.id, one.subject, one.views, one.problems] for one in sorted(manifest.studies, key=lambda one: one.id)]
    digest = hashlib.sha256(json.dumps([manifest.digest(), about]).encode()).hexdigest()
    if config.labels in (RULE_LABELS, CODES):
        return digest
    if not Path(config.labels).is_file():
        raise InputError(f"{config.labels}: no such table of labels (--cohort.labels)")
    return f"{digest} {sha256_of(Path(config.labels))}"


def trainable_findings(train: Cohort, val: Cohort, notify: Callable[[str], None], *, least: int = 2) -> tuple[str, ...]:
    """Findings with at least `least` studies of either kind in both splits; reports what is skipped and why."""
    kept = []
    for name in train.findings:
        lacking = [
            f"{split} has {present} with and {absent} without"
            for split, (present, absent) in (("train", train.counts(name)), ("val", val.counts(name)))
            if min(present, absent) < least
        ]
        if lacking:
            notify(f"skipped {name}: {', '.join(lacking)}")
        else:
            kept.append(name)
    if not kept:
        raise InputError(
            "no finding has studies with and without it in train and val; give other labels with --cohort.labels"
        )
    return tuple(kept)


def _chosen(studies: Sequence[Study], config: CohortConfig) -> tuple[list[Study], dict[str, int]]:
    found, subjects, left_out = [], set(), dict.fromkeys(("no image of these views", "a further study of a patient"), 0)
    for study in sorted(studies, key=lambda one: one.id) if config.one_per_subject else studies:
        seen = _seen(study, config.views)
        if seen is None:
            left_out["no image of these views"] += 1
            continue
        if config.views != "all" and config.one_per_subject:
            seen = replace(seen, images=seen.images[:1], sha256=seen.sha256[:1], views=seen.views[:1])
        if config.one_per_subject and study.subject:
            if study.subject in subjects:
                left_out["a further study of a patient"] += 1
                continue
            subjects.add(study.subject)
        found.append(seen)
    return found, {reason: count for reason, count in left_out.items() if count}


def _seen(study: Study, views: str) -> Study | None:
    """The study with only the images of these views; None if it has none."""
    if views == "all":
        return study
    kept = [
        (path, sha256, view)
        for path, sha256, view in zip(study.images, study.sha256, study.views, strict=True)
        if (view == "pa" if views == "pa" else is_frontal(view))
    ]
    if not kept:
        return None
    images, sha256s, seen = zip(*kept, strict=True)
    return replace(study, images=images, sha256=sha256s, views=seen)


def _by_rules(studies: Sequence[Study]) -> tuple[Sequence[str], Labels, str]:
    """Names of the findings, states (R, L), and the source of the labels."""
    labeler = RuleLabeler()
    texts = [f"{study.findings} {study.impression}".strip() for study in studies]
    if not any(texts):
        raise InputError("the manifest contains no reports to label; give --cohort.labels codes, or a table")
    return OBSERVATIONS, labeler.label(texts), labeler.name


def _coded(studies: Sequence[Study], manifest: Manifest) -> tuple[Sequence[str], Labels, str]:
    """The same from the indexers' codes; a finding without a code is absent. Names come from all splits."""
    names = sorted({code for study in manifest.studies for code in study.problems})
    if not names:
        raise InputError("the manifest contains no codes (--columns.problems of `rayscribe prepare table`)")
    states = [[POSITIVE if name in study.problems else NEGATIVE for name in names] for study in studies]
    return names, np.array(states, np.int8).reshape(len(studies), len(names)), "codes of the manifest"


def _known(states_RL: Labels, config: CohortConfig) -> _Known:
    uncertain = {"drop": np.nan, "zero": 0.0, "one": 1.0}[config.uncertain]
    blank = {"drop": np.nan, "negative": 0.0}[config.blank]
    meaning = {POSITIVE: 1.0, NEGATIVE: 0.0, UNCERTAIN: uncertain, NOT_MENTIONED: blank}
    return np.array([meaning[state] for state in range(len(meaning))], np.float32)[states_RL]


def _named(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    by_lower = {name.lower(): name for name in names}
    if unknown := [name for name in wanted if name.lower() not in by_lower]:
        raise InputError(f"--cohort.findings: no labels for {', '.join(unknown)}; there are {', '.join(names)}")
    return [by_lower[name.lower()] for name in wanted]


def _told(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count} with {reason}" for reason, count in left_out.items()) or "none was there"
