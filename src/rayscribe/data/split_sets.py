"""A set of splits of one data set: a folder of manifests, as `rayscribe resplit` writes it; a split is named by its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayscribe.data.manifest import read_provenance
from rayscribe.errors import InputError

RESPLIT = "resplit"
"Key of a manifest's provenance that says how its split was drawn."


def is_split_set(data: Path) -> bool:
    """Whether `data` is a folder of manifests rather than one manifest."""
    return data.is_dir()


def split_manifests(folder: Path) -> dict[str, Path]:
    """The manifests of a set by the names of their splits; split-10 follows split-9.

    Raises InputError where the folder has no *.parquet, or one that is no manifest.
    """
    paths = sorted((path for path in folder.glob("*.parquet") if path.name[0] != "."), key=_by_number)
    if not paths:
        raise InputError(
            f"{folder}: a folder without a manifest (*.parquet); write a set of splits with "
            f"`rayscribe resplit DATA --out {folder}`, or give one manifest"
        )
    for path in paths:
        read_provenance(path)
    return {path.stem: path for path in paths}


def split_text(provenance: Mapping[str, Any], digest: object) -> str:
    """Which split a manifest, or a model's `data`, is of: the seed and the first digits of the manifest's digest."""
    about = provenance.get(RESPLIT)
    drawn = f"seed {about.get('seed')}, {about.get('kept_together')} kept together, " if isinstance(about, dict) else ""
    return f"{drawn}digest {str(digest)[:12]}" if digest else f"{drawn}digest not stated"


def _by_number(path: Path) -> list[str | int]:
    """Text and numbers in turn."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]
