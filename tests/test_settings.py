"""Settings from YAML, JSON and Python: every value has its type, every fault names its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import small_config
from rayscribe.classifiers.config import CLASSIFIERS, classifier_from_plain, classifier_from_yaml
from rayscribe.errors import InputError
from rayscribe.methods import find_recipe, recipes, run_from_plain, run_from_yaml
from rayscribe.settings import to_plain, to_yaml


def changed(path: str, value: Any) -> dict[str, Any]:
    """The plain settings of a small run with one of them changed."""
    plain = to_plain(small_config())
    *steps, name = path.split(".")
    part = plain
    for step in steps:
        part = part[step]
    part[name] = value
    return plain


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_survives_plain_values(name: str) -> None:
    assert run_from_plain(to_plain(find_recipe(name))) == find_recipe(name)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_survives_plain_values(name: str) -> None:
    config = CLASSIFIERS[name]()
    assert classifier_from_yaml(to_yaml(config), Path("config.yaml")) == config
    assert classifier_from_plain(to_plain(config)) == config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.epochs", 2.5, r"train\.epochs: 2\.5 is not a whole number"),
        ("train.epochs", "3", r"train\.epochs: '3' is not a whole number"),
        ("train.epochs", True, r"train\.epochs: True is not a whole number"),
        ("train.lr", "fast", r"train\.lr: 'fast' is no number"),
        ("train.lr", None, r"train\.lr: None is not a number"),
        ("train.metric", "bleu5", r"train\.metric: 'bleu5' is not one of bleu4, rouge_l"),
        ("train.schedule", "linear", r"train\.schedule: 'linear' is not one of constant"),
        ("train.bucket", "no", r"train\.bucket: 'no' is not true or false"),
        ("train.betas", 0.9, r"train\.betas: 0\.9 is no list"),
        ("train.betas", [0.9], r"train\.betas: 1 values, not 2"),
        ("images.size", 100.5, r"images\.size: 100\.5 is not a whole number"),
        ("images.flip", "yes", r"images\.flip: 'yes' is not true or false"),
        ("backbone.trainable", 0, r"backbone\.trainable: 0 is not true or false"),
        ("backbone.mean", "abc", r"backbone\.mean: 'abc' is no list"),
        ("backbone.weights", None, r"backbone\.weights: None is not a text"),
        ("text.section", "history", r"text\.section: 'history' is not one of findings"),
        ("decoding.strategy", "greedy", r"decoding\.strategy: 'greedy' is not one of beam, sample"),
        ("seed", "x", r"seed: 'x' is not a whole number"),
        ("train", [1], r"train: \[1\] in place of the settings of TrainConfig"),
        ("train.epoch", 3, r"unknown setting 'train\.epoch' of TrainConfig"),
    ],
)
def test_a_value_of_another_type_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        run_from_plain(changed(path, value))
    with pytest.raises(InputError, match=r"config\.yaml: not a rayscribe configuration"):
        run_from_yaml(yaml.safe_dump(changed(path, value)), "config.yaml")


def test_what_yaml_and_numpy_call_numbers_are_numbers() -> None:
    assert run_from_yaml(to_yaml(small_config()).replace("lr: 0.001", "lr: 1e-4"), "x").train.lr == 1e-4
    run = run_from_plain(changed("train.epochs", np.int64(3)))
    assert run.train.epochs == 3 and type(run.train.epochs) is int
    assert type(run_from_plain(changed("train.lr", np.float32(0.5))).train.lr) is float
    assert type(run_from_plain(changed("train.lr", 1)).train.lr) is float


def test_a_file_that_lacks_settings_is_no_run(tmp_path: Path) -> None:
    for text in ("", "[]", "system: r2gen", "text"):
        with pytest.raises(InputError, match=r"x\.yaml: not a rayscribe configuration"):
            run_from_yaml(text, tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.lr", -1.0, r"--train\.lr -1\.0: a number above 0"),
        ("train.lr", float("nan"), r"--train\.lr nan"),
        ("train.lr_backbone", -1.0, r"--train\.lr-backbone"),
        ("train.warmup_steps", -5, r"--train\.warmup-steps -5"),
        ("train.clip_value", -1.0, r"--train\.clip-value -1\.0"),
        ("train.patience", -3, r"--train\.patience -3"),
        ("train.workers", -1, r"--train\.workers -1"),
        ("train.betas", [1.5, 0.9], r"--train\.betas"),
        ("train.step_epochs", 0, r"--train\.step-epochs 0"),
        ("train.gamma", 0.0, r"--train\.gamma 0\.0"),
        ("train.weight_decay", -1.0, r"--train\.weight-decay"),
        ("train.eps", 0.0, r"--train\.eps"),
        ("train.plateau_epochs", -1, r"--train\.plateau-epochs"),
        ("train.checkpoint_minutes", -1.0, r"--train\.checkpoint-minutes"),
        ("model.encoder_layers", -1, r"--model\.encoder-layers -1"),
        ("model.dropout", 2.0, r"--model\.dropout 2\.0"),
        ("model.patch_dropout", 1.0, r"--model\.patch-dropout 1\.0"),
        ("model.feedforward", 0, r"--model\.feedforward 0"),
        ("backbone.std", [0, 0, 0], r"--backbone\.std"),
        ("backbone.name", "", r"--backbone\.name"),
        ("seed", -5, r"--seed -5"),
    ],
)
def test_a_value_out_of_range_names_its_flag(path: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_from_plain(changed(path, value))
