"""Reports that a system wrote, from our predictions.jsonl and from other tools' files.

    .jsonl          lines {"id": ..., "report": ...}
    .csv, .tsv      an id and a report column
    .json           a list of records, a record by id (ReXrank), a list by split (R2Gen's annotation), or a text by id

The id is in `id`, `study_id`, `dicom_id`, `image_id`, `case_id` or `uid`; the text in `model_prediction`, `prediction`,
`predicted_report`, `generated_report`, `hypothesis`, `report` or `text`, the first that exists, so that a reference next to
a prediction is never mistaken for it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rayscribe.errors import InputError
from rayscribe.study import SPLITS

ID_NAMES = ("id", "study_id", "dicom_id", "image_id", "case_id", "uid")
REPORT_NAMES = (
    "model_prediction",
    "prediction",
    "predicted_report",
    "generated_report",
    "hypothesis",
    "report",
    "text",
)

Placed = tuple[str, Any, Any]
"Place of a record in the file, its id if the file states it outside the record, and the record."


def read_predictions(path: Path) -> dict[str, str]:
    """Reports by study id, as written in the file. Raises InputError that names the line or record."""
    if not path.is_file():
        raise InputError(f"{path}: no such predictions file; write one with `rayscribe generate`")
    predictions: dict[str, str] = {}
    for place, name, record in _records(path):
        study, report = _entry(f"{path}, {place}", name, record)
        if study in predictions:
            raise InputError(f"{path}, {place}: duplicate study {study}")
        predictions[study] = report
    if not predictions:
        raise InputError(f"{path}: contains no report; write one line per study")
    return predictions


def _entry(place: str, name: Any, record: Any) -> tuple[str, str]:
    if isinstance(record, str) and name is not None:
        return str(name), record
    if not isinstance(record, dict):
        raise InputError(f'{place}: not {{"id": ..., "report": ...}}')
    fields = {str(key).strip().lower(): value for key, value in record.items()}
    study = name if name is not None else next((fields[key] for key in ID_NAMES if key in fields), None)
    if isinstance(study, bool) or not isinstance(study, str | int) or study == "":
        raise InputError(f'{place}: not {{"id": ..., "report": ...}}; the id is one of {", ".join(ID_NAMES)}')
    report = next((fields[key] for key in REPORT_NAMES if key in fields), None)
    if not isinstance(report, str):
        raise InputError(
            f'{place}: not {{"id": ..., "report": ...}}; the text is one of {", ".join(REPORT_NAMES)} and must be a text'
        )
    return str(study), report


def _records(path: Path) -> Iterator[Placed]:
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            yield from _table(path, "\t" if suffix == ".tsv" else ",")
        elif suffix == ".json":
            yield from _json(path)
        else:
            yield from _lines(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable {suffix or 'text'} file ({error}); save it as UTF-8") from error


def _lines(path: Path) -> Iterator[Placed]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield f"line {number}", None, json.loads(line)
            except ValueError as error:
                raise InputError(f'{path}, line {number}: not {{"id": ..., "report": ...}} ({error})') from error


def _table(path: Path, delimiter: str) -> Iterator[Placed]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
        if not set(columns) & set(ID_NAMES) or not set(columns) & set(REPORT_NAMES):
            raise InputError(
                f"{path}: the columns are {', '.join(columns) or 'none'}; it needs one of {', '.join(ID_NAMES)} "
                f"and one of {', '.join(REPORT_NAMES)}"
            )
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{path}, line {reader.line_num}: the number of fields differs from the header's")
            yield f"line {reader.line_num}", None, row


def _json(path: Path) -> Iterator[Placed]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); copy it again") from error
    if isinstance(content, dict) and any(isinstance(content.get(split), list) for split in SPLITS):
        content = [record for split in SPLITS for record in content.get(split) or []]
    if isinstance(content, list):
        for number, record in enumerate(content, start=1):
            yield f"record {number}", None, record
    elif isinstance(content, dict):
        for name, record in content.items():
            yield f"record {name}", name, record
    else:
        raise InputError(f"{path}: neither a list nor an object of records; see docs/data.md")
