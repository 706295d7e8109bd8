"""The joined tables of MIMIC-CXR: every image with its study, patient, split and view.

All tables present must agree on the study of an image and the patient of a study, and a patient may be in one split only.
Messages name studies and images, never patients.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rayscribe.data.mimic_files import METADATA, RECORDS, SPLIT, STUDIES, Files, csv_rows
from rayscribe.errors import InputError

_SPLITS = {"train": "train", "validate": "val", "test": "test"}
_VIEWS = {"PA": "pa", "AP": "ap", "LATERAL": "lateral", "LL": "lateral"}


@dataclass(frozen=True, slots=True)
class Record:
    """One image, without its file."""

    dicom: str
    study: str
    subject: str
    split: str
    "empty without the split table"
    view: str
    "pa, ap, lateral, or empty for oblique, decubitus and unknown views"


@dataclass(frozen=True, slots=True)
class Records:
    """All images that occur in every table, sorted by patient, study and image."""

    records: tuple[Record, ...]
    partial: int
    "number of images missing from some of the tables"


def read_records(files: Files) -> Records:
    """The checked inner join of the split table, the metadata and the record list, as far as they exist."""
    tables = {name: files.named[name] for name in (SPLIT, METADATA, RECORDS) if name in files.named}
    if not tables:
        raise InputError(
            f"{files.root}: none of {SPLIT}, {METADATA} (both of MIMIC-CXR-JPG) and {RECORDS} (of MIMIC-CXR), plain or .gz, is "
            "in this folder or below; give the folder that contains them"
        )
    ids = _Ids()
    seen = {name: _read(path, name, ids) for name, path in tables.items()}
    if STUDIES in files.named:
        for line, (subject, study) in csv_rows(files.named[STUDIES], ("subject_id", "study_id")):
            ids.add_study(study, subject, files.named[STUDIES], line)
    common = set.intersection(*(set(table) for table in seen.values()))
    if not common:
        raise InputError(f"{' and '.join(map(str, tables.values()))}: no image is in all of them")
    everything = set.union(*(set(table) for table in seen.values()))
    splits = seen.get(SPLIT, {})
    if splits:
        _check_splits(splits, ids, files.named[SPLIT])
    views = seen.get(METADATA, {})
    records = [
        Record(
            dicom, ids.study_of[dicom], ids.subject_of[ids.study_of[dicom]], splits.get(dicom, ""), views.get(dicom, "")
        )
        for dicom in common
    ]
    records.sort(key=lambda record: (record.subject, record.study, record.dicom))
    return Records(records=tuple(records), partial=len(everything) - len(common))


class _Ids:
    """The study of each image and the patient of each study, over all tables."""

    def __init__(self) -> None:
        self.study_of: dict[str, str] = {}
        self.subject_of: dict[str, str] = {}

    def add_image(self, dicom: str, study: str, subject: str, path: Path, line: int) -> None:
        if (other := self.study_of.setdefault(dicom, study)) != study:
            raise InputError(
                f"{path}, line {line}: image {dicom} is in study {study} here and in study {other} elsewhere"
            )
        self.add_study(study, subject, path, line)

    def add_study(self, study: str, subject: str, path: Path, line: int) -> None:
        if self.subject_of.setdefault(study, subject) != subject:
            raise InputError(f"{path}, line {line}: study {study} belongs to different patients here and elsewhere")


def _read(path: Path, name: str, ids: _Ids) -> dict[str, str]:
    """The split or the view of every image of a table; empty strings for the list of records."""
    further = {SPLIT: ("split",), METADATA: ("ViewPosition",), RECORDS: ()}[name]
    found: dict[str, str] = {}
    for line, (dicom, study, subject, *rest) in csv_rows(path, ("dicom_id", "study_id", "subject_id", *further)):
        if not (dicom and study and subject):
            raise InputError(f"{path}, line {line}: dicom_id, study_id or subject_id is empty")
        dicom = sys.intern(dicom)  # the same strings occur in three tables
        ids.add_image(dicom, sys.intern(study), sys.intern(subject), path, line)
        if dicom in found:
            raise InputError(f"{path}, line {line}: duplicate image {dicom}")
        if name == SPLIT and rest[0] not in _SPLITS:
            raise InputError(f"{path}, line {line}: split {rest[0]!r} of image {dicom}; there are {', '.join(_SPLITS)}")
        found[dicom] = _SPLITS[rest[0]] if name == SPLIT else _VIEWS.get(rest[0].strip().upper(), "") if rest else ""
    return found


def _check_splits(splits: dict[str, str], ids: _Ids, path: Path) -> None:
    """Checks that studies and patients are in one split; `splits` is in the table's order, so that the row can be named."""
    of_study: dict[str, str] = {}
    of_subject: dict[str, str] = {}
    for number, (dicom, split) in enumerate(splits.items(), start=2):
        study = ids.study_of[dicom]
        if of_study.setdefault(study, split) != split:
            raise InputError(f"{path}, line {number}: study {study} is in the splits {of_study[study]} and {split}")
        subject = ids.subject_of[study]
        if of_subject.setdefault(subject, split) != split:
            raise InputError(
                f"{path}, line {number}: the patient of study {study} is in the splits {of_subject[subject]} and {split}"
            )
