"""Runs a report model: studies in, drafts out.

Shapes: B studies, T words, V views, S patches along a side of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from rayscribe.data.dataset import Row, StudyDataset, collate
from rayscribe.data.images import ImageFile
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.drafts import DecodingConfig, Draft
from rayscribe.errors import InputError
from rayscribe.inference.images import ImageStudy, image_batch, read_image_study
from rayscribe.labels import CONDITIONS, UNLABELLED
from rayscribe.methods.method import TrainedModel
from rayscribe.models.attention_maps import attention_during
from rayscribe.models.decoding import Hypothesis, Steps, Vocabulary, decode
from rayscribe.models.layers import Encoded
from rayscribe.models.report_model import ReportModel
from rayscribe.progress import ProgressBar
from rayscribe.study import GIVEN_STATES, Batch, Study

BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReporter:
    """A trained model and the studies of a manifest that it reads, from files or from a feature cache."""

    trained: TrainedModel
    data: StudyDataset

    def draft(self, studies: Sequence[Study], decoding: DecodingConfig) -> list[Draft]:
        """One draft per study, in order; every study must be in `data`."""
        trained, rows = self.trained, {study.id: row for row, study in enumerate(self.data.studies)}
        batch = collate([self.data.item(Row(rows[study.id], 0)) for study in studies])
        longest = trained.config.text.max_length
        found = hypotheses(trained.model, trained.tokenizer, batch, decoding, max_length=longest)
        return [
            Draft(
                reports=[trained.tokenizer.decode(one.tokens) for one in best],
                log_probabilities=[one.log_probability for one in best],
            )
            for best in found
        ]


def generate_reports(
    model: ReportModel,
    tokenizer: Tokenizer,
    data: StudyDataset,
    decoding: DecodingConfig,
    *,
    progress: ProgressBar = iter,
) -> list[str]:
    """The best report of every study of `data`, in order; runs without gradients."""
    reports = []
    for start in progress(range(0, len(data), BATCH)):
        rows = range(start, min(start + BATCH, len(data)))
        batch = collate([data.item(Row(row, 0)) for row in rows])
        found = hypotheses(model, tokenizer, batch, decoding, max_length=data.text.max_length)
        reports += [tokenizer.decode(best[0].tokens) for best in found]
    return reports


def hypotheses(
    model: ReportModel,
    tokenizer: Tokenizer,
    batch: Batch,
    decoding: DecodingConfig,
    *,
    max_length: int,
    best: int = 1,
) -> list[list[Hypothesis]]:
    """The `best` hypotheses of every study, best first, without gradients or dropout."""
    return _searched(model, tokenizer, _encoded(model, batch), decoding, max_length=max_length, best=best)


@torch.inference_mode()
def _encoded(model: ReportModel, batch: Batch) -> Encoded:
    return model.eval().encode(batch.to(model.decoder.head.weight.device))


def _searched(
    model: ReportModel,
    tokenizer: Tokenizer,
    encoded: Encoded,
    decoding: DecodingConfig,
    *,
    max_length: int,
    best: int,
    steps: Steps = iter,
) -> list[list[Hypothesis]]:
    vocabulary = Vocabulary(pad=tokenizer.pad, begin=tokenizer.begin, end=tokenizer.end)
    return decode(model.decoder, encoded, vocabulary, decoding, max_tokens=max_length, best=best, steps=steps)


def read_study(
    trained: TrainedModel, files: Sequence[ImageFile], *, states: Mapping[str, int] | None = None
) -> ImageStudy:
    """One study of image files, read at a scale large enough for the model; `states`, by condition, replace its own.

    Raises InputError that names an unreadable file, or for states that the model does not read.
    """
    if states is not None:
        check_reads_findings(trained)
    side = max(trained.config.images.size, trained.resources.least_side())
    return read_image_study(files, at_least=side, source=trained.data.get("source", ""), states=states)


def check_reads_findings(trained: TrainedModel) -> None:
    """Raises InputError for a model that does not read findings before it writes."""
    if not trained.method.prompt(trained.config).states:
        raise InputError(
            f"{trained.config.system} does not read findings; models with a diagnosis prompt do, see docs/papers.md"
        )


def draft_reports(
    trained: TrainedModel,
    studies: Sequence[ImageStudy],
    decoding: DecodingConfig,
    *,
    best: int = 1,
    steps: Steps = iter,
) -> list[Draft]:
    """Drafts for studies of loose image files, in order; either all of them have states or none.

    Raises InputError unless beam search has at least `best` >= 1 beams.
    """
    if decoding.strategy == "beam" and not 1 <= best <= decoding.beams:
        raise InputError(f"--best {best}: must be between 1 and --decoding.beams {decoding.beams}")
    batch = image_batch(studies, trained.config.images)
    extras = trained.resources.image_extras([study.images for study in studies])
    given = [study.states for study in studies if study.states is not None]
    if given:
        assert len(given) == len(studies)
        states_BO = [[states.get(name, UNLABELLED) for name in CONDITIONS] for states in given]
        extras[GIVEN_STATES] = torch.tensor(states_BO)
    batch = replace(batch, extras=extras)
    model, tokenizer, longest = trained.model, trained.tokenizer, trained.config.text.max_length
    encoded = _encoded(model, batch)
    found = _searched(model, tokenizer, encoded, decoding, max_length=longest, best=best, steps=steps)
    tokens = [[one.tokens for one in best] for best in found]
    said = trained.method.said(model, batch, encoded)
    attention = attention_during(model.decoder, encoded, batch.has_view_BV, tokens, begin=tokenizer.begin)
    return [
        Draft(
            reports=[tokenizer.decode(one.tokens) for one in best],
            warnings=study.warnings,
            diagnosis=diagnosis,
            attention=attention,
            log_probabilities=[one.log_probability for one in best],
        )
        for study, best, diagnosis, attention in zip(studies, found, said, attention, strict=True)
    ]
