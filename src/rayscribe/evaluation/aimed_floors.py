"""The floors of highest expected utility for a split: corners, thumbnails, facts about the files, form of the context.

What they choose is kept by a digest of the data, the protocol and the labeler, so that a second system is scored at once.

Shapes: J training studies, R queries, F features.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from rayscribe import __version__
from rayscribe.data.manifest import Manifest
from rayscribe.evaluation.expected_floors import TrainingReports, expected_reports
from rayscribe.evaluation.floor_cache import Choices, kept_choices, small_pictures
from rayscribe.evaluation.floor_features import context_form, corners, fact_tables, scanner_facts, thumbnails
from rayscribe.evaluation.protocol import Protocol
from rayscribe.labels import Labeler
from rayscribe.metrics.statistics import Singles
from rayscribe.progress import ProgressBar
from rayscribe.study import Study

MOST_TRAINING = 2_500
"At most this many training studies are used, drawn at random; the time grows with the cube of their number."

FloorFeatures = tuple[Singles, Singles]
"Of the training studies (J, F) and of the queries (R, F)."


@dataclass(frozen=True, kw_only=True)
class AimedFloors:
    """Reports by floor and aim, named `floor/aim`."""

    training: list[Study]
    reports: list[str]
    "of the training studies, in their order"
    studies: Sequence[Study]
    labeler: Labeler
    digest: str
    "of everything that the choices depend on"

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        studies: Sequence[Study],
        reports: Mapping[str, str],
        protocol: Protocol,
        labeler: Labeler,
    ) -> AimedFloors:
        """`studies`: those to write for; `reports`: cleaned training reports by id."""
        training = sampled_studies(manifest, "train", reports, MOST_TRAINING)
        seen = [
            (study.id, study.views, study.sizes, [image.suffix for image in study.images], study.context)
            for study in (*training, *studies)
        ]
        named = [__version__, manifest.digest(), asdict(protocol), labeler.name, seen]
        return cls(
            training=training,
            reports=[reports[study.id] for study in training],
            studies=studies,
            labeler=labeler,
            digest=hashlib.sha256(json.dumps(named).encode()).hexdigest(),
        )

    def without_images(self) -> dict[str, list[str]]:
        """`scanner` where the size of every image is known, and `context_form` where a study has context."""
        every = (*self.training, *self.studies)
        floors: dict[str, list[str]] = {}
        if all(study.sizes for study in every):
            floors |= self._named("scanner", lambda: self._counted(scanner_facts))
        if any(any(study.context) for study in every):
            floors |= self._named("context_form", lambda: self._counted(context_form))
        return floors

    def with_images(self, progress: ProgressBar) -> dict[str, list[str]]:
        """`corners` and `thumbnails`. Raises InputError for an image that cannot be read."""

        def pixels(of: Callable[[Singles], Singles]) -> FloorFeatures:
            train_JP, asked_RP = (small_pictures(part, progress=progress) for part in (self.training, self.studies))
            return of(train_JP), of(asked_RP)

        return self._named("corners", lambda: pixels(corners)) | self._named("thumbnails", lambda: pixels(thumbnails))

    @cached_property
    def _known(self) -> TrainingReports:
        return TrainingReports.of(self.reports, self.labeler)

    def _counted(self, facts: Callable[[Study], Counter[str]]) -> FloorFeatures:
        return fact_tables([facts(study) for study in self.training], [facts(study) for study in self.studies])

    def _named(self, name: str, features: Callable[[], FloorFeatures]) -> dict[str, list[str]]:
        """The floor's reports, chosen by these features unless the choice is kept."""

        def make() -> Choices:
            firsts = {text: study.id for text, study in reversed(list(zip(self.reports, self.training, strict=True)))}
            ids = [firsts[text] for text in self._known.candidates]
            found = expected_reports(self._known, *features())
            return {aim: [ids[place] for place in places] for aim, places in found.items()}

        text_of = {study.id: text for study, text in zip(self.training, self.reports, strict=True)}
        chosen = kept_choices(f"{self.digest} {name}", make)
        return {f"{name}/{aim}": [text_of[study] for study in ids] for aim, ids in chosen.items()}


def sampled_studies(manifest: Manifest, split: str, reports: Mapping[str, str], most: int) -> list[Study]:
    """The split's studies that have a report, at most `most` of them, drawn at random."""
    studies = [study for study in manifest.split(split) if study.id in reports]
    if len(studies) <= most:
        return studies
    picks = np.random.default_rng(0).choice(len(studies), most, replace=False)
    return [studies[pick] for pick in np.sort(picks)]
