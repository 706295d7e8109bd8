"""A toy method that fits in closed form: ridge regression from mean features to words, and the nearest training report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rayscribe.config import BackboneConfig, ImageConfig, RunConfig, TextConfig
from rayscribe.drafts import DecodingConfig, Draft
from rayscribe.methods.fitted import Features, Fitted, Material
from rayscribe.methods.method import Method
from rayscribe.settings import need


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestSettings:
    ridge: float = 1.0

    def check(self, run: RunConfig[Any]) -> None:
        need(self.ridge > 0, "--method.ridge", self.ridge, "above 0")


def toy_nearest() -> RunConfig[NearestSettings]:
    images, text = ImageConfig(size=64, resize=68), TextConfig(threshold=1)
    backbone = BackboneConfig(name="test_resnet", trainable=False)
    return RunConfig(system="toy_nearest", method=NearestSettings(), backbone=backbone, images=images, text=text)


def means(studies: Iterable[Features]) -> torch.Tensor:
    return torch.from_numpy(np.stack([maps_VNC.astype(np.float32).mean((0, 1)) for maps_VNC in studies]))


def fit(run: RunConfig[NearestSettings], material: Material) -> Fitted:
    reports = material.training.reports
    words = sorted({word for report in reports for word in report.split()})
    has_RW = torch.tensor([[float(word in report.split()) for word in words] for report in reports])
    x_RC = means(material.features(material.training.studies))
    inner_CC = x_RC.T @ x_RC + run.method.ridge * torch.eye(x_RC.shape[1])
    found = {"words": torch.linalg.solve(inner_CC, x_RC.T @ has_RW), "has": has_RW}
    return Fitted(weights=found, texts={"reports": list(reports)}, scores={"words": len(words)})


@dataclass(frozen=True)
class Nearest:
    run: RunConfig[NearestSettings]
    fitted: Fitted

    def draft(self, studies: Sequence[Features], decoding: DecodingConfig) -> list[Draft]:
        found_BW = means(studies) @ self.fitted.weights["words"]
        best_B = torch.cdist(found_BW, self.fitted.weights["has"]).argmin(1)
        return [Draft(reports=[self.fitted.texts["reports"][row]]) for row in best_B.tolist()]


RECIPES = {"toy_nearest": toy_nearest}
METHOD = Method(name="toy_nearest", settings=NearestSettings, recipes=RECIPES, fit=fit, reporter=Nearest)
