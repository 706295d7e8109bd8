"""The demo's page: scores next to their floor, then drawn X-rays with reference and draft."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from rayscribe.data.manifest import Manifest
from rayscribe.metrics.families import headline_names
from rayscribe.pages.layout import bullets, page, radiograph, table
from rayscribe.study import Study

_SHOWN = 12


def demo_page(
    manifest: Manifest,
    predictions: Mapping[str, str],
    references: Mapping[str, str],
    result: Mapping[str, Any],
    seconds: float,
) -> str:
    """One self-contained page: no scripts, no network, readable on a phone."""
    floor = result["floors"]["constant"]
    rows = [
        [
            html.escape(name),
            f"{result['scores'][name]['value']:.3f}",
            f"{result['scores'][name]['low']:.3f} to {result['scores'][name]['high']:.3f}",
            f"{floor['scores'][name]['value']:.3f}",
        ]
        for name in headline_names(result["scores"])
    ]
    cards = "".join(
        _card(study, references[study.id], predictions[study.id]) for study in _varied(manifest, references)[:_SHOWN]
    )
    body = f"""<p>{len(manifest.studies)} drawn studies; a small R2Gen was trained on 70 % of them, selected on 10 %, and wrote
reports for the {result["studies"]} test studies below. The whole run took {seconds:.0f} seconds.</p>
<h2>Scores, beside what needs no image</h2>
{bullets(result["alarms"], kind="alarms")}
{table(["score", "model", "95 % interval", "one constant report"], rows)}
<p>{100 * result["diversity"]["distinct_ratio"]:.0f} % of the written reports are distinct. The constant report is
{html.escape(floor["what"])}:</p><p class="soft">{html.escape(floor["text"])}</p>
<h2>Reports</h2><p>Words of a draft that its reference does not contain are <mark>marked</mark>.</p>
{cards}"""
    return page("rayscribe demo", body, warning="The X-rays on this page are drawings, not patients.")


def _varied(manifest: Manifest, references: Mapping[str, str]) -> list[Study]:
    """Test studies with long and short reports in turn, because a page of normal films shows little."""
    ordered = sorted(manifest.split("test"), key=lambda study: -len(references[study.id].split()))
    half = len(ordered) // 2
    return [study for pair in zip(ordered[:half], ordered[half:]) for study in pair]


def _card(study: Study, reference: str, report: str) -> str:
    films = "".join(radiograph(path, f"view {number} of {study.id}") for number, path in enumerate(study.images, 1))
    shared = set(reference.split())
    marked = " ".join(
        html.escape(word) if word in shared else f"<mark>{html.escape(word)}</mark>" for word in report.split()
    )
    return (
        f'<article><div class="films">{films}</div><div><h3>{html.escape(study.id)}</h3><h4>Reference</h4>'
        f"<p>{html.escape(reference)}</p><h4>Draft by the model</h4><p>{marked or '(empty)'}</p></div></article>"
    )
