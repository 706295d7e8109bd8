"""The reports of MIMIC-CXR: where each one is, and its sections.

A report file has an optional wet read, the line FINAL REPORT and sections under headings in capitals.
"""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from rayscribe.data.mimic_files import REPORTS_ZIP, Files
from rayscribe.data.sections import has_words, headed_texts
from rayscribe.errors import InputError

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

    As in MIT-LCP's section_parser, text under a joint heading (FINDINGS AND IMPRESSION:) is impression, text under the name of
    the views (CHEST, PA AND LATERAL:) is findings, and the last one counts if a section occurs twice, as in addenda. Wet reads
    and text under other headings are ignored.
    """
    texts = {"findings": "", "impression": ""}
    for piece in headed_texts(report):
        name = {"joint": "impression", "views": "findings"}.get(piece.kind, piece.kind)
        if name in texts and has_words(piece.text):
            texts[name] = " ".join(piece.text.split())
    return texts["findings"], texts["impression"]


def system_text(report: str) -> str:
    """The text that the classification and report system of Koehler, Hsieh and Tang (2024) learns; empty if it has none.

    Everything before NOTIFICATION, without underscores: findings and impression in their original case, if they have 20 to 65
    words together.
    """
    text = " ".join(report.split("NOTIFICATION:", 1)[0].replace("_", "").split())
    before, _, impression = text.partition("IMPRESSION:")
    target = f"{before.partition('FINDINGS:')[2].strip()} {impression.strip()}".strip()
    return target if len(target.split()) in _WORDS else ""


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
