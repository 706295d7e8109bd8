"""A task turns a batch into losses; the loop knows nothing else of a method.

Shapes: B studies, T target positions, W vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from rayscribe.data.dataset import Order, Sampler
from rayscribe.models.report_model import Output, Reading, ReportModel
from rayscribe.study import Batch, Pair

_Drawn = TypeVar("_Drawn", bound=Batch | Pair[Any, Any])


class Sees(Protocol):
    """A model that looks at images."""

    @property
    def backbone(self) -> nn.Module:
        """The image encoder, which has a learning rate of its own."""


class Task(nn.Module, ABC, Generic[_Drawn]):
    """Losses of a method. Heads, teachers and buffers of the method are its parameters and state, so they are saved."""

    leaves_out_parameters = False
    "True where some steps give some weights no gradient; several processes must know"

    @property
    @abstractmethod
    def model(self) -> Sees:
        """What is trained and exported."""

    @abstractmethod
    def forward(self, batch: _Drawn) -> dict[str, Tensor]:
        """At least `loss`, the one that is minimised; the others are logged."""

    def draws(self, order: Order) -> Sampler:
        """What the epochs feed to `forward`, from the order of the training studies."""
        return order

    def start_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        """Called before every epoch with the last validation scores (none before the first)."""
        return None


class HostTask(Task[_Drawn]):
    """A task that says how it reads a study, so that a plug-in can read others in the same way and add its own losses."""

    @property
    @abstractmethod
    def model(self) -> ReportModel: ...

    @abstractmethod
    def reported(self, draw: _Drawn) -> Batch | None:
        """The studies of a draw whose reports are learned; None where a step learns something else."""

    @abstractmethod
    def read(self, batch: Batch) -> Reading:
        """Images and reports as the model sees them in training."""

    @abstractmethod
    def losses(self, reading: Reading | None, draw: _Drawn) -> dict[str, Tensor]:
        """At least `loss`; `reading` is that of `reported`."""

    def forward(self, draw: _Drawn) -> dict[str, Tensor]:
        batch = self.reported(draw)
        return self.losses(None if batch is None else self.read(batch), draw)


class ReportTask(HostTask[Batch]):
    """Negative log-likelihood of the report under teacher forcing: the mean over all target tokens of the step."""

    def __init__(self, model: ReportModel, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.reporter, self.label_smoothing = model, label_smoothing

    @property
    def model(self) -> ReportModel:
        return self.reporter

    def reported(self, draw: Batch) -> Batch:
        return draw

    def read(self, batch: Batch) -> Reading:
        return self.model.read(batch)

    def losses(self, reading: Reading | None, draw: Batch) -> dict[str, Tensor]:
        assert reading is not None
        loss_B = report_loss_B(self.model.score(reading), draw, smoothing=self.label_smoothing)
        return {"loss": loss_B.sum() / target_tokens(draw)}


def report_loss_B(output: Output, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
    """Summed negative log-likelihood of every study's tokens after the begin (spec 1.7: pads do not count, ends do).

    `smoothing`: the share of the target's probability that all words have equally.
    """
    targets_BT, keep_BT = batch.tokens_BT[:, 1:], batch.has_token_BT[:, 1:]
    logits_BWT = output.logits_BTW.float().transpose(1, 2)
    loss_BT = F.cross_entropy(logits_BWT, targets_BT, reduction="none", label_smoothing=smoothing)
    return (loss_BT * keep_BT).sum(1)


def target_tokens(batch: Batch) -> Tensor | float:
    """What the summed loss is divided by; see `Batch.targets_per_batch`."""
    return batch.targets_per_batch or batch.has_token_BT[:, 1:].sum().clamp(min=1)


def studies_of(batch: Batch) -> Tensor | float:
    """The same where every study has one loss."""
    return batch.studies_per_batch or batch.has_token_BT.any(1).sum().clamp(min=1)
