"""Tables of the 14 observations in the CheXpert labeler's format: 1 positive, 0 negative, -1 uncertain, blank."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.data.predictions import ID_NAMES
from rayscribe.errors import InputError
from rayscribe.files import sha256_of, whole_file
from rayscribe.labels import CSV_STATES, OBSERVATIONS, Labels

_STATES = {float(text): state for state, text in CSV_STATES.items() if text}
_QUOTED = 8  # characters quoted of a bad cell, which may contain a report


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTables:
    """Precomputed labels by study id, of the written reports and of the references, by the same labeler."""

    predicted: Mapping[str, tuple[int, ...]]
    reference: Mapping[str, tuple[int, ...]]
    name: str
    "includes a hash of the references' file, for the signature"

    @classmethod
    def read(cls, predicted: Path, reference: Path) -> LabelTables:
        return cls(
            predicted=read_labels(predicted),
            reference=read_labels(reference),
            name=f"tables (reference {sha256_of(reference)[:12]})",
        )

    def pair(self, ids: Sequence[str]) -> tuple[Labels, Labels]:
        """States (R, 14) of the written reports and of the references."""
        return _rows("written reports", self.predicted, ids), _rows("references", self.reference, ids)


def read_labels(path: Path) -> dict[str, tuple[int, ...]]:
    """States by study id, in the order of `OBSERVATIONS`, regardless of the column order. Raises InputError."""
    return read_columns(path)[0]


def read_columns(path: Path, further: Sequence[str] = ()) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The same with the `further` columns that the table has; and the names of all columns that were read."""
    if not path.is_file():
        raise InputError(f"{path}: no such table of labels; make one with `rayscribe label`")
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        key = next((name for name in columns if name.strip().lower() in ID_NAMES), None)
        lacking = [name for name in OBSERVATIONS if name not in columns]
        if key is None or lacking:
            raise InputError(
                f"{path}: needs an id column ({', '.join(ID_NAMES)}) and the 14 observations; "
                f"missing: {', '.join(lacking) or 'the id'}"
            )
        names = [*OBSERVATIONS, *(name for name in further if name in columns)]
        found: dict[str, tuple[int, ...]] = {}
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{place}: the number of fields differs from the header's")
            if row[key] in found:
                raise InputError(f"{place}: duplicate study {row[key]}")
            found[row[key]] = tuple(state_of(row[name], f"{place}, {name}") for name in names)
    return found, names


def state_of(text: str | None, place: str) -> int:
    """The state that a cell of such a table means; `place` names the cell in messages. Raises InputError."""
    if text is None or not text.strip():
        return 0
    try:
        return _STATES[float(text)]
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{place}: {text[:_QUOTED]!r} is none of 1 (positive), 0 (negative), -1 (uncertain) and blank"
        ) from error


def write_labels(path: Path, rows: Sequence[Mapping[str, Any]], labels: Labels) -> None:
    """Writes the given columns of every row, then the 14 observations."""
    columns = [name for name in (rows[0] if rows else {}) if name not in OBSERVATIONS]
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *OBSERVATIONS])
        for row, states in zip(rows, labels, strict=True):
            writer.writerow([row.get(name, "") for name in columns] + [CSV_STATES[int(state)] for state in states])


def _rows(what: str, table: Mapping[str, tuple[int, ...]], ids: Sequence[str]) -> Labels:
    missing = [name for name in ids if name not in table]
    if missing:
        raise InputError(f"the labels of the {what} lack {len(missing)} of {len(ids)} studies, e.g. {missing[0]}")
    return np.array([table[name] for name in ids], np.int8)
