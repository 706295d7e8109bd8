"""A trained classifier is a self-contained folder: weights, settings, findings, thresholds, provenance, card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe import __version__
from rayscribe.classifiers.config import ClassifierConfig, ClassifyConfig, LinearConfig, classifier_from_plain
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import write_text
from rayscribe.metrics.classification import sigmoid
from rayscribe.models.backbones import Backbone
from rayscribe.models.classifier import Classifier, LinearClassifier, PooledClassifier
from rayscribe.models.folder import WEIGHTS, load_weights, read_facts, read_weights, write_weights
from rayscribe.provenance import terms_of
from rayscribe.settings import to_plain

CLASSIFIER_FORMAT = "rayscribe-classifier-1"


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """A classifier, with the interpretation of its logits."""

    model: Classifier
    config: ClassifierConfig
    findings: tuple[str, ...]
    thresholds: tuple[float, ...]
    "for the calibrated probabilities: the best F1 on the validation split"
    calibration: tuple[tuple[float, float], ...]
    "slope and offset for each finding's logit, from the validation split"
    data: dict[str, Any]
    "the manifest's provenance and digest, and the source of the labels"
    training: dict[str, Any]
    "validation scores; the epoch of a network, the strengths of a linear classifier"

    def probabilities(self, logits_RL: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities (R, L)."""
        return calibrated(logits_RL, self.calibration)


def calibrated(logits_RL: NDArray[np.float64], by_finding: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    slope_L, offset_L = np.array(by_finding).T
    return sigmoid(logits_RL * slope_L + offset_L)


@overload
def build_classifier(config: ClassifyConfig, findings: int) -> PooledClassifier: ...


@overload
def build_classifier(config: LinearConfig, findings: int) -> LinearClassifier: ...


def build_classifier(config: ClassifierConfig, findings: int) -> Classifier:
    backbone = Backbone(config.backbone)
    if isinstance(config, LinearConfig):
        return LinearClassifier(backbone, findings, places=config.linear.views, grid=config.linear.grid)
    return PooledClassifier(backbone, findings, config.dropout)


def save_classifier(folder: Path, trained: TrainedClassifier) -> None:
    """Replaces every file as a whole; the weights last, with a digest of the decisions that belong to them."""
    about = {
        "format": CLASSIFIER_FORMAT,
        "rayscribe": __version__,
        "disclaimer": DISCLAIMER,
        "config": to_plain(trained.config),
        "findings": trained.findings,
        "thresholds": trained.thresholds,
        "calibration": trained.calibration,
        "data": trained.data,
        "training": trained.training,
    }
    write_text(folder / "model.json", json.dumps(about, indent=2) + "\n")
    write_text(folder / "README.md", _card(trained))
    write_weights(folder / WEIGHTS, trained.model, decisions_sha256=_decisions(about))


def load_classifier(folder: Path, device: torch.device | str = "cpu") -> TrainedClassifier:
    """The classifier in evaluation mode. Raises InputError that names the missing or mismatched part."""
    about = read_facts(folder, CLASSIFIER_FORMAT)
    try:
        config = classifier_from_plain(about["config"])
        findings = tuple(about["findings"])
        thresholds = tuple(float(value) for value in about["thresholds"])
        calibration = tuple((float(slope), float(offset)) for slope, offset in about["calibration"])
        data, training = dict(about["data"]), dict(about["training"])
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{folder / 'model.json'}: {error!r}; the model was written by another version") from error
    state, notes = read_weights(folder / WEIGHTS)
    if notes.get("decisions_sha256") != _decisions(about):
        raise InputError(
            f"{folder}: the weights and the thresholds in model.json are from different epochs, as a save was interrupted; "
            "continue with `rayscribe classify train --resume`"
        )
    model: Classifier = build_classifier(replace(config, backbone=config.backbone.without_weights()), len(findings))
    load_weights(model, state, folder / WEIGHTS)
    return TrainedClassifier(
        model=model.to(device).eval(),
        config=config,
        findings=findings,
        thresholds=thresholds,
        calibration=calibration,
        data=data,
        training=training,
    )


def _decisions(about: Mapping[str, Any]) -> str:
    """A digest of everything that belongs to one epoch's weights and no other's."""
    parts = [about[name] for name in ("findings", "thresholds", "calibration")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _selection(trained: TrainedClassifier) -> str:
    """The card's line on how the weights were chosen."""
    if isinstance(trained.config, LinearConfig):
        strengths = (f"{name} {value:g}" for name, value in trained.training["strengths"].items())
        return f"L2 strengths | {', '.join(strengths)}; by {trained.training['folds']}-fold cross-validation on train"
    return f"selected at | epoch {trained.training['epoch']} by validation {trained.config.train.metric}"


def _card(trained: TrainedClassifier) -> str:
    config, data = trained.config, trained.data
    scores = ", ".join(f"{name} {value:.4f}" for name, value in trained.training["validation"].items())
    lines = "\n".join(
        f"| {name} | {threshold:.3f} |" for name, threshold in zip(trained.findings, trained.thresholds, strict=True)
    )
    return f"""# Classifier of {len(trained.findings)} findings (rayscribe {__version__})

**{DISCLAIMER}**

| | |
|---|---|
| input | 1 or more chest X-rays of one study, {config.images.size} x {config.images.size}, grey |
| output | a probability of every finding, calibrated on the validation split |
| network | {config.backbone.described} |
| training data | {data.get("source", "not stated")}, {data.get("counts", {})}, digest {data.get("digest", "")[:16]} |
| labels | {data.get("labels", "not stated")} |
| terms of the data | {terms_of(data)} |
| {_selection(trained)} |
| validation scores | {scores} |
| seed | {config.seed} |

| finding | called present from this probability on |
|---|---|
{lines}

Intended use: research. A probability is what the labels of the training reports would say, not what a radiologist would; it
means nothing for images of another kind than the training images. No decision about care may rest on it.

Use it: `rayscribe classify predict IMAGE... --model THIS_FOLDER`, or as an image encoder of a report model:
`rayscribe train RECIPE --backbone.name {config.backbone.name} --backbone.weights THIS_FOLDER`
"""
