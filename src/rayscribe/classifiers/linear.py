"""A linear classifier's run: features of a frozen image encoder in, a classifier's folder out. Never reads the test split.

Every place of an image in its study (first, second, ...) has logistic regressions of its own on the principal components of its
standardised features; a study's logits are the means over its images, so a missing view changes nothing but the mean. The
classifier's folder holds the product of standardisation, components and regression: one linear map a place.

Shapes: S studies, R images of a place, C components, L findings, F features, K places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.classifiers.cohort import Cohort, cohort_digest, read_cohort, trainable_findings
from rayscribe.classifiers.config import LinearConfig, classifier_from_yaml
from rayscribe.classifiers.folder import TrainedClassifier, build_classifier, save_classifier
from rayscribe.classifiers.logistic import PlacedRows, chosen_strengths
from rayscribe.classifiers.measured import decisions, image_set, logits_of, notify_counts, validation_scores
from rayscribe.data.features import FeatureCache, cached_features
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.errors import InputError
from rayscribe.metrics.expected_utility import Space
from rayscribe.models.classifier import LinearClassifier
from rayscribe.models.folder import WEIGHTS
from rayscribe.models.pooling import pooled_features
from rayscribe.progress import ProgressBar, progress_bar
from rayscribe.training.estimate import slow_encoder
from rayscribe.training.folder import RunFolder
from rayscribe.training.learner import Place, Splits, begin, model_data, note_random_weights
from rayscribe.training.loop import Progress
from rayscribe.training.processes import Processes
from rayscribe.training.started import Started

_SAMPLE = 8000  # images of a place, evenly spaced, that its components are computed from
_BLOCK = 512


def fit_linear(config: LinearConfig, place: Place, group: Processes) -> Progress:
    """One fit into the folder of `place`. An interrupted fit restarts; cached features are kept.

    Raises InputError for several processes, for a cohort without two patients, and as `read_cohort`.
    """
    if group.count > 1:
        raise InputError("a linear classifier is fitted in one process; start it without torchrun")
    manifest = read_manifest(place.data)
    digest = cohort_digest(manifest, config.cohort)
    folder = RunFolder(
        place.run, config, data_digest=digest, resume=place.resume, writes=True, parse=classifier_from_yaml
    )
    Started(data=place.data, features=place.features).save(place.run)
    if place.resume and (folder.path / WEIGHTS).exists():
        place.notify(f"{place.run}: the fit is complete")
        return Progress(epoch=1, best_epoch=0)
    training, validation = _cohorts(manifest, config, place.notify)
    held_out = validation.studies
    splits = Splits(training=training.studies, validation=held_out, kept_apart=held_out, apart="val")
    begin(splits, config, place.run, writes=True)
    model = build_classifier(config, len(training.findings)).to(group.device).eval()
    note_random_weights(config, place.notify)
    if hint := slow_encoder(model.backbone, group.device):
        place.notify(hint)
    bar: ProgressBar = partial(progress_bar, desc="image features", unit="block")
    cache = cached_features(
        [*training.studies, *held_out],
        model.backbone,
        config.images,
        folder=place.features,
        device=group.device,
        progress=bar,
    )
    strengths = _fit(model, training, cache, config, place.notify)
    logits_SL = logits_of(model, image_set(held_out, config.images, cache))
    scores = validation_scores(logits_SL, validation.known_RL)
    thresholds, slopes = decisions(logits_SL, validation.known_RL)
    data = model_data(manifest.provenance, config, (), manifest.digest())
    trained = TrainedClassifier(
        model=model,
        config=config,
        findings=training.findings,
        thresholds=thresholds,
        calibration=slopes,
        data=data | {"labels": training.source},
        training={"validation": scores, "strengths": strengths, "folds": config.linear.folds, "processes": 1},
    )
    save_classifier(folder.path, trained)
    told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    place.notify(f"fitted, validation {told}; {place.run}")
    return Progress(epoch=1, best_epoch=0, scores=scores)


def _cohorts(manifest: Manifest, config: LinearConfig, notify: Callable[[str], None]) -> tuple[Cohort, Cohort]:
    """Training and validation studies, with the findings that can be learned and checked."""
    whole = [read_cohort(manifest, split, config.cohort) for split in ("train", "val")]
    findings = trainable_findings(whole[0], whole[1], notify)
    training, validation = (cohort.of(findings) for cohort in whole)
    notify_counts(training, validation, notify)
    return training, validation


def _fit(
    model: LinearClassifier,
    training: Cohort,
    cache: FeatureCache,
    config: LinearConfig,
    notify: Callable[[str], None],
) -> dict[str, float]:
    """Fills in the model's weights; returns the strength of every finding."""
    settings, known_SL = config.linear, training.known_RL.astype(np.float64)
    names, studies = _placed(training, settings.views, notify)
    spaces, components = [], []
    for images in names:
        space, x_RC = _components(images, partial(_pooled, cache, settings.grid), settings.components)
        spaces.append(space)
        components.append(x_RC)
    rows = PlacedRows(x_RC=components, study_R=studies)
    patients = [study.subject or study.id for study in training.studies]
    if len(set(patients)) < 2:
        raise InputError("all training studies are one patient's; the strength is chosen on patients that are left out")
    strength_L, loss_AL = chosen_strengths(
        rows, known_SL, patients, strengths=settings.strengths, folds=settings.folds, seed=config.seed
    )
    for name, strength, loss in zip(training.findings, strength_L, loss_AL.min(0)):
        notify(f"{name}: L2 strength {strength:g}, loss {loss:.4f} on left-out patients")
    for place, (weight_CL, bias_L) in enumerate(rows.fit(known_SL, strength_L)):
        weight_FL, bias_L = _unfolded(spaces[place], weight_CL, bias_L)
        model.weight_KLF[place:] = torch.from_numpy(weight_FL.T).to(model.weight)  # later places share the last one's
        model.bias_KL[place:] = torch.from_numpy(bias_L).to(model.weight)
    return {name: float(strength) for name, strength in zip(training.findings, strength_L)}


