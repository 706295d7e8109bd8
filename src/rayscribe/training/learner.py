"""The sequence of every run, whatever it trains: folder, splits, model, features, loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from rayscribe.config import BackboneConfig, ImageConfig, RunConfig
from rayscribe.data.features import FeatureCache, cached_features
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.split_reports import SplitReports
from rayscribe.methods.method import Method, Preparation, Source
from rayscribe.models.backbones import Backbone
from rayscribe.models.folder import origin_of
from rayscribe.progress import ProgressBar, progress_bar
from rayscribe.provenance import check_unseen, inherited, write_training_images
from rayscribe.study import Study
from rayscribe.training.estimate import slow_encoder
from rayscribe.training.folder import RunFolder
from rayscribe.training.loop import Fitting, Progress, fit
from rayscribe.training.processes import Processes
from rayscribe.training.started import Started


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run reads and writes, and who receives its messages."""

    data: Path
    "the manifest"
    run: Path
    resume: bool = False
    features: Path | None = None
    "folder of the feature cache; None: the user's cache folder"
    notify: Callable[[str], None] = print
    device: str | None = None
    "cpu, cuda or cuda:N; None: a GPU where there is one"

    def of(self, group: Processes) -> Place:
        """The same place, but silent in all processes except the first."""
        return self if group.rank == 0 else replace(self, notify=_silent)


class LearnerConfig(Protocol):
    """Settings that every run has."""

    @property
    def images(self) -> ImageConfig: ...
    @property
    def backbone(self) -> BackboneConfig: ...
    @property
    def seed(self) -> int: ...


class ImageModel(Protocol):
    """A model with an image encoder."""

    @property
    def backbone(self) -> Backbone: ...

    def parameters(self) -> Iterable[nn.Parameter]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The studies of a run."""

    training: Sequence[Study]
    validation: Sequence[Study]
    kept_apart: Sequence[Study]
    "studies that no model this one starts from may have been trained on"
    apart: str
    "names of their splits, for messages"


class Learner(ABC):
    """What differs between report models and classifiers. `run_learner` calls the methods in this order."""

    config: Any
    "implements `LearnerConfig`, with the loop's settings as `train`"

    @abstractmethod
    def digest(self) -> str:
        """Digest of all data that training reads."""

    @abstractmethod
    def parse(self, text: str, source: Path) -> Any:
        """Parses the settings in a run folder's config.yaml."""

    @abstractmethod
    def splits(self) -> Splits:
        """Raises InputError if a split is empty."""

    @abstractmethod
    def model(self) -> ImageModel:
        """The model with its initial weights."""

    @abstractmethod
    def fitting(self, cache: FeatureCache | None, progress: ProgressBar) -> Fitting:
        """Task, data and order; `cache` contains the features of a frozen image encoder."""


def run_learner(learner: Learner, place: Place, group: Processes) -> Progress:
    """Trains into the folder of `place`, which also becomes a model folder. Never reads the test split."""
    config, is_first = learner.config, group.rank == 0
    folder = RunFolder(
        place.run,
        config,
        data_digest=learner.digest(),
        resume=place.resume,
        writes=is_first,
        parse=learner.parse,
    )
    if is_first:
        Started(data=place.data, features=place.features).save(place.run)
    group.wait()
    splits = learner.splits()
    begin(splits, config, place.run, writes=is_first)
    model = learner.model()
    if hint := slow_encoder(model.backbone, group.device):
        place.notify(hint)
    bar: ProgressBar = partial(progress_bar, desc="image features", unit="block", is_shown=is_first)
    cache = None
    if not config.backbone.trainable:
        cache = cached_features(
            [*splits.training, *splits.validation],
            model.backbone,
            config.images,
            folder=place.features,
            device=group.device,
            progress=bar,
        )
    fitting = learner.fitting(cache, bar)
    progress = fit(fitting, config.train, seed=config.seed, run=folder, processes=group)
    score = abs(progress.best)
    place.notify(f"best: epoch {progress.best_epoch + 1}, validation {config.train.metric} {score:.4f}; {place.run}")
    return progress


def prepared_source(
    method: Method[Any], config: RunConfig[Any], place: Place, group: Processes
) -> tuple[RunConfig[Any], Source]:
    """The manifest, with what the method prepares; settings that name it. The run's own settings stay as they are."""
    source = Source(manifest=read_manifest(place.data), path=place.data, processes=group.count)
    preparation = Preparation(
        features=place.features,
        notify=place.notify,
        progress=lambda name: partial(progress_bar, desc=name, unit="block", is_shown=group.rank == 0),
    )
    return method.prepare(config, source, preparation)


def begin(splits: Splits, config: LearnerConfig, run: Path, *, writes: bool) -> None:
    """Rejects weights trained on held-out studies, records the training images, and seeds all random generators."""
    sources = config.backbone.sources
    for weights in sources:
        check_unseen(Path(weights), splits.kept_apart, splits.apart)
    if writes:
        write_training_images(run, splits.training, sources)
    torch.manual_seed(config.seed)


def report_splits(manifest: Manifest, training: SplitReports, validation: SplitReports) -> Splits:
    """The splits of a report model: val and test are held out entirely, even studies without the section."""
    return Splits(
        training=training.studies,
        validation=validation.studies,
        kept_apart=[study for study in manifest.studies if study.split in ("val", "test")],
        apart="val and test",
    )


def note_random_weights(config: LearnerConfig, notify: Callable[[str], None]) -> None:
    """Warns that the image encoder starts from random weights, which the user may not intend."""
    if not config.backbone.weights:
        notify(
            f"note: {config.backbone.name} starts from random weights; --backbone.weights takes a file or `pretrained`"
        )
    for one in config.backbone.beside:
        if not one.partition("=")[2]:
            notify(f"note: {one} starts from random weights; --backbone.beside {one}=WEIGHTS names some")


def model_data(provenance: dict[str, Any], config: LearnerConfig, others: Sequence[Any], digest: str) -> dict[str, Any]:
    """What a model folder states about its data, including that of the models it starts or learns from."""
    origins = [origin for weights in config.backbone.sources for origin in origin_of(weights)]
    return inherited(provenance, [*origins, *others]) | {"digest": digest}


def _silent(text: str) -> None:
    return None
