"""Overlap against findings: points of aims, floors and systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayscribe.data.manifest import read_manifest
from rayscribe.errors import InputError
from rayscribe.evaluation.frontier import beaten, frontier
from rayscribe.evaluation.protocol import Protocol, reference_reports
from rayscribe.metrics.clinical import DEFAULT_MACRO
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.overlap import overlap_scores
from rayscribe.pages.frontier import frontier_figure, frontier_text


def point(kind: str, name: str, overlap: float, macro: float) -> dict[str, object]:
    scores = {"bleu4": overlap, "cider": overlap, "rouge_l": overlap, DEFAULT_MACRO: macro}
    return {"kind": kind, "name": name, "scores": scores, "distinct": 1}


def test_a_system_is_beaten_by_what_is_better_in_both() -> None:
    points = [
        point("aim", "wording", 0.3, 0.1),
        point("aim", "findings", 0.1, 0.3),
        point("floor", "corners", 0.9, 0.9),
    ]
    assert beaten(point("system", "low", 0.2, 0.05), points, "bleu4") == ["wording"]
    assert beaten(point("system", "between", 0.2, 0.2), points, "bleu4") == []
    assert beaten(point("system", "equal", 0.3, 0.1), points, "cider") == []


def test_points_hold_the_scores_of_their_reports(world: Path) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "val", Protocol())
    same = dict.fromkeys(references, "the heart is enlarged .")
    sets = {("aim", "copy"): references, ("system", "same"): same}
    result = frontier(manifest, "val", Protocol(), sets, RuleLabeler())  # type: ignore[arg-type]
    by_name = {one["name"]: one for one in result["points"]}
    assert by_name["copy"]["scores"][DEFAULT_MACRO] == max(one["scores"][DEFAULT_MACRO] for one in result["points"])
    expected = overlap_scores(list(same.values()), list(references.values()))
    assert by_name["same"]["scores"]["bleu4"] == pytest.approx(expected["bleu4"])
    assert by_name["same"]["distinct"] == 1
    assert {"constant", "always_normal", "corners/findings", "thumbnails/cider"} <= by_name.keys()
    assert "same: below the frontier in BLEU-4 and findings (copy)" in frontier_text(result)
    assert len(frontier_figure(result).axes) == 2


def test_a_system_that_lacks_a_study_is_refused(world: Path) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "val", Protocol())
    first = next(iter(references))
    lacking = {study: text for study, text in references.items() if study != first}
    with pytest.raises(InputError, match=first):
        frontier(manifest, "val", Protocol(), {("system", "partial"): lacking}, RuleLabeler())
