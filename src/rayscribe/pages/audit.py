"""The audit of a manifest's splits as one page."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from rayscribe.metrics.statistics import p_text
from rayscribe.pages.layout import bullets, page, table

_KINDS = {
    "same_report": "the same report, word for word",
    "near_report": "the same or nearly the same report",
    "same_image": "the same image file",
    "same_patient": "the same patient",
}


def audit_page(result: Mapping[str, Any]) -> str:
    """The page, with counts only; no text and no image of the data."""
    body = "\n".join(
        [
            bullets(result["warnings"], kind="alarms") or '<p class="fine">Nothing to warn of.</p>',
            f"<p>Source {html.escape(str(result['source']) or 'not stated')}; labels by "
            f"{html.escape(result['labeler'])}; data {result['data_digest'][:12]}.</p>",
            "<h2>Splits</h2>",
            _splits(result["splits"]),
            "<h2>Studies that have a copy in train</h2>",
            _copies(result["copies_of_train"]),
            "<h2>Beside random splits of the same sizes</h2>",
            _random(result.get("random_splits", {})),
            "<h2>What tells the wording, besides the lungs</h2>",
            _wording(result.get("wording", {})),
            "<h2>Labels</h2>",
            _labels(result["label_shift"], list(result["splits"])),
            "<h2>Images</h2>",
            _images(result["images"]),
        ]
    )
    return page("Audit of a data split", body)


def audit_text(result: Mapping[str, Any]) -> str:
    """The same for a terminal: warnings, then one line per split."""
    lines = [f"WARNING  {warning}" for warning in result["warnings"]] or ["nothing to warn of"]
    for name, facts in result["splits"].items():
        lines.append(
            f"{name}: {facts['studies']} studies, {facts['images']} images, {facts['distinct_reports']} distinct reports, "
            f"{facts['mean_words']:.1f} words on average, {facts['no_findings']} without findings, "
            f"{facts['masked']} with masked words"
        )
    return "\n".join([*lines, result["disclaimer"]])


def _splits(splits: Mapping[str, Mapping[str, Any]]) -> str:
    names = {
        "studies": "studies",
        "images": "images",
        "images_per_study": "images a study: studies",
        "views": "views",
        "without_frontal": "without a frontal view",
        "distinct_reports": "distinct reports",
        "mean_words": "words on average",
        "no_findings": "no findings",
        "no_impression": "no impression",
        "masked": "with masked words (XXXX)",
    }
    rows = [[words, *(_cell(facts[name]) for facts in splits.values())] for name, words in names.items()]
    return table(["", *(html.escape(name) for name in splits)], rows)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return html.escape(", ".join(f"{key}: {count}" for key, count in value.items()))
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _copies(copies: Mapping[str, Mapping[str, Any]]) -> str:
    if not copies:
        return "<p>There is one split only.</p>"
    rows = [
        [words, *(f"{kinds[kind]['studies']} ({100 * kinds[kind]['share']:.1f} %)" for kinds in copies.values())]
        for kind, words in _KINDS.items()
    ]
    return table(["shares with train", *(html.escape(name) for name in copies)], rows)


def _random(splits: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    if not splits:
        return "<p>There is no train split to compare with.</p>"
    words = {"seen_in_train": "reports that occur word for word in train", "normal": "normal studies"}
    rows = [
        [
            html.escape(split),
            words[measure],
            f"<b>{100 * one['value']:.1f} %</b>",
            f"{100 * one['mean']:.1f} % ({100 * one['deviation']:.1f})",
            f"{100 * one['above']:.1f} %",
            f"{100 * one['below']:.1f} %",
        ]
        for split, measures in splits.items()
        for measure, one in measures.items()
    ]
    return table(["split", "share of", "here", "random, mean (sd)", "random at least as high", "at least as low"], rows)


def _wording(clues: Mapping[str, Any]) -> str:
    if not clues:
        return "<p>Not computed: no report is frequent enough.</p>"
    rows = [[html.escape(name.replace("_", " ")), f"<b>{area:.3f}</b>"] for name, area in clues["auroc"].items()]
    about = (
        f"<p>Who has the most frequent report or a near duplicate of it ({clues['distinct_reports']} distinct reports, "
        f"{100 * clues['template_share']:.1f} % of {clues['studies']} studies)? Area under the ROC curve of a ridge smoother "
        "by five-fold cross-validation over patients. Above .5, overlap scores reward knowing it.</p>"
    )
    return about + table(["told by", "AUROC"], rows) + bullets(clues["notes"])


def _labels(shift: Mapping[str, Mapping[str, Any]], splits: list[str]) -> str:
    rows = [
        [
            html.escape(name),
            *(f"{100 * row['rates'][split]:.1f} %" for split in splits),
            html.escape(p_text(row["p_holm"])),
        ]
        for name, row in shift.items()
    ]
    return table(["positive", *(html.escape(split) for split in splits), "p"], rows) + (
        "<p>p: chi-squared test of equal rates, Holm over the rows.</p>"
    )


def _images(images: Mapping[str, Any]) -> str:
    if not images:
        return "<p>The images were not read.</p>"
    return f"<p>{images['files']} files, {images['unreadable']} unreadable.</p>" + bullets(images["faults"][:20])
