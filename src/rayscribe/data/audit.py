"""What is wrong with a split before training: copies, shifted labels, shared patients, missing parts.

Shapes: R reports, O observations.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.cleaning import words_only
from rayscribe.data.images import read_image
from rayscribe.data.manifest import Manifest
from rayscribe.data.near_duplicates import ALIKE, near_duplicates
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.labels import OBSERVATIONS, POSITIVE, Labeler
from rayscribe.metrics.statistics import holm
from rayscribe.progress import ProgressBar
from rayscribe.study import SPLITS, Study, coded_normal, is_frontal

COPIED = 0.05
"Warn if at least this share of a split's reports also occurs in train."


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Groups of studies, by position, that are not independent of one another."""

    texts: list[list[int]]
    "studies by their words; a unique report is a group of one"
    near: list[tuple[int, int]]
    "pairs of `texts` that differ in a few words"
    images: list[list[int]]
    "studies by image file"
    subjects: list[list[int]]
    "studies by patient"


def audit(
    manifest: Manifest, labeler: Labeler, *, read_images: bool = True, progress: ProgressBar = iter
) -> tuple[dict[str, Any], Copies]:
    """The content of the page and the JSON, and the groups that a better split must keep together."""
    studies = list(manifest.studies)
    splits = [name for name in SPLITS if any(study.split == name for study in studies)]
    copies = find_copies(studies)
    result: dict[str, Any] = {
        "disclaimer": DISCLAIMER,
        "data_digest": manifest.digest(),
        "source": manifest.provenance.get("source", ""),
        "labeler": labeler.name,
        "splits": {name: _describe([study for study in studies if study.split == name]) for name in splits},
        "copies_of_train": {
            name: {kind: _copied(studies, groups, name) for kind, groups in _kinds(copies).items()}
            for name in splits
            if name != "train"
        },
        "patients": _patients(studies),
        "label_shift": _label_shift(studies, splits, labeler),
        "images": _images(studies, progress) if read_images else {},
    }
    return {"warnings": _warnings(result)} | result, copies


def _kinds(copies: Copies) -> dict[str, list[list[int]]]:
    return {
        "same_report": copies.texts,
        "near_report": copies.texts + [copies.texts[a] + copies.texts[b] for a, b in copies.near],
        "same_image": copies.images,
        "same_patient": copies.subjects,
    }


def find_copies(studies: Sequence[Study], *, with_near: bool = True) -> Copies:
    """Groups of studies with the same words, image file or patient; with pairs of nearly equal reports if `with_near`."""
    texts: dict[str, list[int]] = defaultdict(list)
    images: dict[str, list[int]] = defaultdict(list)
    subjects: dict[str, list[int]] = defaultdict(list)
    for place, study in enumerate(studies):
        if words := words_only(_text(study)):
            texts[words].append(place)
        for sha256 in dict.fromkeys(study.sha256):
            images[sha256].append(place)
        if study.subject:
            subjects[study.subject].append(place)
    return Copies(
        texts=list(texts.values()),
        near=near_duplicates(list(texts)) if with_near else [],
        images=list(images.values()),
        subjects=list(subjects.values()),
    )


def _text(study: Study) -> str:
    """Findings, which most systems write; the impression if there are none."""
    return study.findings.strip() or study.impression.strip()


def _copied(studies: Sequence[Study], groups: Sequence[Sequence[int]], split: str) -> dict[str, Any]:
    """Number and share of a split's studies that have a partner in train."""
    found: set[int] = set()
    for members in groups:
        if any(studies[place].split == "train" for place in members):
            found.update(place for place in members if studies[place].split == split)
    total = sum(study.split == split for study in studies)
    return {"studies": len(found), "share": len(found) / total, "ids": sorted(studies[place].id for place in found)}


def _describe(studies: Sequence[Study]) -> dict[str, Any]:
    texts = [words_only(_text(study)) for study in studies]
    views = Counter(view or "unknown" for study in studies for view in _views(study))
    return {
        "studies": len(studies),
        "images": sum(len(study.images) for study in studies),
        "images_per_study": dict(sorted(Counter(len(study.images) for study in studies).items())),
        "views": dict(sorted(views.items())),
        "without_frontal": sum(not any(map(is_frontal, study.views)) for study in studies if any(study.views)),
        "no_findings": sum(not study.findings.strip() for study in studies),
        "no_impression": sum(not study.impression.strip() for study in studies),
        "masked": sum("XXXX" in study.findings + study.impression for study in studies),
        "mean_words": float(np.mean([len(text.split()) for text in texts])),
        "distinct_reports": len(set(texts)),
    }


