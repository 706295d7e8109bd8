"""Where a model's knowledge comes from: the terms of its training data, the images it has seen, every look at the test split.

A manifest that says `restricted` holds data under a use agreement (MIMIC-CXR's, a hospital's): its reports' text stays out of
score files, pages and cards, and a model that learned from it is not exported without the user's word.

Never evaluate a model on its training images, and never build on a model and then evaluate on its training images. The file of
images holds the first digits of every SHA-256, in order; images that were written again (resized, in shards) have another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rayscribe.errors import InputError
from rayscribe.files import naming, write_text
from rayscribe.study import Study

RESTRICTED = "restricted"
SEEN = "training-images.txt"
_DIGITS = 16  # of the hash: no two of a million images share them by chance


def is_restricted(provenance: Mapping[str, Any]) -> bool:
    """Whether a manifest, or a model's `data`, is under a use agreement."""
    return bool(provenance.get(RESTRICTED))


def terms_of(provenance: Mapping[str, Any]) -> str:
    """One line for cards and pages."""
    terms = str(provenance.get("terms", "not stated"))
    return f"{terms} (restricted: not to be published without permission)" if is_restricted(provenance) else terms


def inherited(provenance: Mapping[str, Any], origins: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The provenance of a model that also starts from other models, whose data's terms hold for it as well."""
    own = dict(provenance)
    for origin in origins:
        if is_restricted(origin) and not is_restricted(own):
            own[RESTRICTED] = True
        theirs = str(origin.get("terms", "not stated"))
        if theirs not in str(own.get("terms", "not stated")):
            own["terms"] = f"{own.get('terms', 'not stated')}; of what it started from: {theirs}"
    return own


def check_publishable(provenance: Mapping[str, Any], *, is_allowed: bool) -> None:
    """Raises InputError for a model of restricted data unless the user has said that the terms allow it."""
    if is_restricted(provenance) and not is_allowed:
        raise InputError(
            f"the model learned from restricted data ({provenance.get('terms', 'terms not stated')}). Weights can hold what "
            "reports say; if the terms allow you to pass the model on, give --terms-allow-it"
        )


def write_training_images(folder: Path, studies: Iterable[Study], sources: Iterable[str]) -> None:
    """The training studies of this model, and those of the models that its image encoders were taken from."""
    found = image_hashes(studies).union(*(_seen_by(Path(weights)) for weights in sources))
    write_text(folder / SEEN, "".join(f"{one}\n" for one in sorted(found)))


def count_seen(sources: Iterable[str], studies: Iterable[Study]) -> int:
    """Of these studies, those of which a model in one of the folders `sources` learned from an image."""
    known: set[str] = set().union(*(_seen_by(Path(weights)) for weights in sources))
    return sum(bool(image_hashes([study]) & known) for study in studies)


def forget_images(folder: Path, out: Path, images: Iterable[str]) -> None:
    """Writes the folder's list of training images into `out`, without these (as `image_hashes` gives them)."""
    if (folder / SEEN).is_file():
        write_text(out / SEEN, "".join(f"{one}\n" for one in sorted(_seen_by(folder) - set(images))))


def check_unseen(weights: Path, studies: Iterable[Study], what: str) -> None:
    """Raises InputError where the model in the folder `weights` learned from an image of these studies."""
    known = _seen_by(weights)
    if not known:
        return
    shared = [study.id for study in studies if image_hashes([study]) & known]
    if shared:
        raise InputError(
            f"{weights}: learned from images of {len(shared)} studies of {what}, e.g. {shared[0]}; a score on them would mean "
            "nothing. Take a model that was trained on other studies, or another split"
        )


def note_test(folder: Path, facts: Mapping[str, Any]) -> None:
    """Every use of the test split is noted in the model's folder."""
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds")} | dict(facts)
    log = folder / "test-log.jsonl"
    with naming(log), open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def image_hashes(studies: Iterable[Study]) -> set[str]:
    """The first digits of the SHA-256 of their images."""
    return {sha256[:_DIGITS] for study in studies for sha256 in study.sha256}


def _seen_by(folder: Path) -> set[str]:
    path = folder / SEEN
    return set(path.read_text().split()) if path.is_file() else set()
