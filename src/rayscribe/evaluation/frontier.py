"""Overlap against findings: what one fit reaches under every aim, beside the floors and the systems of others.

A system below the line is beaten in both by a ridge regression that aims (spec: expected utility, section 7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rayscribe.data.manifest import Manifest
from rayscribe.errors import DISCLAIMER
from rayscribe.evaluation.expected_floors import AIMS
from rayscribe.evaluation.floors import FloorScorers, floor_reports
from rayscribe.evaluation.protocol import Protocol, reference_reports, signature, written_reports
from rayscribe.labels import Labeler
from rayscribe.metrics.clinical import DEFAULT, DEFAULT_MACRO, clinical
from rayscribe.metrics.overlap import overlap
from rayscribe.progress import ProgressBar

PointKind = Literal["aim", "floor", "system"]
OVERLAPS = ("bleu4", "cider")
"Scores of the horizontal axes."
_FLOORS = (
    *("constant", "always_normal", "every_finding", "shuffled"),
    *(f"{name}/{aim}" for name in ("corners", "scanner", "context_form", "thumbnails") for aim in AIMS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """One set of reports for the split."""

    name: str
    kind: PointKind
    scores: dict[str, float]
    distinct: int
    "different reports"


def frontier(
    manifest: Manifest,
    split: str,
    protocol: Protocol,
    sets: Mapping[tuple[PointKind, str], Mapping[str, str]],
    labeler: Labeler,
    *,
    progress: ProgressBar = iter,
) -> dict[str, Any]:
    """The points of these sets of reports and of the floors, as JSON values; `sets`: reports by study, by kind and name.

    Raises InputError unless each set has a report for every study of the split that has the section.
    """
    references = reference_reports(manifest, split, protocol)
    studies = [study for study in manifest.split(split) if study.id in references]
    wanted = list(references.values())
    written = {key: written_reports(reports, references, split, protocol) for key, reports in sets.items()}
    own = next(iter(written.values()))
    floors, notes = floor_reports(manifest, studies, own, protocol, FloorScorers(labeler=labeler), progress=progress)
    written |= {("floor", name): texts for name, texts in floors.items() if name in _FLOORS}
    points = [_point(kind, name, texts, wanted, labeler) for (kind, name), texts in written.items()]
    return {
        "disclaimer": DISCLAIMER,
        "signature": signature(manifest, split, protocol, references) | {"labeler": labeler.name},
        "studies": len(wanted),
        "points": [asdict(point) for point in points],
        "notes": notes,
    }


def beaten(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]], overlap_score: str) -> list[str]:
    """Names of the aims that are better than the point in this overlap score and in macro F1."""
    names = (overlap_score, DEFAULT_MACRO)
    return [
        one["name"]
        for one in points
        if one["kind"] == "aim" and all(one["scores"][name] > point["scores"][name] for name in names)
    ]


def _point(kind: PointKind, name: str, texts: Sequence[str], wanted: Sequence[str], labeler: Labeler) -> FrontierPoint:
    scores = overlap(texts, wanted).scores() | clinical(labeler.label(texts), labeler.label(wanted)).scores()
    kept = {key: scores[key] for key in (*OVERLAPS, "rouge_l", DEFAULT_MACRO, DEFAULT)}
    return FrontierPoint(name=name, kind=kind, scores=kept, distinct=len(set(texts)))
