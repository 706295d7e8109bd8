"""A trained model as a reporter: studies in, report texts out.

Shapes: B studies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.checkpoint import TrainedModel
from rayscribe.conditions import CONDITIONS, UNLABELLED
from rayscribe.config import DecodingConfig
from rayscribe.data.dataset import Neighbours, Row, StudyDataset, collate
from rayscribe.data.features import FeatureCache
from rayscribe.data.images import Grey, ImageConfig, evaluation_square, looks_inverted, read_image
from rayscribe.decoding import Hypothesis, Vocabulary, decode
from rayscribe.errors import InputError
from rayscribe.labels import STATE_NAMES
from rayscribe.methods.promptmrg import DiagnosisStage
from rayscribe.models.report_model import ReportModel
from rayscribe.study import Batch, Study
from rayscribe.tokenizer import Tokenizer

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
    model.eval()
    device = model.decoder.head.weight.device
    with torch.inference_mode():
        encoded = model.encode(batch.to(device))
        vocabulary = Vocabulary(pad=tokenizer.pad, begin=tokenizer.begin, end=tokenizer.end)
        return decode(model.decoder, encoded, vocabulary, decoding, max_tokens=max_length, best=best)


@dataclass(frozen=True, slots=True, kw_only=True)
class LooseStudy:
    """One study from image files that no manifest names."""

    images: list[Grey]
    batch: Batch
    "the same as the model's squares, without a report"
    warnings: list[str]

    @classmethod
    def read(cls, paths: Sequence[Path], config: ImageConfig, *, at_least: int, source: str) -> LooseStudy:
        """Raises InputError that names the file for whatever is not a readable radiograph. `source`: of the training data."""
        images, warnings = read_loose(paths, at_least=at_least, source=source)
        squares_VHW = np.stack([evaluation_square(image, config) for image in images])
        batch = Batch(
            rows_B=torch.zeros(1, dtype=torch.long),
            has_view_BV=torch.ones(1, len(images), dtype=torch.bool),
            tokens_BT=torch.zeros(1, 1, dtype=torch.long),
            has_token_BT=torch.zeros(1, 1, dtype=torch.bool),
            pixels_BVHW=torch.from_numpy(squares_VHW)[None],
        )
        return cls(images=images, batch=batch, warnings=warnings)


def read_loose(paths: Sequence[Path], *, at_least: int, source: str) -> tuple[list[Grey], list[str]]:
    """Images from files that no manifest names, and what the user should know of them."""
    images = [read_image(path, at_least=at_least) for path in paths]
    warnings = [
        f"{path.name}: looks inverted (bright border); check its photometric interpretation"
        for path, image in zip(paths, images, strict=True)
        if looks_inverted(image)
    ]
    if "phantom" in source:
        warnings.append("the model was trained on drawn phantoms: what it says about a real image means nothing")
    return images, warnings


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What the model says about one study of loose image files."""

    reports: list[str]
    "n-best, best first"
    warnings: list[str]
    diagnosis: dict[str, str]
    "states by condition, which stand in front of the report; empty for methods without a disease head"


def draft_report(
    trained: TrainedModel,
    images: Sequence[Path],
    decoding: DecodingConfig,
    *,
    best: int = 1,
    states: Mapping[str, int] | None = None,
) -> Draft:
    """A draft for one study from its image files (PNG, JPEG, DICOM). `states`: by condition, instead of the model's own."""
    if states is not None and not trained.config.prompts:
        raise InputError(f"{trained.config.system} reads no findings before it writes; PromptMRG and KIF do")
    if decoding.strategy == "beam" and not 1 <= best <= decoding.beams:
        raise InputError(f"--best {best}: between 1 and --decoding.beams {decoding.beams}, which it is chosen from")
    retrieval = trained.resources.retrieval
    side = max(trained.config.images.size, retrieval.least_images_side() if retrieval else 0)
    loose = LooseStudy.read(images, trained.config.images, at_least=side, source=trained.data.get("source", ""))
    batch = loose.batch
    if retrieval is not None:
        rows_1K = retrieval.nearest(retrieval.image_vector(loose.images)[None], top=trained.config.diagnosis.reports)
        batch = replace(batch, retrieved_BKM=torch.from_numpy(retrieval.bank_RM[rows_1K]))
    if states is not None:
        states_1O = [[states.get(name, UNLABELLED) for name in CONDITIONS]]
        batch = replace(batch, states_BO=torch.tensor(states_1O))
    (found,) = hypotheses(
        trained.model, trained.tokenizer, batch, decoding, max_length=trained.config.text.max_length, best=best
    )
    return Draft(
        reports=[trained.tokenizer.decode(one.tokens) for one in found],
        warnings=loose.warnings,
        diagnosis=_diagnosis(trained.model, batch),
    )


@torch.inference_mode()
def _diagnosis(model: ReportModel, batch: Batch) -> dict[str, str]:
    """What stands in the prompt of one study, where there is one; conditions that nobody labelled or gave are left out."""
    stage = next((stage for stage in model.stages if isinstance(stage, DiagnosisStage)), None)
    if stage is None:
        return {}
    batch = batch.to(stage.is_labelled_O.device)
    states_BO, is_known_O = stage(model.see(batch)).states_BO, stage.is_labelled_O
    if batch.states_BO is not None:
        is_known_O = is_known_O | (batch.states_BO[0] != UNLABELLED)
    return {
        name: STATE_NAMES[state]
        for name, state, is_known in zip(CONDITIONS, states_BO[0].tolist(), is_known_O.tolist(), strict=True)
        if is_known
    }
