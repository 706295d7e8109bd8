"""ISD, information self-distillation, of KIF-ISD (spec A2.6): a frozen earlier generation teaches the same method anew.

A plug-in: it wraps the task of any method and is gone when the model is exported. Two losses beside the host's: the
student's word scores follow the teacher's (response; Hinton et al., 2015, with the temperature of the released code), and
studies that are alike for the teacher are alike for the student (relation; after Tung and Mori, 2019). The teacher reads the
same images and the same words without gradients and is never changed. "Iterative" is `rayscribe train --generations 3`: each
generation starts anew and learns from the best checkpoint of the one before.

What differs from the released code (spec A2.9, rows 6 to 9, 11):

* the teacher keeps no graph for gradients that nobody asks for; the student's are the same;
* pads and the prompt do not count, and the response loss is a mean over target tokens, whatever the reports' length.
  `--distill.reduction batchmean` is the released sum over all positions, pads too, by the number of studies;
* similarities of features and of states are normalised on their own, then averaged: joined as released (`--distill.grams
  joined`) the features' are thousands of times larger and the states have no effect. Methods without a disease head
  compare features alone;
* the relational loss is a mean over studies; its default weight of 16 makes it the released sum over a batch of 16;
* states are compared before the logit adjustment.

Shapes: B studies, T positions, W words, N patches, C channels, S states, O conditions, F everything a study has, in one row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rayscribe.config_methods import DistillConfig
from rayscribe.data.dataset import Order, Sampler
from rayscribe.models.report_model import Reading, ReportModel
from rayscribe.study import Batch
from rayscribe.task import HostTask, studies_of, target_tokens


class DistillTask(HostTask[Any]):
    """The student's own losses on what it draws, and what its teacher makes of the same studies."""

    def __init__(self, student: HostTask[Any], teacher: HostTask[Any], config: DistillConfig) -> None:
        super().__init__()
        self.student, self.teacher, self.config = student, teacher, config
        self.leaves_out_parameters = student.leaves_out_parameters
        self.teacher.requires_grad_(False).eval()

    @property
    def model(self) -> ReportModel:
        return self.student.model

    def train(self, mode: bool = True) -> DistillTask:
        """The teacher has no dropout and keeps its running means, whatever the student does."""
        super().train(mode)
        self.teacher.eval()
        return self

    def draws(self, order: Order) -> Sampler:
        return self.student.draws(order)

    def start_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        self.student.start_epoch(epoch, scores)

    def reported(self, draw: Any) -> Batch | None:
        return self.student.reported(draw)

    def read(self, batch: Batch) -> Reading:
        return self.student.read(batch)

    def losses(self, reading: Reading | None, draw: Any) -> dict[str, Tensor]:
        own = self.student.losses(reading, draw)
        batch = self.reported(draw)
        if reading is None or batch is None:  # a step in which the student learns something else than reports
            nothing = own["loss"].new_full((), torch.nan)
            return {"report": own["loss"], **own, "response": nothing, "relation": nothing}
        with torch.no_grad():
            taught = self.teacher.read(batch)
            taught_BTW = self.teacher.model.score(taught).logits_BTW
        # Differences of close scores need float32, whatever the run's precision.
        with torch.autocast(taught_BTW.device.type, enabled=False):
            response = self._response(self.model.score(reading).logits_BTW, taught_BTW, batch)
            relation = self._relation(reading, taught, batch)
        loss = own["loss"] + self.config.response * response + self.config.relation * relation
        return {"report": own["loss"], **own, "loss": loss, "response": response, "relation": relation}

    def _response(self, student_BTW: Tensor, teacher_BTW: Tensor, batch: Batch) -> Tensor:
        """T^2 KL(teacher || student) of the softened word scores."""
        kl_BT = softened_kl(student_BTW.float(), teacher_BTW.float(), self.config.temperature)
        if self.config.reduction == "batchmean":
            return kl_BT.sum() / studies_of(batch)
        return (kl_BT * batch.has_token_BT[:, 1:]).sum() / target_tokens(batch)

    def _relation(self, student: Reading, teacher: Reading, batch: Batch) -> Tensor:
        counts_B = batch.has_token_BT.any(1)
        pairs = [(self._features_BF(student), self._features_BF(teacher))]
        states = student.encoded.state_scores_BSO, teacher.encoded.state_scores_BSO
        if states[0] is not None and states[1] is not None:
            pairs.append((states[0].float().flatten(1), states[1].float().flatten(1)))
        if self.config.grams == "joined":
            apart_B = _apart_B([_gram(own, counts_B) for own, _ in pairs], [_gram(its, counts_B) for _, its in pairs])
        else:
            apart = [_apart_B([_gram(own, counts_B)], [_gram(its, counts_B)]) for own, its in pairs]
            apart_B = torch.stack(apart).mean(0)
        return (apart_B * counts_B).sum() / studies_of(batch)

    def _features_BF(self, reading: Reading) -> Tensor:
        seen = reading.seen if self.config.features == "backbone" else reading.encoded
        return (seen.features_BND.float() * seen.has_patch_BN[:, :, None]).flatten(1)


def softened_kl(student_BTW: Tensor, teacher_BTW: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) at every position (B, T); exactly 0 where the two are equal."""
    student, teacher = (F.log_softmax(scores / temperature, dim=-1) for scores in (student_BTW, teacher_BTW))
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


def _gram(x_BF: Tensor, counts_B: Tensor) -> Tensor:
    """Products of every two studies that count (B, B)."""
    x_BF = x_BF * counts_B[:, None]
    return x_BF @ x_BF.T


def _apart_B(own: list[Tensor], its: list[Tensor]) -> Tensor:
    """How far apart a study's similarities to the others are, as directions."""
    rows, others = (F.normalize(torch.cat(grams, dim=1), dim=1) for grams in (own, its))
    return torch.linalg.vector_norm(rows - others, dim=1)
