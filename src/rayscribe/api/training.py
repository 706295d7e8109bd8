"""Settings of published methods, and their training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscribe.errors import InputError

if TYPE_CHECKING:
    import torch

    from rayscribe.api.models import Model
    from rayscribe.classifiers.config import ClassifierConfig
    from rayscribe.config import RunConfig


def list_recipes() -> list[str]:
    """Names that `recipe` knows: of report models, of plug-ins around one, and of classifiers.

    `+ithn` and `+isd` may stand behind any method whose training has steps, such as `r2gen_cmn+ithn`.

    Example:
        >>> "r2gen" in rs.list_recipes()
        True
    """
    from rayscribe.classifiers.config import CLASSIFIERS
    from rayscribe.methods import recipes

    return [*recipes(), *CLASSIFIERS]


def recipe(
    name: str, changes: Mapping[str, Any] | None = None, *, as_published: bool = False
) -> RunConfig[Any] | ClassifierConfig:
    """The settings of a published method, or of a classifier, to be trained with `train`.

    Args:
        name: one of `list_recipes`, with plug-ins behind `+`: `+ithn` and `+isd` stand behind any method
        changes: values by dotted path, or by the names of the flags of `rayscribe train` (`train.batch-size`,
            `method.ithn.candidates`); a frozen image encoder (`backbone.trainable`: False) switches image augmentation off,
            unless `changes` ask for it
        as_published: the paper's own choices where our defaults differ; report models only

    Raises:
        InputError: no such recipe or setting; the message names the nearest

    Example:
        >>> config = rs.recipe("r2gen", {"train.epochs": 20, "backbone.trainable": False})
        >>> config.train.epochs
        20
    """
    from rayscribe.classifiers.config import CLASSIFIERS
    from rayscribe.methods import as_published as published
    from rayscribe.methods import find_recipe

    if not isinstance(name, str):
        raise InputError(f"recipe {name!r}: give a name, such as 'r2gen'; rs.list_recipes() names all")
    if not isinstance(changes, Mapping | None):
        raise InputError(
            f"changes: of type {type(changes).__name__}; give values by dotted path, such as {{'train.epochs': 20}}"
        )
    run: RunConfig[Any] | ClassifierConfig
    if name in CLASSIFIERS:
        if as_published:
            raise InputError(f"as_published: {name} is a classifier, whose recipe has no second form; leave it out")
        run = CLASSIFIERS[name]()
    else:
        run = find_recipe(name)
        if as_published:
            run, _ = published(run)
    return _changed(run, name, changes) if changes else run


def train(
    config: RunConfig[Any] | ClassifierConfig,
    data: str | Path,
    run: str | Path,
    *,
    resume: bool = False,
    features: str | Path | None = None,
    device: str | torch.device | None = None,
    generations: int = 1,
) -> Model:
    """Trains a method on a manifest; prepares what it needs beside it.

    Prints its progress; under `contextlib.redirect_stdout(io.StringIO())` it is quiet.

    Args:
        config: what `recipe` returns, for a report model or a classifier
        data: the manifest of `rayscribe prepare`
        run: the folder to write, then a model folder; an existing run is never overwritten
        resume: go on with an interrupted run, with the same settings
        features: folder of the feature cache of frozen image encoders; the user's cache folder when None
        device: cpu, cuda or cuda:N, or a torch.device; a GPU where there is one when None
        generations: train this many models, each taught by the one before (methods with self-distillation)

    Returns:
        The best model by the validation metric (`config.train.metric`); the test split is never read.

    Raises:
        InputError: the data do not go with the settings, the folder holds a run, the loss is no number, the disk is full

    Example:
        >>> model = rs.train(rs.recipe("r2gen"), data="iu.parquet", run="runs/mine")
    """
    from rayscribe.api.models import load
    from rayscribe.config import RunConfig
    from rayscribe.training.learner import Place
    from rayscribe.training.run import train_generations

    _check_config(config)
    kept = None if features is None else _folder(features, "features")
    device = None if device is None else str(device)
    place = Place(data=_folder(data, "data"), run=_folder(run, "run"), resume=resume, features=kept, device=device)
    if isinstance(config, RunConfig):
        return load(train_generations(config, place, generations=generations), device=device)
    from rayscribe.classifiers.run import train_classifier

    if generations != 1:
        raise InputError(f"generations {generations}: a classifier learns nothing from an earlier one")
    train_classifier(config, place.data, place.run, resume=resume, features=kept, device=device)
    return load(place.run, device=device)


def _changed(
    run: RunConfig[Any] | ClassifierConfig, name: str, changes: Mapping[str, Any]
) -> RunConfig[Any] | ClassifierConfig:
    from rayscribe.classifiers.config import classifier_from_plain
    from rayscribe.config import RunConfig, with_frozen_encoder
    from rayscribe.methods import run_from_plain
    from rayscribe.settings import to_plain

    known = _settings(run)
    values: dict[str, Any] = {}
    for given, value in changes.items():
        path = _setting(given, known, name)
        if path in values:
            raise InputError(f"{given}: changed twice, under two names; give it once")
        values[path] = value
    if values.get("backbone.trainable", True) is False:
        run = with_frozen_encoder(run)
    plain = to_plain(run)
    for path, value in values.items():
        *steps, last = path.split(".")
        part = plain
        for step in steps:
            part = part[step]
        part[last] = value
    try:
        return run_from_plain(plain) if isinstance(run, RunConfig) else classifier_from_plain(plain)
    except TypeError as error:
        raise InputError(f"{name}: {error}") from error


def _settings(run: RunConfig[Any] | ClassifierConfig) -> dict[str, str]:
    """Dotted paths of all settings, by their own names and by those of their flags (with underscores)."""
    from rayscribe.config import RunConfig
    from rayscribe.methods.compose import flag_of
    from rayscribe.settings import to_plain

    paths = [path for path in _paths(to_plain(run)) if path != "system"]
    flags = {}
    if isinstance(run, RunConfig):
        flags = {flag_of(path, run.system, True).removeprefix("--").replace("-", "_"): path for path in paths}
    return flags | {path: path for path in paths}


def _setting(given: object, known: Mapping[str, str], name: str) -> str:
    """The path of the setting that `given` names."""
    if given == "system":
        raise InputError("system: is no setting; choose the method by its name, such as rs.recipe('baseline')")
    path = str(given).removeprefix("--").replace("-", "_")
    if path not in known:
        near = get_close_matches(path, known, n=1)
        raise InputError(f"{given}: no such setting of {name}" + (f"; did you mean {near[0]}?" if near else ""))
    return known[path]


def _check_config(config: object) -> None:
    from rayscribe.classifiers.config import ClassifyConfig, LinearConfig
    from rayscribe.config import RunConfig

    if not isinstance(config, RunConfig | ClassifyConfig | LinearConfig):
        name = config if isinstance(config, str) else "r2gen"
        raise InputError(
            f"config: of type {type(config).__name__}, not settings; make them with rs.recipe({name!r}, {{...}})"
        )


def _folder(path: object, name: str) -> Path:
    """The path of a file or folder, with `~` as the home folder."""
    if not isinstance(path, str | Path) or not str(path):
        what = repr(path) if isinstance(path, str) else f"of type {type(path).__name__}"
        advice = (
            "the path of the manifest, which `rayscribe prepare` wrote" if name == "data" else "the path of a folder"
        )
        raise InputError(f"{name}: {what}; give {advice}")
    return Path(os.path.expanduser(path))


def _paths(plain: Mapping[str, Any], at: str = "") -> list[str]:
    """Dotted paths of all settings."""
    return [
        path
        for name, value in plain.items()
        for path in (_paths(value, f"{at}{name}.") if isinstance(value, Mapping) else [f"{at}{name}"])
    ]
