"""A trained model as a reporter: studies in, report texts out.

Shapes: B studies, T words, V views, S patches along a side of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.checkpoint import TrainedModel
from rayscribe.config import DecodingConfig
from rayscribe.data.conditions import CONDITIONS, UNLABELLED
from rayscribe.data.dataset import Neighbours, Row, StudyDataset, collate
from rayscribe.data.features import FeatureCache
from rayscribe.data.images import ImageFile
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError
from rayscribe.inference.images import LooseStudy, loose_batch, read_loose
from rayscribe.labels import STATE_NAMES
from rayscribe.methods.promptmrg import DiagnosisStage
from rayscribe.models.attention_maps import where_it_looked
from rayscribe.models.decoding import Hypothesis, Steps, Vocabulary, decode
from rayscribe.models.layers import Encoded
from rayscribe.models.report_model import ReportModel
from rayscribe.study import Batch, Study

BATCH = 16


class Reporter(Protocol):
    """Anything that writes reports. Evaluation, command line and server need only this."""

    def generate(self, studies: Sequence[Study], decoding: DecodingConfig) -> list[str]:
        """One report a study, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReporter:
    """A trained model that reads images from files, or features from a cache."""

    trained: TrainedModel
    cache: FeatureCache | None = None
    neighbours: Neighbours | None = None
    "the training reports that studies to come retrieve; looked up on the way where they are needed and not given"
    states: Mapping[str, NDArray[np.int8]] | None = None
    "states of the conditions by study id, which stand in the prompt instead of the model's own"

    def generate(self, studies: Sequence[Study], decoding: DecodingConfig) -> list[str]:
        trained = self.trained
        data = StudyDataset(
            studies,
            [""] * len(studies),
            trained.tokenizer,
            text=trained.config.text,
            images=trained.config.images,
            cache=self.cache,
            neighbours=self.neighbours or trained.resources.neighbours(studies, trained.config),
            states=self.states,
        )
        return generate_reports(self.trained.model, self.trained.tokenizer, data, decoding)


def generate_reports(
    model: ReportModel,
    tokenizer: Tokenizer,
    data: StudyDataset,
    decoding: DecodingConfig,
    *,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[str]:
    """The best report of every study of `data`, in order."""
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
    """The `best` hypotheses of every study, best first, without gradients and without dropout."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What the model says about one study of loose image files."""

    reports: list[str]
    "n-best, best first"
    warnings: list[str]
    diagnosis: dict[str, str]
    "states by condition, which stand in front of the report; empty for methods without a disease head"
    looks: list[NDArray[np.float32]] = field(default_factory=list)
    "of every report: where the decoder looked while it wrote a word (T, V, S, S); empty for models that do not tell"
    log_probabilities: list[float] = field(default_factory=list)
    "of every report; empty for models that do not tell"


def read_study(
    trained: TrainedModel, files: Sequence[ImageFile], *, states: Mapping[str, int] | None = None
) -> LooseStudy:
    """As large as the model needs it. `states`: by condition, instead of the model's own."""
    if states is not None and not trained.config.prompts:
        raise InputError(f"{trained.config.system} reads no findings before it writes; PromptMRG and KIF do")
    retrieval = trained.resources.retrieval
    side = max(trained.config.images.size, retrieval.least_images_side() if retrieval else 0)
    return read_loose(files, at_least=side, source=trained.data.get("source", ""), states=states)


def draft_reports(
    trained: TrainedModel,
    studies: Sequence[LooseStudy],
    decoding: DecodingConfig,
    *,
    best: int = 1,
    steps: Steps = iter,
) -> list[Draft]:
    """Drafts for studies of loose image files. Either all of them bring states or none."""
    if decoding.strategy == "beam" and not 1 <= best <= decoding.beams:
        raise InputError(f"--best {best}: between 1 and --decoding.beams {decoding.beams}, which it is chosen from")
    batch, retrieval = loose_batch(studies, trained.config.images), trained.resources.retrieval
    if retrieval is not None:
        vectors_BM = torch.stack([retrieval.image_vector(study.images) for study in studies])
        rows_BK = retrieval.nearest(vectors_BM, top=trained.config.diagnosis.reports)
        batch = replace(batch, retrieved_BKM=torch.from_numpy(retrieval.bank_RM[rows_BK]))
    given = [study.states for study in studies if study.states is not None]
    if given:
        assert len(given) == len(studies)
        states_BO = [[states.get(name, UNLABELLED) for name in CONDITIONS] for states in given]
        batch = replace(batch, states_BO=torch.tensor(states_BO))
    model, tokenizer, longest = trained.model, trained.tokenizer, trained.config.text.max_length
    encoded = _encoded(model, batch)
    found = _searched(model, tokenizer, encoded, decoding, max_length=longest, best=best, steps=steps)
    tokens = [[one.tokens for one in best] for best in found]
    looks = where_it_looked(model.decoder, encoded, batch.has_view_BV, tokens, begin=tokenizer.begin)
    return [
        Draft(
            reports=[tokenizer.decode(one.tokens) for one in best],
            warnings=study.warnings,
            diagnosis=diagnosis,
            looks=look,
            log_probabilities=[one.log_probability for one in best],
        )
        for study, best, diagnosis, look in zip(studies, found, _diagnoses(model, batch, encoded), looks, strict=True)
    ]


def _diagnoses(model: ReportModel, batch: Batch, encoded: Encoded) -> list[dict[str, str]]:
    """What stands in the prompt of each study, where there is one; conditions that nobody labelled or gave are left out."""
    stage = next((stage for stage in model.stages if isinstance(stage, DiagnosisStage)), None)
    if stage is None:
        return [{} for _ in batch.rows_B]
    states_BO = encoded.states_BO
    assert states_BO is not None
    is_known_BO = stage.is_labelled_O.cpu().expand(states_BO.shape)
    if batch.states_BO is not None:
        is_known_BO = is_known_BO | (batch.states_BO != UNLABELLED)
    return [
        {
            name: STATE_NAMES[state]
            for name, state, is_known in zip(CONDITIONS, states_O, is_known_O, strict=True)
            if is_known
        }
        for states_O, is_known_O in zip(states_BO.tolist(), is_known_BO.tolist(), strict=True)
    ]