def _views(study: Study) -> tuple[str, ...]:
    return study.views if len(study.views) == len(study.images) else ("",) * len(study.images)


def _patients(studies: Sequence[Study]) -> dict[str, Any]:
    splits: dict[str, set[str]] = defaultdict(set)
    for study in studies:
        if study.subject:
            splits[study.subject].add(study.split)
    return {
        "known": len(splits),
        "studies_without": sum(not study.subject for study in studies),
        "in_several_splits": sum(len(names) > 1 for names in splits.values()),
    }


def _label_shift(studies: Sequence[Study], splits: Sequence[str], labeler: Labeler) -> dict[str, Any]:
    """Positive rates by split, with a chi-squared test of equal rates, Holm-corrected over the rows."""
    labels_RO = labeler.label([f"{study.findings}\n{study.impression}" for study in studies]) == POSITIVE
    flags: dict[str, NDArray[np.bool_]] = {
        f"{name} (labeler)": labels_RO[:, place] for place, name in enumerate(OBSERVATIONS)
    }
    if (coded := coded_normal(studies)) is not None:
        flags = {"normal (the source's codes)": np.array(coded)} | flags
    inside = {name: np.array([study.split == name for study in studies]) for name in splits}
    rows: dict[str, dict[str, Any]] = {}
    for name, flag in flags.items():
        counts = [(int(flag[keep].sum()), int(keep.sum())) for keep in inside.values()]
        rows[name] = {
            "rates": {split: hits / total for split, (hits, total) in zip(splits, counts)},
            "p": _equal_rates_p(counts),
        }
    for row, corrected in zip(rows.values(), holm([row["p"] for row in rows.values()]), strict=True):
        row["p_holm"] = corrected
    return rows


def _equal_rates_p(counts: Sequence[tuple[int, int]]) -> float:
    """Pearson's chi-squared test of a 2 x k table, k of 2 or 3; 1 if it is undefined."""
    hits, total = sum(hit for hit, _ in counts), sum(size for _, size in counts)
    if len(counts) < 2 or hits in (0, total):
        return 1.0
    rate = hits / total
    statistic = sum((hit - size * rate) ** 2 / (size * rate * (1 - rate)) for hit, size in counts)
    # The distribution's tail has a closed form for 1 and 2 degrees of freedom.
    return math.exp(-statistic / 2) if len(counts) == 3 else math.erfc(math.sqrt(statistic / 2))


def _images(studies: Sequence[Study], progress: ProgressBar) -> dict[str, Any]:
    paths = sorted({path for study in studies for path in study.images})
    with ThreadPoolExecutor() as pool:
        faults = [fault for fault in progress(pool.map(_fault, paths)) if fault]
    return {"files": len(paths), "unreadable": len(faults), "faults": faults}


def _fault(path: Path) -> str:
    try:
        read_image(path)
    except InputError as error:
        return str(error)
    return ""


def _warnings(result: Mapping[str, Any]) -> list[str]:
    found = []
    for split, kinds in result["copies_of_train"].items():
        for kind, words in (
            ("same_report", "reports occur word for word in train"),
            ("same_image", "studies share an image file with train"),
            ("same_patient", "studies are of patients in train"),
        ):
            share = kinds[kind]["share"]
            if share > (COPIED if kind == "same_report" else 0):
                found.append(f"{split}: {100 * share:.0f} % of {words} ({kinds[kind]['studies']})")
        extra = kinds["near_report"]["studies"] - kinds["same_report"]["studies"]
        if extra:
            found.append(f"{split}: {extra} more reports nearly repeat one of train (Jaccard {ALIKE} or more)")
    for name, row in result["label_shift"].items():
        if row["p_holm"] < 0.05:
            rates = ", ".join(f"{split} {100 * rate:.1f} %" for split, rate in row["rates"].items())
            found.append(f"label shift, {name}: {rates} (p {row['p_holm']:.2g})")
    if result["patients"]["in_several_splits"]:
        found.append(f"{result['patients']['in_several_splits']} patients are in several splits")
    elif not result["patients"]["known"]:
        found.append("no patient ids: whether patients are shared between splits cannot be checked")
    for split, facts in result["splits"].items():
        if facts["no_findings"]:
            found.append(f"{split}: {facts['no_findings']} studies have no findings")
    if result["images"].get("unreadable"):
        found.append(
            f"{result['images']['unreadable']} image files cannot be read, e.g. {result['images']['faults'][0]}"
        )
    return found
