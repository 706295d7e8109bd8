"""How long a run will take, from its first batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rayscribe.models.backbones import Backbone
from rayscribe.progress import duration
from rayscribe.study import Batch, Pair

AFTER = 3
"Steps that an estimate rests on."
_WORTH_SAYING = 60.0  # seconds
_WORTH_FREEZING = 600.0
_LARGE = 10_000_000  # weights of an image encoder that a CPU trains in seconds a study


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The first steps of a run, and what is left."""

    seconds: Sequence[float]
    "of each step, loading included"
    steps_left: int
    epochs: int
    device: torch.device

    def total(self) -> float:
        """Seconds for all steps that are left; the first step, which warms up, does not count for more than the others."""
        return statistics.median(self.seconds) * self.steps_left

    def sentence(self, frozen: float | None) -> str:
        """For the user; empty where the run ends within a minute. `frozen`: seconds with a frozen image encoder."""
        total, each = self.total(), statistics.median(self.seconds)
        if total < _WORTH_SAYING:
            return ""
        where = "this CPU" if self.device.type == "cpu" else "this GPU"
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        said = f"at most about {duration(total)} for {epochs} on {where} at {each:.2g} s a batch"
        if frozen is None or frozen > 0.5 * total:
            return said
        return f"{said}; with a frozen image encoder (--backbone.no-trainable) about {duration(frozen)}"


def frozen_seconds(pace: Pace, backbone: nn.Module, draw: Batch | Pair[Any, Any], batches: int) -> float | None:
    """Seconds of the same run with a frozen image encoder: `batches` of images once, then steps without the encoder.

    A backward pass is taken to last twice as long as the forward pass, which is measured on `draw`. None where the encoder is
    frozen already, on a GPU, and in runs of less than ten minutes.
    """
    batch = draw.first if isinstance(draw, Pair) else draw
    is_trained = any(parameter.requires_grad for parameter in backbone.parameters())
    if not is_trained or pace.device.type != "cpu" or pace.total() < _WORTH_FREEZING:
        return None
    if batch is None or batch.pixels_BVHW is None:
        return None
    was_training = backbone.training
    backbone.eval()  # batch norms must not learn from the measurement
    began = time.monotonic()
    with torch.no_grad():
        backbone(batch.pixels_BVHW, batch.has_view_BV)
    forward = time.monotonic() - began
    backbone.train(was_training)
    rest = max(statistics.median(pace.seconds) - 3 * forward, 0.02 * statistics.median(pace.seconds))
    return batches * forward + pace.steps_left * rest


def slow_encoder(backbone: Backbone, device: torch.device) -> str:
    """A hint where a CPU is about to train a large image encoder; otherwise empty."""
    trained = sum(parameter.numel() for parameter in backbone.parameters() if parameter.requires_grad)
    if device.type != "cpu" or trained < _LARGE:
        return ""
    return (
        f"note: training {backbone.config.name} ({trained / 1e6:.0f} million weights) on a CPU takes about a second a study "
        "and epoch; --backbone.no-trainable freezes it and computes its features once"
    )
