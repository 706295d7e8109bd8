"""A classifier on one split: every finding's scores with intervals, floors and protocol, as one JSON-able result.

Shapes: R studies, L findings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe import __version__
from rayscribe.classifiers.cohort import Cohort, read_cohort
from rayscribe.classifiers.config import CohortConfig
from rayscribe.classifiers.folder import TrainedClassifier, load_classifier
from rayscribe.classifiers.measured import Logits, image_set, logits_of
from rayscribe.data.features import cached_features
from rayscribe.data.label_tables import write_labels
from rayscribe.data.manifest import Manifest
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import sha256_of
from rayscribe.labels import NEGATIVE, NOT_MENTIONED, OBSERVATIONS, POSITIVE
from rayscribe.metrics.classification import (
    CLASSIFICATION_RESAMPLES,
    finding_intervals,
    finding_scores,
    floors,
    macro,
    sigmoid,
)
from rayscribe.models.device import chosen_device
from rayscribe.models.folder import WEIGHTS
from rayscribe.progress import ProgressBar
from rayscribe.provenance import check_unseen, note_test
from rayscribe.study import Study

LEAST = 2
"A split must have this many studies with and without a finding for the finding to be scored."


def study_logits(
    trained: TrainedClassifier,
    studies: Sequence[Study],
    *,
    features: Path | None = None,
    device: torch.device | None = None,
    progress: ProgressBar = iter,
) -> Logits:
    """Logits of all findings (R, L), from files, or from the feature cache if the backbone is frozen.

    `device` defaults to a GPU where there is one.
    """
    device = device or chosen_device()
    model, config = trained.model.to(device), trained.config
    cache = None
    if not config.backbone.trainable:
        cache = cached_features(studies, model.backbone, config.images, folder=features, device=device)
    return logits_of(model, image_set(list(studies), config.images, cache), progress=progress)


def score_classifiers(
    folders: Sequence[Path],
    manifest: Manifest,
    *,
    split: str,
    labels: str | None = None,
    resamples: int = CLASSIFICATION_RESAMPLES,
    infer: Callable[[TrainedClassifier, Sequence[Study]], Logits] = study_logits,
) -> dict[str, Any]:
    """Scores of one or several classifiers, each under its own cohort rules; `labels` replaces the labels' source.

    Intervals resample patients. Findings with one class are skipped, and the result says so.
    """
    findings: dict[str, Any] = {}
    protocols: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for folder in folders:
        trained = load_classifier(folder)
        rules = replace(trained.config.cohort, findings=trained.findings)
        rules = replace(rules, labels=labels) if labels else rules
        cohort = read_cohort(manifest, split, rules)
        if split != "train":
            check_unseen(folder, cohort.studies, split)
        if split == "test":
            note_test(folder, {"classified": manifest.digest(), "labels": cohort.source})
        logits_RL = infer(trained, cohort.studies)
        for place, name in enumerate(trained.findings):
            if name in findings or name in skipped:
                raise InputError(f"{folder}: a second classifier for {name}; give one per finding")
            present, absent = cohort.counts(name)
            if min(present, absent) < LEAST:
                skipped[name] = f"{split} has {present} with and {absent} without"
                continue
            findings[name] = _scored(trained, cohort, logits_RL, place, resamples)
            protocols[name] = _protocol(folder, trained, cohort, rules)
    if not findings:
        raise InputError(f"nothing can be scored on {split}: " + "; ".join(f"{n}: {why}" for n, why in skipped.items()))
    values = {name: {key: score["value"] for key, score in one["scores"].items()} for name, one in findings.items()}
    first = next(iter(values.values()))
    return {
        "rayscribe": __version__,
        "disclaimer": DISCLAIMER,
        "split": split,
        "data": {"digest": manifest.digest(), "source": manifest.provenance.get("source", "not stated")},
        "intervals": f"95 %, percentile bootstrap over patients, {resamples} resamples",
        "findings": findings,
        "macro": {name: macro(values, name) for name in first},
        "skipped": skipped,
        "protocol": protocols,
    }


def write_findings(path: Path, trained: TrainedClassifier, studies: Sequence[Study], logits_RL: Logits) -> list[str]:
    """Writes present and absent findings as a table of the 14 observations; returns the findings that are not among them.

    Observations that the classifier does not know stay blank. `rayscribe generate --states` and
    `rayscribe evaluate --template-findings` read such tables.
    """
    called_RL = trained.probabilities(logits_RL) >= np.array(trained.thresholds)
    states = np.full((len(studies), len(OBSERVATIONS)), NOT_MENTIONED, np.int8)
    for place, name in enumerate(trained.findings):
        if name in OBSERVATIONS:
            states[:, OBSERVATIONS.index(name)] = np.where(called_RL[:, place], POSITIVE, NEGATIVE)
    write_labels(path, [{"id": study.id} for study in studies], states)
    return [name for name in trained.findings if name not in OBSERVATIONS]


def _scored(
    trained: TrainedClassifier, cohort: Cohort, logits_RL: Logits, place: int, resamples: int
) -> dict[str, Any]:
    known_R = cohort.known_RL[:, place]
    is_known_R = ~np.isnan(known_R)
    is_present_R: NDArray[np.bool_] = known_R[is_known_R] == 1
    raw_R = sigmoid(logits_RL[is_known_R, place])
    probability_R = trained.probabilities(logits_RL)[is_known_R, place]
    threshold = trained.thresholds[place]
    patients = [study.subject or study.id for study in cohort.studies]
    scores = finding_intervals(
        probability_R,
        is_present_R,
        threshold,
        groups=[patients[row] for row in np.flatnonzero(is_known_R)],
        resamples=resamples,
    )
    at_half = finding_scores(raw_R, is_present_R, 0.5)
    prevalence = float(is_present_R.mean())
    return {
        "studies": len(is_present_R),
        "present": int(is_present_R.sum()),
        "prevalence": prevalence,
        "threshold": threshold,
        "scores": {name: asdict(score) for name, score in scores.items()},
        "uncalibrated at .5": {
            name: float(at_half[name][0]) for name in ("accuracy", "f1", "brier", "calibration_error")
        },
        "floors": floors(prevalence),
        "curve": {"probability": probability_R.round(6).tolist(), "present": is_present_R.astype(int).tolist()},
    }


def _protocol(folder: Path, trained: TrainedClassifier, cohort: Cohort, rules: CohortConfig) -> dict[str, Any]:
    return {
        "model": folder.name,
        "weights_sha256": sha256_of(folder / WEIGHTS),
        "network": trained.config.backbone.name,
        "image_size": trained.config.images.size,
        "labels": cohort.source,
        "uncertain": rules.uncertain,
        "blank": rules.blank,
        "views": rules.views,
        "one_per_subject": rules.one_per_subject,
        "left_out": cohort.left_out,
        "threshold": "best F1 on validation",
        "calibration": "Platt, on validation",
    }
