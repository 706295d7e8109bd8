"""A task turns a batch into losses; the loop knows nothing else of a method.

Shapes: B studies, T target positions, W vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from rayscribe.models.report_model import Output, ReportModel
from rayscribe.study import Batch, Pair

Drawn = TypeVar("Drawn", Batch, Pair)


class Task(nn.Module, ABC, Generic[Drawn]):
    """Losses of a method. Heads, teachers and buffers of the method are its parameters and state, so they are saved."""

    @property
    @abstractmethod
    def model(self) -> ReportModel:
        """What is trained and exported."""

    @abstractmethod
    def forward(self, batch: Drawn) -> dict[str, Tensor]:
        """At least `loss`, the one that is minimised; the others are logged."""

    def start_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        """Called before every epoch with the last validation scores (none before the first)."""
        return None


class HostTask(Task[Batch]):
    """A task whose losses come from one pass of the model, so that a plug-in can make that pass and add its own losses."""

    @abstractmethod
    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """At least `loss`."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses(self.model(batch), batch)


class ReportTask(HostTask):
    """Negative log-likelihood of the report under teacher forcing: the mean over all target tokens of the step."""

    def __init__(self, model: ReportModel) -> None:
        super().__init__()
        self.reporter = model

    @property
    def model(self) -> ReportModel:
        return self.reporter

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        return {"loss": report_loss_B(output, batch).sum() / target_tokens(batch)}


def report_loss_B(output: Output, batch: Batch) -> Tensor:
    """Summed negative log-likelihood of every study's tokens after the begin (spec 1.7: pads do not count, ends do)."""
    targets_BT, keep_BT = batch.tokens_BT[:, 1:], batch.has_token_BT[:, 1:]
    loss_BT = F.cross_entropy(output.logits_BTW.float().transpose(1, 2), targets_BT, reduction="none")
    return (loss_BT * keep_BT).sum(1)


def target_tokens(batch: Batch) -> Tensor | float:
    """What the summed loss is divided by; see `Batch.tokens_per_batch`."""
    return batch.tokens_per_batch or batch.has_token_BT[:, 1:].sum().clamp(min=1)
