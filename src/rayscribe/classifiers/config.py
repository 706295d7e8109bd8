"""The settings of a classifier's run; its loop, images and backbone are those of the report models."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from rayscribe.config import BackboneConfig, ImageConfig, TrainConfig
from rayscribe.settings import need


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortConfig:
    """Which studies a classifier learns from, and what their labels mean."""

    labels: str = "rules"
    """`rules`: the built-in labeler over the reports; `codes`: what the manifest's indexers coded; or a table of the 14
    observations, made by `rayscribe label`, by `rayscribe prepare mimic-cxr` or elsewhere"""
    findings: tuple[str, ...] = ()
    "their names; empty: all that the labels have"
    uncertain: Literal["drop", "zero", "one"] = "drop"
    "a finding that a report leaves open: unknown, absent, or present"
    blank: Literal["drop", "negative"] = "negative"
    "a finding that a report does not mention: unknown, or absent"
    views: Literal["all", "frontal", "pa"] = "all"
    "images of other views are left out"
    one_per_subject: bool = False
    "only the first study of every patient, by study id; with --cohort.views frontal or pa, its first such image"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyConfig:
    """Everything that decides a classifier's result, next to the manifest and the labels."""

    cohort: CohortConfig = field(default_factory=CohortConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    dropout: float = 0.5
    "of the pooled features, before the last layer"
    positive_weight: Literal["none", "balanced"] = "none"
    "balanced: positives weigh as much as there are negatives for each of them in training"
    seed: int = 0

    def __post_init__(self) -> None:
        metric, frozen = self.train.metric, not self.backbone.trainable
        need(metric in ("loss", "auroc"), "--train.metric", metric, "a classifier is selected by loss or auroc")
        need(0 <= self.dropout < 1, "--dropout", self.dropout, "at least 0, below 1")
        augmented = self.images.rotation or self.images.flip
        need(not (frozen and augmented), "--images", "", "a frozen image encoder is fed from its cache, as images are")


def binary() -> ClassifyConfig:
    """One model a finding, as Koehler, Hsieh and Tang (2024) train theirs; values of the final notebook (spec C2).

    They flip images left to right and augment the validation images too; here neither is done, and the best weights are kept
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
    """One model for all findings, under the same optimiser; rates for a last layer that starts from nothing."""
    return ClassifyConfig(
        images=ImageConfig(rotation=10),
        backbone=BackboneConfig(name="resnet18"),
        train=replace(binary().train, metric="auroc", lr=1e-3, lr_backbone=1e-4),
    )


CLASSIFIERS = {"multilabel": multilabel, "binary": binary}
