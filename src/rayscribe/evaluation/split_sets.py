"""Score files of a set of splits: which predictions belong to which split, and every score over all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.split_sets import split_manifests
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.evaluation.protocol import Protocol, training_reports

_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
_META = ".meta.json"

Scores = Mapping[str, Mapping[str, Any]]
"Scores by name, each with its `value`."


def predictions_of_splits(predictions: Path, data: Path) -> dict[str, tuple[Path, Path]]:
    """Predictions file and manifest of every split; a file belongs to the manifest of the same name.

    Raises InputError unless both are folders, and every split has one file and every file a split.
    """
    for path, other, what in ((predictions, data, "predictions"), (data, predictions, "manifests")):
        if not path.is_dir():
            raise InputError(
                f"{path}: is no folder, but {other} is one; a set of splits needs a folder of {what} (one per split)"
            )
    manifests = split_manifests(data)
    files = [path for path in sorted(predictions.iterdir()) if path.suffix.lower() in _SUFFIXES]
    files = [path for path in files if path.name[0] != "." and not path.name.endswith(_META)]
    if unknown := [path for path in files if path.stem not in manifests]:
        raise InputError(f"{unknown[0]}: {data} has no split {unknown[0].stem!r}; it has {', '.join(manifests)}")
    found = {}
    for name, manifest in manifests.items():
        own = [path for path in files if path.stem == name]
        if not own:
            raise InputError(
                f"{predictions}: no predictions for {manifest} ({name}.jsonl); finish `rayscribe generate` with this set"
            )
        if len(own) > 1:
            raise InputError(f"{own[0]} and {own[1]}: two files for {manifest}; leave one of them")
        found[name] = (own[0], manifest)
    return found


def check_pairs(pairs: Mapping[str, tuple[Path, Path]]) -> None:
    """Raises InputError for two equal splits, or for a file that `rayscribe generate` wrote for another manifest."""
    known: dict[str, Path] = {}
    for predictions, data in pairs.values():
        digest = read_manifest(data).digest()
        if known.setdefault(digest, data) != data:
            raise InputError(
                f"{known[digest]} and {data} are the same split, which would count twice; leave one of them"
            )
        meta = predictions.with_name(predictions.name + _META)
        made = json.loads(meta.read_text()) if meta.is_file() else {}
        if made.get("data_digest", digest) != digest:
            raise InputError(f"{predictions}: was written for another manifest than {data}; generate it for this split")


def training_studies(manifest: Manifest, protocol: Protocol) -> int:
    """Number of training studies that have the protocol's section; 0 where the manifest has no training split."""
    return len(training_reports(manifest, protocol))


def set_result(results: Mapping[str, dict[str, Any]], training: Mapping[str, int]) -> dict[str, Any]:
    """The content of a set's score file.

    Args:
        results: what `evaluate_predictions` returns, by split
        training: number of training studies, by split

    Returns:
        `signature`: the parts that all splits share; `splits`: the results as they are; `summary`: mean, standard deviation,
        smallest and largest value, and the values by split, of the model's scores and of every floor's.
    """
    parts = [result["signature"] for result in results.values()]
    floors = dict.fromkeys(name for result in results.values() for name in result["floors"])
    return {
        "disclaimer": DISCLAIMER,
        "alarms": alarm_counts(results),
        "notes": _notes(results),
        "signature": {key: value for key, value in parts[0].items() if all(part.get(key) == value for part in parts)},
        "training_studies": dict(training),
        "summary": {
            "model": _summary({split: result["scores"] for split, result in results.items()}),
            "floors": {
                name: _summary(
                    {split: one["floors"][name]["scores"] for split, one in results.items() if name in one["floors"]}
                )
                for name in floors
            },
        },
        "splits": dict(results),
    }


def alarm_counts(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The alarms of all splits by kind, which is what stands before the colon: the splits, and the text in the first."""
    found: dict[str, dict[str, Any]] = {}
    for split, result in results.items():
        for text in result["alarms"]:
            kind = text.partition(":")[0]
            one = found.setdefault(kind, {"alarm": kind, "splits": [], "of": len(results), "first": text})
            if split not in one["splits"]:
                one["splits"].append(split)
    return list(found.values())


def alarm_text(alarm: Mapping[str, Any]) -> str:
    """One line: the kind, how many splits it holds for, and what it says of the first."""
    said = alarm["first"].partition(":")[2].strip()
    return f"{alarm['alarm']} in {len(alarm['splits'])} of {alarm['of']} splits; {alarm['splits'][0]}: {said}"


def _summary(scores: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    """Over the splits, of every score that all of them have."""
    first, *others = scores.values()
    shared = [name for name in first if all(name in other for other in others)]
    return {name: _over({split: one[name]["value"] for split, one in scores.items()}) for name in shared}


def _over(values: Mapping[str, float]) -> dict[str, Any]:
    numbers = list(values.values())
    return {
        "mean": float(np.mean(numbers)),
        "deviation": float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
        "low": min(numbers),
        "high": max(numbers),
        "values": dict(values),
    }


def _notes(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each note once, with the splits that it is about."""
    about: dict[str, list[str]] = {}
    for split, result in results.items():
        for note in result["notes"]:
            about.setdefault(note, []).append(split)
    return [note if len(splits) == len(results) else f"{', '.join(splits)}: {note}" for note, splits in about.items()]