def _placed(
    training: Cohort, most: int, notify: Callable[[str], None]
) -> tuple[list[list[str]], list[NDArray[np.int64]]]:
    """Hashes of the images of every place, and the rows of their studies.

    A place has images of studies with and without every finding; otherwise its images belong to the place before it.
    """
    widest = max(len(study.images) for study in training.studies)
    for places in range(min(most, widest), 0, -1):
        names: list[list[str]] = [[] for _ in range(places)]
        rows: list[list[int]] = [[] for _ in range(places)]
        for row, study in enumerate(training.studies):
            for at, sha256 in enumerate(study.sha256):
                names[min(at, places - 1)].append(sha256)
                rows[min(at, places - 1)].append(row)
        known_RL = training.known_RL[rows[-1]]
        if places == 1 or ((known_RL == 1).any(0) & (known_RL == 0).any(0)).all():
            break
        notify(f"image {places} of a study is read as image {places - 1}: too few training studies have one")
    return names, [np.array(one) for one in rows]


def _pooled(cache: FeatureCache, grid: int, names: Sequence[str]) -> NDArray[np.float32]:
    """Pooled features of images (R, F)."""
    return np.concatenate([pooled_features(cache[name][None], grid) for name in names])


def _components(
    names: Sequence[str], pooled: Callable[[Sequence[str]], NDArray[np.float32]], components: int
) -> tuple[Space, NDArray[np.float64]]:
    """The principal components of a place, and those of its images (R, C). Reads features block by block."""
    x_RF = pooled(names[:: -(-len(names) // _SAMPLE)])
    space = Space.fit(x_RF, components)
    if len(x_RF) == len(names):
        return space, space.project(x_RF)
    blocks = [names[start : start + _BLOCK] for start in range(0, len(names), _BLOCK)]
    return space, np.concatenate([space.project(pooled(block)) for block in blocks])


def _unfolded(
    space: Space, weight_CL: NDArray[np.float64], bias_L: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same map on features as they are: weights (F, L) and intercepts (L,)."""
    weight_FL = space.components_FK @ weight_CL / space.scale_F[:, None]
    return weight_FL, bias_L - space.centre_F @ weight_FL
