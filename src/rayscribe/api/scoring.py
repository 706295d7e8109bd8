"""Scores of reports, and their labels. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rayscribe.errors import InputError, unknown_name
from rayscribe.progress import ProgressBar

if TYPE_CHECKING:
    from rayscribe.data.manifest import Manifest
    from rayscribe.evaluation.protocol import Protocol
    from rayscribe.evaluation.scorers import Scorers
    from rayscribe.study import Study

_READINGS = ("plain", "chexpert")
_HELD_BACK = 8  # of the training reports for `score`, every eighth chooses the constant report


def evaluate(
    predictions: str | Path | Mapping[str, str],
    data: str | Path | Manifest,
    *,
    split: str = "test",
    protocol: Protocol | None = None,
    scorers: Scorers | None = None,
    stage: Callable[[str], None] = lambda name: None,
    progress: ProgressBar = iter,
) -> dict[str, Any]:
    """Scores predictions for a split of a manifest: what `rayscribe evaluate` computes. Needs no model and no torch.

    Args:
        predictions: JSONL, CSV or JSON with ids and reports, or reports by study id; your own or another system's; of a set
            of splits, a folder with one file each
        data: the manifest, or its path; a folder of manifests for a set of splits
        split: train, val or test; a look at test is noted in the folder of the model that wrote the file
        protocol: how references are made; findings, full references when None
        scorers: labeler, RadGraph, sentence encoder, label tables; the built-in rules alone when None
        stage: is told each of the stages as it begins
        progress: wraps the loops that take long

    Returns:
        JSON values: `scores` with 95 % intervals, the same of `floors` that see no image, `signature` (the protocol),
        `alarms` in words, subsets, and per-report `statistics`. For a set of splits: such results by split in `splits`, and
        in `summary` mean, deviation and range over the splits, of the model and of every floor.

    Raises:
        InputError: studies lack a prediction, or have one that is no text; the split lacks the section; the file was written
            for another protocol

    Example:
        >>> result = rs.evaluate("predictions.jsonl", data="iu.parquet", split="test")
        >>> result["scores"]["bleu4"]
    """
    from rayscribe.data.manifest import Manifest, read_manifest
    from rayscribe.evaluation.evaluate import evaluate_predictions
    from rayscribe.evaluation.from_files import evaluate_file, evaluate_set
    from rayscribe.evaluation.protocol import Protocol

    _check_kinds(predictions, data, protocol)
    asked: dict[str, Any] = {"split": split, "protocol": protocol or Protocol(), "scorers": scorers}
    asked |= {"stage": stage, "progress": progress}
    if _is_folder(predictions) or _is_folder(data):
        return evaluate_set(_path(predictions, "predictions"), _path(data, "manifests"), **asked)
    if isinstance(predictions, Mapping):
        manifest = data if isinstance(data, Manifest) else read_manifest(data)
        return evaluate_predictions(predictions, manifest, **asked)
    return evaluate_file(Path(os.path.expanduser(predictions)), data, **asked)


def score(
    references: Iterable[str],
    hypotheses: Iterable[str],
    *,
    training: Iterable[str] | None = (),
    patients: Iterable[object] | None = (),
    cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu",
) -> dict[str, Any]:
    """Scores reports against references, two lists of texts: what `evaluate` computes without images.

    Lists, tuples, arrays, pandas columns and generators are read; a set or a mapping is refused, because it has no order of
    studies.

    Args:
        references: what the radiologists wrote, one text a study
        hypotheses: what the system wrote, in the same order
        training: training reports, for the floors that need some (a constant report, the most frequent one); without them
            the floor is the system's own reports given to other studies
        patients: the patient of every study, by whom the bootstrap resamples; None, NaN or "" is an unknown one. With none
            or some of them unknown it resamples studies, and `notes` says so
        cleaning: of references and hypotheses: R2Gen's for IU X-Ray, or for MIMIC-CXR

    Returns:
        As `evaluate` does.

    Raises:
        InputError: the lists differ in length, are empty, or hold an empty reference or what is no text

    Example:
        >>> result = rs.score(["The heart is enlarged."], ["Heart size is normal."])
        >>> result["scores"]["bleu1"]
    """
    from rayscribe.data.manifest import Manifest
    from rayscribe.evaluation.evaluate import evaluate_predictions
    from rayscribe.evaluation.protocol import Protocol
    from rayscribe.evaluation.scorers import Scorers

    protocol = Protocol(cleaning=cleaning)
    wanted, written = _texts(references, "references"), _texts(hypotheses, "hypotheses")
    learned = [] if training is None else _texts(training, "training")
    if not wanted or len(wanted) != len(written):
        raise InputError(f"{len(wanted)} references and {len(written)} hypotheses; give one of each a study")
    if empty := [place for place, text in enumerate(wanted) if not text.strip()]:
        raise InputError(f"reference {empty[0]} (counted from 0) is empty; leave the study out")
    subjects = [_subject(patient) for patient in _listed(() if patients is None else patients, "patients")]
    if subjects and len(subjects) != len(wanted):
        raise InputError(f"{len(wanted)} references and {len(subjects)} patients; give one a study")
    subjects = subjects or [""] * len(wanted)
    return evaluate_predictions(
        {str(place): text for place, text in enumerate(written)},
        Manifest(studies=_studies_of(wanted, subjects, learned), provenance={"source": "two lists of reports"}),
        split="test",
        protocol=protocol,
        scorers=Scorers(image_floors=False),
    )


def label(reports: Iterable[str], *, reading: Literal["plain", "chexpert"] = "plain") -> list[dict[str, str]]:
    """The 14 CheXpert observations of every report, by the built-in rules.

    Args:
        reports: texts, one a study: a list, a tuple, an array, a pandas column or a generator
        reading: plain: as a radiologist reads; chexpert: as the CheXpert labeler answers, also where it misreads

    Returns:
        For every report the state of each observation: positive, negative, uncertain or not mentioned.

    Raises:
        InputError: a report is no text, or there is no such reading

    Example:
        >>> rs.label(["Small left pleural effusion."])[0]["Pleural Effusion"]
        'positive'
    """
    from rayscribe.labels import OBSERVATIONS, STATE_NAMES
    from rayscribe.metrics.labeler import RuleLabeler

    if reading not in _READINGS:
        raise InputError(unknown_name("reading", str(reading), _READINGS))
    labels_RO = RuleLabeler(as_chexpert=reading == "chexpert").label(_texts(reports, "reports"))
    return [
        {name: STATE_NAMES[int(state)] for name, state in zip(OBSERVATIONS, states_O, strict=True)}
        for states_O in labels_RO
    ]


def _check_kinds(predictions: object, data: object, protocol: object) -> None:
    from rayscribe.data.manifest import Manifest
    from rayscribe.evaluation.protocol import Protocol

    if not isinstance(predictions, str | Path | Mapping):
        raise InputError(
            f"predictions: of type {type(predictions).__name__}; give a file's path, or reports by study id, such as "
            "dict(zip(ids, reports)); `rs.score` compares two lists"
        )
    if not isinstance(data, str | Path | Manifest):
        raise InputError(
            f"data: of type {type(data).__name__}; give a manifest's path, or what rs.read_manifest returns"
        )
    if not isinstance(protocol, Protocol | None):
        raise InputError(
            f"protocol: of type {type(protocol).__name__}; give rs.Protocol(...), or None for the usual one"
        )


def _is_folder(value: object) -> bool:
    return isinstance(value, str | Path) and Path(os.path.expanduser(value)).is_dir()


def _path(value: object, what: str) -> Path:
    """Of what a set of splits is scored from."""
    if not isinstance(value, str | Path):
        raise InputError(f"a set of splits needs a folder of {what}, not a value of type {type(value).__name__}")
    return Path(os.path.expanduser(value))


def _studies_of(references: list[str], subjects: list[str], training: list[str]) -> tuple[Study, ...]:
    """Test studies of the references, by their place; training and validation studies of the other reports."""
    from rayscribe.study import Study

    tested = [
        Study(id=str(place), images=(), findings=text, split="test", subject=subject)
        for place, (text, subject) in enumerate(zip(references, subjects, strict=True))
    ]
    learned = [
        Study(id=f"training {place}", images=(), findings=text, split="val" if place % _HELD_BACK == 0 else "train")
        for place, text in enumerate(training)
    ]
    return (*tested, *learned)


def _listed(values: Any, name: str) -> list[Any]:
    """The values in their order. Refuses a single text, a table, and what has no order of studies."""
    is_table = hasattr(values, "columns")  # a pandas table would give the names of its columns
    if isinstance(values, str | bytes | Mapping | Set) or is_table or not isinstance(values, Iterable):
        raise InputError(f"{name}: give a list, one value a study, not a value of type {type(values).__name__}")
    try:
        return list(values)
    except TypeError as error:
        raise InputError(f"{name}: give a list, one value a study ({error})") from error


def _texts(values: Any, name: str) -> list[str]:
    from rayscribe.evaluation.protocol import check_text

    texts = _listed(values, name)
    for place, text in enumerate(texts):
        check_text(text, f"{name}: text {place} (counted from 0)")
    return [str(text) for text in texts]


def _subject(patient: object) -> str:
    """The patient's name; empty if unknown, which pandas writes as nan or <NA>."""
    name = str(patient).strip()
    return "" if name.lower() in ("none", "nan", "<na>") else name
