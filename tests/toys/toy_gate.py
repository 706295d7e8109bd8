"""A toy method of a stage, a loss and a setting: patches pass a learned gate, and open gates cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rayscribe.config import BackboneConfig, ImageConfig, ModelConfig, RunConfig, TextConfig, TrainConfig
from rayscribe.methods.method import Method, patch_embedding
from rayscribe.models.layers import Encoded
from rayscribe.models.report_model import ReportModel
from rayscribe.settings import need
from rayscribe.task import Reading, ReportTask


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    cost: float = 0.1

    def check(self, run: RunConfig[Any]) -> None:
        need(self.cost >= 0, "--method.cost", self.cost, "not negative")


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.open_C = nn.Parameter(torch.zeros(channels))

    def forward(self, seen: Encoded) -> Encoded:
        return replace(seen, features_BND=seen.features_BND * self.open_C.sigmoid())


class GateTask(ReportTask):
    def __init__(self, model: ReportModel, cost: float) -> None:
        super().__init__(model)
        self.cost = cost

    def losses(self, reading: Reading | None, draw: Any) -> dict[str, Tensor]:
        report, gate = super().losses(reading, draw)["loss"], self.model.stages[0].open_C.sigmoid().mean()
        return {"loss": report + self.cost * gate, "report": report, "gate": gate}


def toy_gate() -> RunConfig[GateSettings]:
    text, train = TextConfig(threshold=1, max_length=24), TrainConfig(epochs=2, batch_size=8, workers=0, lr=1e-2)
    model = ModelConfig(width=32, heads=4, feedforward=32, encoder_layers=1, decoder_layers=1)
    images, backbone = ImageConfig(size=64, resize=68), BackboneConfig(name="test_resnet")
    run = {"text": text, "images": images, "backbone": backbone, "model": model, "train": train, "seed": 1}
    return RunConfig(system="toy_gate", method=GateSettings(), **run)  # type: ignore[arg-type]


METHOD = Method(
    name="toy_gate",
    settings=GateSettings,
    recipes={"toy_gate": toy_gate},
    stages=lambda run, channels, *rest: [Gate(channels), *patch_embedding(run, channels, *rest)],
    task=lambda run, model, known, feed: GateTask(model, run.method.cost),
)
