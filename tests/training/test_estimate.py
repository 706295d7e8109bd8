"""What a user is told of the time that a run will take."""

from __future__ import annotations

import pytest
import torch

from conftest import small_model
from rayscribe.progress import duration
from rayscribe.study import Batch
from rayscribe.training.estimate import Pace, frozen_seconds, slow_encoder

CPU = torch.device("cpu")


def pace(*seconds: float, steps_left: int = 13_000) -> Pace:
    return Pace(seconds=seconds, steps_left=steps_left, epochs=100, device=CPU)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "1 s"), (40, "40 s"), (700, "12 min"), (32_400, "9 h"), (260_000, "3 days")]
)
def test_durations_are_rounded_for_people(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_the_first_step_does_not_spoil_the_estimate() -> None:
    assert pace(60, 25, 25).sentence(None) == "at most about 4 days for 100 epochs on this CPU at 25 s a batch"


def test_a_frozen_encoder_is_offered_where_it_halves_the_time() -> None:
    assert "--backbone.no-trainable) about 20 min" in pace(25, 25, 25).sentence(1200)
    assert "no-trainable" not in pace(25, 25, 25).sentence(300_000)


def test_short_runs_are_not_announced() -> None:
    assert pace(0.1, 0.1, 0.1, steps_left=100).sentence(None) == ""


def test_the_measurement_leaves_the_encoder_as_it_was() -> None:
    backbone = small_model().backbone.train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    batch = Batch(
        rows_B=torch.arange(2),
        has_view_BV=torch.ones(2, 1, dtype=torch.bool),
        tokens_BT=torch.zeros(2, 1, dtype=torch.long),
        has_token_BT=torch.zeros(2, 1, dtype=torch.bool),
        pixels_BVHW=torch.zeros(2, 1, 64, 64, dtype=torch.uint8),
    )
    found = frozen_seconds(pace(25, 25, 25), backbone, batch, batches=130)
    assert found is not None and found < pace(25, 25, 25).total()
    assert backbone.training and all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_only_large_trained_encoders_are_warned_of() -> None:
    backbone = small_model().backbone
    assert slow_encoder(backbone, CPU) == ""
    large = torch.nn.Module()
    large.weights = torch.nn.Parameter(torch.zeros(11_000_000))
    large.config = backbone.config
    assert "--backbone.no-trainable" in slow_encoder(large, CPU)  # type: ignore[arg-type]
    assert slow_encoder(large.requires_grad_(False), CPU) == ""  # type: ignore[arg-type]
