"""What the licence of the training data allows, carried from the manifest into every model that learned from it.

A manifest that says `restricted` holds data under a use agreement (MIMIC-CXR's, a hospital's): its reports' text stays out of
score files, pages and cards, and a model that learned from it is not exported without the user's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rayscribe.errors import InputError

RESTRICTED = "restricted"


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
