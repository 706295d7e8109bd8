"""The evaluation of one system as one page: alarms, scores next to their floors, imbalance, observations, cases."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from rayscribe.data.manifest import Manifest
from rayscribe.labels import NOT_MENTIONED, OBSERVATIONS
from rayscribe.metrics.families import headline_names, restored
from rayscribe.metrics.imbalance import SHARES
from rayscribe.metrics.labeler import mentions, states
from rayscribe.metrics.statistics import p_text
from rayscribe.pages.layout import bullets, definitions, figure, page, radiograph, table
from rayscribe.pages.plots import plots, svg
from rayscribe.pages.summary import SHOWN_FLOORS, floor_test
from rayscribe.provenance import is_restricted, terms_of
from rayscribe.study import Study

_WITHHELD = "<p>Not shown: the data are restricted, so no report is quoted.</p>"
CASES = 3
"Number of worst, median and best cases each."


def evaluation_page(
    result: Mapping[str, Any], manifest: Manifest, reports: Sequence[str], references: Mapping[str, str]
) -> str:
    """The page of a score file; `reports`: in the order of `references`. Embeds images only if the data's terms allow it."""
    signature = result["signature"]
    terms, restricted = terms_of(manifest.provenance), is_restricted(manifest.provenance)
    cases = {study.id: study for study in manifest.studies}
    shown = bool(manifest.provenance.get("images_may_be_shown"))
    drawings = "".join(figure(svg(drawing), caption) for drawing, caption in plots(result).values())
    body = "\n".join(
        [
            _alarms(result["alarms"]),
            f"<p>{result['studies']} studies of split {html.escape(signature['split'])}, section "
            f"{html.escape(signature['section'])}, references {html.escape(signature['references'])}, labels by "
            f"{html.escape(signature['labeler'])}. {html.escape(result['interval'])}.</p>",
            "<h2>Scores beside their floors</h2>",
            _scores(result),
            _floor_texts(result),
            bullets(result["notes"]),
            "<h2>Where the scores come from</h2>",
            drawings,
            _words(result),
            _variety(result),
            "<h2>Observations</h2>",
            _observations(result),
            "<h2>Cases</h2>",
            _WITHHELD if restricted else _cases(result, cases, reports, references, shown),
            "<h2>Protocol</h2>",
            definitions({**signature, "terms of the data": terms}),
        ]
    )
    holds = "" if restricted else "Holds report text; terms"
    warning = "" if shown else f"{holds or 'Terms'} of the data: {terms}."
    return page("Evaluation of chest X-ray reports", body, warning=warning)


def _alarms(alarms: Sequence[str]) -> str:
    return bullets(alarms, kind="alarms") if alarms else '<p class="fine">No alarm.</p>'


def _scores(result: Mapping[str, Any]) -> str:
    floors = [name for name in SHOWN_FLOORS if name in result["floors"]]
    rows = []
    for name in headline_names(result["scores"]):
        score, test = result["scores"][name], floor_test(result, name)
        beside = [result["floors"][floor]["scores"].get(name, {}).get("value") for floor in floors]
        rows.append(
            [
                html.escape(name),
                f"<b>{score['value']:.3f}</b>",
                f"{score['low']:.3f} to {score['high']:.3f}",
                *("–" if value is None else f"{value:.3f}" for value in beside),
                f"{test['difference']:+.3f} (p {html.escape(p_text(test['p_holm']))})" if test else "",
                f"{test['detectable']:.3f}" if test else "",
            ]
        )
    header = ["score", "model", "95 % interval", *(name.replace("_", " ") for name in floors)]
    return table([*header, "minus floor", "detectable"], rows) + (
        "<p>Best constant, corners, scanner, context form and thumbnails each aim at the score of the row. "
        "Minus floor: the constant report for overlap, always normal for clinical scores. p: paired randomisation test "
        "against that floor, Holm over the tested scores. Detectable: the smallest "
        "true difference that so many studies show with power .8.</p>"
    )


def _floor_texts(result: Mapping[str, Any]) -> str:
    constant = result["floors"].get("constant")
    if not constant or "text" not in constant:
        return ""
    return f'<p>The constant report, {html.escape(constant["what"])}:</p><p class="soft">{html.escape(constant["text"])}</p>'


def _words(result: Mapping[str, Any]) -> str:
    """Frequent versus rare words, ours and the published variant, which uses another scale."""
    if not result["imbalance"]:
        return ""
    clean, published = result["imbalance"]["scores"], result["imbalance"]["published"]
    rows = [
        [
            f"most frequent 1/{bins}",
            *(_with_bounds(clean[f"token_f1_{part}_{bins}"]) for part in ("freq", "infreq")),
            *(f"{published[f'token_f1_{part}_{bins}_published']:.3f}" for part in ("freq", "infreq")),
        ]
        for bins in SHARES
    ]
    header = ["F1 of words", "frequent", "all others", "frequent, as published", "others, as published (a sum)"]
    return table(header, rows, caption=f"{result['imbalance']['vocabulary']} training words by frequency")


