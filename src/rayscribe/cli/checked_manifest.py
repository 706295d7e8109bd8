"""What all sources of `rayscribe prepare` share: another split, the check, what it found, and the manifest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscribe.errors import InputError
from rayscribe.progress import progress_bar
from rayscribe.study import Study

if TYPE_CHECKING:
    from rayscribe.data.manifest import Manifest


def resplit(studies: list[Study], splits: Path | None) -> list[Study]:
    """The studies with the splits of a table; every study must be in it."""
    if splits is None:
        return studies
    from rayscribe.data.resplit import read_split

    given = read_split(splits)
    if missing := [study.id for study in studies if study.id not in given]:
        raise InputError(f"{splits}: lacks {len(missing)} of {len(studies)} studies, e.g. {missing[0]}")
    return [replace(study, split=given[study.id]) for study in studies]


def write_checked(
    studies: Sequence[Study],
    about: dict[str, Any],
    out: Path,
    *,
    missing_is_fault: bool,
    needs_text: bool = True,
    leave_out_faulty: bool,
    shown: Callable[[str], str] = str,
) -> Manifest:
    """Checks, prints what was found, and writes the manifest. `shown`: messages as they may be printed."""
    from rayscribe.data.manifest import write_manifest
    from rayscribe.data.prepare import check

    journal = out.with_name(f"{out.name}.journal")
    total = len({str(path) for study in studies for path in study.images})
    checked = check(
        studies,
        source=about,
        missing_is_fault=missing_is_fault,
        needs_text=needs_text,
        journal=journal,
        progress=partial(progress_bar, total=total, desc="reading images", unit="image"),
    )
    counts = checked.manifest.counts()
    print(", ".join(f"{split} {count}" for split, count in counts.items()))
    print(f"{len(checked.manifest.studies)} studies, {checked.manifest.provenance['images']} images")
    for reason, count in checked.left_out.items():
        print(f"left out: {count} studies with {reason}")
    for note in checked.notes[:20]:
        print(f"note: {shown(note)}")
    if len(checked.notes) > 20:
        print(f"note: and {len(checked.notes) - 20} more")
    for fault in checked.faults:
        print(f"fault: {shown(fault)}", file=sys.stderr)
    if checked.faults and not leave_out_faulty:
        raise InputError(
            f"{len(checked.faults)} faults; no manifest was written. Fix them, or repeat with --leave-out-faulty"
        )
    if not checked.manifest.studies:
        raise InputError("no study is left; check the folder and the image paths")
    write_manifest(out, checked.manifest)
    journal.unlink(missing_ok=True)
    verb = "train r2gen" if needs_text else "classify train multilabel --cohort.labels codes"
    print(f"wrote {out}\nnext: rayscribe {verb} --data {out} --run runs/first")
    return checked.manifest
