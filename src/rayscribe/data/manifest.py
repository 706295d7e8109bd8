"""The manifest: one Parquet file with all studies and their provenance; the only input of every step after `prepare`."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet

from rayscribe.errors import InputError
from rayscribe.files import whole_file
from rayscribe.study import CONTEXT, SPLITS, Study

_FORMAT = "rayscribe-manifest-1"
_KEY = b"rayscribe"
_BATCH = 8192
_SCHEMA = arrow.schema(
    {
        "id": arrow.string(),
        "subject": arrow.string(),
        "split": arrow.string(),
        "images": arrow.list_(arrow.string()),
        "sha256": arrow.list_(arrow.string()),
        "views": arrow.list_(arrow.string()),
        "problems": arrow.list_(arrow.string()),
        "findings": arrow.string(),
        "impression": arrow.string(),
        **{name: arrow.string() for name in CONTEXT},
        "sizes": arrow.list_(arrow.list_(arrow.int32())),
        "negatives": arrow.list_(arrow.string()),
        "negative_scores": arrow.list_(arrow.float32()),
    }
)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Checked studies and their provenance."""

    studies: tuple[Study, ...]
    provenance: dict[str, Any]
    "source, reader, root, terms, counts, what was left out and why, rayscribe version, time"

    def split(self, name: str) -> list[Study]:
        studies = [study for study in self.studies if study.split == name]
        if not studies:
            raise InputError(f"the manifest has no study in split {name!r}; it has {dict(self.counts())}")
        return studies

    def counts(self) -> Counter[str]:
        return Counter({name: sum(study.split == name for study in self.studies) for name in SPLITS})

    def digest(self) -> str:
        """A hash over ids, splits, image bytes, findings and impressions: equal digests mean the same data for a model.

        The context (indication and its kin) and the sizes are left out, because no model reads them.
        """
        digest = hashlib.sha256()
        for study in sorted(self.studies, key=lambda one: one.id):
            row = [study.id, study.split, study.sha256, study.findings, study.impression]
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def digest_with_negatives(self) -> str:
        """A hash that also covers the mined negatives, which are not data but affect what some methods learn."""
        mined = [[study.id, study.negatives] for study in sorted(self.studies, key=lambda one: one.id)]
        return hashlib.sha256(json.dumps([self.digest(), mined]).encode()).hexdigest()


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes the manifest; images inside its folder are stored as relative paths, so that the folder can be moved."""
    folder, real = os.path.realpath(path.parent), _real_folders()
    about = json.dumps({"format": _FORMAT, **manifest.provenance})
    schema = _SCHEMA.with_metadata({_KEY: about.encode()})
    # In batches: rows as dictionaries take far more memory than the studies.
    with whole_file(path) as temporary, parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, max(1, len(manifest.studies)), _BATCH):
            rows = [_row(study, folder, real) for study in manifest.studies[start : start + _BATCH]]
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def read_manifest(path: str | Path) -> Manifest:
    """The studies that `rayscribe prepare` checked, and where they come from.

    Raises:
        InputError: there is no such file, or it is no manifest

    Example:
        >>> manifest = rs.read_manifest("iu.parquet")
        >>> len(manifest.split("test")), manifest.counts()
    """
    path = Path(os.path.expanduser(path))
    with _opened(path) as (file, provenance):
        folder = path.parent.resolve()
        batches = file.iter_batches(_BATCH)
        studies = tuple(_study(row, folder) for batch in batches for row in batch.to_pylist())
    return Manifest(studies=studies, provenance=provenance)


def read_provenance(path: Path) -> dict[str, Any]:
    """The provenance alone, without reading the studies. Raises InputError as `read_manifest`."""
    with _opened(path) as (_, provenance):
        return provenance


@contextmanager
def _opened(path: Path) -> Iterator[tuple[parquet.ParquetFile, dict[str, Any]]]:
    """The open file and its provenance. Raises InputError that says what the path is instead of a manifest."""
    if path.is_dir():
        inside = min(path.glob("*.parquet"), default=path / "split-0.parquet")
        raise InputError(f"{path}: is a folder, and one manifest is needed here; give a file, such as {inside}")
    if not path.is_file():
        raise InputError(f"{path}: no such manifest; write one with `rayscribe prepare ... --out {path}`")
    try:
        with parquet.ParquetFile(path) as file:
            provenance = json.loads((file.schema_arrow.metadata or {})[_KEY])
            if provenance.pop("format") != _FORMAT:
                raise InputError(f"{path}: a manifest of another format; write it again with `rayscribe prepare`")
            yield file, provenance
    except (arrow.ArrowInvalid, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a rayscribe manifest; write one with `rayscribe prepare`") from error


def _row(study: Study, folder: str, real: Callable[[str], str]) -> dict[str, Any]:
    return {
        "id": study.id,
        "subject": study.subject,
        "split": study.split,
        "images": [_stored(image, folder, real) for image in study.images],
        "sha256": list(study.sha256),
        "views": list(study.views),
        "problems": list(study.problems),
        "findings": study.findings,
        "impression": study.impression,
        "indication": study.indication,
        "comparison": study.comparison,
        "technique": study.technique,
        "exam": study.exam,
        "sizes": [list(size) for size in study.sizes],
        "negatives": list(study.negatives),
        "negative_scores": list(study.negative_scores),
    }


def _study(row: dict[str, Any], folder: Path) -> Study:
    return Study(
        id=row["id"],
        subject=row["subject"],
        split=row["split"],
        images=tuple(folder / image for image in row["images"]),
        sha256=tuple(row["sha256"]),
        views=tuple(row["views"]),
        problems=tuple(row.get("problems") or ()),  # manifests before 0.2 lack them
        findings=row["findings"],
        impression=row["impression"],
        indication=row.get("indication") or "",  # manifests before 0.6 lack these five
        comparison=row.get("comparison") or "",
        technique=row.get("technique") or "",
        exam=row.get("exam") or "",
        sizes=tuple((rows, columns) for rows, columns in row.get("sizes") or ()),
        negatives=tuple(row.get("negatives") or ()),  # manifests before 0.3 lack them
        negative_scores=tuple(row.get("negative_scores") or ()),
    )


def _stored(image: Path, folder: str, real: Callable[[str], str]) -> str:
    head, name = os.path.split(image)
    absolute = os.path.realpath(image) if os.path.islink(image) else os.path.join(real(head), name)
    return absolute.removeprefix(os.path.join(folder, ""))


def _real_folders() -> Callable[[str], str]:
    """`os.path.realpath` of folders, resolving every folder once: a large collection has one folder per study."""

    @cache
    def real(folder: str) -> str:
        head, name = os.path.split(folder)
        if name in ("", ".", "..") or os.path.islink(folder):
            return os.path.realpath(folder)
        return os.path.join(real(head), name)

    return real
