"""Which images a model has learned from, and every look at the test split, kept in its folder.

Nobody shall score a model on images that it has learned from, or build on it and score that. The file of images holds the start
of every SHA-256, in order; images that were written anew (resized, in shards) have another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.study import Study

SEEN = "training-images.txt"
_DIGITS = 16  # of the hash: no two of a million images share them by chance


def write_seen(folder: Path, studies: Iterable[Study], weights: str) -> None:
    """The training studies of this model, and those of the model that its image encoder was taken from."""
    found = _hashes(studies) | (_read(Path(weights)) if weights else set())
    write_text(folder / SEEN, "".join(f"{one}\n" for one in sorted(found)))


def check_unseen(weights: Path, studies: Iterable[Study], what: str) -> None:
    """Raises InputError where the model in the folder `weights` learned from an image of these studies."""
    known = _read(weights)
    if not known:
        return
    shared = [study.id for study in studies if _hashes([study]) & known]
    if shared:
        raise InputError(
            f"{weights}: learned from images of {len(shared)} studies of {what}, e.g. {shared[0]}; a score on them would mean "
            "nothing. Take a model that was trained on other studies, or another split"
        )


def note_test(folder: Path, facts: Mapping[str, Any]) -> None:
    """Every use of the test split is noted in the model's folder."""
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds")} | dict(facts)
    with open(folder / "test-log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _hashes(studies: Iterable[Study]) -> set[str]:
    return {sha256[:_DIGITS] for study in studies for sha256 in study.sha256}


def _read(folder: Path) -> set[str]:
    path = folder / SEEN
    return set(path.read_text().split()) if path.is_file() else set()
