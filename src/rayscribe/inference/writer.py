"""A model folder opened to write reports, whatever kind it is: the interface behind `generate` and `predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.checkpoint import FittedModel, load_fitted, load_model
from rayscribe.config import RunConfig
from rayscribe.data.dataset import StudyDataset
from rayscribe.data.features import FeatureCache, cached_features
from rayscribe.data.images import ImageFile
from rayscribe.data.manifest import Manifest
from rayscribe.data.split_reports import SplitReports, cleaned_report
from rayscribe.drafts import DecodingConfig, Draft, Reporter
from rayscribe.errors import InputError
from rayscribe.inference.images import ImageStudy, image_batch, read_image_study
from rayscribe.inference.reporter import ModelReporter, check_reads_findings, draft_reports, read_study
from rayscribe.methods.fitted import Drafter
from rayscribe.methods.method import Lookup, TrainedModel
from rayscribe.models.decoding import Steps
from rayscribe.models.folder import FITTED, format_of
from rayscribe.study import GIVEN_STATES, Study

States = Mapping[str, NDArray[np.int8]]
"States of the 18 conditions by study id, from an external classifier."


class Writer(Protocol):
    """An opened model folder."""

    @property
    def protocol(self) -> dict[str, str]:
        """Section, and cleaning if the model writes cleaned words; references of its reports must share both."""

    def check(self, *, states: bool, features: bool) -> None:
        """Raises InputError if findings are unused or missing, or if a feature cache is of no use."""

    def studies(self, manifest: Manifest, split: str) -> list[Study]:
        """The studies of the split that have the section, in order."""

    def reporter(self, studies: Sequence[Study], *, states: States | None, features: Path | None) -> Reporter:
        """A reporter for these studies; `states` and `features` as accepted by `check`."""

    @property
    def needs_states(self) -> bool:
        """Whether the model needs a classifier's findings in its prompt."""

    def read(self, files: Sequence[ImageFile], *, states: Mapping[str, int] | None = None) -> ImageStudy:
        """One study of loose image files; `states` by condition. Raises InputError that names the file."""

    def draft(
        self, studies: Sequence[ImageStudy], decoding: DecodingConfig, *, best: int = 1, steps: Steps = iter
    ) -> list[Draft]:
        """Drafts for studies from `read`, in order, all with states or all without; `steps` wraps the search's steps."""


