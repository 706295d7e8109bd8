"""MIMIC-CXR and MIMIC-CXR-JPG (Johnson et al., 2019; PhysioNet, for credentialed users) in three layouts.

physionet   the published tables, reports (files or zip) and images (JPEG or DICOM), anywhere under the root
r2gen       R2Gen's annotation.json: one record per image, findings only
labelled    PromptMRG's mimic_annotation_promptmrg.json: the same, with states of 18 conditions
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

from rayscribe.data.mimic_annotations import read_annotation
from rayscribe.data.mimic_files import LABELLED, METADATA, R2GEN, RECORDS, REPORTS_ZIP, SPLIT, Files, find_files
from rayscribe.data.mimic_reports import Reports, mimic_sections, system_text
from rayscribe.data.mimic_tables import Record, read_records
from rayscribe.errors import InputError
from rayscribe.study import SPLITS, Study

MimicLayout = Literal["physionet", "r2gen", "labelled"]

MIMIC_TERMS = (
    "MIMIC-CXR: PhysioNet Credentialed Health Data License 1.5.0; credentialed users only, no sharing of the data, no attempt "
    "to identify anybody"
)
_ANNOTATIONS: dict[MimicLayout, str] = {"r2gen": R2GEN, "labelled": LABELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class MimicOptions:
    """Which images and texts of MIMIC-CXR become studies."""

    layout: MimicLayout | None = None
    "layout to read if the folder contains several"
    level: Literal["study", "image"] | None = None
    """study: one study per examination, with all its images. image: one per image, with its examination's report and dicom id
    as id, as in R2Gen; the annotations offer no other. Default: study, or the annotation's level"""
    sections: Literal["either", "findings", "impression", "both", "system"] = "either"
    """sections that a report must have. system: findings and impression as one text of 20 to 65 words, as in the
    classification and report system of Koehler, Hsieh and Tang"""
    images: Literal["auto", "jpg", "dcm"] = "auto"
    "image files to read; auto prefers JPEG if both exist"
    views: tuple[Literal["pa", "ap", "lateral"], ...] = ()
    "only images of these views"
    one_per_subject: bool = False
    "per patient, only the first remaining image, by study and dicom id, whose file exists"
    without_reports: bool = False
    "read images only, without reports"


@dataclass(frozen=True, kw_only=True)
class MimicCohort:
    """The selected studies, and counts that show whether the copy is complete."""

    studies: tuple[Study, ...]
    numbers: tuple[str, ...]
    "examination of each study, as the tables of labels name it"
    files: Files
    layout: MimicLayout
    left_out: dict[str, int] = field(default_factory=dict)
    images: int
    "number of images that the tables or the annotation list"
    examinations: int
    partial: int = 0
    "images missing from some of the tables"
    with_findings: dict[str, int]
    "images by split whose report has findings, as in R2Gen's records"
    pa_patients: int = 0
    "patients with a PA image"
    labels: tuple[tuple[int, ...], ...] = ()
    "PromptMRG's states, per study"


def read_mimic_cxr(root: Path, options: MimicOptions | None = None) -> list[Study]:
    """The studies under `root`; images may be missing on disk. Raises InputError that names the file at fault."""
    return list(read_mimic_cohort(root, options).studies)


def read_mimic_cohort(root: Path, options: MimicOptions | None = None) -> MimicCohort:
    """The same, with the counts."""
    options = options or MimicOptions()
    files = find_files(root)
    layout = options.layout or _layout(files)
    return _annotation(files, layout, options) if layout in _ANNOTATIONS else _physionet(files, options)


def _layout(files: Files) -> MimicLayout:
    there: list[MimicLayout] = [layout for layout, name in _ANNOTATIONS.items() if name in files.named]
    if any(name in files.named for name in (SPLIT, METADATA, RECORDS)):
        there.append("physionet")
    if len(there) > 1:
        raise InputError(f"{files.root}: contains the layouts {' and '.join(there)}; choose one with --layout")
    return there[0] if there else "physionet"  # its reader reports what is missing


