"""Sentences and words of a radiology report, raw or cleaned, with their positions in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from rayscribe.metrics.spellings import canonical, glued

_END = re.compile(
    r"(?<!\b[vV][sS])(?<!\bvs )(?<!\b[dD]r)(?<!\be\.g)(?<!\bi\.e)(?<!\bapprox)[.!](?=\s|$|[A-Z])"  # "normal.The" lacks a space
    r"|(?<=\w)\s?\?"
    r"|\s\d{1,2}\)\s"
    r"|\n\s*\n"
    r"|\n(?=\s*(?:[-*•]\s|\d{1,2}[.)]|[A-Z][A-Za-z ]{2,40}:))"
    r"|\n(?=[A-Z])"
)
_WORD = re.compile(r"[wr]/o\b|[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?|[,;:/&()?]|_{2,}|(?<!\S)[-–—]+(?!\S)")
_SHORT_LINE = 60
"A line shorter than this and followed by a capital letter ends its sentence; longer lines are wrapped text."


class Word(NamedTuple):
    """A word or mark of a sentence in its canonical spelling, with its position in characters."""

    text: str
    start: int
    end: int


def sentences(report: str) -> Iterator[tuple[int, str]]:
    """Start and text of every sentence; list items and headed sections are sentences of their own."""
    start = 0
    for end in _END.finditer(report):
        if end[0] == "\n" and end.end() - report.rfind("\n", 0, end.start()) > _SHORT_LINE:
            continue
        if end.start() > start:
            yield start, report[start : end.end() if end[0][-1] == "?" else end.start()]
        start = end.end()
    if start < len(report):
        yield start, report[start:]


def words(sentence: str) -> list[Word]:
    """The words in order; a de-identification mask ("XXXX", "___", "<unk>") becomes the word "mask"."""
    found: list[Word] = []
    for match in _WORD.finditer(sentence.lower()):
        text, start = match[0], match.start()
        if cut := glued(text):
            found.append(Word(canonical(text[:cut]), start, start + cut))
            found.append(Word("/", start + cut, start + cut))
            text, start = text[cut:], start + cut
        found.append(Word(canonical(text), start, match.end()))
    return found
