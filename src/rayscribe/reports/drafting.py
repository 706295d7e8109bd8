"""A model's output as the document behind every export: sentences, the observations they name, and the author.

Shapes: T words, V views, S patches along a side of an image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rayscribe import __version__
from rayscribe.classifiers.predict import Classified
from rayscribe.drafts import Draft
from rayscribe.errors import InputError
from rayscribe.labels import NEGATIVE, POSITIVE, UNCERTAIN
from rayscribe.metrics.labeler import mentions
from rayscribe.metrics.sentences import sentences
from rayscribe.models.folder import VISION_LLM, facts_of, weights_sha256
from rayscribe.provenance import terms_of
from rayscribe.reports.document import Author, Document, Finding, FindingMention, FindingState, Grid, Report, Sentence
from rayscribe.reports.likelihood import likelihood_phrase

FINDING_STATES: dict[int, FindingState] = {POSITIVE: "positive", NEGATIVE: "negative", UNCERTAIN: "uncertain"}

_MARKS = ".!?"
_BEFORE_MARK = re.compile(r"\s+([.,;:!?)])(?=\s|$)")
_AFTER_MARK = re.compile(r"(?<!\S)(\()\s+")


def document_of(
    draft: Draft, author: Author, *, images: int, created: datetime, findings: Sequence[Finding] = ()
) -> Document:
    """The n-best as reports of sentences; the disease head's states come before the classifier's `findings`.

    Raises InputError for an empty report.
    """
    reports = tuple(_report(draft, place) for place in range(len(draft.reports)))
    if not reports or not reports[0].text:
        raise InputError(f"{author.name}: the model wrote an empty report; train it for longer, or give other images")
    return Document(
        model=author,
        created=created.astimezone(UTC).isoformat(timespec="seconds"),
        reports=reports,
        images=images,
        findings=_own_findings(draft) + tuple(findings),
        warnings=tuple(draft.warnings),
        expected={name: round(value, 4) for name, value in draft.expected.items()},
        studies=tuple(replace(one, share=round(one.share, 4)) for one in draft.studies),
    )


def _own_findings(draft: Draft) -> tuple[Finding, ...]:
    """What the model says apart from the text, with calibrated probabilities where it has them."""
    found = []
    for name, told in draft.diagnosis.items():
        for state in FINDING_STATES.values():
            if told == state and name in draft.probabilities:
                probability = round(draft.probabilities[name], 4)
                found.append(
                    Finding(
                        name=name,
                        state=state,
                        source="training studies",
                        probability=probability,
                        wording=likelihood_phrase(probability),
                    )
                )
            elif told == state:
                found.append(Finding(name=name, state=state, source="disease head"))
    return tuple(found)


def findings_of(found: Classified) -> tuple[Finding, ...]:
    """A classifier's findings, the likeliest first."""
    ordered = sorted(found.probabilities.items(), key=lambda item: -item[1])
    return tuple(
        Finding(
            name=name,
            state="positive" if name in found.present else "negative",
            source="classifier",
            probability=round(probability, 4),
            wording=likelihood_phrase(probability),
        )
        for name, probability in ordered
    )


def without_names(draft: Draft, paths: Sequence[Path]) -> Draft:
    """Replaces file names in warnings with image 1, 2, ...: a file name may contain a patient's name."""
    warnings = draft.warnings
    for number, path in enumerate(paths, start=1):
        warnings = [
            f"image {number}{warning.removeprefix(path.name)}" if warning.startswith(f"{path.name}:") else warning
            for warning in warnings
        ]
    return replace(draft, warnings=warnings)


def sentences_of(report: str) -> tuple[Sentence, ...]:
    """The report's sentences, each with its end mark and the observations it names.

    Joined by single spaces they give the report with normalised white space; so the report is split at white space only, and
    "normal.The" stays whole.
    """
    return tuple(_sentence(text) for text in _pieces(report))


def readable(sentence: str) -> str:
    """Attaches marks to their words and capitalises the start of a sentence that lacks a capital: models trained on cleaned
    reports write "the lungs are clear ." The words stay unchanged."""
    text = _BEFORE_MARK.sub(r"\1", _AFTER_MARK.sub(r"\1", sentence))
    return text[:1].upper() + text[1:] if text == text.lower() else text


def readable_report(report: str) -> str:
    """The same for all sentences of a report. One with a capital is taken to be written as it should be read."""
    return " ".join(map(readable, _pieces(report))) if report == report.lower() else report


def grids_of(map_VSS: NDArray[np.float32]) -> tuple[Grid, ...]:
    """Scales the maximum over all images to 1; three digits are more than a picture can show."""
    scaled_VSS = map_VSS / max(1e-12, float(map_VSS.max()))
    return tuple(tuple(tuple(round(float(value), 3) for value in row) for row in image_SS) for image_SS in scaled_VSS)


def author_of(folder: Path) -> Author:
    """The author from the folder of a report model or a vision LLM; loads no weights."""
    about = facts_of(folder)
    try:
        data, is_llm = dict(about["data"]), about["format"] == VISION_LLM
        section = str(about["config"]["text"]["section"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'model.json'}: {error!r}; this model does not write reports") from error
    return Author(
        name=folder.resolve().name,
        system="vision LLM" if is_llm else _system(folder),
        weights_sha256=weights_sha256(folder),
        rayscribe=__version__,
        section=section,
        terms=terms_of(data),
    )


def _report(draft: Draft, place: int) -> Report:
    pieces = list(_pieces(draft.reports[place]))
    sentences = tuple(_sentence(readable(piece)) for piece in pieces)
    looks_TVSS = draft.attention[place] if draft.attention else None
    words = [len(piece.split()) for piece in pieces]
    if looks_TVSS is not None and len(looks_TVSS) == sum(words):
        ends = list(accumulate(words))
        sentences = tuple(
            replace(sentence, evidence=grids_of(looks_TVSS[end - count : end].mean(0)))
            for sentence, count, end in zip(sentences, words, ends, strict=True)
        )
    return Report(
        sentences=sentences,
        log_probability=round(draft.log_probabilities[place], 4) if draft.log_probabilities else None,
    )


def _system(folder: Path) -> str:
    from rayscribe.checkpoint import read_config  # not needed for vision LLMs, which have other settings

    return read_config(folder).system


def _pieces(report: str) -> Iterator[str]:
    start, end = 0, None
    for place, sentence in sentences(report):
        if end is not None:
            cut = end
            while cut < place and report[cut] in _MARKS:
                cut += 1
            if report[cut - 1].isspace() or report[cut].isspace():
                if piece := " ".join(report[start:cut].split()):
                    yield piece
                start = cut
        end = place + len(sentence)
    if piece := " ".join(report[start:].split()):
        yield piece


def _sentence(text: str) -> Sentence:
    return Sentence(text=text, mentions=_named(text))


def _named(sentence: str) -> tuple[FindingMention, ...]:
    return tuple(
        FindingMention(observation=one.observation, state=FINDING_STATES[one.state], start=one.start, end=one.end)
        for one in mentions(sentence)
    )
