"""States of the 18 conditions: CheXbert's 14, then four auxiliary ones that few tables contain (PromptMRG's, in its order).

`rayscribe.labels.OBSERVATIONS` has the CheXpert labeler's order, which is different; look conditions up by name.

Shapes: R reports, O conditions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.label_tables import read_columns
from rayscribe.errors import InputError
from rayscribe.labels import AUXILIARY, CONDITIONS, NOT_MENTIONED, OBSERVATIONS, POSITIVE, UNLABELLED
from rayscribe.metrics.labeler import RuleLabeler

RULES, TRAINING = "rules", "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """States of the 18 conditions per study, in the order of `CONDITIONS`."""

    states_RO: NDArray[np.int8]
    "the codes of `rayscribe.labels`, or UNLABELLED"
    source: str
    "name of the labeler or of the table"

    @property
    def is_labelled_O(self) -> NDArray[np.bool_]:
        labelled: NDArray[np.bool_] = (self.states_RO != UNLABELLED).all(0)
        return labelled

    def positive_rates_O(self) -> NDArray[np.float64]:
        """Share of the studies in which each condition is positive, in [0, 1]; 0 for conditions without labels."""
        rates: NDArray[np.float64] = (self.states_RO == POSITIVE).mean(0)
        return rates


def study_conditions(source: str, ids: Sequence[str], reports: Sequence[str]) -> Conditions:
    """States of every study from the built-in labeler ("rules"), or from the table `source`, by study id.

    The rules and most tables cover 14 conditions; the auxiliary four are then UNLABELLED. Raises InputError for missing
    studies.
    """
    if source == RULES:
        labeler = RuleLabeler()
        return _in_order(labeler.label(reports), OBSERVATIONS, labeler.name)
    path = Path(source)
    table, names = read_columns(path, AUXILIARY)
    lacking = [id_ for id_ in ids if id_ not in table]
    if lacking:
        raise InputError(
            f"{path}: {len(lacking)} of {len(ids)} studies have no labels, e.g. {lacking[0]}; "
            "make them with `rayscribe label`, or train with --method.labels rules"
        )
    states = np.array([table[id_] for id_ in ids], np.int8).reshape(len(ids), len(names))
    return _in_order(states, names, path.name)


def given_states(path: Path, ids: Sequence[str]) -> dict[str, NDArray[np.int8]]:
    """A classifier's states (`rayscribe classify label`) by study id; UNLABELLED where its table is blank."""
    table, names = read_columns(path, AUXILIARY)
    if lacking := [id_ for id_ in ids if id_ not in table]:
        raise InputError(f"{path}: {len(lacking)} of {len(ids)} studies have no findings, e.g. {lacking[0]}")
    states = np.array([table[id_] for id_ in ids], np.int8).reshape(len(ids), len(names))
    states_RO = _in_order(
        np.where(states == NOT_MENTIONED, UNLABELLED, states).astype(np.int8), names, path.name
    ).states_RO
    return dict(zip(ids, states_RO, strict=True))


def _in_order(states: NDArray[np.int8], names: Sequence[str], source: str) -> Conditions:
    states_RO = np.full((len(states), len(CONDITIONS)), UNLABELLED, np.int8)
    for place, name in enumerate(names):
        states_RO[:, CONDITIONS.index(name)] = states[:, place]
    return Conditions(states_RO=states_RO, source=source)


def condition_rates(source: str, training: Conditions) -> NDArray[np.float64]:
    """Frequency of each condition as positive, in [0, 1]: counted in training ("training"), or read from the file `source`.

    The file is JSON, {"rates": {condition: share}}, as `rayscribe build priors` writes it, and must name every labelled
    condition.
    """
    if source == TRAINING:
        return training.positive_rates_O()
    path = Path(source)
    try:
        rates = json.loads(path.read_text(encoding="utf-8"))["rates"]
        found = {str(name): float(rate) for name, rate in rates.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a file of priors ({error!r}); write one with `rayscribe build priors`"
        ) from error
    labelled = [name for name, is_labelled in zip(CONDITIONS, training.is_labelled_O, strict=True) if is_labelled]
    lacking = [name for name in labelled if not 0 <= found.get(name, -1) <= 1]
    if lacking:
        raise InputError(f"{path}: no share between 0 and 1 for {', '.join(lacking)}")
    return np.array([found.get(name, 1.0) for name in CONDITIONS])
