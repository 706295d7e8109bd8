"""A draft report as data: the service returns it, a page edits it, `export` converts it to other formats.

It contains no pixels, no file name and no patient attribute; those stay with the images.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rayscribe.drafts import TrainingStudy
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.reports.likelihood import likelihood_phrase

DRAFT_FORMAT: Final = "rayscribe-draft-1"

FindingState = Literal["positive", "negative", "uncertain"]
Grid = tuple[tuple[float, ...], ...]
"Rows of an image from top to bottom, each value in [0, 1]; the maximum over all images of a sentence is 1."


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingMention:
    """Words of a sentence that name one of the 14 observations, as the rule labeler reads them."""

    observation: str
    state: FindingState
    start: int
    end: int
    "text[start:end] of the sentence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One sentence of a report, with its end mark."""

    text: str
    mentions: tuple[FindingMention, ...] = ()
    evidence: tuple[Grid, ...] = ()
    "where the decoder looked while it wrote this, one grid per image; empty if the model does not provide it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One of the n-best reports."""

    sentences: tuple[Sentence, ...]
    log_probability: float | None = None

    @property
    def text(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A model's statement about one finding, separate from the report's text."""

    name: str
    state: FindingState
    source: Literal["classifier", "disease head", "training studies"]
    probability: float | None = None
    "calibrated; None for a disease head"
    wording: str = ""
    "the probability in words, see `rayscribe.reports.likelihood`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """The model that wrote a draft."""

    name: str
    "name of its folder"
    system: str
    "the method"
    weights_sha256: str
    rayscribe: str
    "version of the software"
    section: str
    "findings, impression or findings+impression: the section that the report drafts"
    terms: str = ""
    "terms of its training data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A draft. Its status is always preliminary."""

    model: Author
    created: str
    "ISO 8601, UTC"
    reports: tuple[Report, ...]
    "n-best, best first; the first one is the draft, and a reader may have edited it"
    images: int
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()
    is_edited: bool = False
    expected: dict[str, float] = field(default_factory=dict)
    "scores that the draft is expected to get, by utility; empty where the model does not tell"
    studies: tuple[TrainingStudy, ...] = ()
    "training studies that speak most for the draft; empty where the model does not tell"

    @property
    def text(self) -> str:
        """The draft: sentences with single blanks between them; empty for a classifier, which writes none."""
        return self.reports[0].text

    @property
    def sentences(self) -> tuple[Sentence, ...]:
        """Of the draft, each with what it mentions and where the decoder looked."""
        return self.reports[0].sentences

    @property
    def evidence(self) -> tuple[tuple[Grid, ...], ...]:
        """For every sentence one grid an image, from 0 to 1; an empty tuple where the model does not tell."""
        return tuple(sentence.evidence for sentence in self.sentences)

    @property
    def alternatives(self) -> tuple[str, ...]:
        """The other reports of the n-best, best first."""
        return tuple(report.text for report in self.reports[1:])

    def plain(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        head = {"format": DRAFT_FORMAT, "disclaimer": DISCLAIMER, "status": "preliminary"}
        return head | dataclasses.asdict(self)


def document_json(document: Document) -> str:
    return json.dumps(document.plain(), indent=2, ensure_ascii=False) + "\n"


def read_document(content: bytes | str, source: str) -> Document:
    """The inverse of `document_json`. Raises InputError that names `source` if the content is not a draft."""
    try:
        plain = json.loads(content)
        if plain.pop("format") != DRAFT_FORMAT:
            raise InputError(f"{source}: not a draft of this version; its format is not {DRAFT_FORMAT}")
        plain.pop("disclaimer", None)
        plain.pop("status", None)
        plain["model"] = Author(**plain["model"])
        plain["reports"] = tuple(_report(report) for report in plain["reports"])
        plain["findings"] = tuple(_finding(finding) for finding in plain.get("findings", ()))
        plain["warnings"] = tuple(plain.get("warnings", ()))
        plain["studies"] = tuple(
            TrainingStudy(id=str(one["id"]), share=_finite(one["share"])) for one in plain.get("studies", ())
        )
        plain["expected"] = {str(name): _finite(value) for name, value in plain.get("expected", {}).items()}
        document = Document(**plain)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: not a draft report as `rayscribe predict --out` writes it ({error!r})") from None
    if not document.reports or not document.text.strip():
        raise InputError(f"{source}: the draft report is empty")
    return document


def _finding(plain: dict[str, Any]) -> Finding:
    """Takes the wording from the probability, whatever the draft states; non-numbers are rejected later."""
    finding, probability = Finding(**plain), plain.get("probability")
    said = likelihood_phrase(probability) if isinstance(probability, int | float) and 0 <= probability <= 1 else ""
    return dataclasses.replace(finding, wording=said)


def _report(plain: dict[str, Any]) -> Report:
    sentences = tuple(
        Sentence(
            text=_text(one["text"]),
            mentions=tuple(FindingMention(**mention) for mention in one.get("mentions", ())),
            evidence=tuple(tuple(tuple(map(_finite, row)) for row in grid) for grid in one.get("evidence", ())),
        )
        for one in plain["sentences"]
    )
    probability = plain.get("log_probability")
    return Report(sentences=sentences, log_probability=None if probability is None else _finite(probability))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a sentence is a text")
    return value


def _finite(value: Any) -> float:
    """Rejects NaN and infinity, which JSON cannot represent."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("evidence and log-probabilities are numbers")
    return float(value)
