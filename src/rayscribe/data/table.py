"""Any table (CSV, JSONL, Parquet) with a study id, image paths, a report or its sections, and a split."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayscribe.data.sections import split_sections
from rayscribe.errors import InputError
from rayscribe.study import SPLITS, Study

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "dev": "val",
} | {
    "validation": "val",
    "test": "test",
    "testing": "test",
}

_MISSING = "\0missing"  # value of the missing fields of a short CSV row


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column contains what. A column missing from the table counts as empty, except `id` and `images`."""

    id: str = "id"
    images: str = "images"
    "one path, several separated by `;` or `|`, a JSON list, or a list column; relative paths start at the image root"
    report: str = "report"
    "whole report: its headings are split into sections; without headings it is all findings"
    findings: str = "findings"
    impression: str = "impression"
    split: str = "split"
    subject: str = "subject"
    views: str = "views"
    problems: str = "problems"
    "codes of the findings, separated as in `images`"
    indication: str = "indication"
    comparison: str = "comparison"
    technique: str = "technique"
    exam: str = "exam"
    sizes: str = "sizes"
    "original rows x columns of every image, such as 2320x2828, separated as in `images`"


def read_table(
    path: Path, *, columns: Columns | None = None, image_root: Path | None = None, needs_text: bool = True
) -> list[Study]:
    """The studies of `path`, one per row. `needs_text`: raise InputError for a table without a column of report text."""
    columns = columns or Columns()
    rows = read_rows(path)
    if not rows:
        raise InputError(f"{path}: the table has no rows")
    lacking = [name for name in (columns.id, columns.images) if name not in rows[0]]
    if lacking:
        raise InputError(
            f"{path}: no column {', '.join(lacking)}; the columns are {', '.join(map(str, rows[0]))}. "
            "Give yours with --columns.id and --columns.images"
        )
    texts = (columns.report, columns.findings, columns.impression)
    if needs_text and not any(name in rows[0] for name in texts):
        raise InputError(
            f"{path}: none of the columns {', '.join(texts)}; give yours with --columns.report, "
            "or read images only with --without-reports"
        )
    root = image_root or path.parent
    studies, faults = [], []
    for number, row in enumerate(rows, start=1):
        try:
            studies.append(_study(row, columns, root))
        except InputError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        raise InputError(f"{path}: {len(faults)} rows cannot be read\n  " + "\n  ".join(faults))
    return studies


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Any table as a list of rows by column name. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such table")
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            with open(path, newline="", encoding="utf-8-sig") as file:
                return list(csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",", restval=_MISSING))
        if suffix in (".jsonl", ".ndjson"):
            with open(path, encoding="utf-8") as file:
                return [json.loads(line) for line in file if line.strip()]
        if suffix in (".parquet", ".pq"):
            import pyarrow.parquet as parquet  # half a second to import; only needed here

            return list(parquet.read_table(path).to_pylist())
    except (ValueError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable {suffix} table ({error})") from error
    raise InputError(f"{path}: tables are .csv, .tsv, .jsonl or .parquet")


def is_short(row: dict[str, Any]) -> bool:
    """Whether a row of a text table has fewer or more fields than its header."""
    return None in row or _MISSING in row.values()


def _study(row: dict[str, Any], columns: Columns, root: Path) -> Study:
    if is_short(row):
        raise InputError("the number of fields differs from the header's; quote texts with commas")
    findings, impression = split_sections(text_of(row, columns.report))
    split = text_of(row, columns.split).lower()
    if split and split not in _SPLIT_NAMES:
        raise InputError(f"split {split!r}; there are {', '.join(SPLITS)}")
    study = text_of(row, columns.id)
    if not study:
        raise InputError(f"no study id in column {columns.id}")
    return Study(
        id=study,
        images=tuple(root / name for name in _listed(row.get(columns.images))),
        findings=text_of(row, columns.findings) or findings,
        impression=text_of(row, columns.impression) or impression,
        split=_SPLIT_NAMES.get(split, ""),
        subject=text_of(row, columns.subject),
        views=tuple(view.lower() for view in _listed(row.get(columns.views))),
        problems=tuple(problem.lower() for problem in _listed(row.get(columns.problems))),
        indication=text_of(row, columns.indication),
        comparison=text_of(row, columns.comparison),
        technique=text_of(row, columns.technique),
        exam=text_of(row, columns.exam),
        sizes=tuple(_size(text) for text in _listed(row.get(columns.sizes))),
    )


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\s*[xX\u00d7]\s*(\d+)", text)
    if match is None:
        raise InputError(f"size {text!r}; write rows x columns of every image, such as 2320x2828;2828x2320")
    return int(match[1]), int(match[2])


def text_of(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    return "" if value is None or value != value else str(value).strip()  # NaN is not equal to itself


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [str(item) for item in value]
    text = str(value).strip()
    if text.startswith("["):
        try:
            return [str(item) for item in json.loads(text)]
        except ValueError as error:
            raise InputError(f"{text[:8]!r}... is not a JSON list") from error  # a wrong column may hold reports
    return [part.strip() for part in text.replace("|", ";").split(";") if part.strip()]
