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
    r"|\s(?=(?:FINDINGS?|IMPRESSION|NARRATIVE|CONCLUSION)[A-Z ]{0,16}:)"
)
_WORD = re.compile(
    r"[wrh]/o\b|s/p\b|f/u\b|c/[wf]\b|b/l\b|[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?|[,;:/&()?]|_{2,}|(?<!\S)[-–—]+(?!\S)"
)
_ANSWER = re.compile(r"\s*(?:none|no|absent|negative)\s*(?:$|[.,;])")
_PRELIMINARY = re.compile(r"\b(?:WET READ|PRELIMINARY (?:REPORT|READ))\b", re.IGNORECASE)
_FINAL = re.compile(r"\n\s*_{10,}\s*(?:FINAL REPORT)?|\bFINAL REPORT\b", re.IGNORECASE)
_REASON = re.compile(
    r"(?<![a-z])(?:(?:clinical|patient|past medical|medical|brief|admission) )?"
    r"(?:indications?|history|information|statement|reason for [a-z ]{2,30}|hx|ordering provider comments|complaint)"
    r"(?: and [a-z ]{2,20})?\s?:[ \t]*\n?[ \t]*",
    re.IGNORECASE,
)
_REASON_END = re.compile(
    r"\n\s*\n|(?<=[.?!])[ \t]*\n|\n(?=[ \t]*[A-Z][A-Za-z ]{2,40}:)|(?=\b(?i:findings?|narrative|report)\s?:)"
)
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


def reported_sentences(report: str) -> Iterator[tuple[int, str]]:
    """The sentences without those of sections that give a reason, and of a preliminary reading before the final report."""
    start = 0
    for first, end in _skipped(report):
        for place, sentence in sentences(report[start:first]):
            yield start + place, sentence
        start = max(start, end)
    for place, sentence in sentences(report[start:] if start else report):
        yield start + place, sentence


def words(sentence: str) -> list[Word]:
    """The words in order; a de-identification mask ("XXXX", "___", "<unk>") becomes the word "mask"."""
    found: list[Word] = []
    spoken = sentence.lower()
    for match in _WORD.finditer(spoken):
        text, start = match[0], match.start()
        if text[0] in "-–—" and _ANSWER.match(spoken, match.end()):
            text = ":"  # "effusion - none"
        if cut := glued(text):
            found.append(Word(canonical(text[:cut]), start, start + cut))
            found.append(Word("/", start + cut, start + cut))
            text, start = text[cut:], start + cut
        found.append(Word(canonical(text), start, match.end()))
    return found


def _skipped(report: str) -> Iterator[tuple[int, int]]:
    """Start and end of the parts that are no final statement about the images, in text order."""
    if ":" not in report:
        return
    start = 0
    preliminary = _PRELIMINARY.search(report)
    if preliminary and (final := _FINAL.search(report, preliminary.end())):
        start = final.end()
        yield preliminary.start(), start
    for heading in _REASON.finditer(report, start):
        if heading.start() < start:
            continue
        end = _REASON_END.search(report, heading.end())
        if end is None:
            return
        start = end.end()
        yield heading.start(), start
