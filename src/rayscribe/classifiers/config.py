"""The settings of a classifier's run; loop, images and backbone are configured as for report models."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from rayscribe.config import BackboneConfig, ImageConfig, TrainConfig
from rayscribe.errors import InputError
from rayscribe.settings import from_plain, need, settings_from_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortConfig:
    """Which studies a classifier learns from, and how their labels are read."""

    labels: str = "rules"
    """`rules`: the built-in labeler, applied to the reports; `codes`: the codes of the manifest's indexers; or a table of the
    14 observations from `rayscribe label`, `rayscribe prepare mimic-cxr` or another tool"""
    findings: tuple[str, ...] = ()
    "names of the findings; empty: all labelled ones"
    uncertain: Literal["drop", "zero", "one"] = "drop"
    "treat an uncertain finding as unknown (drop), absent (zero) or present (one)"
    blank: Literal["drop", "negative"] = "negative"
    "treat an unmentioned finding as unknown (drop) or absent (negative)"
    views: Literal["all", "frontal", "pa"] = "all"
    "views to use; other images are excluded"
    one_per_subject: bool = False
    "use only each patient's first study, by study id; with --cohort.views frontal or pa, its first such image"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyConfig:
    """Everything that determines a classifier's result, besides the manifest and the labels."""

    cohort: CohortConfig = field(default_factory=CohortConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    dropout: float = 0.5
    "dropout of the pooled features, before the last layer"
    positive_weight: Literal["none", "balanced"] = "none"
    "balanced: weight each positive by the ratio of negatives to positives in training"
    seed: int = 0

    def __post_init__(self) -> None:
        metric, frozen = self.train.metric, not self.backbone.trainable
        need(metric in ("loss", "auroc"), "--train.metric", metric, "a classifier is selected by loss or auroc")
        need(0 <= self.dropout < 1, "--dropout", self.dropout, "at least 0, below 1")
        if frozen:
            _need_no_augmentation(self.images)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSettings:
    """A linear classifier: what it reads of an image, and what cross-validation chooses from."""

    grid: int = 2
    "features are means over this many squares along each side, beside the mean over all patches; 0: the mean alone"
    views: int = 2
    """places of an image in its study that have a linear map of their own; further images share the last one's, and so does a
    place where too few training studies have an image"""
    components: int = 400
    "principal components of the standardised features of a place"
    strengths: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    "L2 strengths to choose from for every finding, in units of the mean squared component"
    folds: int = 5
    "parts of the training studies for this choice; a patient's studies stay together"

    def __post_init__(self) -> None:
        need(0 <= self.grid <= 7, "--linear.grid", self.grid, "between 0 and 7")
        need(self.views >= 1, "--linear.views", self.views, "at least 1")
        need(self.components >= 1, "--linear.components", self.components, "at least 1")
        need(bool(self.strengths) and min(self.strengths) > 0, "--linear.strengths", self.strengths, "above 0")
        need(self.folds >= 2, "--linear.folds", self.folds, "at least 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearConfig:
    """Everything that determines a linear classifier's result, besides the manifest and the labels."""

    cohort: CohortConfig = field(default_factory=CohortConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name="mobilenetv2_100", trainable=False))
    linear: LinearSettings = field(default_factory=LinearSettings)
    seed: int = 0
    "of the folds"

    def __post_init__(self) -> None:
        frozen = not self.backbone.trainable
        need(frozen, "--backbone.trainable", "", "a linear classifier reads a frozen image encoder")
        _need_no_augmentation(self.images)


ClassifierConfig = ClassifyConfig | LinearConfig
"A network's settings, or a linear classifier's."


def binary() -> ClassifyConfig:
    """One model per finding, as Koehler, Hsieh and Tang (2024) train theirs; values of the final notebook (spec C2).

    They flip images left to right and also augment the validation images; this recipe does neither, and keeps the best weights
    instead of the last.
    """
    return ClassifyConfig(
        cohort=CohortConfig(uncertain="drop", blank="drop", views="pa", one_per_subject=True),
        images=ImageConfig(resize=224, crop=False, rotation=10),
        backbone=BackboneConfig(name="resnet18", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), checks_norm=False),
        train=TrainConfig(
            epochs=20,
            patience=3,
            metric="loss",
            batch_size=32,
            bucket=False,
            lr=1e-5,
            lr_backbone=1e-5,
            weight_decay=1e-4,
            amsgrad=False,
            clip_value=None,
            schedule="plateau",
            gamma=0.1,
            plateau_epochs=2,
        ),
        dropout=0.5,
    )


def multilabel() -> ClassifyConfig:
    """One model for all findings, with the same optimiser; learning rates for a last layer that starts from random weights."""
    return ClassifyConfig(
        images=ImageConfig(rotation=10),
        backbone=BackboneConfig(name="resnet18"),
        train=replace(binary().train, metric="auroc", lr=1e-3, lr_backbone=1e-4),
    )


NETWORKS: Mapping[str, Callable[[], ClassifyConfig]] = {"multilabel": multilabel, "binary": binary}
"Recipes that the training loop trains, with hyper-parameters to search for."
CLASSIFIERS: Mapping[str, Callable[[], ClassifierConfig]] = {"linear": LinearConfig, **NETWORKS}


def classifier_from_yaml(text: str, source: Path) -> ClassifierConfig:
    """Settings of either kind, from the text of a config.yaml. Raises InputError that names `source`."""
    try:
        names = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: not a rayscribe configuration ({error})") from error
    return settings_from_yaml(_kind(names if isinstance(names, dict) else ()), text, source)


def classifier_from_plain(plain: dict[str, Any]) -> ClassifierConfig:
    """Settings of either kind, from what `to_plain` makes of them. Raises TypeError for any other content."""
    return from_plain(_kind(plain), plain)


def _kind(names: Container[str]) -> type[ClassifierConfig]:
    return LinearConfig if "linear" in names else ClassifyConfig


def _need_no_augmentation(images: ImageConfig) -> None:
    augmented = images.rotation or images.flip
    need(not augmented, "--images", "", "a frozen image encoder reads cached features, which cannot be augmented")
