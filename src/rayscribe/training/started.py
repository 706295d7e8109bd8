"""What a run was started with beside its settings, so that `--resume` needs the run folder alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.settings import to_yaml

STARTED = "started.json"
"Name of the file in a run folder. It names local paths, so no model that is passed on carries it."


DONE = "done.txt"
"Name of the empty file that marks a finished run among several."


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Paths are absolute."""

    data: Path
    "the manifest, or the folder of a set of splits"
    features: Path | None = None
    "folder of the feature cache; the user's cache folder when None"
    generations: int = 1
    per_finding: bool = False
    "classifiers: the folder holds a run of every finding"

    def save(self, run: Path) -> None:
        """Writes it into the run folder, which exists."""
        features = None if self.features is None else str(self.features.resolve())
        about = {
            "data": str(self.data.resolve()),
            "features": features,
            "generations": self.generations,
            "per_finding": self.per_finding,
        }
        write_text(run / STARTED, json.dumps(about, indent=2) + "\n")


def begin_several(run: Path, config: Any, started: Started, *, resume: bool) -> None:
    """Notes settings and start in the folder that several runs share; a resumed one keeps what it has."""
    if not (resume and (run / "config.yaml").exists()):
        write_text(run / "config.yaml", to_yaml(config))
    if not (resume and (run / STARTED).exists()):
        started.save(run)


def read_started(run: Path) -> Started:
    """Of a run folder. Raises InputError where there is none, as in runs of version 0.4.0 and earlier."""
    path = run / STARTED
    if not path.is_file():
        raise InputError(f"{run}: does not say what it was started on (no {STARTED}); name the manifest with --data")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        features = about["features"]
        return Started(
            data=Path(about["data"]),
            features=None if features is None else Path(features),
            generations=int(about["generations"]),
            per_finding=bool(about["per_finding"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error!r}); name the manifest with --data") from error
