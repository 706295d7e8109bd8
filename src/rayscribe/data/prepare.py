"""From the studies of any reader to one checked manifest: all faults are collected and reported together."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rayscribe import __version__
from rayscribe.data.inspection import ImageInspection, inspect_images
from rayscribe.data.manifest import Manifest
from rayscribe.progress import ProgressBar
from rayscribe.study import SPLITS, Study


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What `check` found: the manifest of usable studies, and everything that the user should know."""

    manifest: Manifest
    faults: tuple[str, ...] = ()
    "broken input: damaged images, duplicate ids, a study in two splits; the study is left out"
    left_out: dict[str, int] = field(default_factory=dict)
    "studies that cannot be used although nothing is broken, by reason"
    notes: tuple[str, ...] = ()
    "studies that are kept although something about them is unusual"


def check(
    studies: Sequence[Study],
    *,
    source: dict[str, Any],
    missing_is_fault: bool,
    needs_text: bool = True,
    journal: Path | None = None,
    progress: ProgressBar = iter,
) -> Checked:
    """Read every image once, hash it, and sort the studies into kept, left out and broken.

    `missing_is_fault`: whether a listed image that is not on disk is an error (a user's own table) or a partial copy of a
    published collection (the study is kept with its other views, or left out when it has none).
    `needs_text`: whether studies without a report are left out; images to write for or to classify need none.
    `journal`: keeps inspections until the manifest is written, so that a killed check can resume.
    """
    repeated = _repeated(studies)
    found = _Found(faults=[fault for _, fault in sorted(repeated.items())])
    names = sorted({str(path) for study in studies for path in study.images})
    inspections = dict(zip(names, progress(inspect_images(names, journal=journal)), strict=True))
    for study in studies:
        if study.id in repeated:
            continue
        if needs_text and not (study.findings.strip() or study.impression.strip()):
            found.left_out["no report text"] += 1
        else:
            _add_study(
                study, [inspections[str(path)] for path in study.images], found, missing_is_fault=missing_is_fault
            )
    if not any(study.split for study in found.kept):
        source = source | {"split": "by a hash of the subject or id: 70 % train, 10 % val, 20 % test"}
    _settle_splits(found)
    kept, left_out = found.kept, dict(found.left_out)
    provenance = source | {
        "rayscribe": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": {name: sum(study.split == name for study in kept) for name in SPLITS},
        "images": sum(len(study.images) for study in kept),
        "left_out": left_out,
        "faults": len(found.faults),
    }
    manifest = Manifest(studies=tuple(kept), provenance=provenance)
    return Checked(manifest=manifest, faults=tuple(found.faults), left_out=left_out, notes=tuple(found.notes))


@dataclass(kw_only=True)
class _Found:
    """What a check has found so far."""

    faults: list[str]
    notes: list[str] = field(default_factory=list)
    kept: list[Study] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def _add_study(study: Study, inspections: Sequence[ImageInspection], found: _Found, *, missing_is_fault: bool) -> None:
    """Keeps the study with its existing images, leaves it out, or records a fault. `inspections`: one per image."""
    missing = [path for path, inspection in zip(study.images, inspections, strict=True) if inspection.missing]
    broken = [inspection.fault for inspection in inspections if inspection.fault]
    if missing and missing_is_fault:
        broken += [f"{path}: listed for study {study.id}, but there is no such file" for path in missing]
    if broken:
        found.faults += broken
        return
    if len(missing) == len(study.images):
        found.left_out["no image file"] += 1
        return
    found.notes += [f"study {study.id}: {path.name} is missing; kept with its other view" for path in missing]
    found.notes += [
        f"{path}: looks inverted (bright border); check MONOCHROME1/2"
        for path, inspection in zip(study.images, inspections, strict=True)
        if inspection.inverted
    ]
    count = len(study.images)
    views = study.views if len(study.views) == count else ("",) * count
    sizes = study.sizes if len(study.sizes) == count else [(one.rows, one.columns) for one in inspections]
    good = [one for one in zip(study.images, inspections, views, sizes, strict=True) if not one[1].missing]
    found.kept.append(
        replace(
            study,
            images=tuple(path for path, _, _, _ in good),
            sha256=tuple(inspection.sha256 for _, inspection, _, _ in good),
            views=tuple(view for _, _, view, _ in good),
            sizes=tuple(size for _, _, _, size in good),
        )
    )


def _settle_splits(found: _Found) -> None:
    """Gives every kept study a split, and checks that no subject is in two."""
    if not any(study.split for study in found.kept):
        found.kept = [replace(study, split=_split_of(study)) for study in found.kept]
    elif unsplit := [study.id for study in found.kept if not study.split]:
        found.faults.append(f"study {unsplit[0]} and {len(unsplit) - 1} more have no split although others have one")
        found.kept = [study for study in found.kept if study.split]
    if shared := _shared_subjects(found.kept):
        # The count only: a subject's name may be a patient's.
        found.faults.append(f"{len(shared)} subjects have studies in more than one split; split by subject")
        found.kept = [study for study in found.kept if study.subject not in shared]


def _repeated(studies: Sequence[Study]) -> dict[str, str]:
    by_id = defaultdict(list)
    for study in studies:
        by_id[study.id].append(study)
    messages = {}
    for name, same in by_id.items():
        splits = sorted({study.split for study in same})
        if len(splits) > 1:
            messages[name] = f"study {name} is in the splits {' and '.join(splits)}; keep it in one"
        elif len(same) > 1:
            messages[name] = (
                f"duplicate study id {name} ({len(same)} rows); ids must be unique (one row a study, all its images)"
            )
    return messages


def _shared_subjects(studies: Sequence[Study]) -> set[str]:
    splits = defaultdict(set)
    for study in studies:
        if study.subject:
            splits[study.subject].add(study.split)
    return {subject for subject, names in splits.items() if len(names) > 1}


def _split_of(study: Study) -> str:
    share = int(hashlib.sha256((study.subject or study.id).encode()).hexdigest()[:8], 16) / 2**32
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"
