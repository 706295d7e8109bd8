"""A run of a method that fits without gradient steps: features of a frozen image encoder in, weights out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from rayscribe.checkpoint import FittedModel, save_fitted
from rayscribe.config import RunConfig
from rayscribe.data.features import cached_features
from rayscribe.data.split_reports import SplitReports
from rayscribe.errors import InputError
from rayscribe.methods import find_method, run_from_yaml
from rayscribe.methods.fitted import Features, Material
from rayscribe.models.backbones import Backbone
from rayscribe.progress import progress_bar
from rayscribe.provenance import count_seen
from rayscribe.study import Study
from rayscribe.training.folder import RunFolder
from rayscribe.training.learner import Place, begin, model_data, note_random_weights, prepared_source, report_splits
from rayscribe.training.loop import Progress
from rayscribe.training.processes import Processes
from rayscribe.training.started import Started


def fit_in_closed_form(config: RunConfig[Any], place: Place, group: Processes) -> Progress:
    """One fit into the folder of `place`, which becomes a model folder. An interrupted fit restarts; cached features are kept.

    Raises InputError for a trainable image encoder, or for several processes.
    """
    method = find_method(config.system)
    assert method.fit is not None
    if config.backbone.trainable:
        raise InputError(f"{config.system} fits on features of a frozen image encoder; give --backbone.no-trainable")
    if group.count > 1:
        raise InputError(f"{config.system} fits in one process; start it without torchrun")
    named, source = prepared_source(method, config, place, group)
    manifest, inputs = source.manifest, method.inputs(named, source)
    digest = " ".join([manifest.digest(), *inputs.digests])
    RunFolder(place.run, config, data_digest=digest, resume=place.resume, writes=True, parse=run_from_yaml)
    Started(data=place.data, features=place.features).save(place.run)
    if place.resume and (place.run / "model.safetensors").exists():
        place.notify(f"{place.run}: the fit is complete")
        return Progress(epoch=1, best_epoch=0)
    training, validation = (SplitReports.read(manifest, split, config.text, place.notify) for split in ("train", "val"))
    begin(report_splits(manifest, training, validation), config, place.run, writes=True)
    backbone = Backbone(config.backbone).to(group.device).eval()
    note_random_weights(config, place.notify)

    def features(studies: Sequence[Study]) -> Iterator[Features]:
        computing = partial(progress_bar, desc="image features", unit="batch", leave=False)
        found = cached_features(
            studies, backbone, config.images, folder=place.features, device=group.device, progress=computing
        )
        reading = progress_bar(studies, desc="reading features", unit="study", leave=False)
        return (np.stack([found[sha256] for sha256 in study.sha256]) for study in reading)

    fitted = method.fit(
        config, Material(training=training, validation=validation, features=features, notify=place.notify)
    )
    seen = count_seen(config.backbone.sources, training.studies)
    scores = {name: float(score) for name, score in fitted.scores.items()}
    trained = FittedModel(
        method=method,
        config=config,
        backbone=backbone,
        fitted=fitted,
        data=model_data(manifest.provenance, config, (), manifest.digest()),
        training={"validation": scores, "processes": 1, "seen_by_encoder": seen},
    )
    save_fitted(place.run, trained)
    told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    place.notify(f"fitted{f', validation {told}' if told else ''}; {place.run}")
    return Progress(epoch=1, best_epoch=0, scores=scores)
