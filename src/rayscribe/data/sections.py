"""Findings and impression out of a report that holds both under headings."""

import re

SECTIONS = ("findings", "impression", "findings+impression")

_HEADING = re.compile(
    r"(?:^|(?<=[\s.:]))(findings|impression|conclusion|indication|comparison|technique|history|clinical history"
    r"|examination|exam|reason for exam(?:ination)?|recommendations?)\s*:",
    re.IGNORECASE,
)
_SAME = {"conclusion": "impression"}


def split_sections(report: str) -> tuple[str, str]:
    """Findings and impression of a report; a report without any heading is all findings, as in R2Gen's files."""
    found = list(_HEADING.finditer(report))
    if not found:
        return report.strip(), ""
    texts = {"findings": "", "impression": ""}
    ends = [match.start() for match in found[1:]] + [len(report)]
    for match, end in zip(found, ends, strict=True):
        name = _SAME.get(match[1].lower(), match[1].lower())
        if name in texts:
            texts[name] = f"{texts[name]} {report[match.end() : end].strip()}".strip()
    return texts["findings"], texts["impression"]


def section_text(findings: str, impression: str, section: str) -> str:
    """The text of one of `SECTIONS`; empty when the report lacks it (both parts must be there for the joint one)."""
    if section == "findings":
        return findings.strip()
    if section == "impression":
        return impression.strip()
    if section == "findings+impression":
        return f"{findings.strip()} {impression.strip()}" if findings.strip() and impression.strip() else ""
    raise ValueError(f"no section {section!r}; there are {', '.join(SECTIONS)}")
