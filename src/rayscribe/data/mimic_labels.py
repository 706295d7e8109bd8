"""MIMIC-CXR's label tables in the format of `read_labels`, keyed by the studies of a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rayscribe.data.label_tables import state_of, write_labels
from rayscribe.data.mimic_cxr import MimicCohort
from rayscribe.data.mimic_files import CHEXPERT, NEGBIO, RADIOLOGISTS, columns_of, csv_rows
from rayscribe.errors import InputError
from rayscribe.labels import AUXILIARY, CONDITIONS, CSV_STATES, NOT_MENTIONED, OBSERVATIONS
from rayscribe.study import Study

_SOURCES = {"chexpert": CHEXPERT, "negbio": NEGBIO, "radiologists": RADIOLOGISTS}
_OTHER_NAMES = {"Lung Opacity": "Airspace Opacity"}  # in the radiologists' table


def write_label_tables(out: Path, cohort: MimicCohort, studies: Sequence[Study]) -> dict[Path, int]:
    """Writes `<stem>.chexpert.csv` and so on next to the manifest `out`, for its labelled `studies`; returns rows per file.

    Reports without labels (MIMIC-CXR-JPG has eight) have no row.
    """
    number_of = {study.id: number for study, number in zip(cohort.studies, cohort.numbers, strict=True)}
    subject_of = {number_of[study.id]: study.subject for study in studies}
    written = {}
    for name, source in _SOURCES.items():
        if source in cohort.files.named:
            states = read_states(cohort.files.named[source], subject_of)
            labelled = [study.id for study in studies if number_of[study.id] in states]
            values = [states[number_of[study]] for study in labelled]
            path = out.with_name(f"{out.stem}.{name}.csv")
            write_labels(path, [{"id": study} for study in labelled], np.array(values, np.int8).reshape(-1, 14))
            written[path] = len(labelled)
    if cohort.labels:
        path = out.with_name(f"{out.stem}.conditions.csv")
        _write_conditions(path, cohort, studies)
        written[path] = len(studies)
    return written


def read_states(path: Path, subject_of: dict[str, str]) -> dict[str, tuple[int, ...]]:
    """States in the order of `OBSERVATIONS` by study number, for the studies of `subject_of`.

    Raises InputError for a duplicate study, and for one that belongs to another patient.
    """
    names = _names(path)
    present = [name for name in names if name]
    has_subject = "subject_id" in columns_of(path)
    found: dict[str, tuple[int, ...]] = {}
    state_by_text: dict[str, int] = {}  # a handful, for millions of cells
    for line, (study, *cells) in csv_rows(path, ("study_id", *(["subject_id"] if has_subject else []), *present)):
        if study not in subject_of:
            continue
        if study in found:
            raise InputError(f"{path}, line {line}: duplicate study {study}")
        if has_subject and cells.pop(0) != subject_of[study]:
            raise InputError(f"{path}, line {line}: study {study} belongs to different patients here and elsewhere")
        for name, text in zip(present, cells, strict=True):
            if text not in state_by_text:
                state_by_text[text] = state_of(text, f"{path}, line {line}, {name}")
        states = dict(zip(present, map(state_by_text.__getitem__, cells), strict=True))
        found[study] = tuple(states.get(name, NOT_MENTIONED) for name in names)
    return found


def _names(path: Path) -> list[str]:
    """The table's names of the observations. No Finding follows from the others, so a table may lack it: empty."""
    columns = columns_of(path)
    names = [_OTHER_NAMES[name] if _OTHER_NAMES.get(name) in columns else name for name in OBSERVATIONS]
    return ["" if name == "No Finding" and name not in columns else name for name in names]


def _write_conditions(path: Path, cohort: MimicCohort, studies: Sequence[Study]) -> None:
    """Writes PromptMRG's 14 conditions, preceded by its four additional columns."""
    labels_of = {study.id: labels for study, labels in zip(cohort.studies, cohort.labels, strict=True)}
    place = {name: CONDITIONS.index(name) for name in (*OBSERVATIONS, *AUXILIARY)}
    leading = [
        {"id": study.id} | {name: CSV_STATES[labels_of[study.id][place[name]]] for name in AUXILIARY}
        for study in studies
    ]
    states = [[labels_of[study.id][place[name]] for name in OBSERVATIONS] for study in studies]
    write_labels(path, leading, np.array(states, np.int8).reshape(-1, len(OBSERVATIONS)))
