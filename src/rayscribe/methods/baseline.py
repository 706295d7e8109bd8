"""The plain transformer encoder-decoder: the BASE of R2Gen's paper, under R2Gen's settings."""

from __future__ import annotations

from rayscribe.config import NoSettings, RunConfig
from rayscribe.methods.method import Method
from rayscribe.methods.r2gen import RELEASED_ORDER, r2gen_training


def baseline() -> RunConfig[NoSettings]:
    """BASE on IU X-Ray, with the settings of R2Gen's released script."""
    return RunConfig(system="baseline", method=NoSettings(), train=r2gen_training(), seed=9223)


METHOD = Method(name="baseline", settings=NoSettings, recipes={"baseline": baseline}, published=RELEASED_ORDER)
