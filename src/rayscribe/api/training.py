"""Settings of published methods, and their training."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscribe.errors import InputError

if TYPE_CHECKING:
    from rayscribe.api.models import Model
    from rayscribe.classifiers.config import ClassifyConfig
    from rayscribe.config import RunConfig


def list_recipes() -> list[str]:
    """Names that `recipe` knows; behind each may stand `+` and a plug-in, such as `r2gen+ithn`.

    Example:
        >>> "r2gen" in rs.list_recipes()
        True
    """
    from rayscribe.methods import recipes

    return list(recipes())


def recipe(name: str, changes: Mapping[str, Any] | None = None, *, as_published: bool = False) -> RunConfig[Any]:
    """The settings of a published method, to be trained with `train`.

    Args:
        name: one of `list_recipes`, with plug-ins behind `+`
        changes: values by dotted path, as the flags of `rayscribe train` name them; a frozen image encoder
            (`backbone.trainable`: False) switches image augmentation off, unless `changes` ask for it
        as_published: the paper's own choices where our defaults differ

    Raises:
        InputError: no such recipe or setting; the message names the nearest

    Example:
        >>> config = rs.recipe("r2gen", {"train.epochs": 20, "backbone.trainable": False})
        >>> config.train.epochs
        20
    """
    from rayscribe.config import with_frozen_encoder
    from rayscribe.methods import as_published as published
    from rayscribe.methods import find_recipe, run_from_plain
    from rayscribe.settings import to_plain

    run = find_recipe(name)
    if as_published:
        run, _ = published(run)
    if not changes:
        return run
    if changes.get("backbone.trainable", True) is False:
        run = with_frozen_encoder(run)
    plain = to_plain(run)
    for path, value in changes.items():
        *steps, last = path.split(".")
        part = plain
        for step in steps:
            part = part.get(step, {}) if isinstance(part, dict) else {}
        if not isinstance(part, dict) or last not in part or isinstance(part[last], dict):
            near = get_close_matches(path, _paths(plain), n=1)
            raise InputError(f"{path}: no such setting of {name}" + (f"; did you mean {near[0]}?" if near else ""))
        part[last] = value
    try:
        return run_from_plain(plain)
    except TypeError as error:
        raise InputError(f"{name}: {error}") from error


def train(
    config: RunConfig[Any] | ClassifyConfig,
    data: str | Path,
    run: str | Path,
    *,
    resume: bool = False,
    features: str | Path | None = None,
    device: str | None = None,
    generations: int = 1,
) -> Model:
    """Trains a method on a manifest; prepares what it needs beside it. Prints its progress.

    Args:
        config: of `recipe`, or a classifier's settings
        data: the manifest of `rayscribe prepare`
        run: the folder to write, then a model folder; an existing run is never overwritten
        resume: go on with an interrupted run, with the same settings
        features: folder of the feature cache of frozen image encoders; the user's cache folder when None
        device: cpu, cuda or cuda:N; a GPU where there is one when None
        generations: train this many models, each taught by the one before (methods with self-distillation)

    Returns:
        The best model by the validation metric (`config.train.metric`); the test split is never read.

    Raises:
        InputError: the data do not go with the settings, the folder holds a run, the loss is no number, the disk is full

    Example:
        >>> model = rs.train(rs.recipe("r2gen"), data="iu.parquet", run="runs/mine")
    """
    from rayscribe.api.models import load
    from rayscribe.classifiers.config import ClassifyConfig
    from rayscribe.training.learner import Place
    from rayscribe.training.run import train_generations

    kept = None if features is None else Path(features)
    place = Place(data=Path(data), run=Path(run), resume=resume, features=kept, device=device)
    if not isinstance(config, ClassifyConfig):
        return load(train_generations(config, place, generations=generations), device=device)
    from rayscribe.classifiers.run import train_classifier

    if generations != 1:
        raise InputError(f"generations {generations}: a classifier learns nothing from an earlier one")
    train_classifier(config, place.data, place.run, resume=resume, features=kept, device=device)
    return load(place.run, device=device)


def _paths(plain: Mapping[str, Any], at: str = "") -> list[str]:
    """Dotted paths of all settings."""
    return [
        path
        for name, value in plain.items()
        for path in (_paths(value, f"{at}{name}.") if isinstance(value, Mapping) else [f"{at}{name}"])
    ]
