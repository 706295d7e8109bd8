"""The studies of one split that have a section, with their cleaned reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rayscribe.config import TextConfig
from rayscribe.data.cleaning import CLEANINGS
from rayscribe.data.manifest import Manifest
from rayscribe.data.sections import section_text
from rayscribe.errors import InputError
from rayscribe.study import Study


@dataclass(frozen=True, slots=True)
class SplitReports:
    """Studies with their reports, in the manifest's order."""

    studies: Sequence[Study]
    reports: Sequence[str]

    @classmethod
    def read(cls, manifest: Manifest, split: str, text: TextConfig, notify: Callable[[str], None]) -> SplitReports:
        """Reads a split; `notify` receives a summary. Raises InputError if no study of the split has the section."""
        pairs = [(study, cleaned_report(study, text)) for study in manifest.split(split)]
        kept = [(study, report) for study, report in pairs if report]
        if not kept:
            raise InputError(f"no study in split {split} has the section {text.section!r} (--text.section)")
        lacking = f", {len(pairs) - len(kept)} left out without {text.section}" if len(kept) < len(pairs) else ""
        notify(f"{split}: {len(kept)} studies{lacking}")
        return cls([study for study, _ in kept], [report for _, report in kept])

    @classmethod
    def blank(cls, studies: Sequence[Study]) -> SplitReports:
        """Studies whose reports are unknown or not needed."""
        return cls(studies, [""] * len(studies))

    @property
    def ids(self) -> list[str]:
        return [study.id for study in self.studies]

    def share(self, rank: int, count: int) -> SplitReports:
        """The share of one of `count` processes."""
        return SplitReports(self.studies[rank::count], self.reports[rank::count])


def cleaned_report(study: Study, text: TextConfig) -> str:
    """The study's section under the run's cleaning; empty if the report lacks the section."""
    report = section_text(study.findings, study.impression, text.section)
    return CLEANINGS[text.cleaning](report) if report else ""
