"""What each floor writes for the studies of a split: training and validation reports in, reports out.

Nothing is chosen on the test split. A floor that is aimed at each score (`AIMED`) writes one set of reports an aim, under
`name/aim`; the others write one set, under their name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.manifest import Manifest
from rayscribe.errors import InputError
from rayscribe.evaluation.aimed_floors import AimedFloors, sampled_studies
from rayscribe.evaluation.expected_floors import aim_beside, best_constants
from rayscribe.evaluation.floor_cache import small_pictures
from rayscribe.evaluation.floor_features import thumbnails
from rayscribe.evaluation.image_floors import filled_templates, nearest_reports, templates
from rayscribe.evaluation.protocol import Protocol, reference_reports
from rayscribe.labels import OBSERVATIONS, POSITIVE, Labeler
from rayscribe.metrics.floors import always_normal, most_frequent, most_similar, random_reports, shuffled
from rayscribe.metrics.similarity import SentenceEncoder
from rayscribe.progress import ProgressBar
from rayscribe.study import Study

MOST_TRAINING_IMAGES = 5_000
"The template and nearest-image floors use at most this many training studies, drawn at random."

ONE_REPORT = ("constant", "most_frequent", "always_normal", "every_finding", "most_similar", "best_constant")
"Floors that write one report for every study."
WITHOUT_LUNG = {
    "corners": "the picture's four corners",
    "scanner": "size, view and kind of the files",
    "context_form": "the form of the context, without its words",
}
"Floors that see no lung, in words."
AIMED = ("best_constant", *WITHOUT_LUNG, "thumbnails")
"Floors that write one set of reports for each aim; a score is compared with the set that aims at it."

_WHAT = {
    "constant": "the training report with the best BLEU-4 on val, for every study",
    "best_constant": "for each score the training report that is best on val by it, for every study",
    "most_frequent": "the most frequent training report, for every study",
    "always_normal": "the most frequent training report without a finding, for every study",
    "every_finding": "a report that states every finding, in stock sentences, for every study",
    "most_similar": "the training report with the best sentence similarity on val, for every study",
    "random_training": "a training report drawn at random for every study",
    "shuffled": "the system's own reports, every one given to another study",
    "nearest_image": "the report of the training study whose 32 x 32 picture is most alike",
    "thumbnails": "the training report that should score best, given a 32 x 32 picture",
    "corners": "the training report that should score best, given the picture's four corners",
    "scanner": "the training report that should score best, given number, views, original sizes and kind of the image files",
    "context_form": "the training report that should score best, given the form (no word) of indication, comparison, technique "
    "and title",
    "classifier_template": "a trained classifier's findings in stock sentences",
    "template": "a linear classifier on the 32 x 32 picture, its findings in stock sentences",
}


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
    constants = best_constants(texts, val_texts, scorers.labeler)
    constant = constants["bleu4"]
    floors = {"constant": [constant] * len(studies)}
    floors |= {f"best_constant/{aim}": [text] * len(studies) for aim, text in constants.items()}
    floors["most_frequent"] = [most_frequent(texts)] * len(studies)
    if (normal := always_normal(texts, scorers.labeler)) is not None:
        floors["always_normal"] = [normal] * len(studies)
    everything_1O = np.ones((1, len(OBSERVATIONS)), bool)
    stated = filled_templates(everything_1O, texts, constant=constant, labeler=scorers.labeler)
    floors["every_finding"] = stated * len(studies)
    if scorers.sentences is not None:
        floors["most_similar"] = [most_similar(texts, val_texts, scorers.sentences)] * len(studies)
    floors["random_training"] = random_reports(texts, len(studies))
    floors["shuffled"] = shuffled(own)
    if scorers.findings is not None:
        found_RO = _positive(studies, scorers.findings)
        floors["classifier_template"] = filled_templates(found_RO, texts, constant=constant, labeler=scorers.labeler)
    expected = AimedFloors.of(manifest, studies, train, protocol, scorers.labeler)
    floors |= expected.without_images()
    if not scorers.read_images:
        return floors, ["no image floors: switched off"]
    try:
        floors |= expected.with_images(progress)
        return floors | _image_floors(manifest, studies, (train, val), constant, scorers.labeler, progress), []
    except InputError as error:
        return floors, [f"no image floors: {error}"]


def scores_beside(scores: Mapping[str, Mapping[str, dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by floor, from those by `name` or `name/aim`: each score is that of the reports aimed at it."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for key, values in scores.items():
        name, _, aim = key.partition("/")
        kept = {score: value for score, value in values.items() if not aim or aim_beside(score) == aim}
        found.setdefault(name, {}).update(kept)
    return found


def about_floor(name: str, texts: Sequence[str], *, may_quote: bool) -> dict[str, str]:
    """Description of a floor; includes the text of a floor with one report if the data's terms allow quoting it."""
    has_one = name in ONE_REPORT and name not in AIMED
    return {"what": _WHAT[name]} | ({"text": texts[0]} if has_one and may_quote else {})


def _image_floors(
    manifest: Manifest,
    studies: Sequence[Study],
    reports: tuple[Mapping[str, str], Mapping[str, str]],
    constant: str,
    labeler: Labeler,
    progress: ProgressBar,
) -> dict[str, list[str]]:
    """Floors that learn from 32 x 32 pixels. Raises InputError for an image that cannot be read."""
    sampled = [
        sampled_studies(manifest, name, known, MOST_TRAINING_IMAGES) for name, known in zip(("train", "val"), reports)
    ]
    texts, val_texts = ([known[study.id] for study in part] for part, known in zip(sampled, reports))
    train, val, queries = (thumbnails(small_pictures(part, progress=progress)) for part in (*sampled, studies))
    return {
        "nearest_image": nearest_reports(queries, train, texts),
        "template": templates((train, texts), (val, val_texts), queries, constant=constant, labeler=labeler),
    }


def _positive(studies: Sequence[Study], findings: Mapping[str, Sequence[int]]) -> NDArray[np.bool_]:
    """Observations that the findings call positive (R, O). Raises InputError for studies without findings."""
    if lacking := [study.id for study in studies if study.id not in findings]:
        raise InputError(
            f"--template-findings: {len(lacking)} studies have no findings in the table, e.g. {lacking[0]}"
        )
    return np.array([findings[study.id] for study in studies]) == POSITIVE
