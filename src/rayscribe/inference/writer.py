"""A model folder opened to write reports, whichever kind it holds: what `generate` and `predict` ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.checkpoint import TrainedModel, load_model
from rayscribe.config import DecodingConfig
from rayscribe.data.dataset import cleaned_report
from rayscribe.data.features import cached_features
from rayscribe.data.images import ImageFile
from rayscribe.data.manifest import Manifest
from rayscribe.errors import InputError, need_packages
from rayscribe.inference.images import LooseStudy
from rayscribe.inference.reporter import Draft, ModelReporter, Reporter, draft_reports, read_study
from rayscribe.models.decoding import Steps
from rayscribe.models.folder import VISION_LLM, format_of
from rayscribe.study import Study

States = Mapping[str, NDArray[np.int8]]
"Of the 18 conditions, by study id: what a classifier made elsewhere finds."


class Writer(Protocol):
    """An opened model folder."""

    @property
    def protocol(self) -> dict[str, str]:
        """Section, and cleaning where the model writes cleaned words: what its reports may be scored against."""

    def check(self, *, states: bool, features: bool) -> None:
        """Raises InputError where findings are given and not read, or needed and not given, or a feature cache has no use."""

    def studies(self, manifest: Manifest, split: str) -> list[Study]:
        """Those of the split that have the section."""

    def reporter(self, studies: Sequence[Study], *, states: States | None, features: Path | None) -> Reporter:
        """For these studies."""

    @property
    def needs_states(self) -> bool:
        """Whether it writes only with a classifier's findings in its prompt."""

    def read(self, files: Sequence[ImageFile], *, states: Mapping[str, int] | None = None) -> LooseStudy:
        """One study of loose image files; `states` by condition. Raises InputError that names the file."""

    def draft(
        self, studies: Sequence[LooseStudy], decoding: DecodingConfig, *, best: int = 1, steps: Steps = iter
    ) -> list[Draft]:
        """For studies as `read` returns them, either all with states or all without; `steps` watches the search."""


def open_writer(folder: Path, *, base: str | None = None, download: bool = False) -> Writer:
    """`base`, `download`: where a vision LLM's base model lies now, and whether it may be fetched."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if format_of(folder) == VISION_LLM:
        need_packages("vlm", "transformers", "peft")
        from rayscribe.vision_llm.writer import VisionLlmWriter  # transformers and peft: seconds to import

        return VisionLlmWriter.load(folder, device, base=base, download=download)
    if base is not None or download:
        raise InputError(f"--base, --download: {folder} is no vision LLM and holds all of its weights")
    return ModelWriter(trained=load_model(folder, device), device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWriter:
    """A report model of ours."""

    trained: TrainedModel
    device: torch.device

    @property
    def protocol(self) -> dict[str, str]:
        text = self.trained.config.text
        return {"section": text.section, "cleaning": text.cleaning}

    def check(self, *, states: bool, features: bool) -> None:
        if states and not self.trained.config.prompts:
            raise InputError(
                f"--states: {self.trained.config.system} reads no findings before it writes; PromptMRG and KIF do"
            )

    def studies(self, manifest: Manifest, split: str) -> list[Study]:
        return [study for study in manifest.split(split) if cleaned_report(study, self.trained.config.text)]

    def reporter(self, studies: Sequence[Study], *, states: States | None, features: Path | None) -> Reporter:
        trained, config = self.trained, self.trained.config
        cache = None
        if not config.backbone.trainable:
            cache = cached_features(studies, trained.model.backbone, config.images, folder=features, device=self.device)
        neighbours = trained.resources.neighbours(studies, config, features=features, device=self.device)
        return ModelReporter(trained=trained, cache=cache, neighbours=neighbours, states=states)

    @property
    def needs_states(self) -> bool:
        return False

    def read(self, files: Sequence[ImageFile], *, states: Mapping[str, int] | None = None) -> LooseStudy:
        return read_study(self.trained, files, states=states)

    def draft(
        self, studies: Sequence[LooseStudy], decoding: DecodingConfig, *, best: int = 1, steps: Steps = iter
    ) -> list[Draft]:
        return draft_reports(self.trained, studies, decoding, best=best, steps=steps)