def _physionet(files: Files, options: MimicOptions) -> MimicCohort:
    listed = read_records(files)
    if options.views and METADATA not in files.named:
        raise InputError(f"{files.root}: no {METADATA}, which --views needs; it is part of MIMIC-CXR-JPG")
    reports = None if options.without_reports else Reports(files)
    find = _ImageFinder(files, options)
    left_out: Counter[str] = Counter()
    with_findings: Counter[str] = Counter()
    studies: list[Study] = []
    numbers: list[str] = []
    reports_found = examinations = 0
    for number, of_study in groupby(listed.records, key=lambda record: record.study):
        records = list(of_study)
        examinations += 1
        report = reports.text(number, records[0].subject) if reports else None
        reports_found += report is not None
        findings, impression = mimic_sections(report) if report else ("", "")
        with_findings[records[0].split] += len(records) if findings else 0
        if report and options.sections == "system":
            findings, impression = system_text(report), ""
        wanted = [record for record in records if not options.views or record.view in options.views]
        made = list(_made(wanted, findings, impression, find, options))
        if not made:
            left_out["no image of the views"] += 1
        elif reports and (reason := _lack(report, findings, impression, options)):
            left_out[reason] += len(made)
        else:
            studies += made
            numbers += [number] * len(made)
    if reports and not reports_found:
        raise InputError(
            f"{files.root}: no reports; MIMIC-CXR (not -JPG) has them in {REPORTS_ZIP}: add it, extracted or "
            "not, or read images only with --without-reports"
        )
    if options.one_per_subject:
        studies, numbers = _one_per_subject(studies, numbers, left_out)
    return MimicCohort(
        studies=tuple(studies),
        numbers=tuple(numbers),
        files=files,
        layout="physionet",
        left_out=dict(left_out),
        images=len(listed.records),
        examinations=examinations,
        partial=listed.partial,
        with_findings={split: with_findings[split] for split in SPLITS},
        pa_patients=len({record.subject for record in listed.records if record.view == "pa"}),
    )


def _made(
    records: Sequence[Record], findings: str, impression: str, find: _ImageFinder, options: MimicOptions
) -> Iterator[Study]:
    """One study of all records, or one per record."""
    groups = [[record] for record in records] if options.level == "image" else [records] if records else []
    for group in groups:
        yield Study(
            id=group[0].dicom if options.level == "image" else group[0].study,
            images=tuple(find.path(record) for record in group),
            findings=findings,
            impression=impression,
            split=group[0].split,
            subject=group[0].subject,
            views=tuple(record.view for record in group),
        )


def _lack(report: str | None, findings: str, impression: str, options: MimicOptions) -> str:
    """Why a report cannot be used; empty if it can."""
    if report is None:
        return "no report file"
    if options.sections == "system":
        return "" if findings else "no text of 20 to 65 words"
    if not findings and not impression:
        return "neither findings nor impression"
    if not findings and options.sections in ("findings", "both"):
        return "no findings"
    if not impression and options.sections in ("impression", "both"):
        return "no impression"
    return ""


def _annotation(files: Files, layout: MimicLayout, options: MimicOptions) -> MimicCohort:
    name = _ANNOTATIONS[layout]
    if name not in files.named:
        raise InputError(f"{files.root}: no {name}; give the folder that holds it, or another --layout")
    if options.level == "study" or options.views or options.sections not in ("either", "findings"):
        raise InputError(
            f"{files.named[name]}: lists images with findings but without views; remove --level study, --views and --sections"
        )
    records = read_annotation(files.named[name], files)
    left_out: Counter[str] = Counter()
    kept = [one for one in records if one.study.findings or options.without_reports]
    if len(kept) < len(records):
        left_out["no findings"] = len(records) - len(kept)
    labelled = {one.study.id: one.labels for one in kept if one.labels}
    if 0 < len(labelled) < len(kept):
        raise InputError(f"{files.named[name]}: {len(kept) - len(labelled)} of {len(kept)} records lack labels")
    studies, numbers = [one.study for one in kept], [one.number for one in kept]
    if options.one_per_subject:
        studies, numbers = _one_per_subject(studies, numbers, left_out)
    with_findings = Counter(one.study.split for one in kept if one.study.findings)
    if options.without_reports:
        studies = [replace(study, findings="") for study in studies]
    return MimicCohort(
        studies=tuple(studies),
        numbers=tuple(numbers),
        files=files,
        layout=layout,
        left_out=dict(left_out),
        images=len(records),
        examinations=len({one.number for one in records}),
        with_findings={split: with_findings[split] for split in SPLITS},
        labels=tuple(labelled[study.id] for study in studies) if labelled else (),
    )


def _one_per_subject(
    studies: Sequence[Study], numbers: Sequence[str], left_out: Counter[str]
) -> tuple[list[Study], list[str]]:
    order = sorted(range(len(studies)), key=lambda row: (numbers[row], studies[row].id))
    first: dict[str, int] = {}
    for row in order:
        if any(os.path.exists(image) for image in studies[row].images):
            first.setdefault(studies[row].subject, row)
    rows = sorted(first.values())
    left_out["another study of the same patient, or no image file"] += len(studies) - len(rows)
    return [studies[row] for row in rows], [numbers[row] for row in rows]


class _ImageFinder:
    """Where an image file is, or would be."""

    def __init__(self, files: Files, options: MimicOptions) -> None:
        suffixes = ("jpg", "dcm") if options.images == "auto" else (options.images,)
        trees = files.trees or (str(files.root / "files"),)
        self._places = [(tree, suffix) for suffix in suffixes for tree in trees]

    def path(self, record: Record) -> Path:
        name = f"p{record.subject[:2]}/p{record.subject}/s{record.study}/{record.dicom}"
        paths = [f"{tree}/{name}.{suffix}" for tree, suffix in self._places]
        return Path(next((path for path in paths if os.path.exists(path)), paths[0]))
