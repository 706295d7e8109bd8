"""`rayscribe prepare mimic-cxr`: the manifest, the tables of labels beside it, and the counts beside the published ones.

Annotations are evaluated here (no postponed ones), because tyro reads them.
"""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from rayscribe.cli.checked_manifest import resplit, write_checked
from rayscribe.data.mimic_cxr import MIMIC_TERMS, MimicCohort, MimicOptions, read_mimic_cohort
from rayscribe.data.mimic_labels import write_label_tables
from rayscribe.study import SPLITS

_PATIENT = re.compile(r"\bp1\d{7}\b")


def from_mimic_cxr(
    root: tyro.conf.Positional[Path],
    out: Path,
    options: Annotated[MimicOptions, tyro.conf.arg(name="")] = MimicOptions(),  # noqa: B008  # frozen
    splits: Path | None = None,
    leave_out_faulty: bool = False,
) -> None:
    """Reads MIMIC-CXR or MIMIC-CXR-JPG, or R2Gen's or PromptMRG's annotations of it.

    Args:
        root: the folder that holds the tables, reports and images, directly or in subfolders
        out: the manifest to write; label tables are written beside it
        options: which images and texts to take
        splits: a table of ids and splits that replaces the source's split, such as `rayscribe audit --resplit` writes
        leave_out_faulty: write the manifest without the studies that are broken
    """
    cohort = read_mimic_cohort(root, options)
    for line in counted(cohort, options):
        print(line)
    about = {
        "source": "mimic-cxr",
        "root": str(root),
        "layout": cohort.layout,
        "terms": MIMIC_TERMS,
        "restricted": True,
        "options": asdict(options) | {"layout": cohort.layout},
        "listed": {"images": cohort.images, "studies": cohort.examinations},
        "not_taken": cohort.left_out,
    }
    manifest = write_checked(
        resplit(list(cohort.studies), splits),
        about,
        out,
        missing_is_fault=False,
        needs_text=not options.without_reports,
        leave_out_faulty=leave_out_faulty,
        shown=_without_patients,
    )
    for path, labelled in write_label_tables(out, cohort, manifest.studies).items():
        print(f"wrote {path}: labels of {labelled} of {len(manifest.studies)} studies")


def counted(cohort: MimicCohort, options: MimicOptions) -> list[str]:
    """The counts of the copy next to the published ones, and what is left out."""
    records = " / ".join(f"{cohort.with_findings[split]:,}" for split in SPLITS)
    rows = [
        ("images", f"{cohort.images:,}", "377,110 (MIMIC-CXR-JPG 2.0.0 and 2.1.0)"),
        ("studies", f"{cohort.examinations:,}", "227,835"),
        ("images with findings, train / val / test", records, "270,790 / 2,130 / 3,858 (R2Gen's records)"),
    ]
    if cohort.layout == "physionet":
        rows.append(("patients with a PA image", f"{cohort.pa_patients:,}", "4,742 (classification system; a part)"))
    if options.sections == "system":
        published = "2,562 / 285 train / val (the same system; a part, its own split)"
        rows.append(("studies with a text of 20 to 65 words", f"{len(cohort.studies):,}", published))
    if not any(cohort.with_findings.values()):
        rows = [row for row in rows if "findings" not in row[0]]
    lines = [f"{'':41} {'here':>23}   published"]
    lines += [f"{what:41} {here:>23}   {published}" for what, here, published in rows]
    if cohort.partial:
        lines.append(f"not taken: {cohort.partial} images that are not in all of the tables")
    return lines + [f"not taken: {count} studies with {reason}" for reason, count in cohort.left_out.items() if count]


def _without_patients(message: str) -> str:
    """Paths hold the patients' numbers, which do not belong on a screen or in a log."""
    return _PATIENT.sub("p...", message)
