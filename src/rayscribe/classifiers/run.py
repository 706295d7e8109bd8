"""One classifier's run in order: manifest and labels, model, the one training loop, the best kept. No look at the test split.

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
from tqdm import tqdm

from rayscribe.classifiers.cohort import Cohort, cohort_digest, read_cohort, trainable_findings
from rayscribe.classifiers.config import ClassifyConfig
from rayscribe.classifiers.folder import TrainedClassifier, build_classifier, calibrated, save_classifier
from rayscribe.config import TextConfig
from rayscribe.data.dataset import Order, StudyDataset
from rayscribe.data.features import FeatureCache, cached_features
from rayscribe.data.images import ImageConfig
from rayscribe.data.manifest import read_manifest
from rayscribe.data.shards import shard_numbers
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError
from rayscribe.metrics.classification import best_f1_threshold, calibration, finding_scores, sigmoid
from rayscribe.models.classifier import Classifier, ClassifierTask, finding_loss_B
from rayscribe.models.folder import origin_of
from rayscribe.provenance import inherited
from rayscribe.seen import check_unseen, write_seen
from rayscribe.study import Study
from rayscribe.training.folder import RunFolder, check_same_run
from rayscribe.training.loop import Progress, fit
from rayscribe.training.processes import Processes, processes
from rayscribe.training.validation import read_once

Say = Callable[[str], None]
Logits = NDArray[np.float64]

NO_TEXT = Tokenizer(words=())  # images alone: begin and end


def train_each(
    config: ClassifyConfig, data: Path, run: Path, *, resume: bool = False, features: Path | None = None, say: Say
) -> list[Path]:
    """One model a finding, in RUN/<finding>; findings with one class in a split are skipped, and said to be."""
    manifest = read_manifest(data)
    train, val = (read_cohort(manifest, split, config.cohort) for split in ("train", "val"))
    with processes() as group:  # joined once for all of them
        names = trainable_findings(train, val, say if group.rank == 0 else _silent)
        folders = [run / re.sub(r"\W+", "-", name.lower()) for name in names]
        if twice := [name for name, folder in zip(names, folders, strict=True) if folders.count(folder) > 1]:
            raise InputError(
                f"{', '.join(twice)}: would share a run's folder; leave one of them out by --cohort.findings"
            )
        for name, folder in zip(names, folders, strict=True):
            is_done, goes_on = (folder / "done.txt").exists(), (folder / "config.yaml").exists()
            group.wait()  # before the first process makes the folder
            alone = replace(config, cohort=replace(config.cohort, findings=(name,)))
            if resume and is_done:
                check_same_run(folder, alone, cohort_digest(manifest, alone.cohort))
                continue
            _train(alone, data, folder, group=group, resume=resume and goes_on, features=features, say=say)
            if group.rank == 0:
                (folder / "done.txt").touch()
    return folders


def train_classifier(
    config: ClassifyConfig,
    data: Path,
    run: Path,
    *,
    resume: bool = False,
    features: Path | None = None,
    say: Say = print,
) -> Progress:
    """Trains one model for the findings of `config` into the folder `run`, which is then a classifier's folder."""
    with processes() as group:
        return _train(config, data, run, group=group, resume=resume, features=features, say=say)


