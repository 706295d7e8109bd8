"""Functions that return a RunConfig: the published settings of a method, each value with its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rayscribe.config import ModelConfig, RunConfig, TrainConfig


def r2gen() -> RunConfig:
    """R2Gen on IU X-Ray, as its released script trains it (Chen et al., 2020; spec 2.4)."""
    return RunConfig(
        model=ModelConfig(method="r2gen"),
        train=TrainConfig(
            epochs=100,
            patience=50,
            batch_size=16,
            lr=1e-4,  # IU script: lr_ed
            lr_backbone=5e-5,  # IU script: lr_ve
            weight_decay=5e-5,
            amsgrad=True,
            clip_value=0.1,  # by value, in the trainer
            schedule="step",
            step_epochs=50,  # IU script; the paper says x 0.8 every epoch
            gamma=0.1,
        ),
        seed=9223,  # IU script
    )


def baseline() -> RunConfig:
    """The plain transformer encoder-decoder: the paper's BASE, under R2Gen's settings."""
    return replace(r2gen(), model=ModelConfig(method="baseline"))


RECIPES: dict[str, Callable[[], RunConfig]] = {"baseline": baseline, "r2gen": r2gen}
