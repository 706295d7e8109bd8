"""A fitted model folder without some of its training studies, as if it had never been fitted on them.

Weights, texts, scores, counts and the list of training images are replaced together; what was forgotten stays as a count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rayscribe.checkpoint import load_fitted, save_fitted
from rayscribe.errors import InputError
from rayscribe.files import finish_replacing, replaced_together
from rayscribe.methods import methods
from rayscribe.methods.fitted import Forgotten
from rayscribe.models.folder import FITTED, format_of
from rayscribe.provenance import forget_images
from rayscribe.training.folder import locked


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """What `forget` did to a folder."""

    studies: int
    remaining: int
    scores: Mapping[str, float]
    "of the new fit, by leaving studies out"
    same_patients: Sequence[str]
    "ids of training studies that remain, of the same patients"
    traces: Sequence[str]
    "other files in the folder that name a forgotten study or hold its report"


def forget(folder: Path, ids: Sequence[str], notify: Callable[[str], None]) -> Forgetting:
    """Fits the folder's method again without these training studies, and replaces the folder's files.

    A process that is killed leaves the folder as it was, or one that the same command completes. Raises InputError, and changes
    nothing, for a model that was trained by gradient steps, for an image encoder that learned from the training studies, for
    ids that are not among them, and where too few would remain.
    """
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        raise InputError("name the training studies to forget, by their ids")
    if format_of(folder) != FITTED:
        raise InputError(_unforgetting(folder))
    with locked(folder):
        if finish_replacing(folder):
            raise InputError(
                f"{folder}: completed what an interrupted `forget` had made ready; repeat the command unless it was for these "
                "studies"
            )
        trained = load_fitted(folder)
        if trained.method.forget is None:
            raise InputError(_unforgetting(folder))
        if seen := trained.training.get("seen_by_encoder", 0):
            raise InputError(
                f"{folder}: its image encoder learned from {seen} of the training studies by gradient steps, and cannot forget "
                "them exactly; train the encoder and this model again without the studies"
            )
        found = trained.method.forget(trained.config, trained.fitted, wanted, notify)
        scores = {name: float(score) for name, score in found.fitted.scores.items()}
        new = replace(
            trained,
            fitted=found.fitted,
            data=_data_without(trained.data, found),
            training=trained.training | {"validation": scores},
        )
        with replaced_together(folder) as made:
            save_fitted(made, new)
            forget_images(folder, made, found.images)
    return Forgetting(
        studies=found.studies,
        remaining=found.remaining,
        scores=scores,
        same_patients=found.same_patients,
        traces=_traces(folder, [*map(json.dumps, wanted), *found.reports]),
    )


def _unforgetting(folder: Path) -> str:
    able = ", ".join(name for name, method in methods().items() if method.forget is not None)
    return (
        f"{folder}: this kind of model cannot forget a study exactly, because training mixes all studies into its weights; "
        f"train it again on a manifest without the study (methods that can forget: {able})"
    )


def _data_without(data: Mapping[str, Any], found: Forgotten) -> dict[str, Any]:
    """Counts without the forgotten; the digest stays that of the manifest that held them, which the count says."""
    kept = dict(data) | {"forgotten": data.get("forgotten", 0) + found.studies}
    counts = kept.get("counts")
    if isinstance(counts, dict) and isinstance(counts.get("train"), int):
        kept["counts"] = counts | {"train": counts["train"] - found.studies}
    if isinstance(kept.get("images"), int):
        kept["images"] -= len(found.images)
    return kept


def _traces(folder: Path, texts: Sequence[str]) -> list[str]:
    """Files in the folder that hold one of these texts, such as predictions that were written there."""
    wanted = [text.encode() for text in texts]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in files if _holds(path, wanted)]


def _holds(path: Path, wanted: Sequence[bytes]) -> bool:
    content = path.read_bytes()
    return any(text in content for text in wanted)
