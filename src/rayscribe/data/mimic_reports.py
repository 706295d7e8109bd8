"""The reports of MIMIC-CXR: where each one is, and its sections.

A report file has an optional wet read, the line FINAL REPORT and sections under headings in capitals.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePosixPath

from rayscribe.data.mimic_files import REPORTS_ZIP, Files
from rayscribe.errors import InputError

_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z0-9 \t()/,.&_-]{2,80}?)[ \t]*:", re.MULTILINE)
_FINAL = re.compile(r"^[ \t]*FINAL REPORT\b[ \t]*", re.MULTILINE)
_VIEWS = re.compile(r"CHEST|RADIOGRAPH|\bAP\b|\bPA\b|LATERAL|PORTABLE|UPRIGHT")
_NO_VIEWS = re.compile(r"REASON|HISTORY|INDICATION|COMPARISON|TECHNIQUE|EXAM|STUDY|NOTIFICATION|RECOMMENDATION")
_SAME = {
    "FINDING": "findings",
    "FINDINGS": "findings",
    "FINDINGS AND IMPRESSION": "findings",
    "FINDINGS AND IMPRESSIONS": "findings",
    "FINDINGS/IMPRESSION": "findings",
    "IMPRESSION AND FINDINGS": "findings",
    "IMPRESSION": "impression",
    "IMPRESSIONS": "impression",
    "IMPRESSION/RECOMMENDATION": "impression",
    "CONCLUSION": "impression",
    "CONCLUSIONS": "impression",
}
_WORDS = range(20, 66)


class Reports:
    """The reports of one copy, from extracted files or from the zip."""

    def __init__(self, files: Files) -> None:
        self._trees = files.trees
        self._archive = files.named.get(REPORTS_ZIP)
        self._zip = _opened(self._archive) if self._archive else None
        self._members = _members(self._zip) if self._zip else {}

    def text(self, study: str, subject: str) -> str | None:
        """The whole report; None if there is no file."""
        for tree in self._trees:
            try:
                with open(f"{tree}/p{subject[:2]}/p{subject}/s{study}.txt", "rb") as file:
                    return file.read().decode("utf-8", "replace")
            except FileNotFoundError:
                continue
        member = self._members.get(f"p{subject}/s{study}.txt")
        if member is None or self._zip is None:
            return None
        try:
            return self._zip.read(member).decode("utf-8", "replace")
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{self._archive}: the report of study {study} is damaged; download it again") from error


def mimic_sections(report: str) -> tuple[str, str]:
    """Findings and impression of a report file, each on one line; both empty if it has neither.

    Text under FINDINGS AND IMPRESSION counts as findings, and so does text under the name of the views (CHEST, PA AND LATERAL:)
    if no section is called findings. Wet reads and text under other headings are ignored. If a section occurs twice, as in
    addenda, the last one counts.
    """
    final = _FINAL.search(report)
    start = final.end() if final else 0
    found = list(_HEADING.finditer(report, start))
    texts = {"findings": "", "impression": "", "views": ""}
    for heading, following in zip(found, [*found[1:], None]):
        name = _section(heading[1])
        text = " ".join(report[heading.end() : following.start() if following else len(report)].split())
        if name and text:
            texts[name] = text
    return texts["findings"] or texts["views"], texts["impression"]


def system_text(report: str) -> str:
    """The text that the classification and report system of Koehler, Hsieh and Tang (2024) learns; empty if it has none.

    Everything before NOTIFICATION, without underscores: findings and impression in their original case, if they have 20 to 65
    words together.
    """
    text = " ".join(report.split("NOTIFICATION:", 1)[0].replace("_", "").split())
    before, _, impression = text.partition("IMPRESSION:")
    target = f"{before.partition('FINDINGS:')[2].strip()} {impression.strip()}".strip()
    return target if len(target.split()) in _WORDS else ""


def _section(heading: str) -> str:
    name = " ".join(heading.replace("/ ", "/").replace(" /", "/").split())
    if name in _SAME:
        return _SAME[name]
    return "views" if _VIEWS.search(name) and not _NO_VIEWS.search(name) else ""


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: not a readable zip ({error}); download it again") from error


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Member names by `p10000032/s50414267.txt`, without the entries that macOS adds."""
    members = {}
    for name in archive.namelist():
        parts = PurePosixPath(name).parts
        if name.endswith(".txt") and len(parts) > 1 and "__MACOSX" not in parts and not parts[-1].startswith("._"):
            members["/".join(parts[-2:])] = name
    return members
