"""The page on which readers of a blind study vote, and the text that summarises their votes."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from rayscribe.data.manifest import Manifest
from rayscribe.metrics.statistics import p_text
from rayscribe.pages.layout import page, radiograph
from rayscribe.reader_study.study import ReaderStudy, ReportPair
from rayscribe.reader_study.votes import VOTES_FORMAT

_SIDE = 768
"Pixels of an embedded image's longer side."

_CHOICES = (("A", "A is better", "1"), ("same", "About the same", "2"), ("B", "B is better", "3"))


def reader_study_page(study: ReaderStudy, manifest: Manifest) -> str:
    """One self-contained page without network access. It contains no study id, no system name and no assignment."""
    images = bool(study.key["settings"]["images"])
    pairs = "\n".join(_pair(item, len(study.items), images) for item in study.items)
    body = f"""{_start(images=images, reference=bool(study.items[0].reference))}
<div id="work" data-study="{study.key["study"]}" data-format="{VOTES_FORMAT}" hidden>
<div class="row"><span id="who"></span><button type="button" id="change" class="rest">Another reader</button></div>
<p id="nothing-kept" class="alarms" hidden>This browser keeps nothing more for this page: votes are lost when it is
closed or reloaded. Vote in one go and save the votes.</p>
<label id="count" for="progress"></label><progress id="progress" max="{len(study.items)}" value="0"></progress>
{pairs}
<div class="row"><button type="button" id="previous">← Previous</button><button type="button" id="next">Next →</button>
<button type="button" id="open">First unanswered</button></div>
<p class="keys"><input type="checkbox" id="keys" checked><label for="keys">Keys: 1 or A, 2 or S, 3 or B to vote; ← and → to
move</label></p>
<h2>Save your votes</h2>
<p>Save them as JSON at the end, or in between, and send the file to whoever runs the study. CSV is for spreadsheets, which
may change what they save. <b id="unsaved"></b></p>
<div class="row"><button type="button" id="save-json" class="main">Save as JSON</button>
<button type="button" id="save-csv">Save as CSV</button></div>
<p id="status" role="status" aria-live="polite"></p>
</div>
<p><small>Reader study {study.key["study"]}</small></p>"""
    holds = "report text and images" if images else "report text"
    terms = manifest.provenance.get("terms", "not stated")
    return _sealed(page("Reader study", body, warning=f"Holds {holds}; terms of the data: {terms}."))


def _sealed(document: str) -> str:
    """Adds the style, the script, and a content policy under which the page can load and send nothing."""
    parts = files("rayscribe.pages")
    script = parts.joinpath("reader_study.js").read_text(encoding="utf-8")
    style = parts.joinpath("reader_study.css").read_text(encoding="utf-8")
    assert "</script" not in script and "</style" not in style
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head, rest = document.split("</head>", 1)
    start, encoding, head = head.partition('<meta charset="utf-8">')
    assert encoding, "the policy belongs in the head, before anything that it governs"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="referrer" content="no-referrer">'
    body, end, _ = rest.rpartition("</body>")
    assert end
    return (
        f"{start}{encoding}{meta}{head}<style>{style}</style></head>{body}<script>{script}</script>\n</body></html>\n"
    )


def _start(*, images: bool, reference: bool) -> str:
    given = "the radiologist's own report and two drafts" if reference else "two drafts of the report"
    films = (
        "The images are on the page."
        if images
        else "The page holds no images: open every study in your own viewer, by the list that whoever runs the study gives you."
    )
    return f"""<noscript><p class="alarms">This page needs JavaScript to keep votes; it loads and sends nothing.</p></noscript>
<form id="start" autocomplete="off">
<p>You see {given} of one study at a time. {films} Say which draft describes the study better; judge what it says of
the patient, not its style. Which system wrote A and which B changes from pair to pair and is not on this page.</p>
<p>Votes stay in this browser until you save them as a file.</p>
<div class="who"><label for="reader">Your name or initials</label>
<input type="text" id="reader" required maxlength="60" autocomplete="off" spellcheck="false">
<p id="known" aria-live="polite"></p>
<button class="main" id="go">Start</button></div></form>"""


def _pair(item: ReportPair, pairs: int, images: bool) -> str:
    films = f"<p>No images here: open number {item.number} of the list in your own viewer.</p>"
    if images:
        views = [
            radiograph(path, f"View {number} of study {item.number}", side=_SIDE)
            for number, path in enumerate(item.study.images, start=1)
        ]
        films = f'<div class="films">{"".join(views)}</div>'
    reference = ""
    if item.reference:
        reference = f'<h3>The radiologist\'s report</h3><p class="report soft">{html.escape(item.reference)}</p>'
    sides = "".join(
        f'<div><h3>Draft {name}</h3><p class="report">{html.escape(text) or "(empty)"}</p></div>'
        for name, text in (("A", item.a), ("B", item.b))
    )
    choices = "".join(
        f'<label><input type="radio" name="{item.token}" value="{value}" autocomplete="off">{words}'
        f'<kbd aria-hidden="true">{key}</kbd></label>'
        for value, words, key in _CHOICES
    )
    return f"""<section class="pair" data-item="{item.token}" aria-labelledby="title-{item.token}" hidden>
