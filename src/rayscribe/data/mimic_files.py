"""The files of a copy of MIMIC-CXR, and the rows of its tables.

Users keep tables, reports and images in one folder, in one folder per PhysioNet project, or as `wget -r` leaves them.
"""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rayscribe.errors import InputError

SPLIT = "mimic-cxr-2.0.0-split.csv"
METADATA = "mimic-cxr-2.0.0-metadata.csv"
RECORDS = "cxr-record-list.csv"
STUDIES = "cxr-study-list.csv"
CHEXPERT = "mimic-cxr-2.0.0-chexpert.csv"
NEGBIO = "mimic-cxr-2.0.0-negbio.csv"
RADIOLOGISTS = "mimic-cxr-2.1.0-test-set-labeled.csv"
REPORTS_ZIP = "mimic-cxr-reports.zip"
R2GEN = "annotation.json"
LABELLED = "mimic_annotation_*.json"
"PromptMRG's annotation, which also has states of conditions."

_TABLES = (SPLIT, METADATA, RECORDS, STUDIES, CHEXPERT, NEGBIO, RADIOLOGISTS)
_NAMES = {
    **{name: name for name in (*_TABLES, REPORTS_ZIP, R2GEN)},
    **{f"{name}.gz": name for name in _TABLES},
}
_GROUPS = frozenset(f"p{number}" for number in range(10, 20))
_DEPTH = 7  # physionet.org/files/mimic-cxr-jpg/2.1.0/files is five below


@dataclass(frozen=True, slots=True)
class Files:
    """The files under a root."""

    root: Path
    named: dict[str, Path]
    "paths of the tables, the zip of reports and the annotations, by published name without `.gz`"
    trees: tuple[str, ...]
    "folders that contain p10, p11, ..., with the patients' folders of images or reports"


def find_files(root: Path) -> Files:
    """The nearest file to `root` of every kind; a table takes precedence over its .gz in the same folder."""
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder; give the folder that holds the tables, reports and images of MIMIC-CXR"
        )
    named: dict[str, Path] = {}
    trees: list[str] = []
    level = [str(root)]
    for _ in range(_DEPTH):
        below = []
        for folder in level:
            inside = _inside(folder)
            if any(entry.name in _GROUPS for entry in inside):
                trees.append(folder)
            for entry in inside:
                name = LABELLED if fnmatch(entry.name, LABELLED) else _NAMES.get(entry.name)
                if name and entry.is_file():
                    # Other R2Gen collections have a file of the same name.
                    if entry.name != R2GEN or folder == str(root) or Path(folder).name.startswith("mimic"):
                        named.setdefault(name, Path(entry.path))
                elif entry.name not in _GROUPS and _is_searched(entry):
                    below.append(entry.path)
        level = below
    return Files(root=root, named=named, trees=tuple(trees))


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and values of `columns` for every row of a .csv or .csv.gz. Raises InputError that names the line."""
    with _table(path) as reader:
        header: list[str] = next(reader, [])
        lacking = [name for name in columns if name not in header]
        if lacking:
            raise InputError(f"{path}: no column {', '.join(lacking)}; is it the published table?")
        places = [header.index(name) for name in columns]
        for row in reader:
            if len(row) != len(header):
                raise InputError(f"{path}, line {reader.line_num}: the number of fields differs from the header's")
            yield reader.line_num, [row[place] for place in places]


def columns_of(path: Path) -> list[str]:
    with _table(path) as reader:
        return next(reader, [])


@contextmanager
def _table(path: Path) -> Iterator[Any]:
    """A csv reader whose errors name the damaged file."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as packed:
                yield csv.reader(packed)
        else:
            with open(path, encoding="utf-8-sig", newline="") as plain:
                yield csv.reader(plain)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise InputError(f"{path}: not a readable table ({error}); download it again") from error


def _inside(folder: str) -> list[os.DirEntry[str]]:
    """Entries by name; empty for folders without permission, such as lost+found."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        return []


def _is_searched(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not entry.name.startswith(".") and entry.name != "__MACOSX"
