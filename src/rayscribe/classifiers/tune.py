"""Hyper-parameter search for a classifier with Optuna: the study in SQLite, one run folder per trial, resumable."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscribe.classifiers.cohort import cohort_digest
from rayscribe.classifiers.config import ClassifyConfig
from rayscribe.classifiers.run import train_classifier
from rayscribe.data.manifest import read_manifest
from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.settings import need, settings_from_yaml, to_yaml

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

_INTERRUPTED = "interrupted"  # by Ctrl-C; stored with the trial


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """Ranges that trials draw from; the system tuned the same five by hand (spec C2)."""

    lr: tuple[float, float] = (1e-5, 1e-3)
    "range on a logarithmic scale, for the image encoder and for the last layer"
    weight_decay: tuple[float, float] = (1e-6, 1e-2)
    "range on a logarithmic scale"
    batch_size: tuple[int, ...] = (16, 32)
    dropout: tuple[float, float] = (0.0, 0.5)
    "range"
    backbone: tuple[str, ...] = ()
    "backbone names; empty: that of the settings. Weights: --backbone.weights `pretrained`, or FOLDER/<name>.safetensors"
    weights_folder: Path | None = None
    "folder of the backbones' weights files; empty: --backbone.weights for all of them"
    seed: int = 0
    "seed of the search"

    def __post_init__(self) -> None:
        for flag, (low, high) in (("--space.lr", self.lr), ("--space.weight-decay", self.weight_decay)):
            need(0 < low <= high, flag, f"{low} {high}", "give the lower end first; both must be above 0")
        need(0 <= self.dropout[0] <= self.dropout[1] < 1, "--space.dropout", self.dropout, "within 0 and 1")
        need(bool(self.batch_size), "--space.batch-size", "", "give at least one")


def search(
    config: ClassifyConfig,
    data: Path,
    run: Path,
    *,
    trials: int,
    space: SearchSpace,
    features: Path | None = None,
    notify: Callable[[str], None],
) -> Path:
    """Trains until `trials` are finished; returns the folder of the best. A killed trial is resumed.

    RUN/study.db is Optuna's; RUN/search.yaml contains the search's settings.
    """
    try:
        import optuna  # a second to import; only needed here
    except ImportError as error:
        raise InputError("the search needs Optuna; install it with: pip install 'rayscribe[tune]'") from error
    need(trials > 0, "--trials", trials, "at least 1")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("a search runs in one process; start it without torchrun")
    _claim(run, config, space, cohort_digest(read_manifest(data), config.cohort))
    optuna.logging.set_verbosity(
        logging.ERROR
    )  # it would print a traceback for a failed trial, in addition to our message
    study = optuna.create_study(
        study_name="rayscribe",
        storage=f"sqlite:///{run.resolve() / 'study.db'}",
        direction="minimize" if config.train.metric == "loss" else "maximize",
        sampler=optuna.samplers.TPESampler(seed=space.seed + _count(run)),
        load_if_exists=True,
    )
    _release_killed(study, notify)

    def objective(trial: Trial) -> float:
        number = int(trial.user_attrs.get("folder", trial.number))
        trial.set_user_attr("folder", number)
        chosen = _chosen(trial, config, space)
        folder = run / f"trial-{number}"
        notify(f"trial {trial.number + 1}: {', '.join(f'{k} {_short(v)}' for k, v in trial.params.items())}")
        goes_on = (folder / "config.yaml").exists()
        try:
            progress = train_classifier(chosen, data, folder, resume=goes_on, features=features, notify=notify)
        except KeyboardInterrupt:  # which Optuna treats as a failed trial
            trial.set_user_attr(_INTERRUPTED, True)
            raise
        return abs(progress.best)

    done = optuna.trial.TrialState.COMPLETE
    while len(study.get_trials(deepcopy=False, states=[done])) < trials:
        study.optimize(objective, n_trials=1)
    ranked = sorted(study.get_trials(states=[done]), key=_value, reverse=config.train.metric != "loss")
    for trial in ranked:
        told = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
        notify(f"validation {config.train.metric} {trial.value:.4f}: trial-{trial.user_attrs['folder']}, {told}")
    return run / f"trial-{ranked[0].user_attrs['folder']}"


def _claim(run: Path, config: ClassifyConfig, space: SearchSpace, data_digest: str) -> None:
    """Raises InputError rather than mix two searches, or two data sets, in one folder."""
    stored, database = run / "search.yaml", run / "study.db"
    settings = to_yaml(config) + f"# {space}\n"
    text = settings + f"# data {data_digest}\n"
    if not stored.exists() and run.exists() and any(run.iterdir()):
        raise InputError(f"{run}: contains files other than a search; give another --run folder")
    if stored.exists() and (found := stored.read_text()) != text:
        settings_from_yaml(ClassifyConfig, found, stored)
        other = "on other data or labels" if found.startswith(settings) else "with other settings"
        raise InputError(f"{stored}: the search was started {other}; use the same, or another --run folder")
    write_text(stored, text)
    try:
        with closing(sqlite3.connect(database)) as opened:
            (state,) = opened.execute("PRAGMA quick_check").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(state)
    except sqlite3.DatabaseError as error:
        raise InputError(f"{database}: damaged ({error}); start the search again in another --run folder") from error


def _release_killed(study: Study, notify: Callable[[str], None]) -> None:
    """Queues trials that were running when the process died again, with their values and folders."""
    from optuna.trial import TrialState

    trials = study.get_trials()
    for trial in trials:
        is_running, folder = trial.state == TrialState.RUNNING, trial.user_attrs.get("folder")
        if not is_running and not (trial.state == TrialState.FAIL and _INTERRUPTED in trial.user_attrs):
            continue
        taken_up = any(one.number > trial.number and one.user_attrs.get("folder") == folder for one in trials)
        if folder is not None and not taken_up:
            study.enqueue_trial(trial.params, user_attrs={"folder": folder})
            notify(f"trial-{folder} was interrupted and will resume")
        if is_running:  # only once it is queued, so that a kill in between does not lose it
            study.tell(trial.number, state=TrialState.FAIL)


def _chosen(trial: Trial, config: ClassifyConfig, space: SearchSpace) -> ClassifyConfig:
    lr = trial.suggest_float("lr", *space.lr, log=True)
    train = replace(
        config.train,
        lr=lr,
        lr_backbone=lr,
        weight_decay=trial.suggest_float("weight_decay", *space.weight_decay, log=True),
        batch_size=trial.suggest_categorical("batch_size", space.batch_size),
    )
    backbone = config.backbone
    if space.backbone:
        name = trial.suggest_categorical("backbone", space.backbone)
        weights = str(space.weights_folder / f"{name}.safetensors") if space.weights_folder else backbone.weights
        backbone = replace(backbone, name=name, weights=weights)
    dropout = trial.suggest_float("dropout", *space.dropout)
    return replace(config, train=train, backbone=backbone, dropout=dropout)


def _count(run: Path) -> int:
    """Number of run folders so far, so that a resumed search does not repeat its draws."""
    return len(list(run.glob("trial-*")))


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
