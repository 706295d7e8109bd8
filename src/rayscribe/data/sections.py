"""Extracts findings and impression from a report with headings, as in MIMIC-CXR, tables and the texts of language models.

A heading is a known name before a colon, possibly misspelt, joint ("FINDINGS AND IMPRESSION:") or in Markdown. Any other name
before a colon, such as "LUNGS:" or a time of day, is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

SECTIONS = ("findings", "impression", "findings+impression")


@dataclass(frozen=True, slots=True)
class HeadedText:
    """A piece of a report."""

    kind: str
    "findings, impression, joint (both under one heading), views (under their name), other, or before (no heading yet)"
    text: str


def headed_texts(report: str) -> list[HeadedText]:
    """The report in pieces, in order; without headings it is one piece of kind before. A preliminary reading is left out.

    Inside findings, headings that only qualify them do not end them: "OTHER FINDINGS:" or "CHEST WALL:" after the first words
    are text.
    """
    report = _BROKEN.sub(" ", report)
    final = _FINAL.search(report)
    start = final.end() if final else 0
    headings = _headings(report, start)
    if not headings:
        return [HeadedText("before", report.strip())]
    kept: list[_Heading] = []
    for heading in headings:
        last = kept[-1] if kept else None
        is_open = last is not None and last.kind in _OPEN_FOR.get(heading.kind, (heading.kind,))
        if heading.is_loose and is_open and last and has_words(report[last.end : heading.start]):
            continue
        kept.append(heading)
    ends = [heading.start for heading in kept[1:]] + [len(report)]
    pieces = [HeadedText("before", report[start : kept[0].start].strip())]
    for heading, end in zip(kept, ends, strict=True):
        pieces.append(HeadedText(heading.kind, report[heading.end : end].strip()))
    return pieces


def split_sections(report: str) -> tuple[str, str]:
    """Findings and impression of a report; without headings, the whole report is findings, as in R2Gen's files.

    Text under a joint heading is findings, and so is text before the first heading if no section is called findings.
    """
    pieces = headed_texts(report)
    if _lacks_headings(pieces):
        return report.strip(), ""
    has_findings = any(piece.kind in _FINDINGS for piece in pieces)
    return _joined(pieces, *(_FINDINGS if has_findings else ("before",))), _joined(pieces, "impression")


def written_section(report: str, section: str) -> str:
    """What a written report says under one of `SECTIONS`; a report without headings, or with joint ones, says it all there."""
    pieces = headed_texts(report)
    if _lacks_headings(pieces):
        return report
    findings, impression = split_sections(report)
    if section == "impression":
        return _joined(pieces, "impression", "joint")
    return findings if section == "findings" else f"{findings} {impression}".strip()


def section_text(findings: str, impression: str, section: str) -> str:
    """The text of one of `SECTIONS`; empty if the report lacks it (the joint section needs both parts)."""
    if section == "findings":
        return findings.strip()
    if section == "impression":
        return impression.strip()
    if section == "findings+impression":
        return f"{findings.strip()} {impression.strip()}" if findings.strip() and impression.strip() else ""
    raise ValueError(f"no section {section!r}; there are {', '.join(SECTIONS)}")


def has_words(text: str) -> bool:
    """Whether a text has a letter; masks, dates and rules have none."""
    return any(letter.isalpha() for letter in text)


@dataclass(frozen=True, slots=True)
class _Heading:
    start: int
    end: int
    kind: str
    is_loose: bool = False
    "a qualified name, text if its section is open already"


_FINDINGS = ("findings", "joint", "views")
_OPEN_FOR = {name: (name, *_FINDINGS) for name in ("findings", "views")}
"Loose headings of these kinds do not end sections of those."
_FINAL = re.compile(r"^[ \t]*FINAL REPORT\b[ \t]*", re.MULTILINE)
_BROKEN = re.compile(
    r"(?<=[SG] AND)[ \t]*\r?\n[ \t]*(?=(?:FINDINGS?|IMPRESSIONS?)[ \t]*:)"
)  # a joint heading on two lines

_KINDS = {
    "findings": ("findings", "narrative"),
    "impression": ("impression", "conclusion", "interpretation"),
    "other": (
        *("history", "clinical history", "patient history", "medical history", "indication", "clinical indication"),
        *("clinical information", "clinical data", "clinical details", "clinical question", "medical condition"),
        *("reason for exam", "reason for examination", "reason for study", "reason for this examination"),
        *("comparison", "comparison exam", "comparison film", "comparison study", "reference exam", "technique"),
        *("examination", "exam", "type of examination", "exam type", "procedure", "recommendation", "notification"),
        *("communication", "addendum", "wet read", "wetread", "preliminary report"),
    ),
}
_KNOWN = {name: kind for kind, names in _KINDS.items() for name in names}
# Words that also occur before a colon within a text: headings in capitals only.
_IN_CAPITALS = {
    *("study", "prior study", "prior studies", "date", "date of exam", "date of examination", "comment", "comments"),
    *("note", "plan", "summary", "pfi", "dose", "contrast", "views", "number of views", "attending", "radiologist"),
    *("referring physician", "dictated by", "signed", "signed by", "electronically signed by", "signature"),
    *("accession number", "final report"),
}
_JOINTS = re.compile(r"\s*(?:[/&+,-]|\band\b)\s*")
_OTHER_WORDS = re.compile(
    r"REASON|HISTORY|INDICATION|COMPARISON|TECHNIQUE|EXAM|NOTIFICATION|COMMUNICATION|RECOMMENDATION|ADDENDUM"
)
_VIEWS = re.compile(r"\b(?:CHEST|RADIOGRAPHS?|AP|PA|LATERAL|PORTABLE|UPRIGHT|FRONTAL|VIEWS?|RIBS|BONE WINDOWS?)\b")
_UNTITLED = re.compile(  # a word that is not of an examination's title
    r"\b(?!(?:CHEST|RADIOGRAPHS?|FILMS?|X|RAYS?|XRAYS?|AP|PA|LATERAL|LAT|DECUBITUS|OBLIQUE|PORTABLE|BEDSIDE|UPRIGHT|ERECT|SUPINE"
    r"|SEMI|FRONTAL|VIEWS?|SINGLE|ONE|TWO|THREE|FOUR|RIGHT|LEFT|RIBS?|BONE|WINDOWS?|AND|OF|THE|WITH|AT|IN|A|M|AM|PM)\b)[A-Z]"
)
_NO_VIEWS = re.compile(r"\b(?:TUBES?|WALL|DRAINS?|PAIN)\b")

_MARKS = r"[ \t>#*_\u2022+-]*(?:\d{1,2}[.)][ \t*_]*)?"  # of Markdown and of lists
_COLON = r"[ \t]*[*_]*[ \t]*[:\uff1a][*_]*"
_LINE = re.compile(rf"^{_MARKS}([A-Za-z][A-Za-z0-9 \t()/,.&+_-]{{2,80}}?){_COLON}", re.MULTILINE)
_DASH = re.compile(rf"^{_MARKS}([A-Z][A-Za-z \t()/&]{{2,40}}?)[*_]*[ \t]+[-\u2013\u2014][ \t]", re.MULTILINE)
_ALONE = re.compile(rf"^({_MARKS})([A-Z][A-Za-z \t()/&]{{2,40}}?)[ \t*_#]*\r?$", re.MULTILINE)
_SENTENCE = re.compile(rf"(?<=[.:])[ \t*_]*([A-Za-z][A-Za-z \t()/&]{{2,40}}?){_COLON}")
_LAST_WORD = re.compile(rf"\b[A-Z][A-Z/&]{{3,}}(?:\(S\))?{_COLON}")
_WORDS_BEFORE = re.compile(r"(?:[A-Z&/][A-Z&/,]*[ \t]+)*$")


def _headings(report: str, start: int) -> list[_Heading]:
    """Without overlaps, in order."""
    found: list[_Heading] = []
    end = start
    for heading in sorted(
        _candidates(report, start), key=lambda heading: (heading.start, heading.is_loose, -heading.end)
    ):
        if heading.start >= end:
            found.append(heading)
            end = heading.end
    return found


def _candidates(report: str, start: int) -> Iterator[_Heading]:
    for match in _LINE.finditer(report, start):
        name, is_capital = match[1], match[1].isupper()
        if kind := _kind(name, is_capital):
            if name[0].isupper() or _ends_sentence(report, start, match.start()):
                yield _Heading(match.start(), match.end(), kind)
        elif is_capital and not report[match.end() : match.end() + 1].strip() and (kind := _loose_kind(name)):
            is_title = kind == "views" and " " in name and not _UNTITLED.search(name)
            yield _Heading(match.start(), match.end(), kind, is_loose=not is_title and kind != "impression")
    for match in _SENTENCE.finditer(report, start):
        if kind := _kind(match[1], match[1].isupper()):
            yield _Heading(match.start(), match.end(), kind)
    yield from _within_lines(report, start)
    for match in _DASH.finditer(report, start):
        if kind := _kind(match[1], is_capital=False):
            yield _Heading(match.start(), match.end(), kind)
    for match in _ALONE.finditer(report, start):
        kind = _kind(match[2], is_capital=False)
        is_marked = bool(match[1].strip()) or match[2].isupper() or _ends_sentence(report, start, match.start())
        if kind and (is_marked or kind != "other"):
            yield _Heading(match.start(), match.end(), kind)


def _within_lines(report: str, start: int) -> Iterator[_Heading]:
    """Names in capitals anywhere in a line; the longest known one, loose where another capital word precedes it."""
    for match in _LAST_WORD.finditer(report, start):
        nearby = report[max(start, match.start() - 40) : match.start()]
        run = _WORDS_BEFORE.search(nearby)
        begin = match.start() - (len(run[0]) if run else 0)
        name = report[begin : match.end()].rstrip(" \t*_:\uff1a")
        for word in re.finditer(r"\S+", name):
            if kind := _kind(name[word.start() :], is_capital=True):
                if kind == "other" or not _OTHER_WORDS.search(name):
                    yield _Heading(begin + word.start(), match.end(), kind, is_loose=word.start() > 0)
                break


def _ends_sentence(report: str, start: int, position: int) -> bool:
    before = report[start:position].rstrip()
    return not before or before[-1] in ".:!?" or "\n" in report[start + len(before) : position].strip(" \t\r")[1:]


@lru_cache(maxsize=4096)
def _kind(name: str, is_capital: bool) -> str:
    """The kind of a name that consists of known ones; empty for any other."""
    plain = " ".join(re.sub(r"\(.*?\)", " ", name).lower().replace("_", " ").split()).strip(" .,-")
    if kind := _one_kind(plain, is_capital):
        return kind
    parts = _JOINTS.split(plain)
    if len(parts) == 1:
        parts = plain.split()
    kinds = {_one_kind(part, is_capital) for part in parts}
    if "" in kinds:
        return ""
    if {"findings", "impression"} <= kinds:
        return "joint"
    return next((kind for kind in ("impression", "findings", "other") if kind in kinds), "")


def _one_kind(name: str, is_capital: bool) -> str:
    if name in _KNOWN:
        return _KNOWN[name]
    if is_capital and name in _IN_CAPITALS:
        return "other"
    forms = (name, name.removesuffix("s"))
    return next((_KNOWN[known] for known in _KNOWN for form in forms if len(known) > 6 and _is_near(form, known)), "")


def _loose_kind(name: str) -> str:
    """The kind of a line in capitals that only contains a known name, or names the views; empty for any other."""
    if name[-1].isdigit():  # a time of day
        return ""
    if _OTHER_WORDS.search(name):
        return "other"
    kinds = {_one_kind(word, is_capital=True) for word in re.findall("[a-z]+", name.lower())}
    if {"findings", "impression"} <= kinds:
        return "joint"
    if "impression" in kinds or "findings" in kinds:
        return "impression" if "impression" in kinds else "findings"
    return "views" if _VIEWS.search(name) and not _NO_VIEWS.search(name) else ""


def _is_near(word: str, known: str) -> bool:
    """Whether one letter is lacking, superfluous or wrong, or two neighbours are exchanged."""
    if word == known or abs(len(word) - len(known)) > 1:
        return word == known
    at = next((i for i, (a, b) in enumerate(zip(word, known, strict=False)) if a != b), min(len(word), len(known)))
    rest, wanted = word[at:], known[at:]
    is_exchanged = len(rest) > 1 and rest[1::-1] + rest[2:] == wanted
    return is_exchanged or rest[1:] == wanted[1:] or rest[1:] == wanted or rest == wanted[1:]


def _lacks_headings(pieces: list[HeadedText]) -> bool:
    """Names of views alone ("CHEST: ... KNEE: ...") do not divide a text."""
    return all(piece.kind in ("before", "views") for piece in pieces)


def _joined(pieces: list[HeadedText], *kinds: str) -> str:
    return " ".join(piece.text for piece in pieces if piece.kind in kinds and piece.text)
