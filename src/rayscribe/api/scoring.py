"""Scores of reports, and their labels. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rayscribe.errors import InputError
from rayscribe.progress import ProgressBar

if TYPE_CHECKING:
    from rayscribe.data.manifest import Manifest
    from rayscribe.evaluation.protocol import Protocol
    from rayscribe.evaluation.scorers import Scorers

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
        predictions: JSONL, CSV or JSON with ids and reports, or reports by study id; your own or another system's
        data: the manifest, or its path
        split: train, val or test; a look at test is noted in the folder of the model that wrote the file
        protocol: how references are made; findings, full references when None
        scorers: labeler, RadGraph, sentence encoder, label tables; the built-in rules alone when None
        stage: is told each of the stages as it begins
        progress: wraps the loops that take long

    Returns:
        JSON values: `scores` with 95 % intervals, the same of `floors` that see no image, `signature` (the protocol),
        `alarms` in words, subsets, and per-report `statistics`.

    Raises:
        InputError: studies lack a prediction, the split lacks the section, or the file was written for another protocol

    Example:
        >>> result = rs.evaluate("predictions.jsonl", data="iu.parquet", split="test")
        >>> result["scores"]["bleu4"]
    """
    from rayscribe.data.manifest import Manifest, read_manifest
    from rayscribe.data.predictions import read_predictions
    from rayscribe.evaluation.evaluate import evaluate_predictions, note_scored
    from rayscribe.evaluation.protocol import Protocol, check_protocol

    protocol = protocol or Protocol()
    path = Path(predictions) if isinstance(predictions, str | Path) else None
    if path is not None:
        check_protocol(path, protocol)
    reports = predictions if isinstance(predictions, Mapping) else read_predictions(Path(predictions))
    result = evaluate_predictions(
        reports,
        data if isinstance(data, Manifest) else read_manifest(data),
        split=split,
        protocol=protocol,
        scorers=scorers,
        stage=stage,
        progress=progress,
    )
    if split == "test" and path is not None:
        note_scored(path, result)
    return result


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    training: Sequence[str] = (),
    patients: Sequence[str] = (),
    cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu",
) -> dict[str, Any]:
    """Scores reports against references, two lists of texts: what `evaluate` computes without images.

    Args:
        references: what the radiologists wrote, one text a study
        hypotheses: what the system wrote, in the same order
        training: training reports, for the floors that need some (a constant report, the most frequent one); without them
            the floor is the system's own reports given to other studies
        patients: the patient of every study, by whom the bootstrap resamples; studies when empty
        cleaning: of references and hypotheses: R2Gen's for IU X-Ray, or for MIMIC-CXR

    Returns:
        As `evaluate` does.

    Raises:
        InputError: the lists differ in length, are empty, or hold an empty reference

    Example:
        >>> result = rs.score(["The heart is enlarged."], ["Heart size is normal."])
        >>> result["scores"]["bleu1"]
    """
    from rayscribe.data.manifest import Manifest
    from rayscribe.evaluation.evaluate import evaluate_predictions
    from rayscribe.evaluation.protocol import Protocol
    from rayscribe.evaluation.scorers import Scorers
    from rayscribe.study import Study

    for name, texts in (("references", references), ("hypotheses", hypotheses), ("training", training)):
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{name}: give a list of texts")
    if not references or len(references) != len(hypotheses):
        raise InputError(f"{len(references)} references and {len(hypotheses)} hypotheses; give one of each a study")
    if patients and len(patients) != len(references):
        raise InputError(f"{len(references)} references and {len(patients)} patients; give one a study")
    if empty := [place for place, text in enumerate(references) if not text.strip()]:
        raise InputError(f"reference {empty[0]} (counted from 0) is empty; leave the study out")
    subjects = patients or [""] * len(references)
    studies = [
        Study(id=str(place), images=(), findings=text, split="test", subject=subject)
        for place, (text, subject) in enumerate(zip(references, subjects, strict=True))
    ]
    for place, text in enumerate(training):
        part = "val" if place % _HELD_BACK == 0 else "train"
        studies.append(Study(id=f"training {place}", images=(), findings=text, split=part))
    return evaluate_predictions(
        {str(place): text for place, text in enumerate(hypotheses)},
        Manifest(studies=tuple(studies), provenance={"source": "two lists of reports"}),
        split="test",
        protocol=Protocol(cleaning=cleaning),
        scorers=Scorers(image_floors=False),
    )


def label(reports: Sequence[str], *, reading: Literal["plain", "chexpert"] = "plain") -> list[dict[str, str]]:
    """The 14 CheXpert observations of every report, by the built-in rules.

    Args:
        reports: texts, one a study
        reading: plain: as a radiologist reads; chexpert: as the CheXpert labeler answers, also where it misreads

    Returns:
        For every report the state of each observation: positive, negative, uncertain or not mentioned.

    Raises:
        InputError: a report is no text

    Example:
        >>> rs.label(["Small left pleural effusion."])[0]["Pleural Effusion"]
        'positive'
    """
    from rayscribe.labels import OBSERVATIONS, STATE_NAMES
    from rayscribe.metrics.labeler import RuleLabeler

    if isinstance(reports, str) or not all(isinstance(report, str) for report in reports):
        raise InputError("reports: give a list of texts")
    labels_RO = RuleLabeler(as_chexpert=reading == "chexpert").label(list(reports))
    return [
        {name: STATE_NAMES[int(state)] for name, state in zip(OBSERVATIONS, states_O, strict=True)}
        for states_O in labels_RO
    ]
