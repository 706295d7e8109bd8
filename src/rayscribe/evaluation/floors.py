"""What each floor writes for the studies of a split: training and validation reports in, reports out.

Nothing is chosen on the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.manifest import Manifest
from rayscribe.errors import InputError
from rayscribe.evaluation.image_floors import filled_templates, nearest_reports, templates, thumbnails
from rayscribe.evaluation.protocol import Protocol, reference_reports
from rayscribe.labels import POSITIVE, Labeler
from rayscribe.metrics.floors import best_constant, most_frequent, most_similar, random_reports, shuffled
from rayscribe.metrics.similarity import SentenceEncoder
from rayscribe.progress import ProgressBar
from rayscribe.study import Study

MOST_TRAINING_IMAGES = 5_000
"The image floors use at most this many training studies, drawn at random."

ONE_REPORT = ("constant", "most_frequent", "most_similar")
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
    if scorers.sentences is not None:
        floors["most_similar"] = [most_similar(texts, val_texts, scorers.sentences)] * len(studies)
    floors["random_training"] = random_reports(texts, len(studies))
    floors["shuffled"] = shuffled(own)
    if scorers.findings is not None:
        found_RO = _positive(studies, scorers.findings)
        floors["classifier_template"] = filled_templates(found_RO, texts, constant=constant, labeler=scorers.labeler)
    if not scorers.read_images:
        return floors, ["no image floors: switched off"]
    sampled = [(_sample(manifest, name, reports), reports) for name, reports in (("train", train), ("val", val))]
    try:
        known, known_val = (
            (thumbnails(part, progress=progress), [reports[study.id] for study in part]) for part, reports in sampled
        )
        queries = thumbnails(studies, progress=progress)
    except InputError as error:
        return floors, [f"no image floors: {error}"]
    floors["nearest_image"] = nearest_reports(queries, *known)
    floors["template"] = templates(known, known_val, queries, constant=constant, labeler=scorers.labeler)
    return floors, []


def about_floor(name: str, texts: Sequence[str], *, may_quote: bool) -> dict[str, str]:
    """Description of a floor; includes the text of a floor with one report if the data's terms allow quoting it."""
    what = {
        "constant": "the training report with the best BLEU-4 on val, for every study",
        "most_frequent": "the most frequent training report, for every study",
        "most_similar": "the training report with the best sentence similarity on val, for every study",
        "random_training": "a training report drawn at random for every study",
        "shuffled": "the system's own reports, every one given to another study",
        "nearest_image": "the report of the training study whose 32 x 32 picture is most alike",
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
