"""One classifier's run: manifest and labels, model, the shared training loop, the best weights. Never reads the test split.

Shapes: R studies, L findings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.classifiers.cohort import Cohort, cohort_digest, read_cohort, trainable_findings
from rayscribe.classifiers.config import ClassifierConfig, ClassifyConfig, LinearConfig, classifier_from_yaml
from rayscribe.classifiers.folder import TrainedClassifier, build_classifier, save_classifier
from rayscribe.classifiers.linear import fit_linear
from rayscribe.classifiers.measured import decisions, image_set, logits_of, notify_counts, validation_scores
from rayscribe.classifiers.task import ClassifierTask
from rayscribe.data.dataset import Order, StudyDataset
from rayscribe.data.features import FeatureCache
from rayscribe.data.manifest import read_manifest
from rayscribe.data.shards import shard_numbers
from rayscribe.errors import InputError
from rayscribe.models.classifier import PooledClassifier
from rayscribe.progress import ProgressBar
from rayscribe.training.folder import check_same_run
from rayscribe.training.learner import Learner, Place, Splits, model_data, note_random_weights, run_learner
from rayscribe.training.loop import Fitting, Progress
from rayscribe.training.processes import Processes, processes
from rayscribe.training.started import DONE, Started, begin_several


def train_each(config: ClassifierConfig, place: Place) -> list[Path]:
    """Trains one model per finding, in RUN/<finding>; reports and skips findings with one class in a split."""
    manifest = read_manifest(place.data)
    train, val = (read_cohort(manifest, split, config.cohort) for split in ("train", "val"))
    with processes(place.device) as group:  # joined once for all models
        place = place.of(group)
        names = trainable_findings(train, val, place.notify)
        folders = [place.run / re.sub(r"\W+", "-", name.lower()) for name in names]
        if twice := [name for name, folder in zip(names, folders, strict=True) if folders.count(folder) > 1]:
            raise InputError(
                f"{', '.join(twice)}: would share a run folder; exclude one of them with --cohort.findings"
            )
        if group.rank == 0:
            started = Started(data=place.data, features=place.features, per_finding=True)
            begin_several(place.run, config, started, resume=place.resume)
        for name, folder in zip(names, folders, strict=True):
            is_done, goes_on = (folder / DONE).exists(), (folder / "config.yaml").exists()
            group.wait()  # before the first process creates the folder
            alone = replace(config, cohort=replace(config.cohort, findings=(name,)))
            if place.resume and is_done:
                check_same_run(folder, alone, cohort_digest(manifest, alone.cohort), classifier_from_yaml)
                continue
            own = replace(place, run=folder, resume=place.resume and goes_on)
            _train(alone, own, group)
            if group.rank == 0:
                (folder / DONE).touch()
    return folders


def train_classifier(
    config: ClassifierConfig,
    data: Path,
    run: Path,
    *,
    resume: bool = False,
    features: Path | None = None,
    notify: Callable[[str], None] = print,
    device: str | None = None,
) -> Progress:
    """Trains one model for the findings of `config` into `run`, which becomes a classifier's folder."""
    whole = Place(data=data, run=run, resume=resume, features=features, notify=notify, device=device)
    with processes(device) as group:
        return _train(config, whole.of(group), group)


def _train(config: ClassifierConfig, place: Place, group: Processes) -> Progress:
    if isinstance(config, LinearConfig):
        return fit_linear(config, place, group)
    return run_learner(FindingLearner(config, place, group), place, group)


class FindingLearner(Learner):
    """A network's run: the studies that count, their known findings, and the best epoch so far."""

    training: Cohort
    validation: Cohort
    classifier: PooledClassifier

    def __init__(self, config: ClassifyConfig, place: Place, group: Processes) -> None:
        self.config, self.place, self.group = config, place, group
        self.manifest = read_manifest(place.data)
        self.measured: dict[str, NDArray[Any]] = {}
        "logits and known findings of the validation studies, from the last epoch"

    def digest(self) -> str:
        return cohort_digest(self.manifest, self.config.cohort)

    def parse(self, text: str, source: Path) -> ClassifierConfig:
        return classifier_from_yaml(text, source)

    def splits(self) -> Splits:
        whole = [read_cohort(self.manifest, split, self.config.cohort) for split in ("train", "val")]
        findings = trainable_findings(whole[0], whole[1], self.place.notify)
        self.training, self.validation = (cohort.of(findings) for cohort in whole)
        notify_counts(self.training, self.validation, self.place.notify)
        validation = self.validation.studies
        return Splits(training=self.training.studies, validation=validation, kept_apart=validation, apart="val")

    def model(self) -> PooledClassifier:
        self.classifier = build_classifier(self.config, len(self.training.findings))
        note_random_weights(self.config, self.place.notify)
        return self.classifier

    def fitting(self, cache: FeatureCache | None, progress: ProgressBar) -> Fitting:
        config, training, seed = self.config, self.training, self.config.seed
        own = slice(self.group.rank, None, self.group.count)
        val_set = image_set(self.validation.studies[own], config.images, cache)
        train_set = image_set(training.studies, config.images, cache, augment=seed)
        is_balanced = config.positive_weight == "balanced"
        task = ClassifierTask(self.classifier, torch.from_numpy(training.known_RL), balanced=is_balanced)
        order = Order(
            lengths=[2] * len(train_set),
            batch_size=config.train.batch_size,
            bucket=False,
            seed=seed,
            shards=shard_numbers(training.studies),
        )
        return Fitting(
            task=task.to(self.group.device),
            data=train_set,
            order=order,
            validate=partial(self.validate, val_set, self.validation.known_RL[own]),
            keep=self.keep,
            notify=self.place.notify,
        )

    def validate(self, val_set: StudyDataset, known_RL: NDArray[np.float32]) -> dict[str, float]:
        """Scores over the validation shares of all processes."""
        workers = self.config.train.workers
        shares = self.group.gather((logits_of(self.classifier, val_set, workers=workers), known_RL))
        logits_RL, known_RL = (np.concatenate(part) for part in zip(*shares, strict=True))
        self.measured = {"logits": logits_RL, "known": known_RL}
        scores = validation_scores(logits_RL, known_RL)
        self.place.notify("validation " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        return scores

    def keep(self, epoch: int, scores: dict[str, float]) -> None:
        """Saves the model with the thresholds of its epoch, in the first process only."""
        if self.group.rank > 0:
            return
        thresholds, slopes = decisions(self.measured["logits"], self.measured["known"])
        data = model_data(self.manifest.provenance, self.config, (), self.manifest.digest())
        best = TrainedClassifier(
            model=self.classifier,
            config=self.config,
            findings=self.training.findings,
            thresholds=thresholds,
            calibration=slopes,
            data=data | {"labels": self.training.source},
            training={"epoch": epoch + 1, "validation": scores, "processes": self.group.count},
        )
        save_classifier(self.place.run, best)
