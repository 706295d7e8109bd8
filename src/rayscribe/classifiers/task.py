"""What a classifier learns: binary cross-entropy of the findings that are known.

Shapes: B studies, L findings, R training studies.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rayscribe.models.classifier import PooledClassifier
from rayscribe.study import Batch
from rayscribe.task import Task, studies_of


class ClassifierTask(Task[Batch]):
    """Binary cross-entropy of the known findings, averaged within and then over studies."""

    known_RL: Tensor
    positive_weight_L: Tensor

    def __init__(self, model: PooledClassifier, known_RL: Tensor, *, balanced: bool) -> None:
        super().__init__()
        self.classifier = model
        self.register_buffer("known_RL", known_RL, persistent=False)
        present_L, absent_L = ((known_RL == value).sum(0) for value in (1, 0))
        weight_L = absent_L / present_L.clamp(min=1) if balanced else torch.ones(known_RL.shape[1])
        self.register_buffer("positive_weight_L", weight_L.float(), persistent=False)
        with torch.no_grad():  # start the loss at the entropy of the labels, not far above it
            rate_L = (present_L / (present_L + absent_L).clamp(min=1)).clamp(0.01, 0.99)
            self.classifier.head.bias.copy_(torch.zeros_like(rate_L) if balanced else rate_L.logit())

    @property
    def model(self) -> PooledClassifier:
        return self.classifier

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss_B = finding_loss_B(self.classifier(batch), self.known_RL[batch.rows_B], self.positive_weight_L)
        return {"loss": (loss_B * batch.has_token_BT.any(1)).sum() / studies_of(batch)}


def finding_loss_B(logits_BL: Tensor, known_BL: Tensor, positive_weight_L: Tensor | None = None) -> Tensor:
    """For each study, the mean over its known findings (B); 0 if none is known."""
    is_known_BL = ~known_BL.isnan()
    loss_BL = F.binary_cross_entropy_with_logits(
        logits_BL.float(), known_BL.nan_to_num(), reduction="none", pos_weight=positive_weight_L
    )
    return (loss_BL * is_known_BL).sum(1) / is_known_BL.sum(1).clamp(min=1)