def _variety(result: Mapping[str, Any]) -> str:
    diverse = result["diversity"]
    facts = {
        "distinct reports": f"{100 * diverse['distinct_ratio']:.1f} %",
        "distinct references": f"{100 * diverse['reference_distinct_ratio']:.1f} %",
        "most frequent report": f"{100 * diverse['top_share']:.1f} % of the studies",
        "words used": f"{100 * diverse['vocabulary_coverage']:.1f} % of the references' words",
        "length": f"{diverse['length_ratio']:.2f} of the references'",
        "distinct-1 to distinct-4": ", ".join(f"{diverse[f'distinct_{order}']:.3f}" for order in range(1, 5)),
    }
    for name, test in result["grounding"].items():
        facts[f"own image or any other, {name}"] = (
            f"{test['value']:.3f}; {test['permuted']:.3f} with every report given to another study (p {p_text(test['p'])})"
        )
    return "<h2>Variety, and whether the image matters</h2>" + definitions(facts)


def _with_bounds(score: Mapping[str, float]) -> str:
    return f"<b>{score['value']:.3f}</b> ({score['low']:.3f} to {score['high']:.3f})"


def _observations(result: Mapping[str, Any]) -> str:
    rows = []
    positive = result["observations"]["uncertain_positive"]
    for name, one in result["observations"]["uncertain_negative"].items():
        f1 = one["f1"]
        rows.append(
            [
                html.escape(name),
                f"{100 * one['prevalence']:.1f} %",
                str(one["positives"]),
                str(one["predicted"]),
                f"{one['precision']:.2f}",
                f"{one['recall']:.2f}",
                f"<b>{f1['value']:.2f}</b>",
                f"{f1['low']:.2f} to {f1['high']:.2f}",
                f"{positive[name]['f1']['value']:.2f}",
            ]
        )
    header = ["observation", "prevalence", "in references", "in reports", "precision", "recall", "F1", "95 % interval"]
    return table([*header, "F1, uncertain as positive"], rows)


def _cases(
    result: Mapping[str, Any],
    studies: Mapping[str, Study],
    reports: Sequence[str],
    references: Mapping[str, str],
    shown: bool,
) -> str:
    families = restored("this score file", result["statistics"], result["signature"]["meteor"])
    overlap = families["overlap"]
    rouge = overlap.table_RK[:, overlap.columns.index("rouge_l")]
    order = sorted(range(len(reports)), key=lambda row: (rouge[row], row))
    middle = max(0, len(order) // 2 - CASES // 2)
    chosen = {
        "Worst": order[:CASES],
        "Median": order[middle : middle + CASES],
        "Best": order[::-1][:CASES],
    }
    ids = list(references)
    legend = (
        "<p>By ROUGE-L. Words that name an observation are coloured: "
        '<mark class="good">the other text says the same of it</mark>, <mark class="bad">the other text contradicts '
        "it</mark>, <mark>the other text does not mention it</mark>. Hover for the observation and its state.</p>"
    )
    cards = [
        f"<h3>{title}</h3>"
        + "".join(_card(studies[ids[r]], rouge[r], reports[r], references[ids[r]], shown) for r in rows)
        for title, rows in chosen.items()
    ]
    return legend + "\n".join(cards)


def _card(study: Study, rouge: float, report: str, reference: str, shown: bool) -> str:
    films = ""
    if shown:
        pictures = "".join(
            radiograph(path, f"view {number} of {study.id}", side=256) for number, path in enumerate(study.images, 1)
        )
        films = f'<div class="films">{pictures}</div>'
    return (
        f"<article>{films}<div><h3>{html.escape(study.id)}, ROUGE-L {rouge:.3f}</h3>"
        f"<h4>Reference</h4><p>{_marked(reference, report)}</p>"
        f"<h4>Draft by the model</h4><p>{_marked(report, reference) or '(empty)'}</p></div></article>"
    )


def _marked(text: str, other: str) -> str:
    """The text, with every mention coloured by what the other text says about its observation."""
    elsewhere = dict(zip(OBSERVATIONS, states(other), strict=True))
    names = {1: "positive", 2: "negative", 3: "uncertain"}
    parts, at = [], 0
    for mention in sorted(mentions(text), key=lambda one: (one.start, -one.end)):
        if mention.start < at:
            continue  # inside a mention that is already marked
        there = elsewhere[mention.observation]
        kind = "good" if there == mention.state else "" if there == NOT_MENTIONED else "bad"
        said = "not mentioned" if there == NOT_MENTIONED else names[there]
        title = f"{mention.observation}: {names[mention.state]} here, {said} in the other text"
        parts.append(html.escape(text[at : mention.start]))
        parts.append(
            f'<mark class="{kind}" title="{html.escape(title, quote=True)}">'
            f"{html.escape(text[mention.start : mention.end])}</mark>"
        )
        at = mention.end
    return "".join(parts) + html.escape(text[at:])
