"""MIMIC-CXR as two papers published it for credentialed users: JSON with train, val and test, one record per image.

R2Gen       annotation.json                   id = dicom id, study_id, subject_id, report (findings), image_path
PromptMRG   mimic_annotation_promptmrg.json    image_path (a list; only the first is read), report, labels (18 states)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rayscribe.data.mimic_files import Files
from rayscribe.errors import InputError
from rayscribe.labels import CONDITIONS
from rayscribe.study import SPLITS, Study

_GROUP = re.compile(r"p1\d")


@dataclass(frozen=True, slots=True)
class Annotated:
    """One record: an image with its study's report."""

    study: Study
    number: str
    "study number, as in the tables of labels"
    labels: tuple[int, ...] = ()
    "states of PromptMRG's 18 conditions, in its order"


def read_annotation(path: Path, files: Files) -> list[Annotated]:
    """The records of either file, in file order. Raises InputError that names the record at fault."""
    try:
        annotation = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON, or truncated ({error}); copy it again") from error
    if not isinstance(annotation, dict) or any(not isinstance(annotation.get(split), list) for split in SPLITS):
        raise InputError(f"{path}: not an annotation of MIMIC-CXR; it needs the lists train, val and test")
    bases = tuple(map(str, (path.parent / "images", path.parent, *files.trees)))
    return [_annotated(record, split, bases, place) for record, split, place in _records(annotation, path)]


def _records(annotation: dict[str, Any], path: Path) -> Iterator[tuple[Any, str, str]]:
    for split in SPLITS:
        for number, record in enumerate(annotation[split]):
            yield record, split, f"{path}, {split}[{number}]"


def _annotated(record: Any, split: str, bases: tuple[str, ...], place: str) -> Annotated:
    images = record.get("image_path") if isinstance(record, dict) else None
    if not isinstance(images, list) or not images or not isinstance(images[0], str):
        raise InputError(f"{place}: no image_path, a list of relative paths")
    parts = PurePosixPath(images[0]).parts
    group = next((row for row, part in enumerate(parts) if _GROUP.fullmatch(part)), None)
    if group is None or len(parts) != group + 4:
        raise InputError(
            f"{place}: the image path is not .../p10/<patient>/<study>/<dicom id>.jpg; is the file MIMIC-CXR's?"
        )
    _, patient, examination, name = parts[group:]
    if not isinstance(record.get("report"), str):
        raise InputError(f"{place}: no report")
    subject, number = str(record.get("subject_id", patient[1:])), str(record.get("study_id", examination[1:]))
    if (subject, number) != (patient[1:], examination[1:]):
        raise InputError(f"{place}: the image path names another study or patient than study_id and subject_id")
    labels = record.get("labels", ())
    if labels and not (len(labels) == len(CONDITIONS) and set(labels) <= {0, 1, 2, 3}):
        raise InputError(f"{place}: labels are {len(CONDITIONS)} numbers from 0 to 3")
    study = Study(
        id=str(record.get("id", PurePosixPath(name).stem)),
        images=(_found("/".join(parts[group:]), images[0], bases),),
        findings=record["report"].strip(),
        split=split,
        subject=subject,
    )
    return Annotated(study, number, tuple(labels))


def _found(published: str, written: str, bases: tuple[str, ...]) -> Path:
    for base in bases:
        if os.path.exists(path := f"{base}/{published}"):
            return Path(path)
    return Path(bases[0]) / written
