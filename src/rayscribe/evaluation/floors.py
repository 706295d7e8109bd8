"""What each floor writes for the studies of a split: training and validation reports in, reports out.

Nothing is chosen on the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.manifest import Manifest
from rayscribe.errors import InputError
from rayscribe.evaluation.image_floors import (
    corners,
    expected_reports,
    filled_templates,
    nearest_reports,
    small_pictures,
    templates,
    thumbnails,
)
from rayscribe.evaluation.protocol import Protocol, reference_reports
from rayscribe.labels import POSITIVE, Labeler
from rayscribe.metrics.floors import always_normal, best_constant, most_frequent, most_similar, random_reports, shuffled
from rayscribe.metrics.similarity import SentenceEncoder
from rayscribe.progress import ProgressBar
from rayscribe.study import Study

MOST_TRAINING_IMAGES = 5_000
"The image floors use at most this many training studies, drawn at random."

AIMS: tuple[Literal["overlap", "findings"], ...] = ("overlap", "findings")
"What the floors of highest expected utility aim at."

BLIND = ("corners_overlap", "corners_findings")
"Floors that see no lung."

ONE_REPORT = ("constant", "most_frequent", "always_normal", "most_similar")
"Floors that write one report for every study."


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorScorers:
    """What some floors need besides the training reports."""

    labeler: Labeler
    findings: Mapping[str, Sequence[int]] | None = None
    "a classifier's states of the 14 observations by study id, for the template floor"
    sentences: SentenceEncoder | None = None
    "for the floor with the best sentence similarity"
    read_images: bool = True


def floor_reports(
    manifest: Manifest,
    studies: Sequence[Study],
    own: Sequence[str],
    protocol: Protocol,
    scorers: FloorScorers,
    *,
    progress: ProgressBar = iter,
) -> tuple[dict[str, list[str]], list[str]]:
    """Reports of each floor for `studies`, in their order; and why some floors are missing. `own`: the system's reports.

    Raises InputError if `scorers.findings` lack a study.
    """
    if not (manifest.counts()["train"] and manifest.counts()["val"]):
        return {"shuffled": shuffled(own)}, ["no floor from training reports: the manifest lacks train or val"]
    train, val = (reference_reports(manifest, name, protocol) for name in ("train", "val"))
    texts, val_texts = list(train.values()), list(val.values())
    constant = best_constant(texts, val_texts)
    floors = {"constant": [constant] * len(studies), "most_frequent": [most_frequent(texts)] * len(studies)}
    if (normal := always_normal(texts, scorers.labeler)) is not None:
        floors["always_normal"] = [normal] * len(studies)
    if scorers.sentences is not None:
        floors["most_similar"] = [most_similar(texts, val_texts, scorers.sentences)] * len(studies)
    floors["random_training"] = random_reports(texts, len(studies))
    floors["shuffled"] = shuffled(own)
    if scorers.findings is not None:
        found_RO = _positive(studies, scorers.findings)
        floors["classifier_template"] = filled_templates(found_RO, texts, constant=constant, labeler=scorers.labeler)
    if not scorers.read_images:
        return floors, ["no image floors: switched off"]
    try:
        return floors | _image_floors(manifest, studies, (train, val), constant, scorers, progress), []
    except InputError as error:
        return floors, [f"no image floors: {error}"]


def _image_floors(
    manifest: Manifest,
    studies: Sequence[Study],
    reports: tuple[Mapping[str, str], Mapping[str, str]],
    constant: str,
    scorers: FloorScorers,
    progress: ProgressBar,
) -> dict[str, list[str]]:
    """Floors that see 32 x 32 pixels or their corners. Raises InputError for an image that cannot be read."""
    sampled = [_sample(manifest, name, known) for name, known in zip(("train", "val"), reports)]
    texts, val_texts = ([known[study.id] for study in part] for part, known in zip(sampled, reports))
    pixels, val_pixels, queries = (small_pictures(part, progress=progress) for part in (*sampled, studies))
    known, query_units = (thumbnails(pixels), texts), thumbnails(queries)
    found = {
        "nearest_image": nearest_reports(query_units, *known),
        "template": templates(
            known, (thumbnails(val_pixels), val_texts), query_units, constant=constant, labeler=scorers.labeler
        ),
    }
    for name, seen, asked in (
        ("thumbnail", known[0], query_units),
        ("corners", corners(pixels), corners(queries)),
    ):
        for aim in AIMS:
            found[f"{name}_{aim}"] = expected_reports((seen, texts), asked, labeler=scorers.labeler, aim=aim)
    return found


def about_floor(name: str, texts: Sequence[str], *, may_quote: bool) -> dict[str, str]:
    """Description of a floor; includes the text of a floor with one report if the data's terms allow quoting it."""
    what = {
        "constant": "the training report with the best BLEU-4 on val, for every study",
        "most_frequent": "the most frequent training report, for every study",
        "always_normal": "the most frequent training report without a finding, for every study",
        "most_similar": "the training report with the best sentence similarity on val, for every study",
        "random_training": "a training report drawn at random for every study",
        "shuffled": "the system's own reports, every one given to another study",
        "nearest_image": "the report of the training study whose 32 x 32 picture is most alike",
        "thumbnail_overlap": "the training report of highest expected BLEU-4 and CIDEr, given a 32 x 32 picture",
        "thumbnail_findings": "the same, aimed at findings",
        "corners_overlap": "the training report of highest expected BLEU-4 and CIDEr, given the picture's four corners",
        "corners_findings": "the same, aimed at findings",
        "classifier_template": "a trained classifier's findings in stock sentences",
        "template": "a linear classifier on the 32 x 32 picture, its findings in stock sentences",
    }
    return {"what": what[name]} | ({"text": texts[0]} if name in ONE_REPORT and may_quote else {})


def _positive(studies: Sequence[Study], findings: Mapping[str, Sequence[int]]) -> NDArray[np.bool_]:
    """Observations that the findings call positive (R, O). Raises InputError for studies without findings."""
    if lacking := [study.id for study in studies if study.id not in findings]:
        raise InputError(
            f"--template-findings: {len(lacking)} studies have no findings in the table, e.g. {lacking[0]}"
        )
    return np.array([findings[study.id] for study in studies]) == POSITIVE


def _sample(manifest: Manifest, split: str, reports: Mapping[str, str]) -> list[Study]:
    """The split's studies that have a report, sampled to the number that the image floors use."""
    studies = [study for study in manifest.split(split) if study.id in reports]
    if len(studies) <= MOST_TRAINING_IMAGES:
        return studies
    picks = np.random.default_rng(0).choice(len(studies), MOST_TRAINING_IMAGES, replace=False)
    return [studies[pick] for pick in np.sort(picks)]
