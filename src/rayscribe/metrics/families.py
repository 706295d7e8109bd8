"""All scores of a set of reports: the families of statistics, and how a score file stores them.

A family is a table with one row per report, and a function from summed rows to scores. Stored rows hold counts and no text, so
two score files can be compared study by study without their reports.

Shapes: R reports, K columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayscribe.errors import InputError
from rayscribe.labels import Labels
from rayscribe.metrics.clinical import clinical, clinical_score
from rayscribe.metrics.meteor import METEOR_COLUMNS, MeteorResources, meteor_name, meteor_score, meteor_statistics
from rayscribe.metrics.overlap import overlap, overlap_score
from rayscribe.metrics.radgraph import Annotation, radgraph_rows, radgraph_score
from rayscribe.metrics.similarity import Vectors, similarity_rows, similarity_score
from rayscribe.metrics.statistics import Floats, Rows, Score, joined
from rayscribe.progress import ProgressBar

Families = dict[str, Rows]

HEADLINES = (
    *("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider"),
    "ce_f1_micro_14_uncertain_negative",
    "ce_f1_macro_14_uncertain_negative",
    "sentence_similarity",
)
"Scores that are tested and corrected together; METEOR joins them under the name that lists its matchers."
_SHOWN = ("ce_f1_example_14_uncertain_negative", "ce_f1_micro_5_uncertain_negative", "normal_f1", "abnormal_f1")

_DIGITS = 9  # significant digits of a stored statistic


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What one system, or one floor, wrote for the studies of a split, in their order."""

    reports: Sequence[str]
    labels: Labels | None
    "states (R, 14); None if these reports are not labelled"
    graphs: Sequence[Annotation | None] | None = None
    "RadGraph's annotations; None if these reports are not annotated"
    vectors: Vectors | None = None
    "sentence embeddings (R, D); None if these reports are not embedded"
    is_aligned: bool = True
    "whether METEOR aligns these reports"


def measured(
    systems: Mapping[str, System],
    reference: System,
    resources: MeteorResources,
    *,
    progress: ProgressBar = iter,
) -> dict[str, Families]:
    """Families of statistics by system, without the families whose labels, graphs or vectors a system lacks.

    METEOR reads its large tables once for all systems.
    """
    references = reference.reports
    names = [name for name, system in systems.items() if system.is_aligned]
    texts = [text for name in names for text in systems[name].reports]
    aligned = meteor_statistics(texts, list(references) * len(names), resources, progress=progress)
    meteor = dict(zip(names, aligned.reshape(len(names), len(references), -1), strict=True))
    found = {}
    for name, system in systems.items():
        families = {"overlap": overlap(system.reports, references)}
        if name in meteor:
            families["meteor"] = _meteor(meteor[name], meteor_name(resources))
        if system.labels is not None and reference.labels is not None:
            families["clinical"] = clinical(system.labels, reference.labels)
        if system.graphs is not None and reference.graphs is not None:
            families["radgraph"] = radgraph_rows(system.graphs, reference.graphs)
        if system.vectors is not None and reference.vectors is not None:
            families["sentences"] = similarity_rows(system.vectors, reference.vectors)
        found[name] = families
    return found


def tested_names(scores: Iterable[str]) -> list[str]:
    """The scores that are tested against a floor or another system, in the order of the score file."""
    return [name for name in scores if name in HEADLINES or name.startswith("meteor")]


def headline_names(scores: Iterable[str]) -> list[str]:
    """The scores that a summary shows, in the order of the score file."""
    return [name for name in scores if name in HEADLINES or name in _SHOWN or name.startswith(("meteor", "radgraph"))]


def together(families: Families) -> Rows:
    """All families joined into one table, in their order."""
    return joined(list(families.values()))


def stored(ids: Sequence[str], groups: Sequence[str] | None, families: Families) -> dict[str, Any]:
    """The statistics as JSON: study ids, patients as numbers, and the columns and rows of each family."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups or []))}
    return {
        "ids": list(ids),
        "patients": [numbers[name] for name in groups] if groups else None,
        "families": {
            name: {"columns": list(rows.columns), "rows": [[_short(value) for value in row] for row in rows.table_RK]}
            for name, rows in families.items()
        },
    }


def restored(place: str, statistics: Any, meteor: str) -> Families:
    """The families that `stored` wrote; `meteor`: METEOR's name in the scores. Raises InputError where they are damaged."""
    scores: dict[str, Score] = {
        "overlap": overlap_score,
        "meteor": _meteor_scores(meteor),
        "clinical": clinical_score,
        "radgraph": radgraph_score,
        "sentences": similarity_score,
    }
    try:
        families = {
            name: Rows(tuple(one["columns"]), np.array(one["rows"], np.float64), scores[name])
            for name, one in statistics["families"].items()
        }
        reports = len(statistics["ids"])
        whole = all(rows.table_RK.shape == (reports, len(rows.columns)) for rows in families.values())
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{place}: has no statistics by study ({error!r}); run `rayscribe evaluate` again") from error
    if not whole:
        raise InputError(f"{place}: its statistics are damaged; run `rayscribe evaluate` again")
    return families


def _meteor(table_RK: Floats, name: str) -> Rows:
    return Rows(METEOR_COLUMNS, table_RK, _meteor_scores(name))


def _meteor_scores(name: str) -> Score:
    return lambda sums_SK: {name: meteor_score(sums_SK)}


def _short(value: float) -> float | int:
    return int(value) if value == int(value) else float(f"{value:.{_DIGITS}g}")
