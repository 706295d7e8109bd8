"""One model for every split of a set, in RUN/<split>; and which model belongs to which split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.config import RunConfig
from rayscribe.data.manifest import read_manifest
from rayscribe.data.split_sets import split_manifests, split_text
from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.methods import run_from_yaml
from rayscribe.models.folder import facts_of
from rayscribe.training.folder import check_no_run, check_same_run
from rayscribe.training.learner import Place
from rayscribe.training.processes import processes
from rayscribe.training.run import check_generations, train_in_group
from rayscribe.training.started import DONE, STARTED, Started, begin_several, read_started


def train_splits(config: RunConfig[Any], place: Place, *, generations: int = 1) -> dict[str, Path]:
    """Trains on every split of the set `place.data`; returns the model folders by split.

    A resumed set skips the splits that are finished. With generations, every split has its own line of teachers. Raises
    InputError for a set that was started with other settings or on other splits.
    """
    check_generations(config, generations)
    manifests = split_manifests(place.data)
    models = {}
    with processes(place.device) as group:  # joined once for all splits
        place = place.of(group)
        if group.rank == 0:
            _begin(config, place, manifests, generations)
        for number, (name, data) in enumerate(manifests.items(), 1):
            folder = place.run / name
            is_done, goes_on = (folder / DONE).exists(), (folder / "config.yaml").exists()
            group.wait()  # before the first process makes the folder
            heading = f"split {number} of {len(manifests)}: {name}"
            models[name] = _model_folder(folder, generations)
            if place.resume and is_done:
                place.notify(f"{heading} is finished")
                continue
            place.notify(heading)
            own = replace(place, data=data, run=folder, resume=place.resume and goes_on)
            train_in_group(config, own, group, generations=generations)
            if group.rank == 0:
                (folder / DONE).touch()
        if group.rank == 0:
            place.notify(_validation(models))
    return models


def models_of_splits(run: Path, manifests: Mapping[str, Path]) -> dict[str, Path]:
    """The model folder of every split: what `train_splits` wrote into `run`, or models trained one by one under these names.

    Raises InputError that names model and manifest where a model is missing, unfinished, or was trained on another split.
    """
    if (run / "model.json").is_file():
        raise InputError(
            f"{run}: is one model, and a set of splits needs one for every split, because a model must not be scored on "
            f"studies that it has learned from; give a folder with {', '.join(manifests)}"
        )
    found = {}
    for name, data in manifests.items():
        folder = run / name
        generations = read_started(folder).generations if (folder / STARTED).is_file() else 1
        found[name] = _model_folder(folder, generations)
        if not (found[name] / "model.json").is_file():
            raise InputError(
                f"{found[name]}: no model for {data}; train it, or give the folder of a set's run with --model"
            )
        if (run / STARTED).is_file() and not (folder / DONE).exists():
            raise InputError(
                f"{folder}: its training on {data} is not finished; continue with `rayscribe train --resume --run {run}`"
            )
        _check_trained_on(found[name], data)
    return found


def _begin(config: RunConfig[Any], place: Place, manifests: Mapping[str, Path], generations: int) -> None:
    """Notes settings, splits and start in the set's folder, or checks that they are the same."""
    digests = [[name, read_manifest(data).digest()] for name, data in manifests.items()]
    digest = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    if place.resume:
        check_same_run(place.run, config, digest, run_from_yaml)
    else:
        check_no_run(place.run, beside=manifests)
        for name in manifests:
            check_no_run(place.run / name)
    write_text(place.run / "data.sha256", digest + "\n")
    started = Started(data=place.data, features=place.features, generations=generations)
    begin_several(place.run, config, started, resume=place.resume)


def _model_folder(folder: Path, generations: int) -> Path:
    return folder if generations == 1 else folder / f"generation-{generations}"


def _check_trained_on(model: Path, data: Path) -> None:
    manifest, learned = read_manifest(data), facts_of(model).get("data") or {}
    if learned.get("digest") != manifest.digest():
        raise InputError(
            f"{model} was not trained on {data}: the model's split is ({split_text(learned, learned.get('digest'))}), the "
            f"manifest's ({split_text(manifest.provenance, manifest.digest())}). A model must not be scored on studies that it "
            "has learned from; give --model and --data of one set"
        )


def _validation(models: Mapping[str, Path]) -> str:
    """Mean and standard deviation over the splits of the scores that the models' folders state."""
    stated = [facts_of(folder)["training"].get("validation", {}) for folder in models.values()]
    shared = [name for name in stated[0] if all(name in scores for scores in stated)]
    parts = []
    for name in shared:
        values = [scores[name] for scores in stated]
        spread = f" (sd {np.std(values, ddof=1):.4f})" if len(values) > 1 else ""
        parts.append(f"{name} {np.mean(values):.4f}{spread}")
    return f"validation, mean of {len(stated)} splits: {', '.join(parts) or 'no scores'}"
