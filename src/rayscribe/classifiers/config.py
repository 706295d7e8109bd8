"""The settings of a classifier's run; loop, images and backbone are configured as for report models."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from rayscribe.config import BackboneConfig, ImageConfig, TrainConfig
from rayscribe.settings import need


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
        augmented = self.images.rotation or self.images.flip
        need(
            not (frozen and augmented),
            "--images",
            "",
            "a frozen image encoder reads cached features, which cannot be augmented",
        )


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


CLASSIFIERS = {"multilabel": multilabel, "binary": binary}