<h2 id="title-{item.token}" tabindex="-1">Study {item.number} of {pairs}</h2>
{films}{reference}
<div class="two">{sides}</div>
<fieldset><legend>Which draft describes study {item.number} better?</legend><div class="choices">{choices}</div></fieldset>
<label for="comment-{item.token}">Comment on study {item.number} (optional)</label>
<textarea id="comment-{item.token}" rows="2" maxlength="2000" autocomplete="off"></textarea>
</section>"""


def reader_study_text(result: Mapping[str, Any]) -> str:
    """The results of the votes, for a terminal: counts, shares, tests, agreement."""
    (first, second), drawn_from = result["names"], result["drawn_from"]
    lines = [
        f"study {result['study']}: {result['items']} pairs of split {result['settings']['split']}; "
        f"votes for {first} / same / {second}",
        f"drawn from {drawn_from['held']} studies that both files hold; left out as identical: {drawn_from['identical']}",
    ]
    for name, part in result["parts"].items():
        lines.append(f"{name}, {part['items']} pairs" if name != "all" else "all pairs")
        lines += [f"  {reader}: {_counts(found, first)}" for reader, found in part["readers"].items()]
        if "majority" in part:
            lines.append(f"  all votes together: {_pooled(part['pooled'], first)}")
            shared = part["majority"]["items"]
            lines.append(f"  majority on the {shared} pairs that all answered: {_counts(part['majority'], first)}")
    for reader, facts in result["readers"].items():
        missing = result["items"] - facts["answered"]
        lines.append(
            f"{reader} answered {'all' if not missing else facts['answered']} of {result['items']} pairs"
            f"{f'; {missing} are missing' if missing else ''}; chose A {facts['chose_a']} and B {facts['chose_b']} times, "
            f"commented {facts['comments']}"
        )
    tests = (
        "p: two-sided exact sign test over the decided votes; Holm: corrected for the number of readers, over all pairs; "
        "interval: Wilson"
    )
    return "\n".join([*lines, _agreement(result["agreement"]), tests, result["disclaimer"]])


def _counts(found: Mapping[str, Any], name: str) -> str:
    counts = f"{found['first']} / {found['same']} / {found['second']}"
    if found.get("none"):
        counts += f", no majority in {found['none']}"
    if found["share"] is None:
        return f"{counts}; no vote is decided, so there is neither a share nor a test"
    holm = f" (Holm {p_text(found['p_holm'])})" if "p_holm" in found else ""
    return (
        f"{counts}; {name} {100 * found['share']:.1f} % of {found['first'] + found['second']} decided "
        f"[{100 * found['low']:.1f}, {100 * found['high']:.1f}], p {p_text(found['p'])}{holm}, "
        f"ties left out: {found['same']}"
    )


def _pooled(found: Mapping[str, Any], name: str) -> str:
    counts = f"{found['first']} / {found['same']} / {found['second']}"
    if found["share"] is None:
        return f"{counts}; no vote is decided"
    return (
        f"{counts}; {name} {100 * found['share']:.1f} % of {found['first'] + found['second']} decided "
        "(votes on one pair are not independent: no interval, no test)"
    )


def _agreement(found: Mapping[str, Any]) -> str:
    if found["readers"] < 2:
        return "agreement: one reader, so there is none to state"
    if not found["items"]:
        return "agreement: no pair was answered by all readers, so there is none to state"
    kappas = {
        "Cohen's kappa": "cohen_kappa",
        "linear weighted": "cohen_kappa_linear",
        "Fleiss' kappa": "fleiss_kappa",
    }
    known = {words: found[name] for words, name in kappas.items() if name in found}
    stated = "kappa is not defined, because all votes are the same"
    if None not in known.values():
        stated = ", ".join(f"{words} {value:.3f}" for words, value in known.items())
    return (
        f"agreement on the {found['items']} pairs that all {found['readers']} readers answered: "
        f"{100 * found['agreement']:.1f} % of two readers' votes are equal; {stated}"
    )
