"""What every floor writes for the studies of a split: training and validation reports in, reports out.

The test split is never used to choose anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

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
"The image floors look at this many training studies at most, drawn at random."

ONE_REPORT = ("constant", "most_frequent", "most_similar")
"Floors that write the same report for every study."


def floor_reports(
    manifest: Manifest,
    studies: Sequence[Study],
    own: Sequence[str],
    protocol: Protocol,
    labeler: Labeler,
    *,
    findings: Mapping[str, Sequence[int]] | None = None,
    sentences: SentenceEncoder | None = None,
    read_images: bool = True,
    progress: ProgressBar = iter,
) -> tuple[dict[str, list[str]], list[str]]:
    """What every floor writes for the studies, in their order; why some floors are not there. `own`: the system's reports;
    `findings`: a classifier's states of the 14 observations by study id, for a floor of its own; so is `sentences`."""
    floors: dict[str, list[str]] = {}
    notes: list[str] = []
    if not (manifest.counts()["train"] and manifest.counts()["val"]):
        return {"shuffled": shuffled(own)}, ["no floor from training reports: the manifest lacks train or val"]
    train, val = (reference_reports(manifest, name, protocol) for name in ("train", "val"))
    texts = list(train.values())
    constant = best_constant(texts, list(val.values()))
    floors["constant"] = [constant] * len(studies)
    floors["most_frequent"] = [most_frequent(texts)] * len(studies)
    if sentences is not None:
        floors["most_similar"] = [most_similar(texts, list(val.values()), sentences)] * len(studies)
    floors["random_training"] = random_reports(texts, len(studies))
    floors["shuffled"] = shuffled(own)
    if findings is not None:
        if lacking := [study.id for study in studies if study.id not in findings]:
            raise InputError(f"--template-findings: {len(lacking)} studies have no findings, e.g. {lacking[0]}")
        found_RO = np.array([findings[study.id] for study in studies]) == POSITIVE
        floors["classifier_template"] = filled_templates(found_RO, texts, constant=constant, labeler=labeler)
    if not read_images:
        return floors, ["no image floors: switched off"]
    chosen = _sample([study for study in manifest.split("train") if study.id in train])
    chosen_val = _sample([study for study in manifest.split("val") if study.id in val])
    try:
        pixels, pixels_val, queries = (thumbnails(part, progress=progress) for part in (chosen, chosen_val, studies))
    except InputError as error:
        return floors, [f"no image floors: {error}"]
    own_texts, val_texts = [train[study.id] for study in chosen], [val[study.id] for study in chosen_val]
    floors["nearest_image"] = nearest_reports(queries, pixels, own_texts)
    floors["template"] = templates(
        (pixels, own_texts), (pixels_val, val_texts), queries, constant=constant, labeler=labeler
    )
    return floors, notes


def about_floor(name: str, texts: Sequence[str], *, may_quote: bool) -> dict[str, str]:
    """What the floor is; the text of the ones that write a single report, where the data's terms let it be quoted."""
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


def _sample(studies: list[Study]) -> list[Study]:
    if len(studies) <= MOST_TRAINING_IMAGES:
        return studies
    picks = np.random.default_rng(0).choice(len(studies), MOST_TRAINING_IMAGES, replace=False)
    return [studies[pick] for pick in np.sort(picks)]