def open_own(folder: Path, device: torch.device) -> Writer:
    """Opens a report model, or the folder of a method with its own fit. Raises InputError for other folders."""
    if format_of(folder) == FITTED:
        trained = load_fitted(folder, device)
        assert trained.method.reporter is not None, "a method with a fit has a reporter"
        return FittedWriter(
            trained=trained, drafter=trained.method.reporter(trained.config, trained.fitted), device=device
        )
    return ModelWriter(trained=load_model(folder, device), device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWriter:
    """Writes with one of our report models."""

    trained: TrainedModel
    device: torch.device

    @property
    def protocol(self) -> dict[str, str]:
        """Section and cleaning of the model's training."""
        return _protocol(self.trained.config)

    def check(self, *, states: bool, features: bool) -> None:
        """Raises InputError for findings that the model does not read."""
        if states:
            check_reads_findings(self.trained)

    def studies(self, manifest: Manifest, split: str) -> list[Study]:
        """The studies of the split that have the model's section."""
        return _with_section(manifest, split, self.trained.config)

    def reporter(self, studies: Sequence[Study], *, states: States | None, features: Path | None) -> Reporter:
        """A reporter over files, or over cached features if the image encoder is frozen."""
        trained, config = self.trained, self.trained.config
        cache = None
        if not config.backbone.trainable:
            cache = cached_features(studies, trained.model.backbone, config.images, folder=features, device=self.device)
        extras = dict(trained.resources.extras(studies, Lookup(features=features, device=self.device)))
        if states is not None:
            extras[GIVEN_STATES] = lambda study: states[study.id]
        data = StudyDataset(
            SplitReports.blank(studies),
            trained.tokenizer,
            text=config.text,
            images=config.images,
            cache=cache,
            extras=extras,
        )
        return ModelReporter(trained=trained, data=data)

    @property
    def needs_states(self) -> bool:
        """False: a report model predicts its own findings."""
        return False

    def read(self, files: Sequence[ImageFile], *, states: Mapping[str, int] | None = None) -> ImageStudy:
        """One study of loose image files; raises as `read_study`."""
        return read_study(self.trained, files, states=states)

    def draft(
        self, studies: Sequence[ImageStudy], decoding: DecodingConfig, *, best: int = 1, steps: Steps = iter
    ) -> list[Draft]:
        """Drafts as `draft_reports` makes them."""
        return draft_reports(self.trained, studies, decoding, best=best, steps=steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedReporter:
    """Studies of a manifest, read from the feature cache."""

    drafter: Drafter
    cache: FeatureCache

    def draft(self, studies: Sequence[Study], decoding: DecodingConfig) -> list[Draft]:
        """One draft per study, in order; every study must be cached."""
        seen = [np.stack([self.cache[sha256] for sha256 in study.sha256]) for study in studies]
        return self.drafter.draft(seen, decoding)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedWriter:
    """Writes with a method that has its own fit, behind its image encoder."""

    trained: FittedModel
    drafter: Drafter
    device: torch.device

    @property
    def protocol(self) -> dict[str, str]:
        """Section and cleaning of the training run."""
        return _protocol(self.trained.config)

    def check(self, *, states: bool, features: bool) -> None:
        """Raises InputError for findings, which these methods do not read."""
        if states:
            raise InputError(f"{self.trained.config.system} does not read findings; leave them out")

    def studies(self, manifest: Manifest, split: str) -> list[Study]:
        """The studies of the split that have the model's section."""
        return _with_section(manifest, split, self.trained.config)

    def reporter(self, studies: Sequence[Study], *, states: States | None, features: Path | None) -> Reporter:
        """A reporter over cached features of the image encoder."""
        images, backbone = self.trained.config.images, self.trained.backbone
        cache = cached_features(studies, backbone, images, folder=features, device=self.device)
        return FittedReporter(drafter=self.drafter, cache=cache)

    @property
    def needs_states(self) -> bool:
        """False: these methods read no findings."""
        return False

    def read(self, files: Sequence[ImageFile], *, states: Mapping[str, int] | None = None) -> ImageStudy:
        """One study of loose image files; raises InputError as `read_image_study`, and for `states`."""
        self.check(states=states is not None, features=False)
        side = self.trained.config.images.size
        return read_image_study(files, at_least=side, source=self.trained.data.get("source", ""))

    def draft(
        self, studies: Sequence[ImageStudy], decoding: DecodingConfig, *, best: int = 1, steps: Steps = iter
    ) -> list[Draft]:
        """The first `best` reports per study. Raises InputError for `best` below 1."""
        if best < 1:
            raise InputError(f"--best {best}: at least 1")
        batch = image_batch(studies, self.trained.config.images).to(self.device)
        assert batch.pixels_BVHW is not None
        with torch.inference_mode():
            maps_BVNC = self.trained.backbone(batch.pixels_BVHW, batch.has_view_BV).half().cpu().numpy()
        seen = [maps_VNC[: len(study.images)] for maps_VNC, study in zip(maps_BVNC, studies, strict=True)]
        drafts = self.drafter.draft(seen, decoding)
        return [
            replace(
                draft,
                reports=draft.reports[:best],
                warnings=[*study.warnings, *draft.warnings, *_too_few(draft, best)],
                attention=draft.attention[:best],
                log_probabilities=draft.log_probabilities[:best],
            )
            for draft, study in zip(drafts, studies, strict=True)
        ]


def _too_few(draft: Draft, best: int) -> list[str]:
    found = len(draft.reports)
    return [f"{best} reports were asked for; this model writes {found}"] if found < best else []


def _protocol(config: RunConfig[Any]) -> dict[str, str]:
    return {"section": config.text.section, "cleaning": config.text.cleaning}


def _with_section(manifest: Manifest, split: str, config: RunConfig[Any]) -> list[Study]:
    return [study for study in manifest.split(split) if cleaned_report(study, config.text)]