def _train(
    config: ClassifyConfig, data: Path, run: Path, *, group: Processes, resume: bool, features: Path | None, say: Say
) -> Progress:
    say = say if group.rank == 0 else _silent
    manifest = read_manifest(data)
    folder = RunFolder(
        run, config, data_digest=cohort_digest(manifest, config.cohort), resume=resume, writes=group.rank == 0
    )
    group.wait()
    whole = [read_cohort(manifest, split, config.cohort) for split in ("train", "val")]
    findings = trainable_findings(whole[0], whole[1], say)
    training, validation = (cohort.of(findings) for cohort in whole)
    _say_counts(training, validation, say)
    if config.backbone.weights:
        check_unseen(Path(config.backbone.weights), validation.studies, "val")
    if group.rank == 0:
        write_seen(run, training.studies, config.backbone.weights)
    torch.manual_seed(config.seed)
    model = build_classifier(config, len(findings))
    if not config.backbone.weights:
        say(f"note: {config.backbone.name} starts from random weights; --backbone.weights takes a file or `pretrained`")
    own = slice(group.rank, None, group.count)
    val_studies, val_known_RL = validation.studies[own], validation.known_RL[own]
    cache = None
    if not config.backbone.trainable:
        bar = partial(tqdm, desc="image features", unit="block", disable=group.rank > 0)
        both = [*training.studies, *validation.studies]
        cache = cached_features(both, model.backbone, config.images, folder=features, device=group.device, progress=bar)
    train_set = image_set(training.studies, config.images, cache, training=True, seed=config.seed)
    val_set = image_set(val_studies, config.images, cache)
    task = ClassifierTask(model, torch.from_numpy(training.known_RL), balanced=config.positive_weight == "balanced").to(
        group.device
    )
    about = inherited(manifest.provenance, origin_of(config.backbone.weights))
    measured: dict[str, NDArray[Any]] = {}

    def validate() -> dict[str, float]:
        shares = group.gather((logits_of(model, val_set, workers=config.train.workers), val_known_RL))
        measured["logits"], measured["known"] = (np.concatenate(part) for part in zip(*shares, strict=True))
        scores = validation_scores(measured["logits"], measured["known"])
        say("validation " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        return scores

    def keep(epoch: int, scores: dict[str, float]) -> None:
        if group.rank == 0:
            thresholds, slopes = _decisions(measured["logits"], measured["known"])
            best = TrainedClassifier(
                model=model,
                config=config,
                findings=findings,
                thresholds=thresholds,
                calibration=slopes,
                data=about | {"digest": manifest.digest(), "labels": training.source},
                training={"epoch": epoch + 1, "validation": scores, "processes": group.count},
            )
            save_classifier(run, best)

    progress = fit(
        task,
        train_set,
        Order(
            lengths=[2] * len(train_set),
            batch_size=config.train.batch_size,
            bucket=False,
            seed=config.seed,
            shards=shard_numbers(training.studies),
        ),
        config=config.train,
        seed=config.seed,
        run=folder,
        processes=group,
        validate=validate,
        keep=keep,
    )
    say(f"best: epoch {progress.best_epoch + 1}, validation {config.train.metric} {abs(progress.best):.4f}; {run}")
    return progress


def image_set(
    studies: list[Study],
    images: ImageConfig,
    cache: FeatureCache | None,
    *,
    training: bool = False,
    seed: int = 0,
) -> StudyDataset:
    """The images of studies without any words."""
    return StudyDataset(
        studies,
        [""] * len(studies),
        NO_TEXT,
        text=TextConfig(),
        images=images,
        cache=cache,
        training=training,
        seed=seed,
    )


@torch.inference_mode()
def logits_of(
    model: Classifier, data: StudyDataset, *, workers: int = 0, progress: Callable[[Any], Any] = iter
) -> Logits:
    """Of all studies (R, L), in their order."""
    model.eval()
    device = model.head.weight.device
    batches = progress(read_once(data, range(len(data)), workers=workers))
    found = [model(batch.to(device)).double().cpu().numpy() for batch in batches]
    return np.concatenate(found) if found else np.zeros((0, model.head.out_features))


def validation_scores(logits_RL: Logits, known_RL: NDArray[np.float32]) -> dict[str, float]:
    """The loss, and the mean over findings of the areas under their ROC and precision-recall curves."""
    known = torch.from_numpy(known_RL)
    loss = float(finding_loss_B(torch.from_numpy(logits_RL), known).mean())
    found = []
    for logit_R, known_R in zip(logits_RL.T, known_RL.T, strict=True):
        is_known_R = ~np.isnan(known_R)
        found.append(finding_scores(sigmoid(logit_R[is_known_R]), known_R[is_known_R] == 1, 0.5))
    means = {name: float(np.nanmean([one[name][0] for one in found])) for name in ("auroc", "average_precision")}
    return {"loss": loss, **means}


def _decisions(
    logits_RL: Logits, known_RL: NDArray[np.float32]
) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    """Thresholds of the calibrated probabilities, and the calibration itself, from the validation studies."""
    thresholds, slopes = [], []
    for logit_R, known_R in zip(logits_RL.T, known_RL.T, strict=True):
        is_known_R = ~np.isnan(known_R)
        logit_R, is_present_R = logit_R[is_known_R], known_R[is_known_R] == 1
        slopes.append(calibration(logit_R, is_present_R))
        probability_R1 = calibrated(logit_R[:, None], (slopes[-1],))
        thresholds.append(best_f1_threshold(probability_R1[:, 0], is_present_R))
    return tuple(thresholds), tuple(slopes)


def _say_counts(training: Cohort, validation: Cohort, say: Say) -> None:
    for split, cohort in (("train", training), ("val", validation)):
        left_out = "".join(f", {count} left out with {reason}" for reason, count in cohort.left_out.items())
        counts = "; ".join(f"{name} {'/'.join(map(str, cohort.counts(name)))}" for name in cohort.findings)
        say(f"{split}: {len(cohort.studies)} studies{left_out}; with/without: {counts} ({cohort.source})")


def _silent(text: str) -> None:
    return None
