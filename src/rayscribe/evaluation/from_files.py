"""Predictions files to scores: of one split, and of a set of splits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.predictions import read_predictions
from rayscribe.evaluation.evaluate import Stage, evaluate_predictions
from rayscribe.evaluation.protocol import Protocol, check_protocol, note_scored
from rayscribe.evaluation.scorers import Scorers
from rayscribe.evaluation.split_sets import check_pairs, predictions_of_splits, set_result, training_studies
from rayscribe.progress import ProgressBar


def evaluate_file(
    predictions: Path,
    data: str | Path | Manifest,
    *,
    split: str,
    protocol: Protocol,
    scorers: Scorers | None,
    stage: Stage,
    progress: ProgressBar,
) -> dict[str, Any]:
    """As `evaluate_predictions`; notes a look at test in the folder of the model that wrote the file.

    Raises InputError also for a file that is none, or was written for another protocol.
    """
    check_protocol(predictions, protocol)
    reports = read_predictions(predictions)
    manifest = data if isinstance(data, Manifest) else read_manifest(data)
    result = evaluate_predictions(
        reports, manifest, split=split, protocol=protocol, scorers=scorers, stage=stage, progress=progress
    )
    if split == "test":
        note_scored(predictions, result)
    return result


def evaluate_set(
    predictions: Path,
    data: Path,
    *,
    split: str,
    protocol: Protocol,
    scorers: Scorers | None,
    stage: Stage,
    progress: ProgressBar,
) -> dict[str, Any]:
    """Every split of the set `data` by itself, and all of them together; see `set_result`.

    Raises InputError, before a split is scored, where files and splits do not go together.
    """
    pairs = predictions_of_splits(predictions, data)
    check_pairs(pairs)
    results, training = {}, {}
    for number, (name, (file, path)) in enumerate(pairs.items(), 1):
        manifest, place = read_manifest(path), f"split {number} of {len(pairs)}"
        results[name] = evaluate_file(
            file,
            manifest,
            split=split,
            protocol=protocol,
            scorers=scorers,
            stage=partial(_stage_of, stage, place),
            progress=progress,
        )
        training[name] = training_studies(manifest, protocol)
    return set_result(results, training)


def _stage_of(stage: Stage, place: str, begun: str) -> None:
    stage(f"{place}, {begun}")
