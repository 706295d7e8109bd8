"""Phrases that all formats share: headings, author, one line per finding; and the draft as plain text."""

from __future__ import annotations

from datetime import UTC, datetime

from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.reports.document import Document, Finding
from rayscribe.reports.likelihood import likelihood_phrase

STATUS = "Preliminary draft, not verified by a person."

SECTION_HEADINGS: dict[str, str] = {
    "findings": "Findings",
    "impression": "Impression",
    "findings+impression": "Findings and impression",
}
"By the section that the report drafts."


def heading(document: Document) -> str:
    return SECTION_HEADINGS[document.model.section]


def created_at(document: Document) -> datetime:
    """Creation time in UTC. Raises InputError if the draft does not state it."""
    try:
        return datetime.fromisoformat(document.created).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        raise InputError("the draft does not state its creation time (ISO 8601 in `created`); write it again") from None


def author_line(document: Document) -> str:
    """Model, method, weights and software."""
    model = document.model
    return f"Model {model.name} ({model.system}), weights {model.weights_sha256}, rayscribe {model.rayscribe}"


def edited_line(document: Document) -> str:
    """Whether a person edited the words."""
    return "A reader has edited it." if document.is_edited else "As the model wrote it."


def finding_line(finding: Finding) -> str:
    """One finding with its state, and its probability in words and as a number."""
    if finding.probability is None:
        return f"{finding.name}: {finding.state} ({finding.source})"
    return f"{finding.name}: {finding_words(finding)} ({finding.probability:.2f}, {finding.source})"


def finding_words(finding: Finding) -> str:
    """The probability in calibrated words, or the state if there is no probability."""
    return finding.state if finding.probability is None else finding.wording or likelihood_phrase(finding.probability)


def plain_text(document: Document) -> str:
    """The draft with its disclaimer, as lines."""
    made = created_at(document).isoformat(timespec="minutes")
    lines = [DISCLAIMER, f"{STATUS} {edited_line(document)}", f"{author_line(document)}. {made}", ""]
    lines += [heading(document).upper(), "", document.text]
    if document.findings:
        lines += ["", "FINDINGS OF THE MODEL BESIDE THE REPORT", ""]
        lines += [finding_line(finding) for finding in document.findings]
    if document.warnings:
        lines += ["", "WARNINGS", "", *document.warnings]
    return "\n".join(lines) + "\n"
