"""Extracts findings and impression from a report with headings."""

import re

SECTIONS = ("findings", "impression", "findings+impression")

_NAMES = (
    "findings|impression|conclusion|indication|comparison|technique|history|clinical history|examination|exam"
    "|reason for exam|reason for examination|recommendation|recommendations"
)
_HEADING = re.compile(
    # At the start of a line, after the end of a sentence, or in capitals: "cardiac findings: mild" is not a heading.
    rf"(?:(?:^|(?<=[.:]))[ \t]*(?i:{_NAMES})|\b(?:{_NAMES.upper()}))[ \t]*:",
    re.MULTILINE,
)
_SAME = {"conclusion": "impression"}


def split_sections(report: str) -> tuple[str, str]:
    """Findings and impression of a report; without headings, the whole report is findings, as in R2Gen's files."""
    found = list(_HEADING.finditer(report))
    if not found:
        return report.strip(), ""
    # Text before the first heading is findings, unless a heading of that name exists.
    texts = {"findings": report[: found[0].start()].strip(), "impression": ""}
    if any(_name(match) == "findings" for match in found):
        texts["findings"] = ""
    ends = [match.start() for match in found[1:]] + [len(report)]
    for match, end in zip(found, ends, strict=True):
        name = _name(match)
        if name in texts:
            texts[name] = f"{texts[name]} {report[match.end() : end].strip()}".strip()
    return texts["findings"], texts["impression"]


def section_text(findings: str, impression: str, section: str) -> str:
    """The text of one of `SECTIONS`; empty if the report lacks it (the joint section needs both parts)."""
    if section == "findings":
        return findings.strip()
    if section == "impression":
        return impression.strip()
    if section == "findings+impression":
        return f"{findings.strip()} {impression.strip()}" if findings.strip() and impression.strip() else ""
    raise ValueError(f"no section {section!r}; there are {', '.join(SECTIONS)}")


def _name(heading: re.Match[str]) -> str:
    name = heading[0].strip(" \t:").lower()
    return _SAME.get(name, name)
